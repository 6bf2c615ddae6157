"""The operator's desk: each look shows what is there and no text; each act changes what it says, and is recorded in the same transaction."""

from uuid import uuid4

import pytest

from tests.saas.admin.conftest import SHA, acts, paid, queued

ACT = ("--reason", "ticket 17", "--actor", "kim", "--yes")
TEXT = "A text that is nobody's business."


@pytest.fixture
def anna(data):
    return data.user(1000, f"{uuid4().hex}@example.com")


def email(data, user):
    return data.sql("select email from profiles where id = %s", user)[0]["email"]


def balance(data, user):
    return data.sql("select balance from profiles where id = %s", user)[0]["balance"]


def ban(data, user):
    return data.sql("select banned_until > now() as banned from auth.users where id = %s", user)[0]["banned"]


# -- looks ------------------------------------------------------------------------------------------------------------------------------


def test_a_user_is_found_by_all_that_names_one(data, anna, desk):
    job, payment = queued(data, anna, TEXT), f"pi_{uuid4().hex}"
    paid(data, anna, payment)
    data.call("create_api_key", user_id=anna, name="k", prefix=anna.hex[:12], hash="0" * 64, scopes=["speak"])
    address = email(data, anna)
    for who in (anna, address.upper(), job, payment, anna.hex[:12], f"fsk_{anna.hex[:12]}_secret"):
        found = desk("show", who, "--json")
        assert found.json["user"]["id"] == str(anna), who
        assert TEXT not in found.out
    assert found.json["user"]["jobs"] == {"queued": 1}
    assert [row["reference"] for row in found.json["payments"]] == [payment]
    assert [row["kind"] for row in found.json["ledger"]] == ["purchase", "reserve", "grant"]
    assert "hash" not in found.json["keys"][0]
    printed = desk("show", anna)
    assert printed.code == 0
    assert {address, job, payment} <= set(printed.out.split())
    assert [row["email"] for row in desk("users", address[:20], "--json").json] == [address]
    assert [row["email"] for row in desk("users", payment, "--json").json] == [address]


@pytest.mark.parametrize("look", ["users", "ledger", "jobs", "payments", "revenue", "queue", "workers", "prices", "actions"])
def test_each_look_prints_a_table_and_json(data, anna, desk, look):
    queued(data, anna, TEXT)
    paid(data, anna, f"pi_{uuid4().hex}")
    data.call("admin_grant", actor="kim", reason="x", user_id=anna, credits=1, reference="a")
    table, rows = desk(look), desk(look, "--json")
    assert (table.code, rows.code) == (0, 0)
    assert table.out.strip()
    assert rows.json
    assert TEXT not in table.out + rows.out


def test_looks_of_one_user_show_no_other(data, anna, desk):
    other = data.user(5)
    queued(data, anna)
    for look in ("ledger", "jobs", "payments"):
        assert {row["user_id"] for row in desk(look, anna, "--json").json} <= {str(anna)}
        assert str(anna) not in desk(look, other, "--json").out
    assert desk("jobs", anna, "--status", "failed", "--json").json == []


def test_the_queue_and_the_workers_add_up(data, anna, desk):
    before = desk("queue", "--json").json
    job = queued(data, anna)
    now = desk("queue", "--json").json
    assert now["waiting"] == before["waiting"] + 1
    data.call("start_job", job_id=job, backend="workers-test", backend_id="x")
    assert desk("queue", "--json").json["running"] == before["running"] + 1
    data.call("settle_job", job_id=job, seconds=2, frames=43, bytes=1, sha256=SHA, object_key=f"results/{job}")
    (row,) = [row for row in desk("workers", "--json").json["jobs"] if row["backend"] == "workers-test"]
    assert (row["succeeded"], row["running"], row["audio_seconds"]) == (1, 0, 2)


