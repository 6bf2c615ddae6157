"""Voices in a real S3 bucket: the same store as on disk, for several processes at a time."""

import asyncio
import contextlib
import json
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from inference import ConfigurationError, RequestError, Voice, VoiceExists, VoiceNotFound, VoicesUnavailable
from inference.server.app import create_app
from inference.settings import Settings
from inference.voices import bucket_index, bucket_store
from inference.voices.bucket import Bucket, Conflict
from inference.voices.bucket_index import Index, Record
from inference.voices.bucket_store import BucketVoiceStore, CodesCache
from inference.voices.choice import open_store
from inference.voices.store import VoiceStore
from tests.inference.voices.test_store import BAD, CLIP, CODEC, CODES, Voices, spoken
from tests.waiting import wait
from tests.worker.conftest import BUCKET, bucket  # noqa: F401 - a fixture: a real S3 server

SAMPLES = np.sin(np.arange(44_100) * 0.1).astype(np.float32)


@pytest.fixture
def environment(bucket, monkeypatch):  # noqa: F811 - a fixture
    """What AWS's tools ask for."""
    for name, value in {
        "AWS_ENDPOINT_URL_S3": bucket.endpoint, "AWS_ACCESS_KEY_ID": bucket.key, "AWS_SECRET_ACCESS_KEY": bucket.secret,
        "AWS_DEFAULT_REGION": "auto", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def one_client(environment, bucket, monkeypatch):  # noqa: ARG001, F811
    """All stores have one client of the bucket, which takes a tenth of a second to make."""
    session = SimpleNamespace(client=lambda *_, **__: bucket.s3)
    monkeypatch.setattr("inference.voices.bucket.boto3.Session", lambda: session)
    monkeypatch.setattr(Bucket, "close", lambda _: None)


@pytest.fixture
def stores(one_client):  # noqa: ARG001
    """Makes stores of the same voices, as many processes have them."""
    url = f"s3://{BUCKET}/{uuid4().hex}"
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(BucketVoiceStore(url)))


@pytest.fixture
def read_already(monkeypatch):
    """Clips that need not be decoded, which takes a process each."""
    monkeypatch.setattr(bucket_store, "decode_in_subprocess", lambda _: SAMPLES)


def keys(store):
    """All objects of a store."""
    return sorted(key for key, _ in store._bucket.list(""))


@pytest.mark.usefixtures("read_already", "one_client")
def test_the_store_keeps_what_it_was_given_whichever_process_was_asked():
    class InBucket(Voices):
        @property
        def store(self):
            return next(self.turns)

        @store.setter
        def store(self, stores):
            self.turns = cycle(stores)

        def teardown(self):
            super().teardown()
            if hasattr(self, "turns"):
                one, other = next(self.turns), next(self.turns)
                assert len([key for key in keys(one) if key.endswith("clip.flac")]) == len(self.known)
                one.close()
                other.close()

    def fresh():
        url = f"s3://{BUCKET}/{uuid4().hex}"
        return BucketVoiceStore(url), BucketVoiceStore(url)

    InBucket.fresh = fresh
    run_state_machine_as_test(InBucket, settings=hypothesis_settings(max_examples=6, stateful_step_count=12, deadline=None))


def test_a_voice_is_heard_from_all_processes_and_encoded_by_one(stores):
    one, other = stores(), stores()
    other.start()
    one.start()
    wait(lambda: one._index.known is not None)
    entry = one.add("anna", CLIP, " what is said\n")
    assert one.entry("anna") == entry
    assert one.names() == ["default", "anna"]
    wait(lambda: other._index.known)
    assert other.entry("anna") == entry
    assert spoken(one, "anna").references[0].text == "what is said"
    assert other.voice("anna", CODEC) == entry
    assert np.array_equal(other.kept(entry, CODEC), CODES)
    assert isinstance(other.voice("anna", CODEC), Voice)
    assert other.kept(entry, "another00000") is None
    encoded = stores().encoded("anna", CODEC, lambda _: pytest.fail("it is encoded already"))
    assert np.array_equal(encoded.references[0].codes, CODES)
    one.rename("anna", "Anna B")
    wait(lambda: "Anna B" in other._index.known)
    assert isinstance(other.voice("Anna B", CODEC), Voice)
    other.delete("Anna B")
    wait(lambda: not one._index.known)
    with pytest.raises(VoiceNotFound, match=r"no voice 'Anna B'; known voices: default"):
        one.voice("Anna B", CODEC)
    assert keys(one) == ["voices.json"]


