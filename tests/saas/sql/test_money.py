"""Whatever happens to credits, in whatever order and however often: the ledger is the balance, nothing is negative, a reservation ends once."""

import math
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from saas.database import DatabaseError, Refused, named
from tests.saas.conftest import called
from tests.saas.sql.credit_model import PAID, Account, Job, estimate, price
from tests.waiting import HANG_SECONDS

CENTS = st.sampled_from([125, 250, 499, 500])
RETURNS = st.sampled_from(["1", "2"])
PACK, INVOICE, PAYMENT = st.integers(0, 1), st.integers(2, 3), st.integers(0, 3)
DAYS = st.sampled_from([1, 3, math.inf])
KEYS = st.sampled_from("abcd")
SECONDS = st.sampled_from([0, 0.5, 1.501, 2, 60])
RUNNING = 2


class Money(RuleBasedStateMachine):
    """One class, since the rules of a state machine of Hypothesis are methods of one."""

    connection: psycopg.Connection

    @initialize()
    def somebody_signs_up(self):
        self.account = Account(str(uuid4()))
        self.connection.execute("insert into auth.users (id) values (%s)", [self.account.id])
        self.connection.execute(f"update settings set max_running = {RUNNING}".encode())
        plan = f"insert into plans (id, name, stripe_price, amount_cents, credits, grace_days) values ('m', 'M', 'price', {PAID}, 100, 0)"
        self.connection.execute(f"{plan} on conflict do nothing".encode())
        self.events = []

    def call(self, function, **arguments):
        return called(self.connection, function, named(arguments))

    def day(self, days):
        return None if days == math.inf else datetime.now(UTC) + timedelta(days=days)

    @rule(credits=st.integers(1, 60), days=DAYS)
    def grant(self, credits, days):
        account = self.account
        answer = self.call("grant_credits", user_id=account.id, credits=credits, reference=str(uuid4()), expires_at=self.day(days))
        account.given += credits
        account.bring(credits, account.lot(days, bought=False))
        assert answer["applied"]

    @rule(sweep=st.booleans())
    def a_day_passes(self, sweep):
        """The sweeper comes by, or whatever asks for the credits next finds that they are over."""
        self.connection.execute("update credit_lots set expires_at = expires_at - interval '1 day' where user_id = %s", [self.account.id])
        for lot in self.account.lots:
            lot.days -= 1
        self.account.expire()
        if sweep:
            self.call("expire_credits")

    @rule(credits=st.integers(1, 60))
    def take(self, credits):
        account = self.account
        enough = account.balance >= credits
        try:
            self.call("grant_credits", user_id=account.id, credits=-credits, reference=str(uuid4()), kind="adjust")
        except Refused as e:
            assert (e.status, enough) == (402, False)
        else:
            assert enough
            account.given -= credits
            account.draw(credits)

    @rule(key=KEYS, text=st.sampled_from(["Hi.", "x" * 30, "y" * 60]))
    def reserve(self, key, text):
        account = self.account
        known, need, balance = account.jobs.get(key), estimate(text), account.balance
        if known and known.charged == 0:  # it ended without a cost: the key is free
            known = None
        asked = {"user_id": account.id, "idempotency_key": key, "fingerprint": text, "text": text, "token_hash": "t"}
        try:
            answer = self.call("process_audio_request", **asked)
        except Refused as e:
            assert e.status == (409 if known else 402)
            assert known.fingerprint != text if known else balance < need
            return
        assert answer["replayed"] == (known is not None)
        if known is None:
            assert balance >= need
            assert answer["job"]["reserved"] == need
            account.jobs[key] = Job(answer["job"]["id"], text, need, account.draw(need))
        else:
            assert (answer["job"]["id"], known.fingerprint) == (known.id, text)

    @rule(key=KEYS, seconds=SECONDS)
    def settle(self, key, seconds):
        """By a result, its webhook, the webhook again, or the webhook of a job that was swept long ago."""
        if job := self.account.jobs.get(key):
            asked = {"seconds": seconds, "frames": 1, "bytes": 1, "sha256": "s", "object_key": f"results/{job.id}"}
            answer = self.call("settle_job", job_id=job.id, **asked)
            assert answer["changed"] == (job.charged is None)
            self.account.end(job, min(job.reserved, price(max(seconds, job.heard))))
            assert answer["job"]["charged"] == job.charged

    @rule(key=KEYS, status=st.sampled_from(["failed", "cancelled", "expired"]), heard=SECONDS)
    def refund(self, key, status, heard):
        """A backend that gives up, perhaps in the middle of a stream; a client that leaves; a process that gives up."""
        if job := self.account.jobs.get(key):
            answer = self.call("refund_job", job_id=job.id, status=status, seconds=heard)
            assert answer["changed"] == (job.charged is None)
            self.account.end(job, job.cost(max(job.heard, heard)))
            assert answer["job"]["charged"] == job.charged

    @rule(key=KEYS, heard=st.booleans())
    def speak(self, key, heard):
        """As a stream or as a file, for the first time or after its process died."""
        if job := self.account.jobs.get(key):
            under_way = sum(other.charged is None and (other.running or other.leased) for other in self.account.jobs.values())
            claimed = self.call("claim_job", job_id=job.id, lease_seconds=600)
            assert (claimed is not None) == (job.charged is None and not job.leased and (job.running or under_way < RUNNING))
            if claimed:
                self.call("start_job", job_id=job.id, backend="fishserve", heard=heard)
                job.running, job.leased, job.listening, job.made = True, True, heard, 0

    @rule(key=KEYS, seconds=SECONDS)
    def tell(self, key, seconds):
        """The process that speaks it tells how much is made."""
        if (job := self.account.jobs.get(key)) and job.charged is None and job.leased:
            assert self.call("renew_lease", job_id=job.id, lease_seconds=600, seconds=seconds)["renewed"]
            job.made = max(job.made, seconds)
            job.heard = max(job.heard, seconds) if job.listening else job.heard

    @rule(key=KEYS)
    def die(self, key):
        if (job := self.account.jobs.get(key)) and job.charged is None and job.leased:
            self.connection.execute("update jobs set lease_until = now() - interval '1 second' where id = %s", [job.id])
            job.leased = False

    @rule(key=KEYS, seconds=SECONDS)
    def cancel(self, key, seconds):
        if job := self.account.jobs.get(key):
            listening = job.charged is None and job.leased and job.listening
            try:
                answer = self.call("cancel_job", user_id=self.account.id, job_id=job.id, seconds=seconds)
            except Refused as e:
                assert (e.status, listening) == (409, True)
                return
            assert not listening
            self.account.end(job, job.cost(max(job.heard, seconds * job.running, job.made * job.leased)))
            assert answer["job"]["charged"] == job.charged

    @rule()
    def sweep(self):
        jobs = {job.id: job for job in self.account.jobs.values()}
        swept = [job["id"] for job in self.call("expire_reservations", older_than_seconds=-1) if job["id"] in jobs]
        assert set(swept) == {job.id for job in jobs.values() if job.charged is None and not job.leased}
        for job in swept:
            self.account.end(jobs[job], jobs[job].cost(jobs[job].heard))

    def happen(self, function, **told):
        event = {"event_id": f"evt_{uuid4()}", "type": function, **told}
        self.events.append((function, event))
        assert self.call(function, **event)["applied"]

    def name(self, which):
        return f"pi_{self.account.id}_{which}"

    def paid(self, which, kind, **told):
        self.happen("apply_stripe_event", reference=self.name(which), kind=kind, **told)

    @rule(which=PACK, credits=st.integers(1, 100))
    def purchase(self, which, credits):
        payment = self.account.payments[which]
        self.paid(which, "purchase", user_id=self.account.id, credits=payment.credits or credits, cents=PAID, currency="usd")
        if payment.credits is None:
            payment.credits, payment.lot = credits, self.account.lot(math.inf, bought=True)
            self.account.bring(credits, payment.lot)
        self.account.take_back(payment)

    @rule(which=INVOICE, cents=st.sampled_from([PAID, 250, 0, -250]), days=DAYS)
    def invoice_is_paid(self, which, cents, days):
        """A period, part of one, nothing, or a change to a smaller plan."""
        account, payment = self.account, self.account.payments[which]
        lines = [{"price": "price", "amount": cents, "ends_at": self.day(days) and self.day(days).isoformat()}]
        told = {"user_id": account.id, "cents": PAID, "currency": "usd", "lines": {"data": lines}}
        self.happen("apply_invoice_event", invoice=f"in_{self.name(which)}", **told)
        if payment.credits is None:
            payment.credits = 100 * cents // PAID
            if payment.credits > 0:
                payment.lot = account.lot(days, bought=False)
                account.bring(payment.credits, payment.lot)
            else:
                account.take(-payment.credits)
        account.take_back(payment)

    @rule(which=INVOICE)
    def payment_of_the_invoice_is_told(self, which):
        self.happen("apply_invoice_event", invoice=f"in_{self.name(which)}", payment=self.name(which))
        self.account.payments[which].known = True
        self.account.take_back(self.account.payments[which])

    @rule(which=PAYMENT, cents=CENTS)
    def money_goes_back(self, which, cents):
        self.paid(which, "refund", cents=cents)
        payment = self.account.payments[which]
        payment.stated = max(payment.stated, cents)
        self.account.take_back(payment)

    @rule(which=PAYMENT, name=RETURNS, cents=CENTS, kind=st.sampled_from(["refund", "refund_failed", "dispute", "reinstate"]))
    def part_goes_back_or_comes_again(self, which, name, cents, kind):
        payment = self.account.payments[which]
        known = payment.refunds if kind.startswith("refund") else payment.disputes
        cents, undone = known.get(name, (cents, False))  # a refund's amount never changes
        known[name] = cents, undone or kind in ("refund_failed", "reinstate")
        self.paid(which, kind, cents=cents, object=f"{'re' if kind.startswith('refund') else 'dp'}_{self.account.id}_{which}_{name}")
        self.account.take_back(payment)

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def event_comes_again(self, data):
        function, event = data.draw(st.sampled_from(self.events))
        assert not self.call(function, **event)["applied"]

    @invariant()
    def the_balance_is_what_happened(self):
        account = self.account
        balance, debt, ledger, over = self.connection.execute(
            "select balance, debt, (select coalesce(sum(amount), 0) from transactions where user_id = p.id), (select coalesce(sum(remaining), 0)"
            " from credit_lots where user_id = p.id and expires_at <= now()) from profiles p where id = %s",
            [account.id],
        ).fetchone()
        assert ledger == balance
        assert (balance - over, debt) == (account.balance, account.debt)
        assert account.worth == account.balance - account.debt

    def teardown(self):
        assert self.call("audit_ledger") == []


