"""Jobs that a fishserve speaks: from text to a file in the bucket, streams, and clients that leave."""

import hashlib
import io
import json
import os
import subprocess
import sys

import httpx
import openai
import pytest
import soundfile

from tests.saas.jobs.conftest import LONG_TEXTS, REFUSED, SMALL, Account, Api, check_nothing_to_speak, check_paid, check_refunded
from tests.texts import ENDLESS, LONG
from tests.waiting import wait


@pytest.fixture(scope="module")
def api(data, bucket, speaker):
    with Api(data, bucket, FISHSERVE_URL=speaker.url, **LONG_TEXTS) as api:
        yield api


@pytest.fixture
def account(data, api):
    with Account(data, api.url) as account:
        yield account


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_text_becomes_a_file_of_any_format(account, form):
    job = account.spoken(format=form, seed=3)
    content = check_paid(account, job)
    assert hashlib.sha256(content).hexdigest() == job["sha256"]
    if form == "wav":
        samples, rate = soundfile.read(io.BytesIO(content))
        assert job["seconds"] == pytest.approx(len(samples) / rate, abs=0.002)
    if form == "pcm":
        assert job["seconds"] == pytest.approx(len(content) / 88_200, abs=0.002)


@pytest.mark.parametrize("form", ["wav", "flac", "opus"])
def test_a_file_has_the_sample_rate_that_was_asked_for_and_true_sizes(account, form):
    content = check_paid(account, account.spoken(format=form, sample_rate=16_000, seed=3))
    assert soundfile.info(io.BytesIO(content)).frames > 1000
    samples, rate = soundfile.read(io.BytesIO(content))
    if form != "opus":  # which decodes at 48 kHz
        assert rate == 16_000
        assert soundfile.info(io.BytesIO(content)).frames == len(samples)
    streamed = account.http.post("/v1/audio/speech", json={"input": SMALL, "response_format": form, "sample_rate": 16_000})
    assert streamed.headers["x-sample-rate"] == "16000"
    body = {"input": SMALL, "response_format": form, "sample_rate": 16_000, "seed": 3, "stream": False}
    whole = account.http.post("/v1/audio/speech", json=body)
    assert whole.headers["content-length"] == str(len(whole.content))
    assert soundfile.info(io.BytesIO(whole.content)).frames == soundfile.info(io.BytesIO(content)).frames


def test_a_sample_rate_that_a_format_cannot_have_is_refused(account):
    for path, body in (("/api/tts", {"text": SMALL, "format": "mp3"}), ("/v1/audio/speech", {"input": SMALL, "response_format": "mp3"})):
        answer = account.http.post(path, json=body | {"sample_rate": 16_000})
        assert answer.status_code == 400
        assert "mp3 can have 32000, 44100, 48000" in answer.text
    assert account.check_balance() == account.granted


def test_openais_clients_find_a_model(account, api):
    client = openai.OpenAI(base_url=f"{api.url}/v1", api_key=account.key)
    assert [model.id for model in client.models.list().data] == ["FishSpeech 1.5"]
    assert client.models.retrieve("tts-1").id == "tts-1"


def test_a_short_wait_is_answered_202_and_the_job_ends_by_itself(account):
    answer = account.http.post("/api/tts", json={"text": SMALL})
    assert answer.status_code == 202
    job = answer.json()
    assert (job["status"], answer.headers["location"]) == ("queued", f"/api/jobs/{job['id']}")
    check_paid(account, account.ended(job))


def test_the_same_key_makes_one_job(account):
    one, other = account.spoken(key="k1", seed=1), account.spoken(key="k1", seed=1)
    assert one["id"] == other["id"]
    assert account.http.post("/api/tts", json={"text": "Other."}, headers={"Idempotency-Key": "k1"}).status_code == 409
    check_paid(account, other)


def test_the_same_seed_says_the_same_and_speed_changes_no_price(account):
    one, two = (account.spoken(seed=5, format="wav") for _ in range(2))
    fast = account.spoken(seed=5, format="wav", speed=2.0)
    assert one["sha256"] == two["sha256"] != fast["sha256"]
    assert fast["seconds"] == pytest.approx(one["seconds"] / 2, abs=0.01)
    assert abs(fast["charged"] - one["charged"]) <= 1  # its seconds are rounded


