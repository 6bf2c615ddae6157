"""Who is next: users take turns, nobody has more running or waiting than they may, and what a dead process left comes first."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from saas.database import Refused
from tests.saas.sql.test_life import RESULT, ask, ready_voice, refused

FLOOD = 500


def flood(database, who, jobs=FLOOD, text="x" * 20):
    """So many jobs at once, in one statement."""
    database.sql(
        "select process_audio_request(%s, 'flood ' || n, 'f', %s, 't') from generate_series(1, %s) n", who, text, jobs,
    )  # fmt: skip


def claim(database, limit=1):
    return database.call("claim_jobs", limit=limit, lease_seconds=60)


def limits(database, running=None, waiting=None):
    database.sql("update settings set max_running = %s, max_waiting = %s", running, waiting)


def test_a_flood_keeps_another_waiting_for_one_job(database):
    limits(database)
    many, one = database.user(credits=100_000), database.user(credits=1000)
    flood(database, many)
    claim(database, 3)
    short = ask(database, one, text="Hello.")["id"]
    assert short in [job["id"] for job in claim(database, 2)]


def test_two_floods_get_as_much_speech_not_as_many_jobs(database):
    """One has texts ten times as long: the other speaks ten for each."""
    limits(database)
    long, short = database.user(credits=1_000_000), database.user(credits=100_000)
    flood(database, long, 50, "x" * 2000)
    flood(database, short, 200, "x" * 200)
    reserved = {str(long): 0, str(short): 0}
    for job in claim(database, 150):
        reserved[job["user_id"]] += job["reserved"]
    assert 0.8 < reserved[str(long)] / reserved[str(short)] < 1.25


def test_who_was_away_has_saved_up_no_turns(database):
    limits(database)
    one, other = database.user(credits=100_000), database.user(credits=100_000)
    flood(database, one, 100)
    claim(database, 50)
    flood(database, other, 100)
    taken = [job["user_id"] for job in claim(database, 20)]
    assert abs(taken.count(str(one)) - taken.count(str(other))) <= 1


def test_no_user_has_more_running_than_may_be(database):
    limits(database, running=4)
    many, other = database.user(credits=100_000), database.user(credits=1000)
    flood(database, many, 20)
    first = claim(database, 10)
    assert len(first) == 4
    assert claim(database, 10) == []
    waiting = database.sql("select id from jobs where lease_until is null limit 1")[0]["id"]
    assert database.call("claim_job", job_id=waiting, lease_seconds=60) is None
    assert claim(database, 10) == []
    mine = ask(database, other)["id"]
    assert [job["id"] for job in claim(database, 10)] == [mine]
    for job in first[:2]:
        database.call("start_job", job_id=job["id"], backend="runpod", backend_id="x")
    database.call("settle_job", job_id=first[0]["id"], object_key="k", **RESULT)
    assert len(claim(database, 10)) == 1


def test_processes_that_claim_at_once_keep_to_the_limit(database):
    limits(database, running=5)
    users = [database.user(credits=100_000) for _ in range(3)]
    for who in users:
        flood(database, who, 30)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            list(threads.map(lambda _: claim(database, 4), range(8)))
    counts = database.sql("select count(*) as n from jobs where lease_until is not null group by user_id")
    assert [row["n"] for row in counts] == [5, 5, 5]


def test_more_jobs_than_may_wait_are_refused_in_words(database):
    limits(database, waiting=3)
    who = database.user(credits=1000)
    key = str(uuid4())
    ask(database, who, idempotency_key=key)
    flood(database, who, 2)
    with pytest.raises(Refused, match="3 jobs waiting") as e:
        ask(database, who)
    assert e.value.status == 429
    ask(database, who, idempotency_key=key)  # the same again is no other job
    ask(database, database.user(credits=100))
    database.call("claim_jobs", limit=1, lease_seconds=60)
    database.call("start_job", job_id=database.sql("select id from jobs where attempts = 1")[0]["id"], backend="fishserve")
    ask(database, who)


def test_what_a_dead_process_left_comes_first(database):
    who, other = database.user(credits=1000), database.user(credits=1000)
    left = ask(database, who)["id"]
    database.call("claim_job", job_id=left, lease_seconds=60)
    database.call("start_job", job_id=left, backend="fishserve")
    ask(database, other)
    database.sql("update jobs set lease_until = now() - interval '1 second' where id = %s", left)
    assert [job["id"] for job in claim(database)] == [left]


# -- what ends without a file --------------------------------------------------------------------------------------------------


def started(database, who, heard=False, **others):
    job = ask(database, who, text="x" * 130, **others)
    database.call("claim_job", job_id=job["id"], lease_seconds=60)
    database.call("start_job", job_id=job["id"], backend="fishserve", heard=heard)
    return job["id"]


def test_a_started_job_that_is_cancelled_costs_what_was_made(database):
    who = database.user(credits=1000)
    job = started(database, who)
    ended = database.call("cancel_job", user_id=who, job_id=job, seconds=9.5)
    assert (ended["job"]["status"], ended["job"]["charged"], ended["job"]["partial"], ended["balance"]) == ("cancelled", 95, True, 905)
    (day,) = database.call("usage", user_id=who)
    assert (day["seconds"], day["credits"]) == (9.5, 95)
    assert database.call("audit_ledger") == []


def test_a_started_job_that_another_process_speaks_costs_what_that_has_told(database):
    who = database.user(credits=1000)
    job = started(database, who)
    database.call("renew_lease", job_id=job, lease_seconds=60, seconds=7)
    assert database.call("cancel_job", user_id=who, job_id=job)["job"]["charged"] == 70


def test_what_a_dead_process_made_for_nobody_costs_nothing(database):
    who = database.user(credits=1000)
    job = started(database, who)
    database.call("renew_lease", job_id=job, lease_seconds=0, seconds=7)
    assert database.call("cancel_job", user_id=who, job_id=job)["balance"] == 1000


@pytest.mark.parametrize("spoken_again", [False, True])
def test_what_was_heard_is_paid_for_though_the_api_was_restarted(database, spoken_again):
    """It died in the middle of a stream; its job is spoken again for nobody, and the user cancels."""
    who = database.user(credits=1000)
    job = started(database, who, heard=True)
    database.call("renew_lease", job_id=job, lease_seconds=0, seconds=5)
    if spoken_again:
        database.call("claim_jobs", limit=1, lease_seconds=60)
        database.call("start_job", job_id=job, backend="fishserve")
    assert database.call("cancel_job", user_id=who, job_id=job)["job"]["charged"] == 50


@pytest.mark.parametrize("status", ["failed", "expired"])
def test_what_was_heard_is_paid_for_however_its_job_ends(database, status):
    who = database.user(credits=1000)
    job = started(database, who, heard=True)
    database.call("renew_lease", job_id=job, lease_seconds=60, seconds=5)
    assert database.call("refund_job", job_id=job, status=status)["balance"] == 950


# -- voices and keys -----------------------------------------------------------------------------------------------------------


def test_jobs_that_wait_for_a_voice_end_with_it(database):
    who = database.user(credits=1000)
    voice = ready_voice(database, who)
    waits, other = ask(database, who, voice_id=voice["id"])["id"], ask(database, who)["id"]
    database.call("delete_voice", user_id=who, voice_id=voice["id"])
    ended = database.call("get_job", user_id=who, job_id=waits)
    assert (ended["status"], ended["charged"], ended["error"]) == ("failed", 0, "its voice was deleted before it was spoken")
    assert database.call("get_job", user_id=who, job_id=other)["status"] == "queued"
    assert database.call("audit_ledger") == []


def test_a_job_says_that_it_named_a_voice_when_the_row_is_gone(database):
    """It was being spoken when the voice was deleted, its process died, and the sweeper has been there."""
    who = database.user(credits=1000)
    voice = ready_voice(database, who)
    job = started(database, who, voice_id=voice["id"])
    database.call("delete_voice", user_id=who, voice_id=voice["id"])
    database.sql("delete from cloned_voices; update jobs set lease_until = now() - interval '1 second'")
    (claimed,) = database.call("claim_jobs", limit=1, lease_seconds=60)
    assert (claimed["id"], claimed["voice_id"], claimed["voice"]) == (job, voice["id"], None)


def test_the_key_of_a_job_that_cost_nothing_is_free_again(database):
    who = database.user(credits=1000)
    first = ask(database, who, idempotency_key="k")
    database.call("refund_job", job_id=first["id"], status="cancelled")
    second = ask(database, who, idempotency_key="k", fingerprint="another")
    assert second["id"] != first["id"]
    assert len(database.call("list_jobs", user_id=who)) == 2


def test_the_key_of_a_job_that_cost_something_stays_its_own(database):
    who = database.user(credits=1000)
    job = started(database, who, idempotency_key="k")
    database.call("cancel_job", user_id=who, job_id=job, seconds=1)
    assert ask(database, who, idempotency_key="k")["id"] == job
    assert "another request" in refused(409, ask, database, who, idempotency_key="k", fingerprint="another")


def test_deleting_a_voice_waits_for_what_moves_credits(database):
    """First the profile, then the job: it cannot deadlock with the end of a job."""
    who = database.user(credits=1000)
    voice = ready_voice(database, who)
    ask(database, who, voice_id=voice["id"])
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.owner_url) as other:
        other.execute("select from profiles for no key update")
        working = thread.submit(database.call, "delete_voice", user_id=who, voice_id=voice["id"])
        while not database.sql("select 1 as one from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"):
            assert not working.done()
        assert len(database.sql("select 1 from jobs for update skip locked")) == 1
        other.rollback()
        working.result()


def test_a_job_that_somebody_listens_to_is_nobody_elses_from_its_first_moment(database):
    """A claim between the making and the stream had it spoken into a file, and the client heard nothing until all of it was made."""
    who = database.user(credits=1000)
    asked = {"user_id": who, "fingerprint": "f", "text": "Hello.", "token_hash": "t"}
    taken = database.call("request_speech", idempotency_key="heard", lease_seconds=60, **asked)
    assert taken["claimed"]["id"] == taken["job"]["id"]
    assert taken["claimed"]["budget_seconds"] > 0
    assert claim(database, 10) == []
    again = database.call("request_speech", idempotency_key="heard", lease_seconds=60, **asked)
    assert (again["replayed"], again["claimed"]) == (True, None)
    later = database.call("request_speech", idempotency_key="not heard", **asked)
    assert later["claimed"] is None
    assert [job["id"] for job in claim(database, 10)] == [later["job"]["id"]]


def test_who_has_as_many_running_as_may_be_is_not_claimed_for_at_once(database):
    limits(database, running=1)
    who = database.user(credits=1000)
    asked = {"user_id": who, "fingerprint": "f", "text": "Hello.", "token_hash": "t", "lease_seconds": 60}
    first, second = (database.call("request_speech", idempotency_key=key, **asked) for key in "ab")
    assert (first["claimed"] is None, second["claimed"]) == (False, None)
