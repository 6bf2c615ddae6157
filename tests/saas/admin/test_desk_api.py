"""/api/admin: operators find what the desk's commands find, each act is recorded with their address, and nobody else finds anything."""

import json
import time
from uuid import uuid4

import pytest

from tests.saas.admin.conftest import acts, paid, queued
from tests.saas.admin.stripe_account import StripeAccount
from tests.saas.api_harness import running

TEXT = "A text that is nobody's business."
WHY = {"reason": "ticket 17"}
NOBODY = "00000000-0000-4000-8000-000000000000"
OFTEN = {"sensitive_per_minute": 10**6, "requests_per_minute": 10**6}
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way


@pytest.fixture(scope="module")
def stripe():
    with StripeAccount().running() as account:
        yield account


@pytest.fixture(scope="module")
def api(data, stripe):
    data.sql(  # jobs wait: were they claimed in the middle of a test, they would be other jobs than it made
        "create or replace function public.claim_jobs(p_limit integer, p_lease_seconds numeric) returns jsonb language sql as $$ select '[]'::jsonb $$"
    )
    secrets = {"stripe_secret_key": "sk_test_x", "stripe_webhook_secret": "whsec_x", "stripe_base_url": stripe.url}
    with running(data, operator_role="operator", **secrets, **OFTEN) as api:
        yield api


def token(api, minutes=0, **changed):
    """An operator's, who gave the password so many minutes ago; the token itself is new."""
    now = int(time.time())
    claims = {
        "email": "kim@example.com", "app_metadata": {"role": "operator"}, "iat": now,
        "amr": [{"method": "password", "timestamp": now - 60 * minutes}],
    } | changed  # fmt: skip
    return api.issuer.token(uuid4(), **claims)


@pytest.fixture(scope="module")
def kim(api):
    with api.with_key(token(api)) as client:
        yield client


@pytest.fixture
def anna(data):
    return data.user(1000)


def told(answer, status=200):
    assert answer.status_code == status, answer.text
    return answer.json() if status == 200 else answer.json()["error"]["message"]


def balance(data, user):
    return data.sql("select balance from profiles where id = %s", user)[0]["balance"]


# -- who may --------------------------------------------------------------------------------------------------------------------------------

ASKED = [
    ("GET", "/api/admin", None), ("GET", "/api/admin/users", None), ("GET", "/api/admin/ledger?limit=none", None), ("PUT", "/api/admin/users", None),
    ("POST", f"/api/admin/users/{NOBODY}/grant", b'{"credits": 5, "reason": "x"}'), ("POST", "/api/admin/prices", b"{"), ("GET", "/api/admin/jobs/x", None),
]  # fmt: skip


def test_to_anybody_but_an_operator_the_desk_is_not_there(api, data):
    user = data.user()
    theirs = {
        "nobody's": "", "a user's": api.issuer.token(user), "one of another role": token(api, app_metadata={"role": "support"}),
        "one who says so": token(api, app_metadata={}, user_metadata={"role": "operator"}), "a role of Postgres": token(api, role="operator"),
        "a strange one": token(api, app_metadata={"role": ["operator"]}), "no object": token(api, app_metadata="operator"),
        "one that ended": api.issuer.token(user, exp=1), "no token": "x.y.z", "a key": api.new_key(user),
    }  # fmt: skip
    for whose, key in theirs.items():
        with api.with_key(key or "x") as client:
            if not key:
                client.headers.pop("authorization")
            for method, path, body in ASKED:
                nothing = client.request(method, "/api/nothing", content=body)
                there = client.request(method, path, content=body)
                assert (there.status_code, there.json()) == (nothing.status_code, nothing.json()) == (404, nothing.json()), (whose, path)
                assert set(there.headers) == set(nothing.headers), (whose, path)


def test_it_is_off_unless_a_role_is_set_and_acts_are_limited(data):
    with running(data) as api, api.with_key(token(api, app_metadata={"role": ""})) as client:
        assert client.get("/api/admin").status_code == 404
        assert not any("admin" in path for path in client.get("/openapi.json").json()["paths"])
    with (
        running(data, operator_role="boss", sensitive_per_minute=1) as api,
        api.with_key(token(api, app_metadata={"role": "boss"})) as boss,
    ):
        assert told(boss.get("/api/admin")) == {"operator": "kim@example.com"}
        user = data.user()
        assert boss.post(f"/api/admin/users/{user}/suspend", json=WHY).status_code == 200
        assert boss.post(f"/api/admin/users/{user}/unsuspend", json=WHY).json()["error"]["code"] == "rate_limited"


def test_an_operators_expired_session_is_told_so_that_the_app_renews_it(api):
    with api.with_key(token(api, exp=1)) as client:
        assert client.get("/api/admin").json()["error"]["code"] == "session_expired"


