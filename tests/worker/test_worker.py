"""The worker as RunPod runs it: its own SDK, a queue, a bucket; jobs that end well, badly, early, and twice."""

import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import psutil
import pytest
import soundfile

from tests.texts import ENDLESS, LONG
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import BUCKET, Worker

pytestmark = pytest.mark.usefixtures("worker")  # takes the jobs
SMALL = {"text": "Hello.", "max_new_tokens": 20, "format": "wav"}


def clip():
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.2 * np.sin(np.arange(2 * 16_000) * 0.2), 16_000, format="WAV")
    return buffer.getvalue()


def test_a_result_says_what_was_made(queue, worker):
    (result,) = queue.result(**SMALL, seed=1)
    content = base64.b64decode(result.pop("audio"))
    samples, rate = soundfile.read(io.BytesIO(content))
    assert (rate, len(samples)) == (44_100, 2048 * result["frames"])
    assert result["seconds"] == pytest.approx(len(samples) / rate, abs=0.001)
    assert (result["bytes"], result["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (result["seed"], result["model"], result["sample_rate"]) == (1, "tiny", 44_100)
    assert 0 <= result["timings"]["queued"] <= result["timings"]["first_audio"] <= result["timings"]["total"]
    assert "float32" in worker.words()


def test_many_jobs_are_generated_together(queue, worker):
    steps, frames = (worker.metric(f"fishserve_batch_size_{part}") for part in ("count", "sum"))
    with resting(worker):  # they wait when it comes for jobs, however long it takes to send them
        jobs = [queue.run(**SMALL | {"max_new_tokens": 10 + n % 10, "seed": n}) for n in range(32)]
    done = [queue.done(job) for job in jobs]
    assert {d["status"] for d in done} == {"COMPLETED"}
    assert all(d["answers"] == 1 for d in done)
    batch = (worker.metric("fishserve_batch_size_sum") - frames) / (worker.metric("fishserve_batch_size_count") - steps)
    assert batch > 1.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "either text or segments"),
        ({"text": ""}, "nothing to speak"),
        ({"text": "hi", "fromat": "wav"}, "fromat is not a field of a job; its fields are version, text"),
        ({"text": "hi", "version": 2}, "version is '2'"),
        ({"text": "hi", "temperature": 9}, "temperature is 9"),
        ({"text": "hi", "format": "ogg"}, "format is 'ogg'"),
        ({"text": "hi", "voice": "nobody"}, "no voice 'nobody'"),
        ({"text": "hi", "voice": {"text": "x"}}, "either a url or audio"),
        ({"text": "hi", "voice": {"text": "x", "audio": "%"}}, "not base64"),
        ({"text": "hi", "voice": {"text": "x", "audio": "QUJD"}}, "not audio"),
        ({"text": "hi", "voice": {"text": "x", "url": "http://example.com/c.wav"}}, "must be https"),
        ({"text": "hi", "voice": {"text": "x", "url": "https://127.0.0.1/c.wav"}}, "private network"),
        ({"text": "hi", "voice": {"text": "x", "url": "https://[::1]/c.wav"}}, "private network"),
        ({"text": "hi", "voice": {"text": "x", "url": "https://169.254.169.254/latest"}}, "private network"),
        ({"text": "hi", "voice": {"text": "x", "url": "file:///etc/passwd"}}, "must be https"),
        (
            {"text": "hi", "voice": {"text": "x", "key": "a", "url": "https://example.com/c.wav"}},
            "either a url or audio, in base64, or a key",
        ),
        ({"text": "hi", "voice": {"text": "x", "key": "a/../x"}}, "'..'"),
        ({"text": "hi", "voice": {"text": "x", "key": "not/there"}}, "the bucket refused: NoSuchKey"),
        ({"text": "hi", "upload": {"key": "../x"}}, "upload.key"),
        ({"text": "hi", "upload": {"key": "a/../x"}}, "'..'"),
        ({"text": "hi", "upload": {"url": "https://10.0.0.1/x"}, "max_new_tokens": 5}, "private network"),
    ],
    ids=str,
)
def test_what_cannot_be_fails_with_one_sentence(queue, given, words):
    refusal = queue.refusal(**given)
    assert words in refusal
    assert "Traceback" not in refusal


