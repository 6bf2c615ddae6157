"""Reports as CSV: in units of money, with sums that the ledger gives."""

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from saas.books.money import amount, plain
from tests.saas.admin.conftest import SHA, paid, queued


def rows(said):
    assert said.code == 0, said
    return list(csv.DictReader(io.StringIO(said.out)))


@pytest.mark.parametrize(
    ("cents", "currency", "text"),
    [
        (123450, "usd", "1234.50"), (5, "usd", "0.05"), (-5, "usd", "-0.05"), (0, "eur", "0.00"), (500, "jpy", "500"), (1234, "kwd", "1.234"),
        (1, "bhd", "0.001"), (7, None, "0.07"),
    ],
)  # fmt: skip
def test_money_has_the_decimals_of_its_currency(cents, currency, text):
    assert plain(cents, currency) == text
    assert amount(cents, currency).startswith(text + " ")


def test_revenue_by_day_is_in_units_of_money(data, operate):
    user, today = data.user(), datetime.now(UTC).date()
    paid(data, user, "pi_1", cents=500)
    paid(data, user, "pi_2", cents=1234, currency="kwd")
    paid(data, user, "pi_3", cents=700)
    data.sql("update payments set created_at = now() - interval '3 days' where reference = 'pi_3'")
    data.call("apply_stripe_event", event_id="r", type="refund.created", reference="pi_3", kind="refund", object="re_1", cents=100)
    then = today - timedelta(days=3)
    assert [tuple(row.values()) for row in rows(operate("report", "revenue"))] == [
        (str(then), "usd", "1", "7.00", "0.00", "0.00", "7.00", "10000"),
        (str(today), "kwd", "1", "1.234", "0.000", "0.000", "1.234", "10000"),
        (str(today), "usd", "1", "5.00", "1.00", "0.00", "4.00", "10000"),
    ]
    assert [row["day"] for row in rows(operate("report", "revenue", "--since", then, "--until", then))] == [str(then)]


def test_outstanding_credits_are_what_came_less_what_went(data, operate, monkeypatch):
    monkeypatch.setattr("saas.books.report._PAGE", 2)
    anna, formula = data.user(300, "anna@books.example"), data.user(5, "=1+1@books.example")
    paid(data, anna, "pi_books")
    done = queued(data, anna)
    data.call("settle_job", job_id=done, seconds=2, frames=43, bytes=1, sha256=SHA, object_key=f"results/{done}")
    waiting = queued(data, anna)
    data.call("admin_take", actor="kim", reason="x", user_id=anna, credits=30, reference="x")
    reserved = data.sql("select reserved from jobs where id = %s", waiting)[0]["reserved"]
    data.user(0, "nothing@books.example")
    found = {row["user_id"]: row for row in rows(operate("report", "credits"))}
    assert {name: int(value) for name, value in found[str(anna)].items() if name not in ("user_id", "email")} == {
        "balance": 10_300 - 20 - reserved - 30, "reserved": reserved, "debt": 0, "bought": 10_000, "given": 300, "spent": 20, "taken": 30,
    }  # fmt: skip
    assert found[str(formula)]["email"].startswith("'=")
    assert "nothing@books.example" not in {row["email"] for row in found.values()}
    for name in ("balance", "bought", "spent"):
        assert int(found["all"][name]) == sum(int(row[name]) for who, row in found.items() if who != "all")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("revenue", "--since", "2026-12-01", "--until", "2026-11-01"), "--since 2026-12-01 is later than the last day, 2026-11-01"),
        (("revenue", "--since", "yesterday"), "does not match"),
    ],
)
def test_what_is_wrong_is_a_sentence(operate, arguments, words):
    said = operate("report", *arguments)
    assert (said.code, words in " ".join(said.words.replace("│", " ").split())) == (2, True), said