def money(user, job, payment):
    return {
        f"/api/admin/users/{user}/grant": {"credits": 5}, f"/api/admin/users/{user}/take": {"credits": 5}, f"/api/admin/users/{user}/plan": {"plan": "free"},
        f"/api/admin/jobs/{job}/cancel": {}, f"/api/admin/jobs/{job}/retry": {}, f"/api/admin/payments/{payment}/refund": {},
        "/api/admin/prices": {"credits_per_second": 3},
    }  # fmt: skip


STALE = {
    "11 minutes ago": {"minutes": 11}, "only renewed": {"amr": [{"method": "token_refresh", "timestamp": 2**31}]}, "no time": {"amr": ["password"]},
    "nothing of it": {"amr": None}, "another shape": {"amr": {"timestamp": 2**31}}, "words": {"amr": [{"method": "password", "timestamp": "now"}]},
}  # fmt: skip


def test_what_moves_money_needs_a_password_of_the_last_minutes(api, data, anna):
    payment, before = f"pi_{uuid4().hex}", len(data.sql("select 1 from admin_actions"))
    paid(data, anna, payment)
    job = queued(data, anna)
    for when, stale in STALE.items():
        with api.with_key(token(api, **stale)) as client:
            for path, body in money(anna, job, payment).items():
                answer = client.post(path, json=WHY | body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "sign_in_again"), (when, path)
            said = answer.json()["error"]["message"]
            assert ("you signed in 11 minutes ago" if "minutes" in stale else "that this session does not tell") in said
    assert len(data.sql("select 1 from admin_actions")) == before
    with api.with_key(token(api, minutes=11)) as client:
        assert client.get(f"/api/admin/account?who={anna}").status_code == 200
        assert client.post(f"/api/admin/users/{anna}/suspend", json=WHY).status_code == 200
    with api.with_key(
        token(api, amr=[{"method": "password", "timestamp": 1}, {"method": "totp", "timestamp": int(time.time())}])
    ) as client:
        assert client.post(f"/api/admin/users/{anna}/take", json=WHY | {"credits": 5}).status_code == 200


# -- looks ------------------------------------------------------------------------------------------------------------------------------------


def test_each_look_shows_what_is_there_and_no_text(data, kim, anna):
    payment, prefix = f"pi_{uuid4().hex}", anna.hex[:12]
    paid(data, anna, payment)
    job, email = queued(data, anna, TEXT), f"{anna.hex}@example.com"
    data.call("create_api_key", user_id=anna, name="k", prefix=prefix, hash="0" * 64, scopes=["speak"])
    data.call("admin_grant", actor="lee", reason="x", user_id=anna, credits=1, reference="a")
    answers = {}

    def look(path):
        answers[path] = kim.get(f"/api/admin/{path}")
        return told(answers[path])

    for who in (str(anna), email, payment, job, prefix):
        found = look(f"account?who={who}")
        assert (found["user"]["id"], found["user"]["jobs"], [k["prefix"] for k in found["keys"]]) == (str(anna), {"queued": 1}, [prefix])
        assert [user["id"] for user in look(f"users?search={who}")] == [str(anna)]
    assert {row["user_id"] for path in ("ledger", "jobs", "payments", "actions") for row in look(f"{path}?user_id={anna}")} == {str(anna)}
    first, *rest = look(f"ledger?user_id={anna}")
    assert look(f"ledger?user_id={anna}&before={first['id']}") == rest
    assert look(f"jobs?user_id={anna}&status=failed") == look(f"jobs?user_id={anna}&before=2020-01-01T00:00:00Z") == []
    assert look(f"jobs/{job}")["ledger"][0]["kind"] == "reserve"
    (open_jobs,) = [user["waiting"] + user["running"] for user in look("queue")["users"] if user["user_id"] == str(anna)]
    assert (look("revenue")[0]["currency"], open_jobs, look("workers")["backend"]["backend"]) == ("usd", 1, "fishserve")
    assert ({plan["id"] for plan in look("prices")["plans"]}, look("prices")["prices"][0]["active"]) == ({"free"}, True)
    assert look(f"actions?target={anna}")[0]["actor"] == "lee"
    for path, answer in answers.items():
        assert TEXT not in answer.text, path
        assert "0" * 64 not in answer.text, path


# -- acts -------------------------------------------------------------------------------------------------------------------------------------