def test_segments_are_paragraphs_of_one_text(queue):
    fields = {"max_new_tokens": 10, "seed": 1, "format": "pcm", "chunk_length": 10}
    (parts,), (whole,) = queue.result(segments=["One.", "Two."], **fields), queue.result(text="One.\n\nTwo.", **fields)
    assert parts["sha256"] == whole["sha256"]


def test_a_stream_comes_piece_by_piece(queue):
    job = queue.run(text=LONG[:200], max_new_tokens=80, seed=1, format="wav", stream=True)
    done = queue.done(job)
    *pieces, result = done["output"]
    assert len(pieces) > 2
    assert [p["index"] for p in pieces] == list(range(len(pieces)))
    assert hashlib.sha256(b"".join(base64.b64decode(p["audio"]) for p in pieces)).hexdigest() == result["sha256"]
    assert len(done["chunks"]) == len(pieces) + 1
    assert "audio" not in result


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_whole_file_says_how_long_it_is(queue, bucket, kind):
    fields = SMALL | {"format": kind, "seed": 1, "sample_rate": 16_000}
    (inline,), (stored,) = queue.result(**fields), queue.result(**fields, upload={"key": f"whole.{kind}"})
    content = base64.b64decode(inline["audio"])
    assert bucket.get(f"whole.{kind}") == content
    assert inline["sha256"] == stored["sha256"] == hashlib.sha256(content).hexdigest()
    samples, rate = soundfile.read(io.BytesIO(content))
    assert soundfile.info(io.BytesIO(content)).frames == len(samples) == pytest.approx(inline["seconds"] * rate, abs=rate // 50)
    if kind == "wav":
        assert int.from_bytes(content[40:44], "little") == len(content) - 44


def test_too_much_for_the_queue_is_refused_and_streams_in_pieces_that_fit(queue):
    long = {"text": "Hello.", "max_new_tokens": 1000, "temperature": 2.0, "top_p": 1.0, "format": "wav", "sample_rate": 48_000, "seed": 3}
    sizes = [len(p["audio"]) for p in queue.result(**long, stream=True)[:-1]]
    if sum(sizes) > 1_000_000:
        assert "RunPod drops results above that" in queue.refusal(**long)
    assert max(sizes) < 1_000_000


def test_a_cancelled_job_stops_and_its_neighbour_does_not(queue, worker):
    before = worker.metric("fishserve_requests_total", reason="cancelled")
    job = queue.run(text=ENDLESS)
    wait(lambda: worker.metric("fishserve_requests_running") >= 1)
    neighbour = queue.run(**SMALL)
    wait(lambda: worker.metric("fishserve_requests_running") >= 2 or queue.status(neighbour)["status"] == "COMPLETED")
    httpx.post(f"{queue.url}/v2/ep/cancel/{job}")
    wait(lambda: worker.metric("fishserve_requests_total", reason="cancelled") > before)
    assert queue.done(neighbour)["status"] == "COMPLETED"
    assert queue.status(job)["answers"] == 0


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_speech_ends_where_its_budget_ends(queue, worker, speed):
    before = worker.metric("fishserve_requests_total", reason="cancelled")
    result = queue.result(text=LONG[:400], max_seconds=0.5, format="wav", speed=speed, seed=1)[-1]
    assert (result["seconds"], result["frames"], result["partial"], result["finish"]) == (0.5 / speed, 10, True, "max_seconds")
    wait(lambda: worker.metric("fishserve_requests_total", reason="cancelled") > before)
    whole = queue.result(**SMALL, max_seconds=60)[-1]
    assert (whole["partial"], whole["finish"] == "max_seconds") == (False, False)


def test_long_jobs_tell_how_far_they_are(queue):
    job = queue.run(text=LONG[:400], max_new_tokens=300, format="mp3", temperature=2.0, top_p=1.0, seed=1)
    assert queue.done(job)["status"] == "COMPLETED"
    # The SDK sends progress in a thread of its own, so that the result may come first.
    wait(lambda: queue.status(job)["progress"])
    assert all(p["seconds"] >= 10 for p in queue.status(job)["progress"])


# -- storage -------------------------------------------------------------------------------------------------------------------


def test_a_result_goes_to_a_key_and_its_address_is_good_for_300_seconds(queue, bucket):
    (result,) = queue.result(**SMALL, upload={"key": "user 1/hello.wav"}, captions="vtt")
    content = httpx.get(result["url"]).content
    assert hashlib.sha256(content).hexdigest() == result["sha256"]
    assert "X-Amz-Expires=300" in result["url"]
    assert httpx.get(result["url"].replace("hello.wav", "other.wav")).status_code == 403
    assert bucket.s3.head_object(Bucket=BUCKET, Key=result["key"])["ContentType"] == "audio/wav"
    assert result["captions_key"] == "user 1/hello.wav.captions"
    assert bucket.get(result["captions_key"]).startswith(b"WEBVTT\n\n00:00:00.")
    assert bucket.s3.head_object(Bucket=BUCKET, Key=result["captions_key"])["ContentType"] == "text/vtt"


def test_a_result_goes_to_a_presigned_address(queue, bucket):
    url = bucket.url("put_object", "presigned.wav", ContentType="audio/wav")
    captions = bucket.url("put_object", "presigned.srt", ContentType="application/x-subrip")
    (result,) = queue.result(**SMALL, upload={"url": url, "captions_url": captions}, captions="srt")
    assert b"Hello." in bucket.get("presigned.srt")
    assert hashlib.sha256(bucket.get("presigned.wav")).hexdigest() == result["sha256"]
    assert not {"audio", "captions"} & set(result)


def test_addresses_that_are_over_or_tampered_with_fail_with_the_reason(queue, bucket):
    over = bucket.url("put_object", "late.wav", 1)
    tampered = bucket.url("put_object", "a.wav")[:-4] + "0000"
    gone = bucket.url("get_object", "first", 1)
    time.sleep(2)
    assert "answered 403 (AccessDenied)" in queue.refusal(**SMALL, upload={"url": over})
    assert "answered 403 (SignatureDoesNotMatch)" in queue.refusal(**SMALL, upload={"url": tampered})
    assert "answered 403" in queue.refusal(**SMALL, voice={"url": gone, "text": "x"})
    assert "answered 404" in queue.refusal(**SMALL, voice={"url": bucket.url("get_object", "nothing"), "text": "x"})
    assert "not audio" in queue.refusal(**SMALL, voice={"url": bucket.url("get_object", "first"), "text": "x"})


def test_a_clip_behind_an_address_or_a_key_sounds_as_one_in_the_job(queue, bucket):
    bucket.s3.put_object(Bucket=BUCKET, Key="clip.wav", Body=clip())
    (fetched,) = queue.result(**SMALL, seed=1, voice={"url": bucket.url("get_object", "clip.wav"), "text": "said"})
    (own,) = queue.result(**SMALL, seed=1, voice={"key": "clip.wav", "text": "said"})
    (inline,) = queue.result(**SMALL, seed=1, voice={"audio": base64.b64encode(clip()).decode(), "text": "said"})
    (plain,) = queue.result(**SMALL, seed=1)
    assert fetched["sha256"] == own["sha256"] == inline["sha256"] != plain["sha256"]


# -- the life of a worker ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def resting(worker):
    """Takes no jobs meanwhile. What it asked the queue for before has been answered."""
    process = psutil.Process(worker.process.pid)
    process.suspend()
    try:
        wait(lambda: process.status() == psutil.STATUS_STOPPED)
        for _ in range(2):  # a question may arrive just as the first answer is written
            wait(lambda: httpx.get(f"{worker.queue.url}/asking/{worker.name}").json() == 0)
        yield
    finally:
        process.resume()


def test_sigterm_lets_running_jobs_finish(queue, checkpoint, bucket, worker):
    with Worker(queue, checkpoint, **bucket.environment).ready() as other, resting(worker):
        job = queue.run(text=LONG[:600], max_new_tokens=200, seed=1, format="mp3")
        # A job that the SDK has taken and not begun at SIGTERM is left to another worker.
        wait(lambda: other.metric("fishserve_requests_running") or queue.status(job)["status"] == "COMPLETED")
        other.process.send_signal(signal.SIGTERM)
        assert other.process.wait(HANG_SECONDS) == 0
        assert queue.status(job)["status"] == "COMPLETED"


def test_what_a_worker_sent_before_it_was_killed_is_not_sent_again(queue, checkpoint, bucket, worker):
    """Killed between sending and saying so: whoever gets the job next finds its result there."""
    with Worker(queue, checkpoint, **bucket.environment).ready() as other, resting(worker):
        httpx.post(f"{queue.url}/deaf/{other.name}")
        job = queue.run(**SMALL, upload={"key": "killed.wav"})
        sent = wait(lambda: stored(bucket, "killed.wav"))
        other.end()
        httpx.post(f"{queue.url}/lost/{other.name}")
    done = queue.done(job)
    (result,) = done["output"]
    assert (done["taken"], done["answers"]) == (2, 1)
    assert result["sha256"] == hashlib.sha256(bucket.get("killed.wav")).hexdigest()
    assert stored(bucket, "killed.wav") == sent


def stored(bucket, key):
    """When, and as what; None if it is not there."""
    found = bucket.s3.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])
    return [(o["LastModified"], o["ETag"]) for o in found] or None


