"""Who may ask, with keys made by the command and taken back while the server runs."""

import contextlib
import json
import socket
import stat
import subprocess
import sys

import elevenlabs.client
import fishaudio
import httpx
import openai
import pytest
from elevenlabs.core import ApiError
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from inference import RequestError
from inference.http.keys import Keys
from inference.server.elevenlabs_keys import MAX_WITHOUT_KEY
from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS


def command(path, *words):
    done = subprocess.run(
        [sys.executable, "-m", "inference.cli", "keys", *words], env={"FISHSERVE_KEYS_FILE": str(path)}, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.strip(), " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def guarded(checkpoint, voices, tmp_path_factory):
    """A server with two keys, and one of them."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    key = command(path, "add", "shop")[1]
    command(path, "add", "app")
    with Server(checkpoint, voices, FISHSERVE_KEYS_FILE=str(path)).wait_ready() as server:
        yield server, key, path


def test_keys_are_made_listed_and_deleted_by_the_command(tmp_path):
    path = tmp_path / "keys"
    assert command(path, "list")[0] == 2
    code, key, _ = command(path, "add", "shop")
    assert code == 0
    assert key.startswith("fs-")
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "already" in command(path, "add", "shop")[2]
    assert "cannot be a key's name" in command(path, "add", "a b")[2]
    assert command(path, "list")[1] == "shop"
    assert command(path, "delete", "shop")[0] == 0
    assert "no key 'shop'" in command(path, "delete", "shop")[2]


@given(st.text(max_size=60))
def test_no_other_key_is_known(tmp_path_factory, key):
    keys = Keys(tmp_path_factory.getbasetemp() / "hypothesis-keys")
    if not keys.path.exists():
        keys.add("shop")
    assert keys.name_of(key) is None


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "keys").write_text("fs-secret\n")
    with pytest.raises(RequestError, match="line 1 is not a name and a hash"):
        Keys(tmp_path / "keys").names()


def test_real_clients_are_refused_in_their_own_words_without_a_key(guarded):
    server, key, _ = guarded
    for given_key, expected in (("wrong", True), (key, False)):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=given_key, max_retries=0) as client:
            if expected:
                with pytest.raises(openai.AuthenticationError, match="not known"):
                    client.models.list()
            else:
                assert client.models.list().data
        with httpx.Client() as connection:
            eleven = elevenlabs.client.ElevenLabs(base_url=server.url, api_key=given_key, httpx_client=connection)
            if expected:
                with pytest.raises(ApiError) as error:
                    eleven.voices.get_all()
                assert error.value.status_code == 401
            else:
                assert eleven.voices.get_all().voices
        with contextlib.closing(fishaudio.FishAudio(base_url=server.url, api_key=given_key)) as fish:
            if expected:
                with pytest.raises(fishaudio.exceptions.AuthenticationError, match="not known"):
                    fish.voices.list()
            else:
                assert fish.voices.list().items


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing", "//health", "/page"])
def test_everything_else_wants_a_key(guarded, path):
    server, key, _ = guarded
    refused = httpx.get(f"{server.url}{path}")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {key}"}).status_code in (200, 404)


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/page/app.js"])
def test_health_and_the_page_are_open(guarded, path):
    assert httpx.get(f"{guarded[0].url}{path}").status_code == 200


def test_a_socket_wants_a_key_too(guarded):
    server, key, _ = guarded
    address = f"ws://127.0.0.1:{server.port}/v1/tts/live"
    with pytest.raises(InvalidStatus), connect(address):
        pass
    with connect(address, additional_headers={"Authorization": f"Bearer {key}"}):
        pass


def eleven_socket(server, **query):
    words = "&".join(f"{name}={value}" for name, value in query.items())
    return connect(f"ws://127.0.0.1:{server.port}/v1/text-to-speech/nobody/stream-input?{words}")


@pytest.mark.parametrize("field", ["xi_api_key", "xi-api-key", "authorization"])
def test_elevenlabs_sockets_take_the_key_of_the_first_message_or_of_the_query(guarded, field):
    server, key, _ = guarded
    with eleven_socket(server) as opened:
        opened.send(json.dumps({"text": " ", field: f"Bearer {key}" if field == "authorization" else key}))
        assert json.loads(opened.recv(HANG_SECONDS))["error"] == "voice_id_does_not_exist"
    with eleven_socket(server, **{field: key}) as opened:
        assert json.loads(opened.recv(HANG_SECONDS))["error"] == "voice_id_does_not_exist"


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ({"text": " ", "xi_api_key": "wrong"}, "the key is not known here"),
        ({"text": " "}, "a key is missing"),
        ({"text": " ", "xi_api_key": 3}, "a key is missing"),
        ("[" * 20_000, "a key is missing"),
        (b"\xff", "a key is missing"),
    ],
    ids=str,
)
def test_without_a_key_a_socket_says_that_and_nothing_else(guarded, first, words):
    with eleven_socket(guarded[0]) as opened:
        opened.send(json.dumps(first) if isinstance(first, dict) else first)
        error = json.loads(opened.recv(HANG_SECONDS))
        assert (words in error["message"], error["error"], error["code"]) == (True, "invalid_api_key", 1008)
        with pytest.raises(ConnectionClosed):
            opened.recv(HANG_SECONDS)
    with pytest.raises(InvalidStatus), eleven_socket(guarded[0], xi_api_key="wrong"):
        pass


def test_few_connections_may_wait_without_a_key(guarded):
    server, key, _ = guarded
    with contextlib.ExitStack() as opened:
        for _ in range(MAX_WITHOUT_KEY):
            opened.enter_context(eleven_socket(server))
        with pytest.raises(InvalidStatus), eleven_socket(server):
            pass
        with eleven_socket(server, authorization=key):
            pass


def test_a_body_is_not_read_for_one_without_a_key(guarded):
    with socket.create_connection(("127.0.0.1", guarded[0].port), timeout=HANG_SECONDS) as connection:
        connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_a_key_can_be_taken_back_while_the_server_runs(guarded):
    server, _, path = guarded
    key = command(path, "add", "guest")[1]
    ask = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/models", headers=ask).status_code == 200
    command(path, "delete", "guest")
    assert httpx.get(f"{server.url}/v1/models", headers=ask).status_code == 401


def test_a_server_whose_file_of_keys_is_empty_does_not_start(checkpoint, voices, tmp_path):
    with Server(checkpoint, voices, FISHSERVE_KEYS_FILE=str(tmp_path / "keys")) as server:
        assert server.process.wait(HANG_SECONDS) == 2
        assert "fishserve keys add NAME" in " ".join(server.words().split())
