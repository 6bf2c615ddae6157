"""Which machines are asked, and by which name."""

import asyncio
import contextlib
import gzip
import http.server
import socket
import ssl
import threading

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import RequestError
from inference.http.outbound import Pinned
from inference.spool import Spool
from tests.certificates import self_signed
from tests.waiting import HANG_SECONDS
from worker.job import Upload
from worker.storage import Storage, StorageError


@pytest.fixture
def https(tmp_path, monkeypatch):
    """A server on this machine that has a certificate for speech.test, which is trusted, and says which name it was asked for."""
    pem = self_signed(tmp_path, "speech.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setattr("inference.http.outbound.certificates", httpx.create_ssl_context)  # which trusts that file

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.headers["Host"].encode()
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "/clip")
            else:
                self.send_response(200)
            if self.path == "/bomb":
                body = gzip.compress(bytes(60_000_000))
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self):
            """Says thanks, and goes on for ever."""
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(65_536))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(url, transport):
    async def ask():
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get(url)).text

    return asyncio.run(ask())


def test_a_checked_machine_is_asked_by_the_name_in_the_address(https):
    """The name need not be known anywhere, and it is the name whose certificate counts."""
    assert get(f"https://speech.test:{https}/clip", Pinned("127.0.0.1")) == f"speech.test:{https}"
    with pytest.raises(httpx.ConnectError, match=r"(?i)hostname|certificate"):
        get(f"https://other.test:{https}/clip", Pinned("127.0.0.1"))


@pytest.fixture
def trusting(monkeypatch):
    """That machine counts as public."""
    monkeypatch.setattr(Storage, "_client", lambda *_: asyncio.sleep(0, httpx.AsyncClient(transport=Pinned("127.0.0.1"))))


@pytest.mark.usefixtures("trusting")
def test_a_compressed_clip_is_taken_as_it_is(https):
    """It could become gigabytes."""
    with asyncio.run(Storage().fetch(f"https://speech.test:{https}/bomb")) as clip:
        assert clip.size < 100_000


@pytest.mark.usefixtures("trusting")
def test_redirections_are_not_followed(https):
    with pytest.raises(StorageError, match="answered 302"):
        asyncio.run(Storage().fetch(f"https://speech.test:{https}/elsewhere"))


def test_a_bucket_that_says_nothing_holds_up_nothing_else(monkeypatch):
    monkeypatch.setattr("worker.storage.BUCKET_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent, Spool() as sound:
        storage = Storage(f"http://127.0.0.1:{silent.getsockname()[1]}", "key", "secret", "speech")
        upload = Upload(key="sound.wav")

        async def story():
            sending = [asyncio.create_task(storage.send(upload, sound, "audio/wav", "job", {})) for _ in range(20)]
            async with asyncio.timeout(HANG_SECONDS):
                assert await asyncio.to_thread(lambda: "encoded") == "encoded"
                return await asyncio.gather(*sending, return_exceptions=True)

        assert {str(e) for e in asyncio.run(story())} == {"the bucket does not answer: it took more than 0.5 s"}


def test_of_an_answer_to_an_upload_no_more_is_read_than_says_why(https, monkeypatch):
    monkeypatch.setattr(Storage, "_client", lambda *_: asyncio.sleep(0, httpx.AsyncClient(transport=Pinned("127.0.0.1"))))
    upload = Upload(url=f"https://speech.test:{https}/put")

    async def send():
        async with asyncio.timeout(HANG_SECONDS):
            with Spool() as sound:
                sound.append(b"sound")
                return await Storage().send(upload, sound, "audio/wav", "job", {})

    assert asyncio.run(send()) == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x", "https://localhost/x", "https://10.1.2.3/x", "https://192.168.0.1/x", "https://172.16.0.1/x", "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x", "https://169.254.169.254/x", "https://0.0.0.0/x", "https://100.64.0.1/x", "https://[fe80::1]/x", "https://2130706433/x",
        "https://0x7f.1/x", "https://224.0.0.1/x", "https://[::127.0.0.1]/x", "https://[64:ff9b::7f00:1]/x", "https://[2002:7f00:1::]/x", "https://[fec0::1]/x", "http://8.8.8.8/x", "ftp://8.8.8.8/x", "//8.8.8.8/x", "x", "", "https://[", "https://8.8.8.8:99999/x", "https://8.8.8.8:x/x", "https://a\x00b/x", "https://",
    ],
)  # fmt: skip
def test_private_and_odd_addresses_are_never_asked(url):
    with pytest.raises((RequestError, StorageError)) as error:
        asyncio.run(Storage().fetch(url))
    assert "could not be fetched" not in str(error.value)


def test_only_the_buckets_own_address_is_trusted():
    storage = Storage(endpoint="http://127.0.0.1:9000")
    for url in ("http://127.0.0.1:9001/x", "http://127.0.0.1:9000@10.0.0.1/x", "http://127.0.0.1/x", "https://127.0.0.1:9000/x"):
        with pytest.raises(RequestError):
            asyncio.run(storage.fetch(url))


@given(st.text(max_size=60))
def test_any_address_is_refused_in_words(url):
    with pytest.raises((RequestError, StorageError)):
        asyncio.run(Storage().fetch(url))