def test_each_act_is_a_row_with_the_operators_address_and_reason(data, kim, anna):
    data.sql("insert into plans (id, name) values ('studio', 'Studio')")
    key = data.call("create_api_key", user_id=anna, name="k", prefix=anna.hex[:12], hash="0" * 64, scopes=["speak"])["key"]["id"]

    def act(path, **body):
        return told(kim.post(f"/api/admin/{path}", json=WHY | body))

    assert act(f"users/{anna}/grant", credits=50, reference="once") == {"balance": 1050, "applied": True}
    assert act(f"users/{anna}/grant", credits=50, reference="once") == {"balance": 1050, "applied": False}
    assert act(f"users/{anna}/take", credits=30) == {"balance": 1020, "applied": True}
    assert act(f"users/{anna}/plan", plan="studio") == {"plan": "studio", "before": "free"}
    assert act(f"users/{anna}/revoke-keys", key_id=key) == {"revoked": [anna.hex[:12]]}
    job = queued(data, anna, TEXT)
    assert act(f"jobs/{job}/cancel")["job"]["status"] == "cancelled"
    again = act(f"jobs/{job}/retry")
    assert (again["job"]["status"], again["balance"]) == ("queued", 1020 - again["job"]["reserved"])
    assert act(f"users/{anna}/suspend", days=7)["ended_jobs"] == 1
    assert act(f"users/{anna}/unsuspend") == {"user_id": str(anna)}
    rows = acts(data, anna) + acts(data, job)
    assert [row["action"] for row in rows] == [
        "grant",
        "take",
        "set plan",
        "revoke keys",
        "suspend",
        "unsuspend",
        "cancel job",
        "retry job",
    ]
    assert {(row["actor"], row["reason"]) for row in rows} == {("kim@example.com", "ticket 17")}
    assert (balance(data, anna), data.call("audit_ledger")) == (1020, [])
    old = told(kim.get("/api/admin/prices"))["prices"][0]
    new = act("prices", credits_per_second=12.5, minimum=7)["price"]
    assert (new["credits_per_second"], new["minimum"], new["name"]) == (12.5, 7, old["name"])
    assert [row["actor"] for row in acts(data, new["id"])] == ["kim@example.com"]
    act("prices", credits_per_second=old["credits_per_second"], minimum=old["minimum"])


def test_an_operator_without_a_short_address_is_named_by_the_id(api, data, anna):
    for email in (None, f"{'k' * 90}@example.com"):
        with api.with_key(token(api, email=email)) as client:
            named = told(client.get("/api/admin"))["operator"]
            told(client.post(f"/api/admin/users/{anna}/grant", json=WHY | {"credits": 1}))
            assert (len(named), acts(data, anna)[-1]["actor"]) == (36, named)


def test_a_refund_moves_money_and_credits_once(data, kim, stripe, anna):
    payment = f"pi_{uuid4().hex}"
    paid(data, anna, payment)
    stripe.paid(payment, anna)
    path = f"/api/admin/payments/{payment}/refund"
    part = WHY | {"cents": 200, "returned_cents": 0}
    done = told(kim.post(path, json=part))
    assert (done["cents"], done["currency"], done["credits"], done["balance"]) == (200, "usd", 4000, 7000)
    assert told(kim.post(path, json=part), 409).startswith(f"200 of the payment {payment} have gone back by now, not 0")
    stripe.lost = True
    assert "ask for the same refund again" in told(kim.post(path, json=WHY | {"returned_cents": 200}), 503)
    stripe.lost = False
    assert told(kim.post(path, json=WHY | {"returned_cents": 200}))["balance"] == 1000
    assert [refund["amount"] for refund in stripe.refunds if refund["payment_intent"] == payment] == [200, 300]
    assert [(row["action"], row["actor"]) for row in acts(data, payment)] == [
        ("refund", "kim@example.com"),
        ("refund booked", "kim@example.com"),
    ] * 2
    assert data.call("audit_payments") == data.call("audit_ledger") == []


def test_a_refund_that_stripe_refuses_or_nobody_can_make_is_told(data, kim, stripe, anna):
    payment = f"pi_{uuid4().hex}"
    paid(data, anna, payment)
    stripe.fails = (400, {"error": {"type": "invalid_request_error", "message": "Charge has been disputed."}})
    assert told(kim.post(f"/api/admin/payments/{payment}/refund", json=WHY), 409) == "Stripe refused the refund: Charge has been disputed."
    stripe.fails = None
    assert [row["action"] for row in acts(data, payment)] == ["refund", "refund refused"]
    with running(data, operator_role="operator") as api, api.with_key(token(api)) as client:
        assert "STRIPE_SECRET_KEY is not set" in told(client.post(f"/api/admin/payments/{payment}/refund", json=WHY), 409)


# -- what is wrong ----------------------------------------------------------------------------------------------------------------------------

