"""Jobs that RunPod's real worker speaks, behind a stand-in of its cloud where everything that can go wrong does; credits are right after each."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from saas.jobs.backend import Options, Order, Underway, VoiceClip
from saas.jobs.runpod import TTL_SECONDS, RunPod
from saas.storage.bucket import Bucket, result_key
from tests import raw
from tests.saas.jobs.answering import answering
from tests.saas.jobs.conftest import LONG_TEXTS, NOTHING, REFUSED, SMALL, Account, Api, check_nothing_to_speak, check_paid, check_refunded
from tests.texts import ENDLESS, LONG
from tests.waiting import wait
from tests.worker.conftest import BUCKET, Worker
from tests.worker.test_worker import resting

pytestmark = pytest.mark.usefixtures("worker")  # takes the jobs
NORMAL = {"webhooks": 1, "execution_seconds": 3600, "lose_done": 0, "full": False}


def medium(name):
    """A text that is too long to be waited for, and unlike others."""
    return f"{name}. {'Words ' * 36}end."


@pytest.fixture(scope="module")
def api(data, bucket, cloud):
    with Api(data, bucket, **cloud.settings, **LONG_TEXTS) as api:
        yield api


@pytest.fixture
def account(data, api, cloud):
    cloud.ways(**NORMAL)
    with Account(data, api.url) as account:
        yield account


def told(cloud, text, webhooks=1):
    """What the API answered to the webhooks of a job, once all have come."""
    wait(lambda: len(cloud.job_with(text).get("told", ())) >= webhooks)
    return cloud.job_with(text)["told"]


def test_a_job_ends_when_its_webhook_comes(account, cloud):
    text = medium("webhook")
    job = account.ended(account.speak(text, format="wav", seed=1, captions="json"))
    check_paid(account, job)
    assert httpx.get(job["captions_url"]).json()["text"] == text
    assert told(cloud, text) == [200]
    sent = cloud.job_with(text)
    assert sent["policy"] == {"executionTimeout": 600_000, "ttl": 3_600_000}
    assert sent["input"]["upload"] == {"key": result_key(str(account.id), job["id"], "wav"), "bucket": BUCKET}


def test_a_short_text_is_answered_at_once(account, cloud):
    """By the very answer to what sent it: no webhook comes here. A busy machine may need another try."""
    cloud.ways(webhooks=0)

    def answered():
        text = f"Runsync {uuid4().hex[:8]}."
        check_paid(account, account.spoken(text, seed=3))
        return cloud.job_with(text)["answered"] == "COMPLETED"

    wait(answered)


def test_what_cannot_be_spoken_fails_with_the_workers_sentence(account):
    for text in (REFUSED, "Hello. " * 40 + REFUSED):
        job = account.ended(account.speak(text))
        assert "the limit is 10 s" in job["error"]
        check_refunded(account, job, "failed")


def test_signs_alone_are_refused_before_anything_is_reserved(account, cloud):
    check_nothing_to_speak(account)
    assert not any(job["input"]["text"] in NOTHING for job in cloud.jobs())


def test_a_job_that_takes_too_long_is_paid_back(account, cloud):
    cloud.ways(execution_seconds=0.5)
    job = account.ended(account.speak(ENDLESS + " Too long."))
    assert "took too long" in job["error"]
    check_refunded(account, job, "failed")


def test_a_cancelled_job_is_cancelled_there_and_paid_back(account, cloud, worker):
    before = worker.metric("fishserve_requests_total", reason="cancelled")
    job = account.speak(ENDLESS + " Cancel.")
    wait(lambda: account.job(job)["status"] == "running" and worker.metric("fishserve_requests_running") >= 1)
    check_refunded(account, account.ask("POST", f"/api/jobs/{job['id']}/cancel"), "cancelled")
    wait(lambda: worker.metric("fishserve_requests_total", reason="cancelled") > before)
    assert cloud.job_with(ENDLESS + " Cancel.")["status"] == "CANCELLED"


def test_a_job_that_is_cancelled_after_a_while_costs_what_its_worker_has_told(account, cloud):
    text = ENDLESS + " Cancel later."
    job = account.speak(text, speed=0.5, temperature=2.0, top_p=1.0)
    told = wait(lambda: cloud.job_with(text)["progress"])[0]["seconds"]
    ended = account.ask("POST", f"/api/jobs/{job['id']}/cancel")
    assert (ended["status"], ended["seconds"] >= told / 0.5 - 0.01) == ("cancelled", True)
    assert ended["charged"] == min(job["reserved"], -(-round(ended["seconds"] * 1000) // 100))
    account.check_balance()


def test_the_worker_stops_where_the_reservation_ends(account, cloud):
    """This model speaks for as long as its context has room, whatever the text."""
    text = f"No end. {uuid4().hex[:4]}"
    job = account.ended(account.speak(text, temperature=2.0, top_p=1.0, seed=3))
    check_paid(account, job)
    sent = cloud.job_with(text)["input"]["max_seconds"]
    assert sent == pytest.approx(job["reserved"] / 10)
    assert job["seconds"] <= sent + 0.001
    assert job["partial"] == (job["seconds"] > sent - 0.001)


def test_webhooks_that_come_twice_change_nothing(account, cloud):
    cloud.ways(webhooks=3)
    text = medium("thrice")
    job = account.ended(account.speak(text))
    assert told(cloud, text, webhooks=3) == [200, 200, 200]
    check_paid(account, account.job(job))


def test_a_webhook_that_comes_too_late_changes_nothing_and_its_file_goes(account, cloud, bucket, data):
    cloud.ways(webhooks=0)
    text = medium("late")
    job = account.speak(text)
    wait(lambda: account.job(job)["status"] == "running")
    data.call("refund_job", job_id=job["id"], status="expired", error="it was given up")
    wait(lambda: cloud.job_with(text)["status"] == "COMPLETED")
    key = result_key(str(account.id), job["id"], "mp3")
    assert bucket.get(key)
    cloud.ways(webhooks=1)
    cloud.http.post(f"/again/{cloud.job_with(text)['id']}/webhook")
    assert told(cloud, text) == [200]
    check_refunded(account, account.job(job), "expired")
    with pytest.raises(Exception, match="NoSuchKey"):
        bucket.get(key)


def test_a_lost_webhook_is_not_needed(account, cloud):
    cloud.ways(webhooks=0)
    check_paid(account, account.ended(account.speak(medium("lost"))))


def test_a_webhook_opens_nothing_without_its_token_and_is_not_believed_with_it(account, cloud, api, worker):
    text = medium("forged")
    with resting(worker):
        job = account.speak(text)
        sent = cloud.job_with(text)
        wait(lambda: account.job(job)["status"] == "running")
        lie = {"id": sent["id"], "status": "COMPLETED", "output": [{"seconds": 1, "frames": 1, "bytes": 1, "sha256": "0" * 64}]}
        assert httpx.post(sent["webhook"][:-8] + "00000000", json=lie).status_code == 404
        assert httpx.post(f"{api.url}/api/webhook/runpod", params={"job": job["id"]}, json=lie).status_code == 400
        assert httpx.post(sent["webhook"], json=lie).status_code == 200
        assert httpx.post(sent["webhook"], json=lie | {"id": "../../status"}).status_code == 200
        assert account.job(job)["status"] == "running"
    check_paid(account, account.ended(job))


def test_a_webhook_before_its_job_is_known_to_be_there_is_as_good(account, data, worker):
    """The process that sent it may have died between RunPod's answer and writing it down."""
    text = medium("unknown")
    with resting(worker):
        job = account.speak(text)
        wait(lambda: account.job(job)["status"] == "running")
        data.sql(
            "update jobs set status = 'queued', backend = null, backend_id = null, lease_until = now() + interval '1 h' where id = %s",
            job["id"],
        )
    check_paid(account, account.ended(job))


