"""The two adapters, one specification: the same calls straight to PostgreSQL and through Supabase's own client."""

import asyncio
from collections import Counter
from decimal import Decimal
from uuid import uuid4

import httpx
import psycopg
import pytest

from saas.database import DatabaseError, Refused, Unavailable, failure
from saas.postgres import PostgresDatabase
from saas.supabase import SupabaseDatabase
from tests.saas.conftest import free_port
from tests.waiting import HANG_SECONDS

NPM = pytest.mark.system("/usr/bin/npm", "npm")


@pytest.fixture(params=["postgres", pytest.param("supabase", marks=NPM)])
def door(request):
    """(adapter, the database behind it). Adapters belong to the loop that first uses them."""
    if request.param == "supabase":
        supabase = request.getfixturevalue("supabase")
        return SupabaseDatabase(supabase.url, supabase.secret_key, connections=100), supabase.database
    database = request.getfixturevalue("database")
    return PostgresDatabase(database.url, connections=100), database


def through(adapter, work):
    async def run():
        try:
            return await work
        finally:
            await adapter.close()

    return asyncio.run(run())


def outcome(adapter, function, **arguments):
    try:
        return through(adapter, adapter.call(function, **arguments))
    except DatabaseError as e:
        return e


def request(who, **others):
    return {"user_id": who, "idempotency_key": str(uuid4()), "fingerprint": "f", "text": "Hi.", "token_hash": "t"} | others


async def reserved(adapter, asked):
    """The answer to a request among many at once, or the status of its refusal."""
    while True:
        try:
            return await adapter.call("process_audio_request", **asked)
        except Refused as e:
            return e.status
        except Unavailable:  # lite lets connections go that its own process had no time for: it is asked again, with the same key
            await asyncio.sleep(0.05)


@pytest.fixture
def patience(monkeypatch):
    """Many calls at once take as long as this machine needs."""
    monkeypatch.setattr("saas.database.CALL_SECONDS", HANG_SECONDS)


@pytest.mark.usefixtures("patience")
def test_200_requests_at_once_on_credits_for_77_make_77_reservations(door):
    adapter, database = door
    who = database.user(credits=1001)

    async def ask():
        answer = await reserved(adapter, request(who))
        return answer if isinstance(answer, int) else answer["job"]["status"]

    async def all_at_once():
        return Counter(await asyncio.gather(*(ask() for _ in range(200))))

    assert through(adapter, all_at_once()) == {"queued": 77, 402: 123}
    assert database.call("get_profile", user_id=who)["balance"] == 0
    assert database.sql("select count(*) from jobs where user_id = %s", who) == [{"count": 77}]
    assert database.call("audit_ledger") == []


@pytest.mark.usefixtures("patience")
def test_one_request_sent_50_times_at_once_is_made_once(door):
    adapter, database = door
    who = database.user(credits=770)
    asked = request(who)

    async def all_at_once():
        return await asyncio.gather(*(reserved(adapter, asked) for _ in range(50)))

    answers = through(adapter, all_at_once())
    assert len({answer["job"]["id"] for answer in answers}) == 1
    assert sum(not answer["replayed"] for answer in answers) == 1
    assert {answer["balance"] for answer in answers} == {757}


def test_a_refusal_is_its_status_and_a_sentence(door):
    adapter, database = door
    refusal = outcome(adapter, "process_audio_request", **request(database.user(credits=3)))
    assert (type(refusal), refusal.status, refusal.message) == (Refused, 402, "this needs 13 credits; you have 3")


def test_arguments_of_every_type_arrive(door):
    adapter, database = door
    who = database.user(credits=1000)
    options = {"format": "mp3", "speed": 0.5, "note": 'quotes " and \\ and ü', "deep": {"list": [1, None, True]}}

    async def talk():
        key = await adapter.call("create_api_key", user_id=who, name="x", prefix=uuid4().hex, hash="0" * 64, scopes=["read", "speak"])
        made = await adapter.call("process_audio_request", **request(who, options=options, api_key_id=key["key"]["id"]))
        settled = await adapter.call(
            "settle_job", job_id=made["job"]["id"], seconds=Decimal("0.25"), frames=5, bytes=10, sha256="s", object_key=None
        )
        listed = await adapter.call("list_jobs", user_id=who, before=settled["job"]["created_at"], limit=5)
        nothing = await adapter.call("claim_job", job_id=made["job"]["id"], lease_seconds=1.5)
        return key, made, settled, listed, nothing

    key, made, settled, listed, nothing = through(adapter, talk())
    assert key["key"]["scopes"] == ["read", "speak"]
    assert made["job"]["options"] == options
    assert settled["job"]["seconds"] == 0.25
    assert listed == []
    assert nothing is None


@pytest.mark.parametrize("text", ["nul \0 in it", "half a character \ud800"])
def test_text_that_no_database_takes_is_refused(door, text):
    adapter, database = door
    refusal = outcome(adapter, "process_audio_request", **request(database.user(credits=100), text=text))
    assert type(refusal) is Refused
    assert refusal.status == 422


