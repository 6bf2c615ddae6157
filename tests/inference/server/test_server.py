"""A real server, as `fishserve serve` starts it, and real clients."""

import base64
import concurrent.futures
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import httpx
import numpy as np
import openai
import ormsgpack
import psutil
import pytest
import soundfile
from websockets.sync.client import connect

from inference.hub import EMBEDDED_VOICE
from tests import raw
from tests.inference.server.conftest import Server
from tests.texts import ENDLESS, LONG
from tests.waiting import HANG_SECONDS, wait


def speak(server, **body):
    body = {"input": "Hello.", "max_new_tokens": 60, "seed": 1, "response_format": "wav"} | body
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)


def test_it_was_alive_before_it_was_ready(server):
    assert (200, 503, "loading") in server.states
    assert server.states[-1] == (200, 200, "ready")


def test_streamed_and_whole_wav_and_pcm_hold_the_same_sound(server):
    streamed, whole, pcm = speak(server), speak(server, stream=False), speak(server, response_format="pcm", sample_rate=44_100)
    assert [r.status_code for r in (streamed, whole, pcm)] == [200] * 3
    assert [r.headers["content-type"] for r in (streamed, whole)] == ["audio/wav"] * 2
    assert pcm.headers["content-type"].startswith("audio/pcm")
    assert pcm.headers["x-sample-rate"] == "44100"
    assert streamed.content[44:] == whole.content[44:] == pcm.content
    assert int(whole.headers["content-length"]) == len(whole.content)
    samples, rate = soundfile.read(io.BytesIO(whole.content))
    assert rate == 44_100
    assert len(samples) == len(pcm.content) // 2
    assert streamed.content[4:8] == streamed.content[40:44] == b"\xff" * 4


def test_the_first_chunk_comes_long_before_the_last(server):
    body = {"input": LONG, "seed": 1, "response_format": "pcm"}
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS) as response:
        sizes = [len(chunk) for chunk, _ in zip(response.iter_bytes(), range(3), strict=False)]
    assert len(sizes) == 3
    wait(lambda: server.metric("fishserve_requests_running") == 0)  # beside it others' sound would be rounded in another way


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_the_openai_client_speaks_to_it(server, client, tmp_path):
    extra = {"seed": 1, "max_new_tokens": 60}
    whole = client.audio.speech.create(
        model="tts-1", voice="default", input="Hello.", response_format="wav", extra_body=extra | {"stream": False}
    )
    assert soundfile.info(io.BytesIO(whole.content)).frames % 2048 == 0
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice={"id": "default"},
        input="Hello.",
        response_format="pcm",
        instructions="cheerfully",
        extra_body=extra | {"sample_rate": 44_100},
    ) as response:
        response.stream_to_file(tmp_path / "o.pcm")
    assert (tmp_path / "o.pcm").read_bytes() == whole.content[44:]
    for kind in ("mp3", "opus", "aac", "flac"):
        spoken = client.audio.speech.create(model="m", voice="alloy", input="Hello.", response_format=kind, extra_body=extra)
        with av.open(io.BytesIO(spoken.content)) as container:
            seconds = sum(frame.samples for frame in container.decode(audio=0)) / container.streams.audio[0].rate
        assert abs(seconds - (len(whole.content) - 44) / 2 / 44_100) < 0.06
    assert [m.id for m in client.models.list()] == [httpx.get(f"{server.url}/ready").json()["model"]]
    with pytest.raises(openai.NotFoundError, match="no voice 'carl'; known voices: default, anna"):
        client.audio.speech.create(model="m", voice="carl", input="Hello.")
    with pytest.raises(openai.BadRequestError, match="nothing to speak") as error:
        client.audio.speech.create(model="m", voice="default", input="")
    assert error.value.param == "input"