def test_a_job_sent_twice_is_paid_once_whichever_ends_first(account, cloud, data, worker):
    text = medium("twice")
    with resting(worker):
        job = account.speak(text)
        wait(lambda: account.job(job)["status"] == "running")
        data.sql("update jobs set status = 'queued', backend = null, backend_id = null, lease_until = null where id = %s", job["id"])
        wait(lambda: len([sent for sent in cloud.jobs() if sent["input"]["text"] == text]) == 2)
    check_paid(account, account.ended(job))
    wait(lambda: all(sent.get("told") == [200] for sent in cloud.jobs() if sent["input"]["text"] == text))
    check_paid(account, account.job(job))


def test_a_result_whose_message_was_lost_is_found_in_the_bucket(account, cloud):
    """The worker has sent the file, RunPod never hears of it and gives up: it is paid for, and not lost."""
    cloud.ways(lose_done=1)
    text = medium("silent")
    job = account.speak(text)
    wait(lambda: cloud.ways()["lose_done"] == 0)
    cloud.ways(execution_seconds=0)
    check_paid(account, account.ended(job))
    assert cloud.job_with(text)["status"] == "TIMED_OUT"


def test_a_worker_that_dies_costs_nothing_but_time(account, cloud, checkpoint, bucket, worker):
    with Worker(cloud, checkpoint, **bucket.environment).ready() as other, resting(worker):
        job = account.speak(LONG * 3 + " Death.", format="wav")
        wait(lambda: cloud.job_with(LONG * 3 + " Death.")["status"] == "IN_PROGRESS")
        other.end()
    cloud.http.post(f"/lost/{other.name}")
    check_paid(account, account.ended(job))
    assert cloud.job_with(LONG * 3 + " Death.")["taken"] == 2


def test_jobs_wait_while_runpod_is_full(account, cloud, data):
    cloud.ways(full=True)
    job = account.speak(medium("full"))
    wait(lambda: data.sql("select attempts from jobs where id = %s", job["id"])[0]["attempts"] >= 1)
    cloud.ways(full=False)
    check_paid(account, account.ended(job))


