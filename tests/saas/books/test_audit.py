"""`fishserve saas audit`: a sentence for each difference that was made on purpose, and none where the books agree."""

from uuid import uuid4

import pytest

from tests.saas.admin.conftest import SHA, paid, queued
from tests.saas.admin.stripe_account import StripeAccount
from tests.saas.api_harness import NOWHERE
from tests.worker.conftest import BUCKET

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way


@pytest.fixture
def data(database):
    """A database for each test: an audit looks at all of it."""
    return database


@pytest.fixture
def audit(operate):
    def audit(*arguments, **environment):
        said = operate("audit", *arguments, **environment)
        return said.code, said.out.splitlines(), said.words

    return audit


def force(data, statement):
    """A change that no function makes, past the triggers that would stop it."""
    data.sql(f"begin; set local session_replication_role = replica; {statement}; commit")


# -- the database -----------------------------------------------------------------------------------------------------------------------


def test_books_that_agree_say_so_and_what_was_not_looked_at(data, audit):
    user = data.user(100)
    queued(data, user)
    paid(data, user, "pi_1")
    code, lines, words = audit()
    assert (code, lines) == (0, [])
    assert "the books agree" in words
    assert "STRIPE_SECRET_KEY is not set" in words
    assert "the bucket was not looked at" in words


def test_each_difference_in_the_database_is_a_sentence(data, audit):
    user = data.user(100)
    job = queued(data, user)
    paid(data, user, "pi_entry", credits=50)
    paid(data, user, "pi_taken")
    with_a_wrong_sum = data.user(7)
    force(data, f"update profiles set balance = 8 where id = '{with_a_wrong_sum}'")
    force(data, f"update jobs set reserved = 1 where id = '{job}'")
    data.sql("update payments set credits = 51 where reference = 'pi_entry'")
    data.sql("update payments set taken = 9 where reference = 'pi_taken'")
    data.call("admin_begin_refund", actor="kim", reason="x", reference="pi_taken")
    force(data, "update admin_actions set at = now() - interval '2 hours'")
    code, lines, words = audit()
    said = "\n".join(lines)
    assert code == 1
    for part in (
        f"the user {with_a_wrong_sum} should have 8 credits, and the ledger has 7",
        f"the job {job} should have -1 credits",
        "the payment pi_entry bought 51 credits, and the ledger's entry of it has 50",
        "of the payment pi_taken 0 credits should be taken back, and 9 are",
        "a refund of 500 of the payment pi_taken was begun and has no outcome",
    ):
        assert part in said
    assert f"{len(lines)} differences" in words


# -- Stripe -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stripe(told):
    with StripeAccount().running() as account:
        told("STRIPE_SECRET_KEY", "sk_test_x")
        told("STRIPE_BASE_URL", account.url)
        yield account


def old(data):
    """As if all was booked hours ago."""
    data.sql("update payments set created_at = now() - interval '3 hours'")


def test_what_stripe_tells_alike_is_no_difference(data, stripe, audit):
    user = data.user()
    for payment, currency in (("pi_1", "usd"), ("pi_2", "jpy")):
        stripe.paid(payment, user, currency=currency)
        paid(data, user, payment, currency=currency)
    stripe.refunded("pi_1", 200)
    data.call("apply_stripe_event", event_id="r", type="refund.created", reference="pi_1", kind="refund", object="re_1", cents=200)
    stripe.disputes = [
        {"id": "dp_1", "object": "dispute", "status": "won", "payment_intent": "pi_2", "amount": 500},
        {"id": "dp_2", "object": "dispute", "status": "warning_closed", "payment_intent": "pi_1", "amount": 500},
    ]
    for kind in ("dispute", "reinstate"):
        data.call("apply_stripe_event", event_id=kind, type=kind, reference="pi_2", kind=kind, object="dp_1", cents=500)
    stripe.intents["pi_other"] = stripe.intents["pi_1"] | {"id": "pi_other", "metadata": {}}
    stripe.paid("pi_fresh", user, age=60)
    stripe.paid("pi_long_ago", user, age=40 * 86_400)
    paid(data, user, "pi_long_ago")
    old(data)
    assert audit()[:2] == (0, [])