WRONG = [
    ("users/ANNA/grant", {"credits": 5}, 400, "reason"), ("users/ANNA/grant", {"credits": 5, "reason": "  "}, 400, "reason"),
    ("users/ANNA/grant", {"credits": 5, "reason": "x" * 501}, 400, "reason"), ("users/ANNA/grant", {"credits": 5, "reason": "a\nb"}, 400, "reason"),
    ("users/ANNA/grant", {"credits": 0} | WHY, 400, "credits"), ("users/ANNA/grant", {"credits": "many"} | WHY, 400, "credits"),
    ("users/ANNA/grant", {"credits": 10**13} | WHY, 400, "credits"), ("users/ANNA/grant", {"credits": 5, "user": "x"} | WHY, 400, "user"),
    ("users/ANNA/grant", {"credits": 5, "reason": "\ud800"}, 400, "reason"), ("users/x/grant", {"credits": 5} | WHY, 400, "user_id"),
    (f"users/{NOBODY}/grant", {"credits": 5} | WHY, 404, NOBODY), ("users/ANNA/take", {"credits": 1001} | WHY, 402, "1001 cannot be taken"),
    ("users/ANNA/plan", {"plan": "gold"} | WHY, 404, "there is no plan gold"), ("users/ANNA/plan", {"plan": "free"} | WHY, 409, "has the plan free"),
    ("users/ANNA/plan", WHY, 400, "plan"), ("users/ANNA/suspend", {"days": 0} | WHY, 400, "days"), ("users/ANNA/unsuspend", WHY, 409, "is not suspended"),
    ("users/ANNA/revoke-keys", WHY, 404, "no key that is good"), ("users/ANNA/revoke-keys", {"key_id": "x"} | WHY, 400, "key_id"),
    ("users/GONE/grant", {"credits": 5} | WHY, 409, "was closed on"), ("users/GONE/plan", {"plan": "free"} | WHY, 409, "was closed on"),
    (f"jobs/{NOBODY}/cancel", WHY, 404, NOBODY), ("jobs/x/cancel", WHY, 400, "job_id"), ("jobs/DONE/cancel", WHY, 409, "is over: cancelled"),
    (f"jobs/{NOBODY}/retry", WHY, 404, NOBODY), ("jobs/OPEN/retry", WHY, 409, "only one that failed"), ("jobs/POOR/retry", WHY, 409, "the job's user is refused it"),
    ("payments/pi_none/refund", WHY, 404, "pi_none"), ("payments/pi%20x/refund", WHY, 400, "payment"), ("payments/pi_none/refund", {"cents": 0} | WHY, 400, "cents"),
    ("payments/pi_none/refund", {"returned_cents": 0} | WHY, 404, "there is no payment 'pi_none'"),
    ("prices", {"credits_per_second": -1} | WHY, 400, "credits_per_second"), ("prices", {"credits_per_second": "nan"} | WHY, 400, "credits_per_second"),
    ("account?who=nobody", None, 404, "'nobody'"), ("account", None, 400, "who"), (f"jobs/{NOBODY}", None, 404, NOBODY), ("jobs?status=lost", None, 400, "status"),
    ("ledger?before=0", None, 400, "before"), ("ledger?limit=1001", None, 400, "limit"), ("users?search=%00", None, 400, "search"), ("revenue?days=0", None, 400, "days"),
    ("actions?user_id=x", None, 400, "user_id"), ("payments?before=soon", None, 400, "before"), ("workers?minutes=100001", None, 400, "minutes"),
]  # fmt: skip


@pytest.fixture(scope="module")
def named(data):
    anna, gone, poor = data.user(1000), data.user(), data.user(100)
    data.call("close_account", user_id=gone)
    done, failed = queued(data, anna), queued(data, poor)
    for job, status in ((done, "cancelled"), (failed, "failed")):
        data.call("refund_job", job_id=job, status=status)
    data.call("admin_take", actor="kim", reason="x", user_id=poor, credits=100, reference="x")
    return {"ANNA": str(anna), "GONE": str(gone), "DONE": done, "OPEN": queued(data, data.user(100)), "POOR": failed}


def state(data):
    return data.sql(
        "select (select count(*) from transactions) as entries, (select count(*) from admin_actions) as acts, (select count(*) from prices) as prices,"
        " (select count(*) from jobs) as jobs, (select sum(balance) from profiles) as credits, (select count(*) from profiles where plan <> 'free') as plans"
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "words"), WRONG, ids=[f"{path} {body}"[:60].replace("\ud800", "?") for path, body, *_ in WRONG]
)
def test_what_is_wrong_is_a_sentence_and_changes_nothing(data, kim, named, path, body, status, words):
    for name, value in named.items():
        path = path.replace(name, value)
    before = state(data)
    sent = {} if body is None else {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
    answer = kim.request("GET" if body is None else "POST", f"/api/admin/{path}", **sent)
    said = answer.json()["error"]
    assert (answer.status_code, words in f"{said['message']} {said['param']}") == (status, True), answer.text
    assert state(data) == before
