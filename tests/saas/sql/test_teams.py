"""The migration of docs/decisions/teams.md on a filled database, while users sign up, speak, pay and leave: nothing is lost, and the present program goes on."""

import os
import re
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from saas import database as port
from saas import schema
from tests.saas.conftest import called
from tests.waiting import HANG_SECONDS, wait

DECISIONS = Path(__file__).parents[3] / "docs" / "decisions"
SPEECH = {"fingerprint": "f", "token_hash": "t"}
KEPT = {
    "jobs": "select id, user_id, text, status, reserved, charged, seconds, object_key from jobs where user_id = any (%s) order by id",
    "ledger": "select * from transactions where user_id = any (%s) order by id",
    "lots": "select * from credit_lots where user_id = any (%s) order by id",
    "keys": "select id, user_id, prefix, hash from api_keys where user_id = any (%s) order by id",
    "voices": "select * from cloned_voices where user_id = any (%s) order by id",
    "profiles": "select * from profiles where id = any (%s) order by id",
}
FILL = """
do $$
declare
  who uuid;
  job jsonb;
begin
  for who in select id from auth.users loop
    perform public.grant_credits(who, 100000, 'test');
    perform public.create_api_key(who, 'key', left(replace(who::text, '-', ''), 12), repeat('0', 64), array['speak']);
    perform public.create_voice(who, 'Me', 'Hello.', 'audio/wav', 5);
    for n in 1..{jobs} loop
      job := public.process_audio_request(who, 'key ' || n, 'f', 'Text number ' || n, 't') -> 'job';
      if n % 2 = 0 then perform public.settle_job((job ->> 'id')::uuid, 0.5, 10, 9, repeat('a', 64), 'results/' || (job ->> 'id')); end if;
    end loop;
  end loop;
end $$;
"""


class Traffic:
    """What users and the API do all the time, by the functions of the present program."""

    def __init__(self, database, users):
        self.database, self.users = database, users
        self.done, self.failed, self.slowest, self.settled = Counter(), [], 0.0, 0
        self.over = threading.Event()

    def call(self, connection, function, **given):
        began = time.monotonic()
        answer = called(connection, function, port.named(given))
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.done[function] += 1
        return answer

    def ask(self, connection, n):
        user = self.users[n % len(self.users)]
        self.call(connection, "process_audio_request", user_id=user, idempotency_key=uuid4().hex, text="Hello there.", **SPEECH)

    def speak(self, connection, n):
        for job in self.call(connection, "claim_jobs", limit=4, lease_seconds=30):
            result = {"seconds": 0.8, "frames": 17, "bytes": 9, "sha256": "a" * 64, "object_key": f"results/{job['id']}"}
            with suppress(port.Refused):  # its account was closed meanwhile
                self.call(connection, "start_job", job_id=job["id"], backend="fishserve")
                if n % 3 == 0:
                    self.call(connection, "refund_job", job_id=job["id"], status="failed", error="it broke")
                else:
                    self.settled += self.call(connection, "settle_job", job_id=job["id"], **result)["changed"]

    def come_and_go(self, connection, n):
        user = self.database.user(credits=500)
        self.call(connection, "process_audio_request", user_id=user, idempotency_key="first", text="Hello.", **SPEECH)
        if n % 2:
            self.call(connection, "close_account", user_id=user)

    def _repeat(self, work):
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            n = 0
            while not self.over.is_set():
                try:
                    work(connection, n)
                except Exception as e:
                    self.failed.append(f"{work.__name__}: {type(e).__name__} {e}")
                    return
                n += 1

    @contextmanager
    def running(self):
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in (self.ask, self.speak, self.come_and_go)]
        for thread in threads:
            thread.start()
        try:
            wait(lambda: self.failed or {"settle_job", "refund_job", "close_account"} <= self.done.keys())
            yield
            enough = self.done.total() + 50
            wait(lambda: self.failed or self.done.total() > enough)
        finally:
            self.over.set()
            for thread in threads:
                thread.join(HANG_SECONDS)