@pytest.mark.parametrize("examples", [80, pytest.param(2500, marks=pytest.mark.drill)])
def test_any_order_of_anything(database, examples):
    with psycopg.connect(database.owner_url, autocommit=True) as connection:
        machine = type("MoneyHere", (Money,), {"connection": connection})
        run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40))


def test_everything_at_once(database):
    """Eight connections do what they like to two accounts, and the only refusals are a rule's."""
    people = [database.user(credits=300) for _ in range(2)]

    def live(seed):
        chance, seen = random.Random(seed), Counter()
        with psycopg.connect(database.url, autocommit=True) as connection:

            def call(function, **arguments):
                try:
                    return called(connection, function, named(arguments))
                except DatabaseError as e:
                    seen[getattr(e, "status", repr(e))] += 1

            for step in range(40):
                who, key = chance.choice(people), f"key {step % 20}"
                made = call("process_audio_request", user_id=who, idempotency_key=key, fingerprint="f", text="Hi.", token_hash="t")
                call("claim_jobs", limit=2, lease_seconds=0)
                if made:
                    end = chance.choice(["settle_job", "refund_job"])
                    result = {"seconds": 1, "frames": 1, "bytes": 1, "sha256": "s", "object_key": made["job"]["id"]}
                    call(end, job_id=made["job"]["id"], **(result if end == "settle_job" else {"status": "failed"}))
                if step % 10 == 0:
                    call("expire_reservations", older_than_seconds=0)
                    call("objects_to_delete")
                reference, kind = f"pi_{who}_{step % 5}", chance.choice(["purchase", "refund", "dispute", "reinstate"])
                call("apply_stripe_event", event_id=f"evt_{step}", type=kind, user_id=who, credits=20, reference=reference, kind=kind)
        return seen

    with ThreadPoolExecutor(8) as threads:
        seen = sum(threads.map(live, range(8)), Counter())
    assert set(seen) <= {402}
    assert database.call("audit_ledger") == []