def test_a_cancelled_job_stops_the_engine_and_costs_what_was_made(account, speaker):
    before = speaker.metric("fishserve_requests_total", reason="cancelled")
    job = account.speak(ENDLESS)
    made = "select made_seconds from jobs where id = %s"
    wait(lambda: account.database.sql(made, job["id"])[0]["made_seconds"] > 0)
    ended = account.ask("POST", f"/api/jobs/{job['id']}/cancel")
    assert (ended["status"], ended["url"], ended["partial"]) == ("cancelled", None, True)
    assert ended["charged"] == max(10, -(-round(ended["seconds"] * 1000) // 100))
    assert account.entries(job) == [("reserve", -job["reserved"]), ("settle", job["reserved"] - ended["charged"])]
    account.check_balance()
    wait(lambda: speaker.metric("fishserve_requests_total", reason="cancelled") > before)
    assert account.ask("POST", f"/api/jobs/{job['id']}/cancel")["status"] == "cancelled"


def test_captions_are_a_second_file(account):
    text = "It is **five**. [pause:1s] Go & see."
    job = account.spoken(text, captions="json", speed=2, format="opus", seed=3)
    check_paid(account, job)
    assert "X-Amz-Expires=300" in job["captions_url"]
    answer = httpx.get(job["captions_url"])
    assert answer.headers["content-disposition"] == f'attachment; filename="speech-{job["id"][:8]}.json"'
    words = answer.json()["words"]
    assert [text[w["start_char"] : w["end_char"]] for w in words] == ["It", "is", "five", "Go", "see"]
    assert words[3]["start"] - words[2]["end"] > 0.49  # at twice the speed
    assert words[-1]["end"] <= job["seconds"] + 0.0005
    assert account.spoken()["captions_url"] is None


def test_speech_that_is_cut_within_its_segment_has_captions_of_what_was_kept(account):
    job = account.spoken(captions="json", seed=7)
    assert job["partial"]
    words = httpx.get(job["captions_url"]).json()["words"]
    assert words[0]["word"] == "Hello"
    assert words[-1]["end"] <= job["seconds"] + 0.0005


def test_a_deleted_job_leaves_no_text_and_no_file(account, data):
    job = account.spoken(captions="srt", seed=3)
    assert SMALL in httpx.get(job["captions_url"]).text
    account.ask("DELETE", f"/api/jobs/{job['id']}", 204)
    account.ask("GET", f"/api/jobs/{job['id']}", 404)
    assert httpx.get(job["url"]).status_code == httpx.get(job["captions_url"]).status_code == 404
    assert data.sql("select text from jobs where id = %s", job["id"]) == [{"text": None}]
    account.check_balance()


def test_what_cannot_be_spoken_fails_with_a_reason_and_costs_nothing(account):
    job = account.ended(account.speak(REFUSED))
    assert "the limit is 10 s" in job["error"]
    check_refunded(account, job, "failed")


def test_signs_alone_are_refused_before_anything_is_reserved(account):
    check_nothing_to_speak(account)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": "a" * 100_001}, 400, "at most 100,000"),
        ({"text": ""}, 400, "text"),
        ({"text": " "}, 400, "nothing to speak"),
        ({"text": "Hi. [voice:eve] Hi."}, 400, "names the voice 'eve' in a mark; this service speaks each text with one voice"),
        ({"text": "Hi.", "pronunciation_dictionaries": ["any"]}, 400, "this service has no pronunciation dictionaries"),
        ({"text": "a\0b"}, 400, "NUL"),
        ({"text": "hi", "format": "ogg"}, 400, "format"),
        ({"text": "hi", "speed": 9}, 400, "speed"),
        ({"text": "hi", "voice_id": "00000000-0000-0000-0000-000000000000"}, 404, "you have no voice"),
        ({"text": "hi", "voice_id": "../x"}, 400, "voice_id"),
    ],
)
def test_what_cannot_be_is_refused_in_words(account, body, status, words):
    answer = account.http.post("/api/tts", json=body)
    assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
    assert account.check_balance() == account.granted