def expand(database):
    """As the page says."""
    (line,) = re.findall(r"^until (psql .*); do sleep 1; done$", (DECISIONS / "teams.md").read_text(encoding="utf-8"), re.MULTILINE)
    command = ["bash", "-c", f"cd {DECISIONS.parents[1]} && {line}"]

    def ran():
        done = subprocess.run(command, env=os.environ | {"DATABASE_URL": database.owner_url}, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "lock timeout" in done.stderr, done.stderr
        return done.returncode == 0

    wait(ran)


def members(database):
    return database.sql("select account_id, user_id, role from account_members order by account_id, user_id")


@pytest.mark.parametrize(("users", "jobs"), [(40, 2), pytest.param(2000, 5, marks=pytest.mark.drill)])
def test_accounts_get_members_while_jobs_are_claimed_and_charged(database, users, jobs):
    database.sql("update settings set max_waiting = null, max_running = null")
    database.sql("insert into auth.users (id, email) select gen_random_uuid(), n || '@example.com' from generate_series(1, %s) n", users)
    database.sql(FILL.format(jobs=jobs).replace("%", "%%"))
    everybody = [row["id"] for row in database.sql("select id from profiles order by id")]
    idle, busy = everybody[: users // 2], everybody[users // 2 :]
    database.sql("update jobs set turn = 1e15 where user_id = any (%s) and status = 'queued'", idle)  # others are claimed first
    database.sql("update jobs set lease_until = now() + interval '1 day' where user_id = any (%s) and status = 'queued'", idle)
    before = {name: database.sql(query, idle) for name, query in KEPT.items()}

    traffic = Traffic(database, busy)
    with traffic.running():
        began = time.monotonic()
        expand(database)
        took = time.monotonic() - began
    assert traffic.failed == []
    print(f"{users} accounts: the migration took {took:.2f} s; {traffic.done.total()} calls beside it, the slowest {traffic.slowest:.3f} s")

    assert database.call("audit_ledger") == []
    assert {name: database.sql(query, idle) for name, query in KEPT.items()} == before
    spoken = database.sql("select count(*) as n from jobs where status = 'succeeded' and object_key like 'results/%%' and frames = 17")
    assert spoken == [{"n": traffic.settled}]
    still_open = database.sql("select id from profiles where closed_at is null order by id")
    assert len(still_open) > users
    assert members(database) == [{"account_id": row["id"], "user_id": row["id"], "role": "owner"} for row in still_open]
    assert database.call("health") == {"schema_version": schema.version(), "rls_ok": True, "definer_ok": True, "unprotected": []}
    assert schema.migrate(database.owner_url) == []

    expand(database)  # twice is once
    assert len(members(database)) == len(still_open)
    check_the_present_program(database)
    check_a_team(database, everybody[:2])


def check_the_present_program(database):
    """A user's whole life, by its functions."""
    user = database.user(credits=1000)
    job = database.call("process_audio_request", user_id=user, idempotency_key="k", text="Hello.", **SPEECH)["job"]
    assert "by_user" in job  # more than it knows of, which it passes over
    claimed = database.call("claim_job", job_id=job["id"], lease_seconds=30)
    assert claimed["id"] == job["id"]
    result = {"seconds": 0.5, "frames": 10, "bytes": 9, "sha256": "a" * 64, "object_key": "results/a"}
    assert database.call("settle_job", job_id=job["id"], **result)["changed"]
    assert "account_members" in database.call("export_tables")
    assert len(database.call("export_rows", user_id=user, table="account_members")) == 1
    database.call("close_account", user_id=user)
    assert database.sql("select 1 as one from account_members where user_id = %s", user) == []


def check_a_team(database, people):
    """What the next program does: an account that is no person, which its members spend from."""
    team = uuid4()
    database.sql("insert into profiles (id, display_name) values (%s, 'A team')", team)
    database.sql("delete from account_members where account_id = %s", team)
    for person, role in zip(people, ("owner", "member"), strict=True):
        database.sql("insert into account_members (account_id, user_id, role) values (%s, %s, %s)", team, person, role)
    balances = database.sql("select id, balance from profiles where id = any (%s) order by id", people)
    database.call("grant_credits", user_id=team, credits=1000, reference="team")
    job = database.call("process_audio_request", user_id=team, idempotency_key="k", text="Hello.", **SPEECH)["job"]
    database.sql("update jobs set by_user = %s where id = %s", people[1], job["id"])
    result = {"seconds": 0.5, "frames": 10, "bytes": 9, "sha256": "a" * 64, "object_key": "results/b"}
    settled = database.call("settle_job", job_id=job["id"], **result)
    assert settled["balance"] == 1000 - settled["job"]["charged"] < 1000
    assert database.sql("select id, balance from profiles where id = any (%s) order by id", people) == balances
    assert [entry["kind"] for entry in database.call("ledger", user_id=team)] == ["settle", "reserve", "grant"]
    assert database.call("audit_ledger") == []