def test_events_carry_the_same_file(server):
    lines = [line for line in speak(server, stream_format="sse").text.split("\n\n") if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    content = b"".join(base64.b64decode(e["audio"]) for e in events[:-1])
    assert content == speak(server).content
    frames = (len(content) - 44) // 2 // 2048
    assert events[-1] == {"type": "speech.audio.done", "usage": {"input_tokens": 6, "output_tokens": frames, "total_tokens": 6 + frames}}


def test_raw_samples_have_the_rate_that_openais_clients_assume(server):
    pcm, wav = speak(server, response_format="pcm"), speak(server, stream=False)
    assert pcm.headers["x-sample-rate"] == "24000"
    assert len(pcm.content) / 2 / 24_000 == pytest.approx((len(wav.content) - 44) / 2 / 44_100, abs=0.001)


def test_speed_and_rate_are_kept(server):
    plain, fast = (len(speak(server, response_format="pcm", speed=s).content) / 2 / 24_000 for s in (1, 2))
    assert fast == pytest.approx(plain / 2, abs=0.1)
    slow_rate = speak(server, response_format="pcm", sample_rate=16_000)
    assert slow_rate.headers["x-sample-rate"] == "16000"
    assert len(slow_rate.content) / 2 / 16_000 == pytest.approx(plain, abs=0.01)


def test_a_named_voice_changes_the_sound(server):
    assert speak(server, voice="anna").content != speak(server).content


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"input": ""}', 400, "nothing to speak"),
        (b'{"input": "\\ud800"}', 400, "lone surrogate"),
        (b'{"input": "%s"}' % (b"a " * 500_000), 400, "100,000"),
        (b'{"input": "%s"}' % (b"a " * 1_500_000), 413, "larger than"),
        (b"{}", 400, "input: Field required"),
        (b"nonsense", 400, "not valid JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[]", 400, "JSON object"),
        (b'{"input": 3}', 400, "input is '3'"),
        (b'{"input": "hi", "voice": "../../etc"}', 404, "no voice"),
        (b'{"input": "hi", "voice": 3}', 400, "voice"),
        (b'{"input": "hi", "response_format": "ogg"}', 400, "'wav' or 'pcm'"),
        (b'{"input": "hi", "speed": 5}', 400, "speed is 5.0; it must be between 0.25 and 4.0"),
        (b'{"input": "hi", "sample_rate": 5}', 400, "sample_rate is 5; mp3 can have 32000, 44100, 48000"),
        (b'{"input": "hi", "temperature": 3}', 400, "temperature is 3"),
        (b'{"input": "hi", "temperature": NaN}', 400, "temperature is nan"),
        (b'{"input": "hi", "seed": 99999999999999999999999}', 400, "seed is"),
        (b'{"input": "hi", "max_new_tokens": 9999}', 400, "do not fit in the model's"),
    ],
    ids=lambda b: repr(b[:40]) if isinstance(b, bytes) else "",
)
def test_bad_input_gets_one_sentence_and_the_server_goes_on(server, body, status, words):
    response = httpx.post(f"{server.url}/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, "not_found_error" if status == 404 else "invalid_request_error")
    assert words in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert speak(server, max_new_tokens=2).status_code == 200


def test_an_unannounced_body_is_limited_too(server):
    response = httpx.post(f"{server.url}/v1/audio/speech", content=(b"x" * 100_000 for _ in range(30)))
    assert response.status_code == 413


def test_unknown_paths_and_methods_answer_in_the_same_shape(server):
    assert httpx.get(f"{server.url}/nothing").json()["error"]["type"] == "not_found_error"
    assert httpx.get(f"{server.url}/v1/audio/speech").status_code == 405
    assert httpx.post(f"{server.url}/_engine", json={}).status_code == 404  # LitServe's own door is shut


def test_pages_of_other_origins_may_not_ask(server):
    assert "access-control-allow-origin" not in httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://shop.example"}).headers


def test_many_at_once_get_what_they_would_get_alone(server):
    seeds = list(range(12))
    alone = [speak(server, seed=s).content for s in seeds]
    with concurrent.futures.ThreadPoolExecutor(len(seeds)) as pool:
        together = list(pool.map(lambda s: speak(server, seed=s).content, seeds))
    assert [len(c) for c in together] == [len(c) for c in alone]
    for a, b in zip(alone, together, strict=True):  # batched arithmetic may round differently in the last bit of 16
        np.testing.assert_allclose(np.frombuffer(a[44:], "<i2").astype(int), np.frombuffer(b[44:], "<i2"), atol=2)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_its_request(server, stream):
    wait(lambda: server.metric("fishserve_requests_running") == 0)
    before = server.metric("fishserve_requests_total", reason="cancelled")
    with raw.post(server.port, "/v1/audio/speech", {"input": ENDLESS, "stream": stream}) as client:
        wait(lambda: server.metric("fishserve_requests_running") == 1)
        assert not stream or client.recv(1)
    wait(lambda: server.metric("fishserve_requests_total", reason="cancelled") == before + 1, "the request went on without its client")
    wait(lambda: server.metric("fishserve_requests_running") == 0)  # counted at the end of the engine's round


def test_metrics_come_from_the_engine(server):
    before = server.metric("fishserve_audio_seconds_total")
    seconds = len(speak(server, response_format="pcm", sample_rate=44_100).content) / 2 / 44_100
    assert server.metric("fishserve_audio_seconds_total") - before == pytest.approx(seconds)
    assert server.metric("fishserve_time_to_first_audio_seconds_count") > 0


@pytest.fixture
def served():
    """Ends a server with the test that started it."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def test_sigterm_lets_a_running_request_finish_and_leaves_no_process(checkpoint, tmp_path, served):
    server = served(Server(checkpoint, tmp_path).wait_ready())
    expected, got = speak(server, input=LONG[:600], max_new_tokens=200).content, []
    client = threading.Thread(target=lambda: got.append(speak(server, input=LONG[:600], max_new_tokens=200).content))
    client.start()
    wait(lambda: server.metric("fishserve_requests_running"))
    with connect(f"ws://127.0.0.1:{server.port}/v1/tts/live", max_size=None) as live:
        start = {"text": LONG[:600], "format": "pcm", "max_new_tokens": 200, "seed": 1}
        for event in ({"event": "start", "request": start}, {"event": "stop"}):
            live.send(ormsgpack.packb(event))
        assert ormsgpack.unpackb(live.recv(HANG_SECONDS))["event"] == "audio"
        server.process.send_signal(signal.SIGTERM)
        *_, last = map(ormsgpack.unpackb, live)
    assert last == {"event": "finish", "reason": "stop"}
    client.join(HANG_SECONDS)
    # Beside the conversation a sample may differ in its last bit.
    samples, alone = (np.frombuffer(content[44:], "<i2").astype(int) for content in (*got, expected))
    assert len(samples) == len(alone)
    assert abs(samples - alone).max() <= 1
    assert server.process.wait(HANG_SECONDS) == 0
    wait(lambda: server.members() == [])


def test_a_server_whose_engine_dies_ends_and_says_so(checkpoint, tmp_path, served):
    server, began = served(Server(checkpoint, tmp_path).wait_ready()), threading.Event()

    def listen():
        body = {"input": ENDLESS, "stream": True}
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS) as response,
        ):
            for _ in response.iter_bytes():
                began.set()

    client = threading.Thread(target=listen)
    client.start()
    assert began.wait(HANG_SECONDS)
    server.engine().kill()
    client.join(HANG_SECONDS)  # it is told, not left waiting
    assert not client.is_alive()
    assert server.process.wait(HANG_SECONDS) == 2
    assert "the engine's process ended" in server.words()


def test_a_checkpoint_that_cannot_be_loaded_ends_the_server_with_the_reason(checkpoint, tmp_path, served):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.pth").write_bytes(b"broken")
    server = served(Server(tmp_path, tmp_path))
    assert server.process.wait(HANG_SECONDS) == 2
    log = server.words()
    assert "not a readable torch checkpoint" in " ".join(log.split())
    assert "Traceback" not in log


def test_a_taken_port_is_one_sentence(server, checkpoint):
    done = subprocess.run(
        [sys.executable, "-m", "inference.cli", "serve", "--checkpoint", str(checkpoint), "--port", str(server.port)],
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: port {server.port} is in use; set FISHSERVE_PORT=")
    assert "Traceback" not in done.stderr


def test_a_whole_flac_has_true_sizes(server):
    whole, streamed = speak(server, response_format="flac", stream=False), speak(server, response_format="flac")
    samples, _ = soundfile.read(io.BytesIO(whole.content))
    assert soundfile.info(io.BytesIO(whole.content)).frames == len(samples) > 0
    assert same_but_header(whole.content, streamed.content)


def same_but_header(a, b):
    return len(a) == len(b) and a[42:] == b[42:]


def test_a_model_is_there_under_the_name_that_speech_accepts(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")
    (model,) = client.models.list().data
    assert "x-voice-notice" not in speak(server, voice="anna").headers  # this model is not minnow
    assert client.models.retrieve(model.id).id == model.id
    assert client.models.retrieve("tts-1").id == "tts-1"


def test_it_says_when_it_is_ready_and_where(server):
    assert re.search(rf"^ready after \d+ s: {re.escape(server.url)}$", server.words(), re.MULTILINE)


def interrupt(server):
    """What Ctrl-C does: SIGINT for the whole group."""
    os.killpg(server.process.pid, signal.SIGINT)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
def test_on_any_address_of_this_machine_it_serves_and_ctrl_c_is_quiet(checkpoint, tmp_path, served, host):
    server = served(Server(checkpoint, tmp_path, FISHSERVE_HOST=host))
    server.url = f"http://{host}:{server.port}"
    server.wait_ready()
    server.wait(lambda: "ready after" in server.words())
    before = server.words()
    interrupt(server)
    assert server.process.wait(HANG_SECONDS) == 0
    assert server.words() == before
    wait(lambda: server.members() == [])


def test_ctrl_c_while_it_loads_ends_it(checkpoint, tmp_path, served):
    server = served(Server(checkpoint, tmp_path))
    server.wait(lambda: "loading; listening" in server.words())
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    assert blocked >> signal.SIGINT - 1 & 1  # Python's own handler would raise, which is ignored while it runs a destructor
    before = server.words()
    interrupt(server)
    assert server.process.wait(HANG_SECONDS) in (0, 130)
    assert server.words() == before
    wait(lambda: server.members() == [])


@pytest.mark.parametrize(("place", "name"), [(0, "LitServe's manager process"), (-1, "the HTTP process")])
def test_without_one_of_its_processes_it_ends_and_says_why(checkpoint, tmp_path, served, place, name):
    server = served(Server(checkpoint, tmp_path).wait_ready())
    forks = [p for p in psutil.Process(server.process.pid).children() if not {"-c", "-B"} & set(p.cmdline())]
    sorted(forks, key=lambda p: p.pid)[place].kill()
    assert server.process.wait(HANG_SECONDS) == 2
    assert f"error: {name} ended" in server.words()
    assert "Traceback" not in server.words()
    wait(lambda: server.members() == [])


@pytest.mark.parametrize("words", ["loading; listening", "ready after"])
def test_killed_it_leaves_no_process_behind(checkpoint, tmp_path, served, words):
    server = served(Server(checkpoint, tmp_path))
    server.wait(lambda: words in server.words())
    server.process.kill()
    wait(lambda: server.members() == [])


def test_ctrl_c_while_it_speaks_says_what_it_waits_for_and_the_next_one_stops_it(tmp_path, served):
    server = served(Server(EMBEDDED_VOICE, tmp_path).wait_ready())  # which takes seconds for a text, not a moment
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json={"input": LONG}, timeout=HANG_SECONDS) as response:
        chunks = response.iter_bytes()  # kept, since a dropped one closes the connection
        next(chunks)
        interrupt(server)
        server.wait(lambda: "Finishing 1 request; press Ctrl-C again to stop now\n" in server.words())
        assert server.process.poll() is None
        interrupt(server)
        assert server.process.wait(HANG_SECONDS) == 130  # 0 had it waited for the request
    assert "Traceback" not in server.words()
    wait(lambda: server.members() == [])


def test_two_devices_share_the_work(checkpoint, tmp_path, served):
    """Each with one row: two requests run at once, and each that leaves is stopped where it runs."""
    server = served(Server(checkpoint, tmp_path, FISHSERVE_DEVICE="cpu", FISHSERVE_REPLICAS="2", FISHSERVE_SLOTS="1").wait_ready())
    assert httpx.get(f"{server.url}/ready").json()["device"] == "cpu, cpu"
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(
                httpx.stream("POST", f"{server.url}/v1/audio/speech", json={"input": ENDLESS, "seed": s}, timeout=HANG_SECONDS)
            )
            for s in range(2)
        ]
        sounds = [stream.iter_bytes() for stream in streams]
        for sound in sounds:
            next(sound)
        wait(lambda: server.metric("fishserve_requests_running") == 2)
        streams[0].close()
        wait(lambda: server.metric("fishserve_requests_running") == 1, "the request went on without its client")
        wait(lambda: server.metric("fishserve_requests_total", reason="cancelled") == 1)
    assert speak(server).status_code == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(HANG_SECONDS) == 0
    wait(lambda: server.members() == [])