def test_openais_route_gives_the_file_when_it_is_whole(account):
    answer = account.http.post("/v1/audio/speech", json={"input": SMALL, "seed": 3})
    assert answer.status_code == 200
    assert check_paid(account, account.job({"id": answer.headers["x-job-id"]})) == answer.content


def test_a_client_of_openais_route_that_leaves_early_pays_nothing(account, api, cloud, worker):
    with resting(worker):
        with raw.post(api.port, "/v1/audio/speech", {"input": medium("gone")}, Authorization=f"Bearer {account.key}"):
            cloud.job_with(medium("gone"))  # it has been sent
        check_refunded(account, account.ended(account.ask("GET", "/api/jobs")[0]), "cancelled")
    wait(lambda: cloud.job_with(medium("gone"))["status"] == "CANCELLED")


def test_workers_without_the_buckets_keys_get_an_address(database, bucket, cloud):
    """Here they have them all the same, so that their worker trusts an address of this machine."""
    cloud.ways(**NORMAL)
    with (
        Api(database, bucket, **cloud.settings, FISHSERVE_SAAS_RUNPOD_UPLOAD="url") as api,
        Account(database, api.url) as account,
    ):
        text = medium("address")
        job = account.ended(account.speak(text, format="opus", captions="vtt"))
        check_paid(account, job)
        assert httpx.get(job["captions_url"]).text.startswith("WEBVTT")
        assert set(cloud.job_with(text)["input"]["upload"]) == {"url", "captions_url"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": "FAILED", "error": '{"error_type": "x", "error_traceback": "secret"}'}, "machine that was speaking failed"),
        ({"status": "FAILED", "error": "Traceback (most recent call last)\n..."}, "machine that was speaking failed"),
        ({"status": "FAILED"}, "machine that was speaking failed"),
        ({"status": "FAILED", "error": "a clip is silent"}, "a clip is silent"),
        ({"status": "COMPLETED", "output": []}, "machine that was speaking failed"),
        ({"status": "COMPLETED", "output": [{"error": "no voice"}]}, "no voice"),
        ({"status": "COMPLETED", "output": {"seconds": -1, "frames": 1, "bytes": 1, "sha256": "0" * 64, "key": "mine"}}, "machine that was speaking failed"),
        ({"status": "COMPLETED", "output": {"seconds": 1, "frames": 1, "bytes": 1, "sha256": "0" * 64, "key": "another's"}}, "machine that was speaking failed"),
        ({"status": "SOMETHING NEW"}, "machine that was speaking failed"),
    ],
)  # fmt: skip
def test_whatever_runpod_says_is_understood(answer, words):
    async def status():
        async with answering(lambda: (200, answer)) as address:
            runpod = RunPod(None, address, "ep", "rpa_secret", "https://y")
            try:
                return await runpod.status("id", "mine", 1.0)
            finally:
                await runpod.close()

    ended = asyncio.run(status())
    assert ended.status == "failed"
    assert words in ended.message


@pytest.mark.parametrize("by_key", [True, False])
def test_a_job_carries_keys_or_addresses_that_end_with_it(by_key):
    """Before, the address of a voice's clip was good for 3,900 s, whoever had seen the job."""
    bucket = Bucket("https://bucket.example.com", "a", "b", "speech")
    voice = VoiceClip("voices/u/v", "0" * 64, "Hello.")
    order = Order("00000000-0000-4000-8000-000000000000", "u", "k", "Hello.", Options(), voice, None)
    given = RunPod(bucket, "https://x", "ep", "rpa_secret", "https://y", by_key=by_key)._input(order)
    bucket.close()
    if by_key:
        assert given["voice"] == {"text": "Hello.", "key": "voices/u/v", "bucket": "speech"}
        assert "https://" not in str(given)
    else:
        assert TTL_SECONDS == 3600
        assert str(given).count("X-Amz-Expires=3600&") == 2
        assert set(given["voice"]) == {"text", "url"}


def test_a_token_can_be_made_again_and_tells_nothing_of_the_key():
    """From what the database has and the key, so that another process can send the job; a hundred are a hundred."""
    make = RunPod(None, "https://x", "ep", "rpa_secret", "https://y").token
    tokens = {make("user", f"key{n}") for n in range(100)}
    assert len(tokens) == 100
    assert make("user", "key1") in tokens
    assert RunPod(None, "https://x", "ep", "rpa_other", "https://y").token("user", "key1") not in tokens
    assert all(len(token) == 64 for token in tokens)


def test_runpod_is_asked_through_the_environments_proxy_and_with_its_own_key(monkeypatch, tmp_path):
    """Before, an entry of ~/.netrc for the host kept every job from being sent."""
    (tmp_path / "netrc").write_text("default login someone password theirs\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    async def status(host):
        async with answering(lambda: (200, {"status": "IN_QUEUE"})) as address:
            monkeypatch.setenv("http_proxy", address)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            runpod = RunPod(None, host or address, "ep", "rpa_secret", "https://y")
            try:
                return await runpod.status("id", None, 1.0)
            finally:
                await runpod.close()

    assert asyncio.run(status("http://runpod.example")) == asyncio.run(status(None)) == Underway(0.0)
