"""A cloned voice's life: announced, uploaded, looked at, spoken with, and gone."""

import io
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import numpy as np
import psycopg
import pytest
import soundfile

from tests.saas.jobs.conftest import Account, Api, check_paid, check_refunded
from tests.waiting import wait


@pytest.fixture(scope="module")
def api(data, bucket, speaker):
    with Api(data, bucket, FISHSERVE_URL=speaker.url) as api:
        yield api


@pytest.fixture
def account(data, api):
    with Account(data, api.url) as account:
        yield account


def clip(seconds=2.0, loudness=0.2):
    buffer = io.BytesIO()
    soundfile.write(buffer, loudness * np.sin(np.arange(int(seconds * 16_000)) * 0.2), 16_000, format="WAV")
    return buffer.getvalue()


def announced(account, content, **more):
    asked = {"name": uuid4().hex, "transcript": "what is said", "content_type": "audio/wav", "bytes": len(content), "consent": True}
    return account.ask("POST", "/api/voices", 201, json=asked | more)


def uploaded(account, content, **more):
    made = announced(account, content, **more)
    answer = httpx.put(made["upload"]["url"], content=content, headers=made["upload"]["headers"])
    assert answer.status_code == 200, answer.text
    return made["voice"]


def ready(account, content=None, **more):
    content = content or clip()
    return account.ask("POST", f"/api/voices/{uploaded(account, content, **more)['id']}/confirm")


def place(data, voice):
    return data.sql("select object_key from cloned_voices where id = %s", voice["id"])[0]["object_key"]


def test_a_clip_becomes_a_voice_that_speaks(account):
    voice = ready(account, name="Anna")
    assert (voice["status"], voice["seconds"], voice["name"]) == ("ready", 2.0, "Anna")
    assert httpx.get(voice["clip_url"]).content == clip()
    own, plain = (account.spoken(voice_id=v, seed=1, format="wav") for v in (voice["id"], None))
    check_paid(account, own)
    assert own["sha256"] != plain["sha256"]
    by_name = account.http.post("/v1/audio/speech", json={"input": "Hello there.", "voice": "Anna", "seed": 1, "response_format": "wav"})
    assert by_name.status_code == 200
    assert account.job({"id": by_name.headers["x-job-id"]})["sha256"] == own["sha256"]


def test_a_clip_that_was_looked_at_cannot_be_exchanged(account, data, bucket):
    """The address to upload to is still good; it leads to nothing that is used."""
    content = clip()
    made = announced(account, content)
    put = lambda body: httpx.put(made["upload"]["url"], content=body, headers=made["upload"]["headers"]).status_code  # noqa: E731
    assert put(content) == 200
    voice = account.ask("POST", f"/api/voices/{made['voice']['id']}/confirm")
    assert put(b"x" * len(content)) == 200
    assert bucket.get(place(data, voice)) == content
    assert account.ask("POST", f"/api/voices/{voice['id']}/confirm")["status"] == "ready"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not audio at all" * 100, "not audio that can be read"),
        (clip(0.5), "lasts 0.5 s"),
        (clip(91), "lasts 91.0 s"),
        (clip(loudness=0), "silent"),
        (b"<html></html>", "not audio"),
        (clip()[:60], ""),
    ],
    ids=["noise", "short", "long", "silent", "html", "cut"],
)
def test_what_is_no_clip_to_imitate_is_refused_with_the_reason_and_deleted(account, data, bucket, content, words):
    voice = uploaded(account, content)
    error = account.ask("POST", f"/api/voices/{voice['id']}/confirm", 422)["error"]
    assert words in error["message"]
    assert error["code"] == "clip_refused"
    found = account.ask("GET", f"/api/voices/{voice['id']}")
    assert (found["status"], found["reason"], found["clip_url"]) == ("refused", error["message"], None)
    with pytest.raises(Exception, match="NoSuchKey"):
        bucket.get("uploads/" + place(data, voice))
    assert account.http.post("/api/tts", json={"text": "Hi.", "voice_id": voice["id"]}).status_code == 404
    account.ask("POST", f"/api/voices/{voice['id']}/confirm", 422)


def test_a_voice_is_not_ready_before_its_clip_is_there(account):
    made = announced(account, clip())
    assert account.ask("POST", f"/api/voices/{made['voice']['id']}/confirm", 409)["error"]["code"] == "not_uploaded"
    assert account.ask("GET", "/api/voices")[0]["status"] == "pending"