def test_too_few_credits_say_how_many_are_needed(data, api):
    with Account(data, api.url, credits=9) as poor:
        answer = poor.http.post("/api/tts", json={"text": SMALL})
    assert answer.status_code == 402
    assert "needs 22 credits; you have 9" in answer.json()["error"]["message"]


def test_nobody_sees_anothers_jobs(account, data, api):
    job = account.spoken()
    with Account(data, api.url) as other:
        other.ask("GET", f"/api/jobs/{job['id']}", 404)
        other.ask("POST", f"/api/jobs/{job['id']}/cancel", 404)
        other.ask("DELETE", f"/api/jobs/{job['id']}", 404)
        assert other.ask("GET", "/api/jobs") == []


def test_jobs_are_listed_newest_first_and_found_by_their_words(account):
    first, second = account.spoken("A zebra."), account.spoken("A lion.")
    assert [job["id"] for job in account.ask("GET", "/api/jobs")] == [second["id"], first["id"]]
    assert [job["id"] for job in account.ask("GET", "/api/jobs", params={"search": "ZEBRA"})] == [first["id"]]
    assert [job["id"] for job in account.ask("GET", "/api/jobs", params={"before": second["created_at"], "limit": 1})] == [first["id"]]


def test_how_long_it_takes_to_take_a_job_can_be_measured(account, api, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "inference.cli", "bench", "saas", api.url, "--rate", "4", "--seconds", "1", "-o", tmp_path / "jobs.json"], check=False,
        capture_output=True, text=True, env=os.environ | {"FISHSERVE_BENCH_KEY": account.key},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "jobs.json").read_text())
    assert record["complete"]
    assert {sample["status"] for sample in record["runs"][1]["samples"]} == {202}
    assert "POST /api/tts" in done.stdout
    for job in account.ask("GET", "/api/jobs"):
        account.ask("POST", f"/api/jobs/{job['id']}/cancel")


# -- OpenAI's door -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(account, api):
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=account.key, max_retries=0) as client:
        yield client


def only_job(account):
    return account.ended(account.ask("GET", "/api/jobs")[0])


def test_openais_client_hears_while_it_is_made_and_pays_when_it_is_done(account, client):
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input=SMALL, extra_body={"seed": 3}) as answer:
        content = b"".join(answer.iter_bytes())
        job = answer.headers["x-job-id"]
    assert check_paid(account, account.job({"id": job})) == content


def test_a_stream_begins_before_the_speech_is_over(account):
    body = {"input": LONG[:300], "response_format": "pcm", "seed": 1}
    with account.http.stream("POST", "/v1/audio/speech", json=body) as answer:
        assert answer.headers["content-type"] == "audio/pcm;rate=24000;channels=1"
        pieces = answer.iter_bytes()
        next(pieces)
        assert account.job({"id": answer.headers["x-job-id"]})["status"] == "running"
        assert len(list(pieces)) > 1
    check_paid(account, only_job(account))


def test_a_client_that_leaves_pays_for_what_was_made(account, speaker):
    before = speaker.metric("fishserve_requests_total", reason="cancelled")
    with account.http.stream("POST", "/v1/audio/speech", json={"input": ENDLESS, "response_format": "wav", "seed": 1}) as answer:
        next(answer.iter_bytes())
    job = only_job(account)
    content = check_paid(account, job)
    assert 0 < job["charged"] < job["reserved"]
    assert len(soundfile.read(io.BytesIO(content))[0]) / 44_100 == pytest.approx(job["seconds"], abs=0.002)
    wait(lambda: speaker.metric("fishserve_requests_total", reason="cancelled") > before)