LOCKS = {  # what moves credits, the row that it waits for, and the row that it must not have locked by then
    "settle_job": ({"job_id": "job", "seconds": 1, "frames": 1, "bytes": 1, "sha256": "s", "object_key": "k"}, "profiles", "jobs"),
    "refund_job": ({"job_id": "job", "status": "failed"}, "profiles", "jobs"),
    "cancel_job": ({"user_id": "who", "job_id": "job"}, "profiles", "jobs"),
    "expire_reservations": ({"older_than_seconds": -1}, "profiles", "jobs"),
    "close_account": ({"user_id": "who"}, "payments", "profiles"),
    "apply_invoice_event": ({"event_id": "2", "type": "t", "invoice": "in"}, "invoices", "profiles"),
    "apply_stripe_event": ({"event_id": "2", "type": "refund", "reference": "pi", "kind": "refund"}, "payments", "profiles"),
}


@pytest.mark.parametrize("function", LOCKS)
def test_locks_are_taken_in_one_order_so_that_nothing_deadlocks(database, function):
    """First the payment, then the profile, then the job."""
    arguments, first, second = LOCKS[function]
    wait_for_locks_without_limit(database)
    who = database.user()
    database.call("apply_stripe_event", event_id="1", type="t", user_id=who, credits=100, reference="pi", kind="purchase")
    database.call("apply_invoice_event", event_id="0", type="t", invoice="in")
    asked = {"user_id": who, "idempotency_key": "k", "fingerprint": "f", "text": "Hi.", "token_hash": "t"}
    ids = {"who": who, "job": database.call("process_audio_request", **asked)["job"]["id"]}
    arguments = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.owner_url) as other:
        other.execute(f"select from {first} for no key update")
        working = thread.submit(database.call, function, **arguments)
        wait_until_it_waits(database, working)
        assert len(database.sql(f"select 1 from {second} for update skip locked")) == 1
        other.rollback()
        working.result(timeout=HANG_SECONDS)
    assert database.call("audit_ledger") == []


