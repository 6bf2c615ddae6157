"""The desk in a real browser: an operator finds a user, acts, gives the password for what moves money; nobody else finds the desk."""

import re
from uuid import uuid4

import httpx
import psycopg
import pytest
from playwright.sync_api import expect

from saas.database import named
from tests.browser import CHROMIUM
from tests.saas.admin.conftest import SHA, acts, paid
from tests.saas.conftest import called
from tests.saas.web.conftest import PASSWORD, Visit

pytestmark = [
    pytest.mark.system(CHROMIUM, "chromium"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # Stripe's library speaks to httpx in an older way
]
PAGES = ["Ledger", "Jobs", "Payments", "Revenue", "Queue", "Prices", "Actions"]


@pytest.fixture
def operator(browser, product):
    """An operator who gave the password an hour ago: the session was renewed since."""
    address, user = product.operator()
    session = product.session(address)
    product.database.sql("update auth.sessions set created_at = now() - interval '1 hour' where user_id = %s", user)
    renewed = httpx.post(f"{product.url}/auth/v1/token?grant_type=refresh_token", json={"refresh_token": session["refresh_token"]})
    visit = Visit(browser, product, session=renewed.json())
    visit.address = address
    yield visit
    visit.end()


def waiting(data, user):
    """A job that another process has leased, so that this one does not speak it."""
    with psycopg.connect(data.owner_url) as connection:
        asked = {"user_id": user, "idempotency_key": "k", "fingerprint": "f", "text": "Hello there.", "token_hash": SHA}
        job = called(connection, "process_audio_request", named(asked))["job"]["id"]
        connection.execute("update public.jobs set lease_until = now() + interval '1 hour' where id = %s", [job])
    return job


def test_for_a_customer_there_is_no_desk(member):
    member.open("admin/users")
    member.says("There is no such page.")
    expect(member.page.get_by_role("link", name="Desk")).to_have_count(0)
    assert not any(re.search(r"/api/admin|/desk-", url) for url in member.asked)


def test_an_operator_finds_a_user_and_acts(operator, product):
    page, data = operator.page, product.database
    address, user = product.user(5000)
    payment = f"pi_{uuid4().hex}"
    paid(data, user, payment)
    job = waiting(data, user)
    operator.open("speak")
    page.get_by_role("link", name="Desk", exact=True).click()
    operator.fill("Search users", payment)
    page.get_by_role("link", name=address).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(address)
    assert operator.violations() == []

    operator.press("Give credits")
    operator.fill("How many credits", "500")
    operator.fill("Reason, for the record", "ticket 17")
    dialog = page.get_by_role("alertdialog")
    dialog.get_by_role("button", name="Give credits").click()
    expect(page.get_by_text(re.compile(r"You signed in 6\d minutes ago"))).to_be_visible()
    operator.says("You are a person.")
    assert operator.violations() == []
    operator.fill("Password", "wrong")
    operator.press("Sign in and continue")
    operator.says("Incorrect email or password.")
    operator.fill("Password", PASSWORD)
    operator.press("Sign in and continue")
    operator.says("500 credits given; the balance is ")
    (row,) = acts(data, user)
    assert (row["actor"], row["action"], row["reason"], row["details"]["credits"]) == (operator.address, "grant", "ticket 17", 500)

    operator.press(f"Refund {payment}")
    operator.fill("Amount in USD (empty: all that is left)", "2.00")
    operator.fill("Reason, for the record", "ticket 18")
    dialog.get_by_role("button", name="Refund").click()
    operator.says("$2.00 refunded")
    operator.press(f"Cancel the job {job[:8]}")
    operator.fill("Reason, for the record", "ticket 19")
    dialog.get_by_role("button", name="Cancel the job").click()
    operator.says("The job is cancelled and cost 0 credits.")
    operator.press("Take credits")
    operator.fill("How many credits", "1")
    operator.fill("Reason, for the record", "ticket 20")
    data.call("admin_take", actor="lee", reason="x", user_id=user, credits=11_500, reference="x")  # meanwhile
    dialog.get_by_role("button", name="Take credits").click()
    operator.says("The balance is 0; 1 cannot be taken.")
    expect(page.get_by_label("How many credits")).to_have_value("1")
    operator.press("Back")
    assert [act["action"] for act in acts(data, payment) + acts(data, job)] == ["refund", "refund booked", "cancel job"]

    for name in PAGES:
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_role("status", name="Loading")).to_have_count(0)
        assert operator.violations() == []