def test_a_killed_workers_job_is_done_by_another_in_the_same_way(queue, checkpoint, bucket, worker):
    with Worker(queue, checkpoint, **bucket.environment).ready() as other, resting(worker):
        job = queue.run(text=LONG * 3, max_new_tokens=100, format="mp3")
        wait(lambda: queue.status(job)["status"] == "IN_PROGRESS")
        other.end()
    httpx.post(f"{queue.url}/lost/{other.name}")
    assert queue.done(job)["status"] == "COMPLETED"
    assert queue.status(job)["taken"] == 2


def test_a_worker_whose_model_cannot_be_loaded_ends_before_it_takes_a_job(queue, tmp_path):
    with Worker(queue, tmp_path) as broken:
        assert broken.process.wait(HANG_SECONDS) == 1
        assert "model.pth is missing" in broken.words()


def test_without_a_queue_it_says_as_well_why_its_model_cannot_be_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"FISHSERVE_CHECKPOINT": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "model.pth is missing" in done.stderr


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [(SMALL, 0, "'frames': 20"), pytest.param({"text": ""}, 1, "nothing to speak", marks=pytest.mark.drill)],
    ids=["good", "bad"],
)
def test_a_job_can_be_tried_without_a_queue(checkpoint, given, code, words):
    done = subprocess.run(
        [sys.executable, "-m", "worker", "--test_input", json.dumps({"input": given})], capture_output=True, text=True, check=False,
        env=os.environ | {"FISHSERVE_CHECKPOINT": str(checkpoint), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code
    assert words in done.stdout + done.stderr


def test_what_is_said_is_not_in_the_log(queue, worker):
    queue.result(**SMALL | {"text": "xylophone"})
    queue.refusal(text="xylophone", temperature=9)
    assert "xylophone" not in worker.words()