def test_a_key_whose_result_is_gone_says_so(account, data):
    job = account.spoken(key="gone")
    data.sql("update jobs set expires_at = now() where id = %s", job["id"])
    data.call("expire_results")
    again, key = {"input": SMALL}, {"Idempotency-Key": "gone"}
    assert account.http.post("/v1/audio/speech", json=again, headers=key).status_code == 410
    account.ask("DELETE", f"/api/jobs/{job['id']}", 204)
    for path, body in (("/v1/audio/speech", again), ("/api/tts", {"text": SMALL})):
        assert account.http.post(path, json=body, headers=key).status_code == 410


def test_server_sent_events_hold_the_file(account):
    with account.http.stream("POST", "/v1/audio/speech", json={"input": SMALL, "stream_format": "sse", "seed": 3}) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert "speech.audio.delta" in lines[0]
    assert "speech.audio.done" in lines[-1]


def test_openais_client_is_told_what_is_wrong(client):
    with pytest.raises(openai.NotFoundError, match="you have no voice 'nobody'; you have none"):
        client.audio.speech.create(model="tts-1", voice="nobody", input=SMALL)
    with pytest.raises(openai.BadRequestError, match="the limit is 10 s"):
        client.audio.speech.create(model="tts-1", voice="alloy", input=REFUSED)


# -- a server that does not speak ----------------------------------------------------------------------------------------------


def test_jobs_wait_for_a_server_that_is_not_there_and_end_when_it_never_comes(database, bucket):
    """Attempts go on with longer and longer pauses; here they are made at once. No other API has the database."""
    with Api(database, bucket, FISHSERVE_URL="http://127.0.0.1:9") as api, Account(database, api.url) as account:
        answer = account.http.post("/v1/audio/speech", json={"input": SMALL})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        check_refunded(account, only_job(account), "failed")
        job = account.speak()
        wait(lambda: database.sql("select attempts from jobs where id = %s", job["id"])[0]["attempts"] >= 2)
        assert account.job(job)["status"] in ("queued", "running")
        database.sql("update jobs set attempts = 10, lease_until = now() - interval '1 s' where id = %s", job["id"])
        check_refunded(account, account.ended(job), "failed")


def test_ending_the_api_leaves_its_jobs_to_the_next_at_once(database, bucket, speaker):
    """What it leaves is free: what the dead leave is anyone's only when their lease is over."""
    with Account(database, "") as account:
        with Api(database, bucket, FISHSERVE_URL=speaker.url, **LONG_TEXTS) as api:
            account.http.base_url = api.url
            job = account.speak(LONG * 3)
            wait(lambda: account.job(job)["status"] == "running")
            leased = "select lease_until > now() as leased from jobs where id = %s"
            assert database.sql(leased, job["id"]) == [{"leased": True}]
        assert database.sql(leased, job["id"]) in ([{"leased": False}], [{"leased": None}])
        with Api(database, bucket, FISHSERVE_URL=speaker.url, **LONG_TEXTS) as api:
            account.http.base_url = api.url
            check_paid(account, account.ended(job))
        assert database.sql("select attempts from jobs where id = %s", job["id"]) == [{"attempts": 2}]


def test_with_one_user_flooding_anothers_short_job_begins_before_many_others(database, bucket, speaker):
    """The most of the flood that begins between its coming and its beginning is one claim."""
    with (
        Api(database, bucket, FISHSERVE_URL=speaker.url, **LONG_TEXTS) as api,
        Account(database, api.url, 10_000_000) as many,
        Account(database, api.url) as one,
    ):
        first = many.speak(ENDLESS)
        flood = "select process_audio_request(%s, 'flood ' || n, 'f', %s, 't') from generate_series(1, 500) n"
        database.sql(flood, many.id, LONG)
        wait(lambda: many.job(first)["status"] == "running")
        check_paid(one, one.spoken("Hello."))
        between = """
            select count(*) as n from jobs j, (select created_at, started_at from jobs where user_id = %s) mine
            where j.user_id = %s and j.started_at between mine.created_at and mine.started_at"""
        assert database.sql(between, one.id, many.id)[0]["n"] <= 4
        database.sql("select cancel_job(user_id, id) from jobs where status = 'queued'")