def test_an_id_that_is_none_is_refused(door):
    adapter, _ = door
    refusal = outcome(adapter, "get_profile", user_id="me")
    assert (type(refusal), refusal.status) == (Refused, 422)


def test_a_call_that_cannot_be_is_a_defect_and_not_a_refusal(door):
    adapter, _ = door
    assert type(outcome(adapter, "no_such_function", user_id=uuid4())) is DatabaseError


@pytest.mark.parametrize("make", [PostgresDatabase, SupabaseDatabase])
def test_a_database_that_is_not_there_is_unavailable(make, monkeypatch):
    monkeypatch.setattr("saas.database.CALL_SECONDS", 1)
    url = f"postgresql://127.0.0.1:{free_port()}/x" if make is PostgresDatabase else f"http://127.0.0.1:{free_port()}"
    adapter = make(url) if make is PostgresDatabase else make(url, "sb_secret_x")
    assert type(outcome(adapter, "health")) is Unavailable


def test_connections_that_broke_are_replaced(database):
    adapter = PostgresDatabase(database.url, connections=3)

    async def talk():
        await adapter.call("health")
        database.sql(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        return await adapter.call("health")

    assert through(adapter, talk())["rls_ok"]


def test_a_call_that_met_another_in_its_way_is_made_again(database):
    who = database.user(credits=100)
    database.sql(
        "create sequence meetings;"
        "create function meet() returns trigger language plpgsql as $$ begin"
        " if nextval('public.meetings') < 3 then raise sqlstate '40P01' using message = 'deadlock detected'; end if; return new; end $$;"
        "create trigger meet before insert on jobs for each row execute function meet();"
        "grant usage on sequence meetings to public"
    )
    adapter = PostgresDatabase(database.url)
    assert through(adapter, adapter.call("process_audio_request", **request(who)))["balance"] == 87
    assert database.call("audit_ledger") == []


def test_a_call_that_takes_too_long_is_unavailable(database, monkeypatch):
    monkeypatch.setattr("saas.database.CALL_SECONDS", 0.2)
    who = database.user(credits=100)
    adapter = PostgresDatabase(database.url)
    with psycopg.connect(database.owner_url) as other:
        other.execute("select from profiles for update")
        assert type(outcome(adapter, "process_audio_request", **request(who))) is Unavailable
    assert database.call("get_profile", user_id=who)["balance"] == 100


def test_what_a_failure_says_holds_no_row(database):
    secret = "a text that belongs in no log"
    who = database.user(credits=100)
    database.sql("alter table jobs add constraint wrong check (text is null)")
    error = outcome(PostgresDatabase(database.url), "process_audio_request", **request(who, text=secret))
    assert type(error) is DatabaseError
    assert secret not in repr(error)
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [("PT409", Refused), ("22003", Refused), ("53300", Unavailable), ("57014", Unavailable), ("08006", Unavailable), ("PGRST002", Unavailable),
     *((str(status), Unavailable) for status in (429, 500, 502, 503, 504, 520, 521, 522, 523, 525, 540, 544)), ("404", DatabaseError), ("42501", DatabaseError), ("23514", DatabaseError), ("PTxyz", DatabaseError), (None, DatabaseError)],
)  # fmt: skip
def test_codes_have_their_meanings(code, kind):
    assert type(failure("f", code, "why")) is kind


@NPM
def test_the_publishable_key_and_a_session_call_no_function(supabase):
    who = supabase.database.user(credits=100)
    assert (
        type(outcome(SupabaseDatabase(supabase.url, supabase.publishable_key), "grant_credits", user_id=who, credits=1, reference="x"))
        is DatabaseError
    )
    headers = {"apikey": supabase.publishable_key, "Authorization": f"Bearer {supabase.session(who)}"}
    asked = {"p_user_id": str(who), "p_credits": 1000, "p_reference": "gift"}
    answer = httpx.post(f"{supabase.url}/rest/v1/rpc/grant_credits", headers=headers, json=asked)
    assert (answer.status_code, answer.json()["code"]) == (403, "42501")
    assert supabase.database.call("get_profile", user_id=who)["balance"] == 100


@NPM
def test_a_session_reads_its_own_rows_and_writes_a_name(supabase):
    who, other = supabase.database.user(credits=100), supabase.database.user(credits=200)
    client = httpx.Client(
        base_url=f"{supabase.url}/rest/v1", headers={"apikey": supabase.publishable_key, "Authorization": f"Bearer {supabase.session(who)}"}
    )
    with client:
        assert client.get("/profiles", params={"select": "id,balance"}).json() == [{"id": str(who), "balance": 100}]
        assert client.patch("/profiles", params={"id": f"eq.{who}"}, json={"balance": 1_000_000}).json()["code"] == "42501"
        assert client.patch("/profiles", params={"id": f"eq.{other}"}, json={"display_name": "mine"}).is_success  # of no row
        assert client.patch("/profiles", params={"id": f"eq.{who}"}, json={"display_name": "me"}).is_success
    names = supabase.database.sql("select id, display_name from profiles where id in (%s, %s)", who, other)
    assert {row["id"]: row["display_name"] for row in names} == {who: "me", other: None}