def test_revenue_counts_what_came_and_went_back(data, desk):
    user, one, two = data.user(), f"pi_{uuid4().hex}", f"pi_{uuid4().hex}"
    paid(data, user, one, cents=700, currency="jpy")
    paid(data, user, two, cents=300, currency="jpy")
    data.call("apply_stripe_event", event_id="r1", type="refund.created", reference=one, kind="refund", object="re_1", cents=200)
    data.call("apply_stripe_event", event_id="r2", type="refund.failed", reference=one, kind="refund_failed", object="re_2", cents=100)
    data.call("apply_stripe_event", event_id="r3", type="charge.refunded", reference=two, kind="refund", cents=50)
    data.call("apply_stripe_event", event_id="d1", type="charge.dispute.created", reference=two, kind="dispute", object="dp_1", cents=25)
    (row,) = [row for row in desk("revenue", "--json").json if row["currency"] == "jpy"]
    assert [row[name] for name in ("payments", "paid_cents", "refunded_cents", "disputed_cents", "net_cents", "credits")] == [
        2, 1000, 250, 25, 725, 20_000,
    ]  # fmt: skip
    assert "1000 JPY" in desk("revenue").out


def test_control_characters_of_a_user_do_not_reach_the_terminal(data, desk):
    user = data.user(0, "x\x1b[2J@example.com")
    assert "\x1b" not in desk("users", "x\x1b").out
    assert str(user) in desk("users", "x\x1b").out


# -- acts -------------------------------------------------------------------------------------------------------------------------------


def test_grant_and_take_move_credits_and_say_why(data, anna, desk):
    assert desk("grant", anna, 50, *ACT).words.endswith("50 credits given; the balance is 1,050")
    assert desk("take", anna, 30, *ACT, "--json").json["balance"] == 1020
    assert [(a["actor"], a["action"], a["reason"], a["details"]["credits"]) for a in acts(data, anna)] == [
        ("kim", "grant", "ticket 17", 50), ("kim", "take", "ticket 17", 30),
    ]  # fmt: skip
    assert data.call("audit_ledger") == []


def test_a_reference_moves_credits_once(data, anna, desk):
    for act in ("grant", "take"):
        assert desk(act, anna, 10, *ACT, "--reference", "t1").code == 0
        assert "nothing moved: 't1' was used before" in desk(act, anna, 10, *ACT, "--reference", "t1").words
    assert balance(data, anna) == 1000
    assert len(acts(data, anna)) == 2


def test_a_suspended_account_spends_nothing_and_its_waiting_jobs_cost_nothing(data, anna, desk):
    job = queued(data, anna)
    done = desk("suspend", anna, *ACT)
    assert "1 waiting jobs ended" in done.words
    assert ban(data, anna)
    assert balance(data, anna) == 1000
    assert data.sql("select status from jobs where id = %s", job) == [{"status": "cancelled"}]
    with pytest.raises(Exception, match="suspended"):
        queued(data, anna)
    assert desk("show", anna, "--json").json["user"]["suspended_until"]
    assert desk("unsuspend", anna, "--reason", "sorry", "--actor", "kim").code == 0
    assert not ban(data, anna)
    assert [a["action"] for a in acts(data, anna)] == ["suspend", "unsuspend"]


def test_keys_are_revoked_one_or_all(data, anna, desk):
    made = [
        data.call("create_api_key", user_id=anna, name="k", prefix=f"{anna.hex[:11]}{n}", hash="0" * 64, scopes=["speak"])["key"]["id"]
        for n in range(3)
    ]
    assert desk("revoke-keys", anna, "--key", made[0], *ACT, "--json").json["revoked"] == [f"{anna.hex[:11]}0"]
    assert len(desk("revoke-keys", anna, *ACT, "--json").json["revoked"]) == 2
    assert data.call("list_api_keys", user_id=anna) == []
    assert "no key that is good" in desk("revoke-keys", anna, *ACT).words


