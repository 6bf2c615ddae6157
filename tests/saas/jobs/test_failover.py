"""Two real servers speak for one API, and one of them ends under load: no job and no credit is lost."""

import threading
from contextlib import contextmanager

import httpx
import pytest

from tests.inference.server.conftest import Server
from tests.saas.jobs.conftest import LONG_TEXTS, Account, Api, check_paid
from tests.texts import ENDLESS, LONG
from tests.waiting import wait

pytestmark = pytest.mark.drill
JOBS, STREAMS = 24, 6


@pytest.fixture
def other(checkpoint, tmp_path):
    with Server(checkpoint, tmp_path / "voices").wait_ready() as server:
        yield server


@pytest.fixture
def account(data, bucket, speaker, other):
    data.sql("update settings set max_running = null")
    settings = LONG_TEXTS | {"FISHSERVE_SAAS_REQUESTS_AT_ONCE": "64"}
    with (
        Api(data, bucket, FISHSERVE_URL=f"{speaker.url},{other.url}", **settings) as api,
        Account(data, api.url, 100_000_000) as account,
    ):
        wait(lambda: up(account) == {1.0})
        yield account


def up(account):
    """Whether the servers are, as the metrics say."""
    lines = httpx.get(f"{account.http.base_url}/metrics").text.splitlines()
    return {float(line.split()[-1]) for line in lines if line.startswith("fishserve_saas_speech_servers_up{")}


@contextmanager
def listening(account, count):
    """Clients that listen to a text without end. Gives what became of each, which is there at the end: whole, broken or None while it lasts."""
    outcomes, stop = [None] * count, threading.Event()

    def listen(number):
        body = {"input": ENDLESS, "response_format": "pcm", "seed": number}
        try:
            with account.http.stream("POST", "/v1/audio/speech", json=body) as answer:
                assert answer.status_code == 200, answer.read()
                for _ in answer.iter_bytes():
                    if stop.is_set():
                        outcomes[number] = "left"
                        return
                outcomes[number] = "whole"
        except httpx.TransportError:
            outcomes[number] = "broken"

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_server_that_is_killed_under_load_costs_no_job_and_no_credit(account, speaker, other):
    running = "fishserve_requests_running"
    with listening(account, STREAMS) as outcomes:
        jobs = [account.speak(LONG[:200], seed=number) for number in range(JOBS)]
        wait(lambda: speaker.metric(running) >= 4 and other.metric(running) >= 4)
        other.kill()
        jobs += [account.speak(seed=number) for number in range(4)]
        ended = [account.ended(job) for job in jobs]
        wait(lambda: "broken" in outcomes)
    assert set(outcomes) == {"left", "broken"}  # those of the other server heard nothing
    print(f"{outcomes.count('broken')} of {STREAMS} streams broke off")
    for job in ended:
        check_paid(account, job)
    attempts = account.database.sql(
        "select attempts, count(*) as jobs from jobs where user_id = %s group by attempts order by 1", account.id
    )
    print(f"attempts: { {row['attempts']: row['jobs'] for row in attempts} }")
    everything = account.ask("GET", "/api/jobs", params={"limit": 200})
    assert len(everything) == JOBS + 4 + STREAMS
    everything = [account.ended(job) for job in everything]
    streams = [job for job in everything if job["text"] == ENDLESS]
    assert {job["status"] for job in streams} == {"succeeded"}
    assert all(job["partial"] and 0 < job["charged"] < job["reserved"] for job in streams)
    account.check_balance()
    assert up(account) == {0.0, 1.0}


def test_a_server_that_is_told_to_end_finishes_its_streams_and_gets_no_more(account, other):
    text = LONG[:400]
    jobs = [account.speak(text, seed=number) for number in range(12)]
    wait(lambda: other.metric("fishserve_requests_running") >= 2)
    other.end(code=0)
    jobs += [account.speak(seed=number) for number in range(4)]
    for job in jobs:
        check_paid(account, account.ended(job))
    assert account.database.sql("select max(attempts) as most from jobs where user_id = %s", account.id) == [{"most": 1}]
    account.check_balance()
