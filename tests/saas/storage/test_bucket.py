"""What the bucket's addresses open, on a real S3 server, and what R2 would refuse and this server does not."""

import asyncio
import json
import re
import time
import uuid
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from inference.errors import RequestError
from inference.spool import Spool
from saas.storage.bucket import LIFECYCLE, Bucket, StorageError, cors, result_key, upload_key
from tests.network import Network
from tests.worker.conftest import BUCKET

KEY = "uploads/voices/11111111-1111-1111-1111-111111111111/22222222-2222-2222-2222-222222222222"
ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def store(bucket):
    store = Bucket(bucket.endpoint, bucket.key, bucket.secret, BUCKET)
    yield store
    store.close()


def put(store, key, content, kind, metadata=None):
    with Spool() as spool:
        spool.append(content)
        asyncio.run(store.put(key, spool, kind, metadata))


def test_a_clip_goes_where_its_address_says(store):
    upload = store.put_url(KEY, "audio/wav", 5)
    assert httpx.put(upload.url, content=b"hello", headers=upload.headers).status_code == 200
    stored = asyncio.run(store.head(KEY))
    assert (stored.bytes, stored.content_type) == (5, "audio/wav")
    assert httpx.get(store.get_url(KEY)).content == b"hello"


def test_addresses_are_good_for_300_seconds(store):
    for url in (store.get_url(KEY), store.put_url(KEY, "audio/wav", 5).url):
        assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["300"]


def test_type_and_length_are_signed(store):
    signed = parse_qs(urlsplit(store.put_url(KEY, "audio/wav", 5).url).query)["X-Amz-SignedHeaders"]
    assert signed == ["content-length;content-type;host"]


@pytest.mark.parametrize(
    ("content", "headers"),
    [(b"hello!", {"Content-Type": "audio/wav"}), (b"hell", {"Content-Type": "audio/wav"}), (b"hello", {"Content-Type": "text/html"}), (b"hello", {})],
    ids=["longer", "shorter", "another type", "no type"],
)  # fmt: skip
def test_another_length_or_type_is_refused(store, content, headers):
    assert httpx.put(store.put_url(KEY, "audio/wav", 5).url, content=content, headers=headers).status_code == 403


def test_an_address_opens_one_key_by_one_method(store):
    read, write = store.get_url(KEY), store.put_url(KEY, "audio/wav", 5)
    assert httpx.get(read.replace("2222-", "3333-", 1)).status_code == 403
    assert httpx.put(write.url.replace("2222-", "3333-", 1), content=b"hello", headers=write.headers).status_code == 403
    assert httpx.put(read, content=b"hello").status_code == 403
    assert httpx.delete(read).status_code == 403
    assert httpx.get(write.url).status_code == 403


@pytest.mark.parametrize(
    "change",
    [(r"X-Amz-Expires=300", "X-Amz-Expires=30000"), (r"X-Amz-Signature=.", "X-Amz-Signature=z"), (r"X-Amz-Date=\d", "X-Amz-Date=3")],
)
def test_an_address_that_was_tampered_with_opens_nothing(store, change):
    assert httpx.get(re.sub(*change, store.get_url(KEY))).status_code in (400, 403)


def test_an_address_expires(store):
    put(store, "short", b"x", "audio/wav")
    read, write = store.get_url("short", seconds=1), store.put_url("short", "audio/wav", 1, seconds=1)
    assert httpx.get(store.get_url("short")).status_code == 200
    time.sleep(2)  # longer is as good
    assert httpx.get(read).status_code == 403
    assert httpx.put(write.url, content=b"y", headers=write.headers).status_code == 403


def test_nothing_is_public(bucket):
    assert httpx.get(f"{bucket.endpoint}/{BUCKET}/first").status_code == 403
    assert httpx.get(f"{bucket.endpoint}/{BUCKET}").status_code == 403


def test_a_result_is_saved_under_a_name_people_can_read(store):
    put(store, "named", b"x", "audio/mpeg")
    answer = httpx.get(store.get_url("named", filename="speech.mp3"))
    assert (answer.headers["content-disposition"], answer.headers["content-type"]) == ('attachment; filename="speech.mp3"', "audio/mpeg")