def wait_for_locks_without_limit(database):
    """The sweeper gives up after half a second, in which a busy machine may not have looked at it once."""
    database.sql("alter function expire_reservations(numeric) set lock_timeout = 0")


def wait_until_it_waits(database, working):
    waiting = "select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    while not database.sql(waiting)[0]["n"]:
        assert not working.done()


def test_the_sweeper_leaves_what_was_leased_while_it_waited(database):
    wait_for_locks_without_limit(database)
    who = database.user(credits=100)
    asked = {"user_id": who, "idempotency_key": "k", "fingerprint": "f", "text": "Hi.", "token_hash": "t"}
    job = database.call("process_audio_request", **asked)["job"]["id"]
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database.owner_url) as other:
        other.execute("select from profiles for no key update")
        sweeping = thread.submit(database.call, "expire_reservations", older_than_seconds=0)
        wait_until_it_waits(database, sweeping)
        assert database.call("claim_job", job_id=job, lease_seconds=60)
        other.rollback()
        assert sweeping.result(timeout=HANG_SECONDS) == []


def test_a_purchase_is_credited_once_whichever_event_tells_of_it(database):
    who = database.user()
    for event in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        database.call("apply_stripe_event", event_id=event, type=event, user_id=who, credits=100, reference="pi", kind="purchase")
    assert database.call("get_profile", user_id=who)["balance"] == 100


def test_what_was_spent_before_a_refund_is_owed_and_repaid_first(database):
    who = database.user()
    buy = {"type": "checkout.session.completed", "user_id": who, "kind": "purchase"}
    database.call("apply_stripe_event", event_id="1", credits=100, reference="pi_1", **buy)
    database.call("grant_credits", user_id=who, credits=-70, reference="spent", kind="adjust")
    database.call("apply_stripe_event", event_id="2", type="charge.refunded", reference="pi_1", kind="refund")
    assert database.call("get_profile", user_id=who) | {"balance": 0, "debt": 70} == database.call("get_profile", user_id=who)
    database.call("apply_stripe_event", event_id="3", credits=200, reference="pi_2", **buy)
    assert database.call("get_profile", user_id=who) | {"balance": 130, "debt": 0} == database.call("get_profile", user_id=who)


def test_a_refund_that_comes_before_its_purchase_waits_for_it(database):
    who = database.user()
    early = database.call("apply_stripe_event", event_id="1", type="charge.refunded", reference="pi", kind="refund", cents=50)
    assert early == {"applied": True, "balance": None, "closed": False}
    late = database.call(
        "apply_stripe_event", event_id="2", type="checkout", user_id=who, credits=101, reference="pi", kind="purchase", cents=100
    )
    assert late == {"applied": True, "balance": 50, "closed": False}


def test_an_event_is_not_remembered_when_it_could_not_be_applied(database):
    event = {"event_id": "1", "type": "checkout", "credits": 100, "reference": "pi", "kind": "purchase"}
    with pytest.raises(Refused, match="no user has the id"):
        database.call("apply_stripe_event", user_id=uuid4(), **event)
    who = database.user()
    assert database.call("apply_stripe_event", user_id=who, **event)["balance"] == 100


@pytest.mark.parametrize(
    ("text", "speed", "credits"),
    [("Hi.", 1, 13), ("x" * 130, 1, 135), ("x" * 130, 0.5, 270), ("x" * 130, 2, 135), ("x" * 131, 1, 136), ("你" * 13, 1, 48), ("カ" * 13, 1, 48), ("가" * 13, 1, 48), ("é" * 130, 1, 135)],
)  # fmt: skip
def test_what_a_text_is_estimated_at_is_what_it_reserves(database, text, speed, credits):
    who = database.user(credits=1000)
    assert database.call("estimate_credits", text=text, speed=speed)["credits"] == credits
    made = database.call(
        "process_audio_request", user_id=who, idempotency_key="k", fingerprint="f", text=text, token_hash="t", options={"speed": speed}
    )
    assert (made["job"]["reserved"], made["balance"]) == (credits, 1000 - credits)