@pytest.mark.usefixtures("read_already")
def test_of_changes_at_the_same_time_those_happen_that_can(stores):
    """Each thread is a process. What has happened is what one after the other could have done."""
    replicas = [stores() for _ in range(4)]
    counts = dict.fromkeys(["add", "rename", "delete"], 0)
    counting = threading.Lock()

    def live(number):
        rng, store = random.Random(number), replicas[number]
        for _ in range(8):
            act, name, new = rng.choice(["add", "rename", "delete"]), rng.choice("abc"), rng.choice("abc")
            try:
                match act:
                    case "add":
                        store.add(name, b"", f"{number}")
                    case "rename":
                        store.rename(name, new)
                    case "delete":
                        store.delete(name)
            except (VoiceExists, VoiceNotFound):
                continue
            with counting:
                counts[act] += 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(live, range(4)))
    left = stores()
    assert len(left.names()) - 1 == counts["add"] - counts["delete"]
    index = json.loads(left._bucket.get("voices.json", max_bytes=10**6).content)
    assert len(index["changes"]) == sum(counts.values())
    clips = {f"clips/{one['id']}/clip.flac" for one in index["voices"].values()}
    assert len(clips) == len(index["voices"])
    assert set(keys(left)) == clips | {"voices.json"}


@pytest.mark.usefixtures("read_already")
def test_of_many_who_add_the_same_name_one_wins(stores):
    def add(number):
        try:
            return stores().add("carl", b"", f"text {number}").text
        except VoiceExists as e:
            return e

    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(add, range(6)))
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
    store = stores()
    assert store.entry("carl").text == winner
    assert len(keys(store)) == 2  # the others' clips are gone


@pytest.mark.usefixtures("read_already")
def test_a_change_whose_answer_was_lost_is_made_once(stores, monkeypatch):
    store, replace = stores(), Bucket.replace
    lost = iter([True])

    def answered(self, *arguments):
        etag = replace(self, *arguments)
        if next(lost, False):
            raise Conflict  # the client asked again, and its first request had been served
        return etag

    monkeypatch.setattr(Bucket, "replace", answered)
    store.add("anna", b"", "one")
    lost = iter([True])
    store.rename("anna", "bert")
    lost = iter([True])
    store.delete("bert")
    assert store.names() == ["default"]
    assert keys(store) == ["voices.json"]


@pytest.mark.usefixtures("read_already")
def test_names_and_texts_are_refused_as_on_disk(stores):
    store = stores()
    store.add("anna", b"", "said")
    for name in BAD:
        with pytest.raises(RequestError):
            store.add(name, b"", "hello")
        with pytest.raises(RequestError):
            store.rename("anna", name)
        for act in (store.delete, store.entry, lambda name: store.rename(name, "new")):
            with pytest.raises(VoiceNotFound):
                act(name)
    for text in ("  ", "x" * 3000, "a\udcff"):
        with pytest.raises(RequestError):
            store.add("new", b"", text)
    with pytest.raises(VoiceExists):
        store.rename("anna", "anna")
    assert len(keys(store)) == 2


@pytest.mark.usefixtures("read_already")
def test_codes_that_are_damaged_are_made_again_and_those_of_a_deleted_voice_leave_nothing(stores):
    one, other = stores(), stores()
    entry = one.add("anna", b"", "said")
    one._bucket.put(f"clips/{entry.id}/codes-{CODEC}.npy", b"half a")
    assert one.kept(entry, CODEC) is None
    other.delete("anna")
    one.keep(entry, CODEC, CODES)
    assert keys(one) == ["voices.json"]
    with pytest.raises(VoiceNotFound, match="no voice 'anna' any more"):
        one.clip(entry)


@pytest.mark.usefixtures("read_already")
def test_what_dead_processes_left_is_deleted_when_it_is_old(stores, monkeypatch):
    store = stores()
    store.add("anna", b"", "said")
    store.add("bert", b"", "said")
    store._bucket.put("clips/dead/clip.flac", b"a clip")
    store.delete("anna")
    assert "clips/dead/clip.flac" in keys(store)  # somebody may be adding it just now
    monkeypatch.setattr(bucket_store, "LEFT_SECONDS", -timedelta(hours=1).total_seconds())
    store.delete("bert")
    assert keys(store) == ["voices.json"]


def test_codes_in_memory_are_bounded_in_bytes():
    codes = np.zeros((8, 100), np.int64)
    cache = CodesCache(5 * 8 * 100 * 2)
    for number in range(20):
        cache.put((str(number), CODEC), codes)
        cache.get(("0", CODEC))
    kept = [number for number in range(20) if cache.get((str(number), CODEC)) is not None]
    assert kept == [0, 16, 17, 18, 19]
    cache.put(("0", CODEC), codes)
    assert cache._bytes == 5 * 8 * 100 * 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"voices": {"a": 1}, "changes": []}', b"\xff"])
def test_a_damaged_index_is_said_to_be_damaged_and_never_replaced(stores, content):
    store = stores()
    store._bucket.put("voices.json", content)
    with pytest.raises(VoicesUnavailable, match=r"voices\.json in the bucket of the voices is damaged"):
        store.names()
    with pytest.raises(VoicesUnavailable, match="damaged"):
        store.delete("anna")
    assert store._bucket.get("voices.json", max_bytes=100).content == content


