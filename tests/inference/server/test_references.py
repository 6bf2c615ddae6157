"""Voices over HTTP: added from any clip, listed, used, renamed, deleted; and each clip encoded once."""

import asyncio
import base64
import concurrent.futures
import io
import os
import re
import subprocess
from pathlib import Path

import av
import httpx
import numpy as np
import ormsgpack
import pytest
import soundfile

from inference import AudioError, Overloaded
from inference.server.references import References
from inference.voices.store import VoiceStore
from tests.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[3]
SOUND = (0.3 * np.sin(np.arange(2 * 48_000) * 0.05) * np.sin(np.arange(2 * 48_000) * 0.0003)).astype(np.float32)


def clip(container="wav", codec="pcm_s16le", seed=0):
    """Two seconds in a format."""
    samples = SOUND + 1e-3 * np.random.default_rng(seed).standard_normal(len(SOUND)).astype(np.float32)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=48_000, layout="stereo")
        resampler = av.AudioResampler(stream.format, "stereo", 48_000, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.stack((samples, samples)), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for ready in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(ready))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def add(server, name, audio, text="What is said."):
    files = {"audio": ("c", audio)}
    return httpx.post(f"{server.url}/v1/references/add", data={"id": name, "text": text}, files=files, timeout=HANG_SECONDS)


def delete(server, name):
    return httpx.request("DELETE", f"{server.url}/v1/references/delete", json={"reference_id": name})


def speak(server, voice):
    body = {"input": "Hello.", "voice": voice, "seed": 1, "max_new_tokens": 10, "response_format": "pcm"}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s24le"), ("mp3", "libmp3lame"), ("ipod", "aac"), ("webm", "libopus"), ("ogg", "libopus"), ("flac", "flac"), ("aiff", "pcm_s16be")],
)  # fmt: skip
def test_any_format_makes_a_voice(server, container, codec):
    assert add(server, "new", clip(container, codec)).json()["success"]
    assert speak(server, "new").content != speak(server, "default").content
    assert delete(server, "new").json()["success"]


def test_a_voice_lives_through_all_its_routes(server):
    def names():
        return httpx.get(f"{server.url}/v1/references/list").json()["reference_ids"]

    before = names()
    packed = ormsgpack.packb({"id": "one", "audio": clip(), "text": "said"})
    added = httpx.post(f"{server.url}/v1/references/add", content=packed, headers={"Content-Type": "application/msgpack"})
    assert added.json() == {"success": True, "message": "one was added", "reference_id": "one"}
    as_json = {"id": "two", "audio": base64.b64encode(clip()).decode(), "text": "said"}
    assert httpx.post(f"{server.url}/v1/references/add", json=as_json).json()["success"]
    assert names() == sorted([*before, "one", "two"], key=lambda n: (n != "default", n))
    spoken = speak(server, "one").content
    renamed = {"old_reference_id": "one", "new_reference_id": "three"}
    assert httpx.post(f"{server.url}/v1/references/update", json=renamed).json()["success"]
    assert speak(server, "one").status_code == 404
    assert speak(server, "three").content == spoken
    assert delete(server, "three").status_code == delete(server, "two").status_code == 200
    assert names() == before


def test_what_cannot_be_is_refused_with_a_reason(server):
    assert add(server, "twice", clip()).status_code == 200
    for response, status, words in (
        (add(server, "twice", clip()), 409, "already"),
        (add(server, "../x", clip()), 400, "cannot be a voice's name"),
        (add(server, "x", b"nonsense"), 400, "not audio"),
        (add(server, "x", clip(), " "), 400, "0 characters"),
        (add(server, "x", b"0" * 26_000_000), 413, "larger than 25,000,000"),
        (httpx.post(f"{server.url}/v1/references/add", data={"id": "x"}), 400, "audio is missing"),
        (httpx.post(f"{server.url}/v1/references/add", json=[1]), 400, "Input should be"),
        (delete(server, "nobody"), 404, "no voice 'nobody'"),
        (delete(server, "default"), 404, "no voice 'default'"),
    ):
        assert (response.status_code, response.json()["success"]) == (status, False)
        assert words in response.json()["message"]
    delete(server, "twice")


def test_many_who_ask_for_a_new_voice_at_once_wait_for_one_encoding(server):
    add(server, "crowd", clip())
    before = server.metric("fishserve_clips_encoded_total")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(lambda _: speak(server, "crowd"), range(8)))
    assert {r.status_code for r in heard} == {200}
    assert len({len(r.content) for r in heard}) == 1
    assert server.metric("fishserve_clips_encoded_total") == before + 1
    delete(server, "crowd")


def test_a_clip_sent_along_is_encoded_once(server):
    before = server.metric("fishserve_clips_encoded_total")
    audio = base64.b64encode(clip(seed=1)).decode()
    body = {"text": "Hello.", "max_new_tokens": 5, "references": [{"audio": audio, "text": "said"}]}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {
            r.status_code for r in pool.map(lambda _: httpx.post(f"{server.url}/v1/tts", json=body, timeout=HANG_SECONDS), range(8))
        } == {200}
    assert server.metric("fishserve_clips_encoded_total") == before + 1