def test_each_difference_from_stripe_is_a_sentence(data, stripe, audit):
    user = data.user()
    for payment in ("pi_missed", "pi_amount", "pi_refund", "pi_credits", "pi_dispute"):
        stripe.paid(payment, user)
    paid(data, user, "pi_amount", cents=400)
    paid(data, user, "pi_refund")
    paid(data, user, "pi_credits", credits=9_999)
    paid(data, user, "pi_invented")
    paid(data, user, "pi_dispute")
    stripe.refunded("pi_refund", 100)
    stripe.disputes = [{"id": "dp_1", "object": "dispute", "status": "lost", "payment_intent": "pi_dispute", "amount": 500}]
    old(data)
    code, lines, _ = audit("--days", "2")
    assert (code, sorted(lines)) == (
        1,
        [
            "Stripe has the payment pi_missed of 5.00 USD, which the books do not have: `fishserve saas reconcile` books it",
            "of the payment pi_refund 1.00 USD is refunded at Stripe, and 0.00 USD in the books",
            "the books have the payment pi_invented of 5.00 USD, which Stripe does not know",
            "the dispute dp_1 of the payment pi_dispute is lost at Stripe, and is not in the books",
            "the payment pi_amount is 5.00 USD at Stripe, and 4.00 USD in the books",
            "the payment pi_credits bought 10000 credits at Stripe, and 9999 in the books",
        ],
    )


@pytest.mark.usefixtures("stripe")
def test_a_stripe_that_does_not_answer_is_no_difference(audit):
    code, _, words = audit(STRIPE_BASE_URL=NOWHERE)
    assert (code, "Stripe does not list its payments" in words) == (2, True)


# -- the bucket -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(bucket, told, monkeypatch):
    """The bucket, empty; whatever is in it is old."""
    monkeypatch.setattr("saas.books.audit.SETTLED_HOURS", -1)
    for name, value in bucket.environment.items():
        told(name, value)

    def empty():
        for found in bucket.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            bucket.s3.delete_object(Bucket=BUCKET, Key=found["Key"])

    empty()
    yield lambda key: bucket.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    empty()


def spoken(data, user, key=None):
    job = queued(data, user)
    key = key or f"results/users/{user}/jobs/{job}.mp3"
    data.call("settle_job", job_id=job, seconds=1, frames=21, bytes=1, sha256=SHA, object_key=key)
    return key


def test_orphans_and_missing_objects_are_found_and_nothing_else(data, store, audit, monkeypatch):
    monkeypatch.setattr("saas.books.audit._PAGE", 2)
    user = data.user(10_000)
    results = [spoken(data, user) for _ in range(7)]
    voice = data.call("create_voice", user_id=user, name="v", transcript="", content_type="audio/wav", bytes=1)["voice"]
    data.call("confirm_voice", user_id=user, voice_id=voice["id"], seconds=1, sha256=SHA)
    data.call("create_voice", user_id=user, name="pending", transcript="", content_type="audio/wav", bytes=1)
    for key in [*results, f"{results[3]}.captions", voice["object_key"], "uploads/voices/x", "started"]:
        store(key)
    code, lines, words = audit()
    assert (code, lines, "the books agree" in words) == (0, [], True)
    gone = spoken(data, user)
    data.call("delete_job", user_id=user, job_id=gone.rpartition("/")[2].split(".")[0])  # on the list of objects to delete
    store(gone)
    orphans = [f"results/users/{user}/jobs/{uuid4()}.wav", f"voices/{user}/{uuid4()}"]
    missing = [spoken(data, user) for _ in range(2)]
    for key in orphans:
        store(key)
    code, lines, _ = audit()
    assert code == 1
    assert set(lines) == {f"the bucket has the object {key}, which no job and no voice has" for key in orphans} | {
        f"the bucket lacks the object {key}, which a job has" for key in missing
    }


def test_an_object_of_a_job_that_may_still_end_is_no_orphan(store, audit, monkeypatch):
    store(f"results/users/{uuid4()}/jobs/{uuid4()}.mp3")
    assert audit()[0] == 1
    monkeypatch.setattr("saas.books.audit.SETTLED_HOURS", 3)
    assert audit()[0] == 0


@pytest.mark.usefixtures("store")
def test_a_bucket_that_refuses_is_no_difference(audit):
    code, lines, words = audit(R2_SECRET_ACCESS_KEY="wrong")
    assert (code, lines, "the bucket refused" in words) == (2, [], True)