def test_an_index_written_by_hand_gives_no_name_that_leads_elsewhere(stores):
    store = stores()
    record = {"id": "x", "text": "t", "created": 1}
    store._bucket.put("voices.json", json.dumps({"changes": [], "voices": {"../a": record, "default": record, "anna": record}}).encode())
    assert store.names() == ["default", "anna"]


@pytest.mark.parametrize("url", ["s3://", "http://bucket", "s3://A", "s3://bucket/../x y", "bucket", "s3://bucket?x=1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError, match="it has the form s3://BUCKET"):
        open_store(Path("voices"), url)


def test_without_a_bucket_voices_are_on_disk(tmp_path):
    assert type(open_store(tmp_path, "")) is VoiceStore


# -- a bucket that does not answer ---------------------------------------------------------------------------------------------


class Ready:
    """An engine that is ready, and asked for nothing more."""

    async def state(self):
        return {"status": "ready", "model": "tiny", "codec": CODEC}


@pytest.fixture
def silent(environment, monkeypatch):  # noqa: ARG001
    """An S3 server that takes connections and says nothing."""
    monkeypatch.setattr("inference.voices.bucket.READ_SECONDS", 0.3)
    monkeypatch.setattr("inference.voices.bucket.ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("silent")
def test_a_bucket_that_does_not_answer_holds_up_no_request():
    app = create_app(Ready(), Settings(voices_bucket=f"s3://{BUCKET}"))
    voices = app.state.server.voices

    async def asked():
        voices.start()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            first = await http.get("/v1/audio/voices")
            speech = await http.post("/v1/audio/speech", json={"input": "Hello.", "voice": "anna"})
            adding = asyncio.create_task(http.post("/v1/references/add", data={"id": "a", "text": "b"}, files={"audio": CLIP}))
            renaming = asyncio.create_task(http.patch("/model/a", json={"title": "b"}))
            answered = 0
            while not renaming.done():
                assert (await http.get("/health")).status_code == 200
                answered += 1
                await asyncio.sleep(0.01)
            assert answered > 2  # one, if it were held up
            return first, speech, await adding, await renaming

    with contextlib.closing(voices):
        for answer in asyncio.run(asked()):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
            assert "of the voices" in answer.text or "read from their bucket" in answer.text


@pytest.mark.usefixtures("read_already")
def test_voices_that_are_known_are_used_while_the_bucket_is_away(stores, monkeypatch, caplog):
    monkeypatch.setattr(bucket_index, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(bucket_index, "AWAY_SECONDS", 0.01)
    store = stores()
    store.add("anna", b"", "said")
    store.keep(store.entry("anna"), CODEC, CODES)
    store.start()
    get, away = Bucket.get, threading.Event()

    def unreachable(self, *arguments, **more):
        if away.is_set():
            raise VoicesUnavailable("the bucket of the voices cannot be reached: EndpointConnectionError")
        return get(self, *arguments, **more)

    monkeypatch.setattr(Bucket, "get", unreachable)
    wait(lambda: store._index.known)
    away.set()
    wait(lambda: "cannot be reached: EndpointConnectionError; until then the voices known so far are used" in caplog.text)
    assert isinstance(store.voice("anna", CODEC), Voice)
    with pytest.raises(VoicesUnavailable, match="cannot be reached"):
        store.delete("anna")
    away.clear()
    wait(lambda: "answers again" in caplog.text)
    store.delete("anna")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("name", "value", "words"), [("AWS_SECRET_ACCESS_KEY", "wrong", "answered SignatureDoesNotMatch"), ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "cannot be reached: EndpointConnectionError")]
)  # fmt: skip
def test_what_is_wrong_with_a_bucket_is_said_without_secrets(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with contextlib.closing(BucketVoiceStore(f"s3://{BUCKET}/x")) as store, pytest.raises(VoicesUnavailable) as e:
        store.names()
    assert words in str(e.value)
    assert "127.0.0.1" not in str(e.value)


@pytest.mark.usefixtures("environment")
def test_a_bucket_that_there_is_not_is_no_empty_store():
    with contextlib.closing(BucketVoiceStore("s3://nobody/x")) as store, pytest.raises(VoicesUnavailable, match="NoSuchBucket"):
        store.names()


@pytest.mark.usefixtures("one_client")
def test_the_index_loses_no_change_of_many_processes():
    """What the rest stands on: the bucket replaces an object only if it is the one that was read."""
    url = f"s3://{BUCKET}/{uuid4().hex}"

    def live(number):
        with contextlib.closing(Bucket(url)) as own:
            index = Index(own)
            for step in range(6):
                index.change(lambda voices, step=step: {**voices, f"{number} {step}": Record("x", "t", 1)})

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(live, range(6)))
    with contextlib.closing(Bucket(url)) as own:
        assert len(Index(own).refresh()) == 36