def test_objects_are_read_whole_or_not_at_all(store):
    put(store, "object", b"12345", "audio/wav", {"job": "7"})
    assert asyncio.run(store.head("object")).metadata == {"job": "7"}
    with asyncio.run(store.fetch("object", 5)) as spool:
        assert spool.read(0) == b"12345"
    with pytest.raises(RequestError, match="more than 4 bytes"):
        asyncio.run(store.fetch("object", 4))
    asyncio.run(store.delete("object"))
    asyncio.run(store.delete("object"))
    assert asyncio.run(store.head("object")) is None
    assert asyncio.run(store.fetch("object", 5)) is None
    assert asyncio.run(store.open("object")) is None


@pytest.fixture
def broken_off(bucket):
    """The same bucket behind a network whose every connection breaks after 200,000 bytes of an answer."""
    with Network(urlsplit(bucket.endpoint).port, cut=(float("inf"), 200_000)) as network:
        store = Bucket(network.url, bucket.key, bucket.secret, BUCKET)
        yield store
        store.close()


def test_a_download_whose_connection_broke_goes_on_where_it_broke(store, broken_off):
    content = bytes(range(256)) * 2_000
    put(store, "long", content, "audio/wav")
    with asyncio.run(broken_off.fetch("long", len(content))) as spool:
        assert spool.read(0, len(content)) == content


def test_a_download_of_what_was_replaced_meanwhile_ends_with_an_error(store, broken_off):
    """The client has half of what was there before."""
    put(store, "replaced", b"a" * 500_000, "audio/wav")
    pieces = []

    async def read():
        download = await broken_off.open("replaced")
        try:
            async for piece in download:
                if not pieces:
                    await asyncio.to_thread(put, store, "replaced", b"b" * 500_000, "audio/wav")
                pieces.append(piece)
        finally:
            download.close()

    with pytest.raises(StorageError, match="refused"):
        asyncio.run(read())
    assert set(b"".join(pieces)) == set(b"a")


def test_a_bucket_that_refuses_or_is_not_there_is_one_sentence(store, bucket):
    foreign = Bucket(bucket.endpoint, bucket.key, "another secret", BUCKET)
    with pytest.raises(StorageError, match="the bucket refused: "):
        asyncio.run(foreign.reachable())
    nowhere = Bucket("http://127.0.0.1:9", bucket.key, bucket.secret, BUCKET)
    with pytest.raises(StorageError, match="does not answer: EndpointConnectionError"):
        asyncio.run(nowhere.reachable())
    asyncio.run(store.reachable())
    foreign.close()
    nowhere.close()


def test_only_pages_of_the_app_may_use_the_addresses(store):
    asyncio.run(store.apply(ORIGIN))
    assert asyncio.run(store.cors_origins()) == [ORIGIN]
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    url = store.put_url(KEY, "audio/wav", 5).url
    good = httpx.options(url, headers=asked | {"Origin": ORIGIN})
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "access-control-allow-origin" not in httpx.options(url, headers=asked | {"Origin": "https://evil.example.com"}).headers


def test_what_everything_else_forgot_expires(store, bucket):
    asyncio.run(store.apply(ORIGIN))
    rules = bucket.s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert {rule["Filter"]["Prefix"]: rule["Expiration"]["Days"] for rule in rules} == {"uploads/": 1, "results/": 90}
    assert result_key("u", "j", "mp3").startswith("results/")
    assert upload_key("voices/u/v").startswith("uploads/")
    assert len(LIFECYCLE["Rules"]) == 2


def test_it_asks_as_r2_wants_to_be_asked(store, bucket):
    """SeaweedFS takes what R2 may refuse: checksums nobody asked for, and wildcards in the CORS policy."""
    config = store._s3.meta.config
    assert (config.request_checksum_calculation, config.response_checksum_validation) == ("when_required", "when_required")
    assert (config.region_name, config.s3["addressing_style"], config.signature_version) == ("auto", "path", "s3v4")
    assert "*" not in json.dumps(cors(ORIGIN))
    assert "checksum" not in store.put_url(str(uuid.uuid4()), "audio/wav", 1).url.lower()
    assert urlsplit(store.get_url("k")).netloc == urlsplit(bucket.endpoint).netloc