def test_no_clip_leads_to_another_file(server, tmp_path):
    """Lists of files and addresses, which FFmpeg would open, are no audio."""
    target = tmp_path / "secret.wav"
    soundfile.write(target, SOUND, 48_000)
    lists = (
        f"ffconcat version 1.0\nfile '{target}'\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{target}\n#EXT-X-ENDLIST\n",
        f"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>file://{target}</BaseURL></MPD>",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio {server.port} RTP/AVP 0\n",
    )
    for content in lists:
        response = add(server, "thief", content.encode())
        assert response.status_code == 400
        assert "not audio" in response.json()["message"]


def test_the_page_s_examples_run(server, voices, tmp_path):
    _, by_hand, over_http, _ = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/voices.md").read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "voices").symlink_to(voices)
    for name in ("clip.m4a", "recording.m4a"):
        (tmp_path / name).write_bytes(clip("ipod", "aac"))
    script = over_http.replace("http://127.0.0.1:8080", server.url).replace("curl", "curl -sS --fail-with-body") + by_hand
    script = re.sub(r"\banna\b", "example", script)
    done = subprocess.run(["bash", "-e"], input=script, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}, text=True, check=False)
    assert done.returncode == 0
    assert len(soundfile.read(tmp_path / "hello.mp3")[0]) > 0
    assert (tmp_path / "voices/example/clip.m4a").is_file()
    delete(server, "example")


def test_a_clip_that_breaks_the_decoder_breaks_nothing_else(server):
    """A CAF whose channels have an order of its own."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack((SOUND, SOUND), 1), 48_000, format="CAF")
    content, order = buffer.getvalue(), b"".join(n.to_bytes(4, "big") + bytes(16) for n in (2, 1))
    chunk = b"chan" + (12 + len(order)).to_bytes(8, "big") + bytes(8) + (2).to_bytes(4, "big") + order
    start = content.index(b"data")
    response = add(server, "odd", content[:start] + chunk + content[start:])
    assert response.status_code in (200, 400)  # read, where PyAV is mended
    delete(server, "odd")
    assert speak(server, "default").status_code == 200


# -- who waits for what, with a speaker whose pace can be set -------------------------------------------------------------------


class Slow:
    """Encodes when it is told to."""

    def __init__(self):
        self.asked, self.go, self.encoded, self.fails = asyncio.Event(), asyncio.Event(), 0, False

    async def state(self):
        return {"status": "ready", "codec": "0" * 12}

    async def encode(self, wave):
        self.asked.set()
        await self.go.wait()
        self.encoded += 1
        if self.fails:
            raise AudioError("this clip cannot be encoded")
        return np.full((8, len(wave) // 2048), self.encoded)


def in_turn(scenario, tmp_path):
    speaker = Slow()
    asyncio.run(scenario(speaker, References(speaker, VoiceStore(tmp_path))))
    return speaker


def test_one_who_leaves_takes_nothing_from_those_who_stay(tmp_path):
    async def scenario(speaker, references):
        waiting = [asyncio.ensure_future(references.reference(clip(), "said")) for _ in range(3)]
        await speaker.asked.wait()
        waiting[0].cancel()
        speaker.go.set()
        assert [r.codes.shape[0] for r in await asyncio.gather(*waiting[1:])] == [8, 8]

    assert in_turn(scenario, tmp_path).encoded == 1


def test_a_failure_reaches_all_who_wait_and_is_not_kept(tmp_path):
    async def scenario(speaker, references):
        speaker.fails = True
        speaker.go.set()
        outcomes = await asyncio.gather(*(references.reference(clip(), "said") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(o, AudioError) for o in outcomes)
        speaker.fails = False
        assert (await references.reference(clip(), "said")).text == "said"

    assert in_turn(scenario, tmp_path).encoded == 2


def test_a_voice_that_goes_while_its_clip_is_encoded_is_spoken_with_all_the_same(tmp_path):
    async def scenario(speaker, references):
        store = VoiceStore(tmp_path)
        store.add("anna", clip(), "said")
        waiting = asyncio.ensure_future(references.voice("anna"))
        await speaker.asked.wait()
        store.delete("anna")
        store.add("anna", clip(seed=1), "something else")
        speaker.go.set()
        assert (await waiting).references[0].text == "said"
        assert (await references.voice("anna")).references[0].text == "something else"

    assert in_turn(scenario, tmp_path).encoded == 2


def test_codes_that_cannot_be_written_are_kept_in_memory(tmp_path):
    async def scenario(speaker, references):
        speaker.go.set()
        VoiceStore(tmp_path).add("anna", clip(), "said")
        (tmp_path / "anna" / "codes-000000000000.npy").mkdir()
        for _ in range(3):
            await references.voice("anna")

    assert in_turn(scenario, tmp_path).encoded == 1


def test_too_many_clips_at_once_are_refused_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.server.references.MAX_CLIPS", 3)

    async def scenario(speaker, references):
        speaker.go.set()
        many = [references.reference(clip(seed=seed), "said") for seed in range(5)]
        outcomes = await asyncio.gather(*many, return_exceptions=True)
        assert [type(o) for o in outcomes].count(Overloaded) == 2
        assert (await references.reference(clip(seed=99), "said")).text == "said"

    assert in_turn(scenario, tmp_path).encoded == 4


def test_clips_are_forgotten_least_recently_used_first(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.server.references.MAX_BYTES", 2 * 8 * (2 * 44_100 // 2048 + 1) * 2)

    async def scenario(speaker, references):
        speaker.go.set()
        for seed in (1, 2, 1, 3, 1, 2):
            await references.reference(clip(seed=seed), "said")

    assert in_turn(scenario, tmp_path).encoded == 4  # 1, 2, 3 and, forgotten for 3, 2 again