@pytest.mark.parametrize(
    "change",
    [{"consent": False}, {"consent": None}, {"bytes": 0}, {"bytes": 25_000_001}, {"content_type": "text/html"}, {"name": ""}, {"transcript": ""}, {"transcript": "x" * 2001}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_a_voice_is_not_announced(account, change):
    asked = {"name": "n", "transcript": "t", "content_type": "audio/wav", "bytes": 9, "consent": True} | change
    account.ask("POST", "/api/voices", 400, json=asked)
    assert account.ask("GET", "/api/voices") == []


def test_names_are_ones_own_and_can_be_changed(account, data, api):
    voice = ready(account, name="Anna")
    taken = {"name": "anna", "transcript": "t", "content_type": "audio/wav", "bytes": 9, "consent": True}
    account.ask("POST", "/api/voices", 409, json=taken)
    assert account.ask("PATCH", f"/api/voices/{voice['id']}", json={"name": "Berta"})["name"] == "Berta"
    with Account(data, api.url) as other:
        ready(other, name="Anna")
        for method, path, more in [("GET", "", {}), ("PATCH", "", {"json": {"name": "x"}}), ("DELETE", "", {}), ("POST", "/confirm", {})]:
            other.ask(method, f"/api/voices/{voice['id']}{path}", 404, **more)
        assert other.http.post("/api/tts", json={"text": "Hi.", "voice_id": voice["id"]}).status_code == 404


def test_a_deleted_voice_is_gone(account, data, bucket):
    """Its clip before the answer comes; its name and words, too; and a job that was to use it is paid back."""
    voice = ready(account)
    key = place(data, voice)
    account.ask("DELETE", f"/api/voices/{voice['id']}", 204)
    with pytest.raises(Exception, match="NoSuchKey"):
        bucket.get(key)
    assert httpx.get(voice["clip_url"]).status_code == 404
    assert data.sql("select name, transcript, sha256 from cloned_voices where id = %s", voice["id"]) == [
        {"name": None, "transcript": None, "sha256": None}
    ]
    account.ask("GET", f"/api/voices/{voice['id']}", 404)
    account.ask("DELETE", f"/api/voices/{voice['id']}", 404)


def test_a_clip_the_bucket_kept_is_deleted_later(account, data, bucket):
    """The bucket may not answer when a voice is deleted; what is to go stays on a list until it does."""
    voice = ready(account)
    key = place(data, voice)
    data.call("delete_voice", user_id=account.id, voice_id=voice["id"])
    assert bucket.get(key)
    data.sql("update deleted_objects set due_at = now() where key = %s", key)
    wait(lambda: not data.sql("select key from deleted_objects where key = %s", key))
    with pytest.raises(Exception, match="NoSuchKey"):
        bucket.get(key)
    assert data.sql("select id from cloned_voices where id = %s", voice["id"]) == []


def test_a_job_whose_voice_goes_before_it_is_spoken_is_paid_back(account, data):
    voice = ready(account)
    with psycopg.connect(data.owner_url) as connection:  # one transaction: nobody can claim it in between
        asked = "select process_audio_request(%s, 'v', 'f', 'Hi.', 'h', %s) -> 'job'"
        (job,) = connection.execute(asked, [account.id, voice["id"]]).fetchone()
        connection.execute("update jobs set lease_until = now() + interval '1 h' where id = %s", [job["id"]])
    account.ask("DELETE", f"/api/voices/{voice['id']}", 204)
    data.sql("update jobs set lease_until = null where id = %s", job["id"])
    job = account.ended(job)
    assert "voice was deleted" in job["error"]
    check_refunded(account, job, "failed")


def test_a_user_has_at_most_twenty(account):
    for _ in range(20):
        announced(account, clip())
    answer = account.http.post(
        "/api/voices", json={"name": "one more", "transcript": "t", "content_type": "audio/wav", "bytes": 9, "consent": True}
    )
    assert answer.status_code == 409
    assert "20 voices" in answer.json()["error"]["message"]


def test_a_clip_that_takes_long_to_read_keeps_nobody_waiting(account):
    voice = uploaded(account, clip(80))
    with ThreadPoolExecutor(1) as thread:
        confirming = thread.submit(account.http.post, f"/api/voices/{voice['id']}/confirm")
        answered = 0
        while not confirming.done():
            account.ask("GET", "/api/me")
            answered += 1
    assert confirming.result().status_code == 200
    assert answered > 5
