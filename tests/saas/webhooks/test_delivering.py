"""Deliveries as receivers get them: real receivers on this machine, the real database, and Standard Webhooks' own verification."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from inference.http.outbound import PrivateHost, UnknownHost, public_address
from saas.postgres import PostgresDatabase
from saas.settings import Settings
from saas.webhooks import service
from saas.webhooks.service import Webhooks, new_secret
from tests.processes import Started
from tests.saas.api_harness import StandIn
from tests.saas.sql.test_life import RESULT, ask
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import ROOT


@pytest.fixture(name="database")
def _database(data):
    """The module's database, without a webhook."""
    data.sql("delete from webhook_endpoints; update settings set low_credits = 200")
    return data


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """A process looks for deliveries all the time."""
    monkeypatch.setattr(service, "POLL_SECONDS", 0.02)


@contextlib.contextmanager
def delivering(database, **settings):
    """A process's deliveries, in a thread."""
    given = {"environment": "development", "supabase_url": "http://127.0.0.1", "webhook_loopback": True} | settings
    over, loop = asyncio.Event(), asyncio.new_event_loop()

    async def deliver():
        store = PostgresDatabase(database.url)
        running = asyncio.create_task(Webhooks(Settings(**given), store).run())
        await over.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(deliver(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def hook(database, who, url, secret="whsec_" + "a" * 32):
    made = database.call("create_webhook", user_id=who, url=url, events=["job.succeeded"], secret=secret)
    return made["endpoint"]["id"]


def happen(database, who):
    job = ask(database, who, text="a secret text")["id"]
    database.call("settle_job", job_id=job, object_key=f"results/{job}", **RESULT)
    return job


def tried(database, attempts=1):
    """The deliveries, once each was tried so often."""
    rows = lambda: database.sql("select * from webhook_deliveries order by created_at")  # noqa: E731
    return wait(lambda: (found := rows()) and all(r["attempts"] >= attempts and not r["under_way"] for r in found) and found)


@pytest.fixture
def who(database):
    return database.user(credits=10_000)


def test_a_delivery_verifies_by_the_secret_and_says_what_happened(database, who):
    secrets = [new_secret(), new_secret()]
    with StandIn(lambda _: (200, b"thanks")).running() as receiver, delivering(database):
        endpoint = hook(database, who, f"{receiver.url}/hook?for=me", secrets[0])
        database.call("rotate_webhook_secret", user_id=who, endpoint_id=endpoint, secret=secrets[1])
        job = happen(database, who)
        (row,) = tried(database)
    (asked,) = receiver.asked
    assert (asked.method, asked.path, asked.headers["content-type"]) == ("POST", "/hook?for=me", "application/json")
    for secret in secrets:
        told = Verifier(secret).verify(asked.body, asked.headers)
        assert (told["type"], told["data"]["id"], told["data"]["credits"]) == ("job.succeeded", job, 15)
    with pytest.raises(WebhookVerificationError):
        Verifier(new_secret()).verify(asked.body, asked.headers)
    assert asked.headers["webhook-id"] == str(row["id"])
    assert b"secret" not in asked.body
    assert (row["outcome"], row["status"], row["error"], row["attempts"]) == ("delivered", 200, None, 1)


@pytest.mark.parametrize(
    ("answer", "headers", "error"),
    [
        ((500, b"<secrets of the receiver>"), {}, "answered 500"),
        ((404, b""), {}, "answered 404"),
        ((307, b""), {"Location": "http://127.0.0.1:1/elsewhere"}, "answered 307; redirects are not followed"),
    ],
)
def test_another_answer_is_tried_again_later(database, who, answer, headers, error):
    with StandIn(lambda _: answer, headers=headers).running() as receiver, delivering(database):
        hook(database, who, receiver.url)
        database.sql(  # so that it is not tried again by itself while this test looks
            "create or replace function fishserve.retry_pause(p_attempts integer) returns interval language sql return interval '1 hour'"
        )
        happen(database, who)
        (row,) = tried(database)
        assert (row["outcome"], row["status"], row["error"]) == (None, answer[0], error)
        assert len(receiver.asked) == 1
        receiver.answer = lambda _: (204, b"")
        database.sql("update webhook_deliveries set next_at = now()")
        (again,) = tried(database, attempts=2)
    assert (again["outcome"], again["attempts"], again["error"]) == ("delivered", 2, None)
    assert len({asked.headers["webhook-id"] for asked in receiver.asked}) == len({asked.body for asked in receiver.asked}) == 1


def test_a_receiver_that_says_nothing_holds_up_no_other(database, who, monkeypatch):
    monkeypatch.setattr(service, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent, StandIn(lambda _: (200, b"")).running() as receiver:
        hook(database, who, f"http://127.0.0.1:{silent.getsockname()[1]}")
        for _ in range(6):
            happen(database, who)
        other = database.user(credits=1000)
        hook(database, other, receiver.url)
        happen(database, other)
        with delivering(database):
            rows = tried(database)
            assert wait(lambda: database.sql("select 1 from webhook_deliveries where user_id = %s and outcome = 'delivered'", other))
    assert {row["error"] for row in rows if row["user_id"] == who} == {"no answer within 0.5 s"}


def test_of_an_answer_nothing_but_the_status_is_read(database, who):
    """This one never ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            near = listening.accept()[0]
            near.recv(65536)
            with contextlib.suppress(OSError):
                near.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
                while True:
                    near.sendall(bytes(65536))
            near.close()

        endless = threading.Thread(target=answer)
        endless.start()
        with delivering(database):
            hook(database, who, f"http://127.0.0.1:{listening.getsockname()[1]}")
            happen(database, who)
            assert tried(database)[0]["outcome"] == "delivered"
        endless.join(HANG_SECONDS)
        assert not endless.is_alive()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("https://127.0.0.1/hook", "private network"), ("https://localhost/hook", "private network"), ("https://169.254.169.254/", "private network"),
        ("https://[::ffff:10.0.0.1]/", "private network"), ("https://[fe80::1]/", "private network"), ("http://8.8.8.8/", "must be https"),
        ("https://no-such-name.invalid/", "not known"),
    ],
)  # fmt: skip
def test_an_address_that_has_become_private_is_not_asked(data, url, error):
    """It was public when the webhook was made."""
    who = data.user(credits=1000)
    data.sql("delete from webhook_endpoints")
    hook(data, who, url)
    happen(data, who)
    with delivering(data, webhook_loopback=False):
        (row,) = tried(data)
    assert error in row["error"]
    assert row["status"] is None


def test_loopback_opens_no_other_network():
    async def address(host, loopback):
        with ThreadPoolExecutor(1) as threads:
            return await public_address(host, 443, threads, loopback=loopback)

    assert asyncio.run(address("127.0.0.1", True)) == "127.0.0.1"
    for host in ("10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "fe80::1"):
        with pytest.raises(PrivateHost):
            asyncio.run(address(host, True))
    with pytest.raises(UnknownHost):
        asyncio.run(address("no-such-name.invalid", True))


DELIVER = """
import asyncio, os
from saas.postgres import PostgresDatabase
from saas.settings import Settings
from saas.webhooks.service import Webhooks
asyncio.run(Webhooks(Settings(supabase_url="http://127.0.0.1", webhook_loopback=True), PostgresDatabase(os.environ["DATABASE_URL"])).run())
"""


def test_a_process_that_is_killed_in_the_middle_delivers_again(database, who):
    came, goes_on = threading.Event(), threading.Event()

    def answer(_):
        came.set()
        goes_on.wait(HANG_SECONDS)
        return 200, b""

    with StandIn(answer).running() as receiver:
        hook(database, who, receiver.url)
        happen(database, who)
        with Started() as process:
            process.start([sys.executable, "-c", DELIVER], cwd=ROOT, env=os.environ | {"DATABASE_URL": database.url})
            assert came.wait(HANG_SECONDS)
            process.kill()
        goes_on.set()
        (row,) = database.sql("select under_way, next_at > now() as owned from webhook_deliveries")
        assert row == {"under_way": True, "owned": True}
        database.sql("update webhook_deliveries set next_at = now()")
        with delivering(database):
            (row,) = wait(lambda: database.sql("select * from webhook_deliveries where outcome = 'delivered'"))
    assert row["attempts"] == 2
    assert [asked.headers["webhook-id"] for asked in receiver.asked] == [str(row["id"])] * 2
    assert json.loads(receiver.asked[0].body) == json.loads(receiver.asked[1].body)