def test_a_plan_is_set_and_the_record_says_which_it_was(data, anna, desk):
    data.sql("insert into plans (id, name, max_running) values ('pilot', 'Pilot', 9)")
    assert desk("set-plan", anna, "pilot", *ACT).words.endswith("has the plan pilot instead of free")
    assert desk("show", anna, "--json").json["user"]["plan"] == "pilot"
    assert [(a["action"], a["details"]) for a in acts(data, anna)] == [("set plan", {"plan": "pilot", "before": "free"})]
    assert {plan["id"] for plan in desk("prices", "--json").json["plans"]} == {"free", "pilot"}
    assert "Pilot" in desk("prices").out


def test_a_cancelled_job_costs_what_was_heard_of_it(data, anna, desk):
    quiet, heard = queued(data, anna), queued(data, anna)
    data.call("start_job", job_id=heard, backend="fishserve", heard=True)
    data.call("renew_lease", job_id=heard, lease_seconds=30, seconds=1.5)
    assert desk("cancel-job", quiet, *ACT, "--json").json["job"]["charged"] == 0
    assert desk("cancel-job", heard, *ACT, "--json").json["job"]["charged"] == 15
    assert balance(data, anna) == 985
    assert [a["action"] for a in acts(data, heard)] == ["cancel job"]
    assert "cancelled by an operator" in desk("job", heard).out
    assert [act["target"] for act in desk("show", anna, "--json").json["actions"]] == [heard, quiet]


def test_a_job_that_failed_is_spoken_again_once(data, anna, desk):
    job = queued(data, anna, TEXT)
    data.call("refund_job", job_id=job, status="failed", error="the machine broke")
    done = desk("retry-job", job, *ACT, "--json")
    again = done.json["job"]["id"]
    assert data.sql("select text, status from jobs where id = %s", again) == [{"text": TEXT, "status": "queued"}]
    assert TEXT not in done.out
    assert balance(data, anna) == 1000 - done.json["job"]["reserved"]
    assert again in desk("retry-job", job, *ACT).words
    data.call("refund_job", job_id=again, status="failed", error="again")
    assert desk("retry-job", job, *ACT).code == 0
    assert len(acts(data, job)) == 2
    assert data.call("audit_ledger") == []


def test_a_price_is_set_for_what_is_sold_from_now_on(data, desk):
    old = desk("prices", "--json").json["prices"][0]
    done = desk("set-price", "12.5", "--minimum", 7, *ACT)
    assert "12.5 credits a second, at least 7 a job" in done.words
    new, *rest = desk("prices", "--json").json["prices"]
    assert (new["active"], new["credits_per_second"], rest[0] | {"active": True}) == (True, 12.5, old)
    assert [a["action"] for a in acts(data, new["id"])] == ["set price"]
    desk("set-price", old["credits_per_second"], "--minimum", old["minimum"], *ACT)


# -- what is wrong ------------------------------------------------------------------------------------------------------------------------


def state(data):
    return data.sql(
        "select (select count(*) from transactions) as entries, (select count(*) from admin_actions) as acts, (select count(*) from prices) as prices,"
        " (select count(*) from auth.users where banned_until is not null) as banned, (select count(*) from jobs where finished_at is null) as open,"
        " (select count(*) from api_keys where revoked_at is not null) as revoked,"
        " (select count(*) from profiles where plan <> 'free') as plans"
    )


NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("grant", NOBODY, "5", *ACT), "no user has the id"),
        (("grant", "nobody@example.com", "5", *ACT), "'nobody@example.com'"),
        (("grant", "ANNA", "0", *ACT), "greater than or equal to 1"),
        (("grant", "ANNA", "five", *ACT), "a valid integer"),
        (("grant", "ANNA", "5"), "Missing option '--reason'"),
        (("grant", "ANNA", "5", "--reason", " ", "--yes"), "--reason has 0 characters"),
        (("grant", "ANNA", "5", "--reason", "x" * 501, "--yes"), "--reason has 501 characters"),
        (("grant", "ANNA", "5", "--reason", "x", "--actor", "", "--yes"), "--actor has 0 characters"),
        (("grant", "ANNA", "5", "--reason", "x"), "add --yes"),
        (("take", "ANNA", "1001", *ACT), "the balance is 1000; 1001 cannot be taken"),
        (("set-plan", "ANNA", "gold", *ACT), "there is no plan gold"),
        (("set-plan", "ANNA", "free", *ACT), "has the plan free"),
        (("suspend", "ANNA", "--days", "0", *ACT), "greater than or equal to 1"),
        (("unsuspend", "ANNA", "--reason", "x"), "is not suspended"),
        (("revoke-keys", "ANNA", "--key", NOBODY, *ACT), f"no key {NOBODY} that is good"),
        (("cancel-job", NOBODY, *ACT), f"there is no job {NOBODY}"),
        (("cancel-job", "x", *ACT), "a valid UUID"),
        (("cancel-job", "DONE", *ACT), "is over: cancelled"),
        (("retry-job", NOBODY, *ACT), f"there is no job {NOBODY}"),
        (("retry-job", "OPEN", *ACT), "is queued; only one that failed"),
        (("set-price", *ACT, "--", "-1"), "greater than or equal to 0"),
        (("refund", "ANNA", *ACT), "there is no payment"),
        (("refund", "pi_none", *ACT), "'pi_none'"),
        (("show", "nobody"), "'nobody'"),
        (("job", NOBODY), f"there is no job {NOBODY}"),
        (("jobs", "--status", "lost"), "'lost'"),
        (("ledger", "ANNA", "--limit", "0"), "greater than or equal to 1"),
        (("revenue", "--days", "0"), "greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_a_sentence_and_changes_nothing(data, anna, desk, arguments, words):
    done = queued(data, anna)
    data.call("refund_job", job_id=done, status="cancelled")
    names = {"ANNA": anna, "DONE": done, "OPEN": queued(data, data.user(100))}
    before = state(data)
    said = desk(*(names.get(word, word) for word in arguments))
    assert (said.code, words in " ".join(said.words.replace("│", " ").split())) == (2, True), said
    assert state(data) == before


def test_a_closed_account_is_only_looked_at(data, anna, desk):
    data.call("close_account", user_id=anna)
    assert desk("show", anna).code == 0
    for act in (("grant", anna, 5), ("set-plan", anna, "free"), ("suspend", anna), ("revoke-keys", anna)):
        assert "was closed on" in desk(*act, *ACT).words
    assert acts(data, anna) == []


def test_a_database_that_is_away_is_a_sentence(operate, monkeypatch):
    monkeypatch.setattr("saas.database.CALL_SECONDS", 0.1)
    for command in (("admin", "queue"), ("admin", "grant", "anna", "5", *ACT), ("audit",), ("report", "credits")):
        said = operate(*command, DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
        assert (said.code, "the database cannot be reached; is it running?" in said.words) == (2, True)


def test_an_act_that_cannot_be_recorded_is_not_done(data, anna):
    """The row of the act and what it does are one transaction."""
    data.sql("insert into plans (id, name) values ('other', 'Other')")
    for function, given in {
        "admin_grant": {"user_id": anna, "credits": 5, "reference": "r"},
        "admin_take": {"user_id": anna, "credits": 5, "reference": "r"},
        "admin_suspend": {"user_id": anna},
        "admin_set_plan": {"user_id": anna, "plan": "other"},
        "admin_set_price": {"credits_per_second": 3},
        "admin_cancel_job": {"job_id": queued(data, anna)},
    }.items():
        for who in ({"actor": "", "reason": "x"}, {"actor": "kim", "reason": ""}, {"actor": "kim", "reason": "x" * 501}):
            before = state(data)
            with pytest.raises(Exception, match=r"an act needs"):
                data.call(function, **who, **given)
            assert state(data) == before
