"""The real Hub client against a stand-in for the Hub on this machine."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from inference import CheckpointError
from inference import hub as hub_module
from inference.hub import is_repository, locate, name_of
from tests import layouts
from tests.conftest import CODEC_FILE
from tests.waiting import HANG_SECONDS

COMMIT = "a" * 40
BREAK = 11_000_000  # the client keeps what it has in pieces of ten million bytes


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers the calls a snapshot download makes; `mode` says what goes wrong."""

    files: dict[str, bytes]
    mode = "open"
    broken_once = False

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        if self.mode == "gated":
            return self.refuse(403 if "Authorization" in self.headers else 401, "GatedRepo")
        if self.mode == "unknown":
            return self.refuse(401, "RepoNotFound")
        if self.mode == "revision":
            return self.refuse(404, "RevisionNotFound")
        if "/api/models/" in self.path:
            listing = {"id": "o/n", "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.files]}
            tree = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in self.files.items()]
            return self.send(json.dumps(tree if "/tree/" in self.path else listing).encode(), body, "application/json")
        content = self.files.get(self.path.rsplit("/", 1)[1])
        if content is None:
            return self.refuse(404, "EntryNotFound")
        return self.send(content, body, "application/octet-stream", etag=hashlib.sha256(content).hexdigest())

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "no")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content, body, kind, etag=None):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0] or 0)
        type(self).ranges.append((self.path.rsplit("/", 1)[1], start))
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", kind)
        self.send_header("X-Repo-Commit", COMMIT)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if body:
            part = content[start:]
            if self.mode == "breaks" and not type(self).broken_once and len(part) > BREAK:
                type(self).broken_once = True
                self.wfile.write(part[:BREAK])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(part)


@pytest.fixture
def hub(golden_directory):
    Hub.files = {f.name: f.read_bytes() for f in golden_directory.iterdir()}
    Hub.mode, Hub.broken_once, Hub.ranges = "open", False, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def download(endpoint, home, name="o/n", **environment):
    """`fishserve download` in a process of its own, since the client reads its settings once."""
    env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | environment
    return subprocess.run(
        [sys.executable, "-m", "inference.cli", "download", name],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env=env,
        check=False,
    )


def test_a_repository_is_downloaded_once_and_found_again_without_network(hub, tmp_path):
    done = download(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.strip())
    assert {"config.json", "model.pth", "tokenizer.tiktoken"} <= {f.name for f in directory.iterdir()}
    again = download("http://127.0.0.1:9", tmp_path, f"o/n@{COMMIT}")
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr


def test_a_checkpoint_without_a_codec_takes_the_one_of_the_hub(hub, golden_directory, tmp_path):
    mine = layouts.copy_of(golden_directory, tmp_path / "mine", CODEC_FILE)
    code = (
        "import sys; from pathlib import Path; from inference import hub; "
        f"hub.PINNED[hub.DEFAULT_REPOSITORY] = {COMMIT!r}; print(hub.complete(Path(sys.argv[1])).codec)"
    )

    def codec(home, **environment):
        env = os.environ | {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | environment
        command = [sys.executable, "-c", code, str(mine)]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, env=env, check=False)

    done = codec(tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == (golden_directory / CODEC_FILE).read_bytes()
    assert "model.pth" not in {name for name, _ in Hub.ranges}
    failed = codec(tmp_path / "empty", HF_HUB_OFFLINE="1")
    assert "lacks a codec: put what is missing beside it, or name a codec with FISHSERVE_CODEC" in failed.stderr


def test_a_repository_of_a_training_checkpoint_is_downloaded_with_it(hub, tmp_path):
    Hub.files["step_000001000.ckpt"] = b"weights"
    directory = Path(download(hub, tmp_path / "both").stdout.strip())
    assert not (directory / "step_000001000.ckpt").exists()  # there is a model.pth
    del Hub.files["model.pth"]
    directory = Path(download(hub, tmp_path / "one").stdout.strip())
    assert (directory / "step_000001000.ckpt").read_bytes() == b"weights"


def test_a_broken_download_goes_on_where_it_stopped(hub, tmp_path):
    Hub.mode, Hub.files["model.pth"] = "breaks", os.urandom(2 * BREAK)
    done = download(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert any(start > 0 for _, start in Hub.ranges), "nothing was resumed"
    assert (Path(done.stdout.strip()) / "model.pth").read_bytes() == Hub.files["model.pth"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [("gated", "accept its terms"), ("unknown", "there is no repository o/n"), ("revision", "has no revision")],
)
def test_refusals_say_what_to_do(hub, tmp_path, mode, words):
    Hub.mode = mode
    for token in ({}, {"HF_TOKEN": "hf_test"}):
        done = download(hub, tmp_path, **token)
        assert done.returncode == 2
        assert words in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
        assert "hf_test" not in done.stderr


def test_no_network_says_so(tmp_path):
    done = download("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 2
    assert "cannot be reached" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["fishaudio/fish-speech-1.5", "a/b@main", "A-b.c/d_e@refs/pr/1"])
def test_repository_names(name):
    assert is_repository(name)


@pytest.mark.parametrize("name", ["./a/b", "/a/b", "a", "a/b/c", "", "~/a", "a/b c"])
def test_paths_are_not_repository_names(name):
    assert not is_repository(name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/m/minnow", "minnow"),
        ("/hub/models--fishaudio--fish-speech-1.5/snapshots/268b6ec8", "fishaudio/fish-speech-1.5"),
        ("/hub/models--a--b-c/snapshots/0", "a/b-c"),
    ],
)
def test_a_model_is_called_by_its_repository_or_its_directory(path, name):
    assert name_of(Path(path)) == name


def test_a_directory_is_taken_as_it_is(tmp_path):
    assert locate(tmp_path) == tmp_path


def test_the_embedded_voice_is_used_when_nothing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "EMBEDDED_VOICE", tmp_path)
    assert locate(None) == tmp_path


def test_nothing_named_and_nothing_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "EMBEDDED_VOICE", tmp_path / "none")
    with pytest.raises(CheckpointError, match="no checkpoint was named"):
        locate(None)
