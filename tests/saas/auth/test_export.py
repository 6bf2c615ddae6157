"""What a user may take along: everything that is kept of them and nothing of anybody else, made while it is sent."""

import io
import json
import resource
import zipfile
from pathlib import Path

import pytest

from saas.auth.export import PAGE
from tests.saas.api_harness import running
from tests.worker.conftest import BUCKET

SECRET_COLUMNS = {"hash", "token_hash", "fingerprint", "object_key"}


@pytest.fixture(scope="module")
def api(postgres, bucket):
    given = {name.lower(): value for name, value in bucket.environment.items()}
    with running(postgres.migrated(), sensitive_per_minute=1000, **given) as api:
        yield api


def exported(api, user):
    with api.as_user(user) as client:
        answer = client.get("/api/me/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
    assert answer.headers["content-disposition"] == 'attachment; filename="my-data.zip"'
    whole = zipfile.ZipFile(io.BytesIO(answer.content))
    assert whole.testzip() is None
    return whole, {name.removesuffix(".json"): json.loads(whole.read(name)) for name in whole.namelist() if name.endswith(".json")}


def speak(api, user, key, text):
    job = {"user_id": user, "idempotency_key": key, "fingerprint": "f", "text": text, "token_hash": "0" * 64}
    return api.database.call("process_audio_request", **job)["job"]


def test_it_has_all_rows_of_a_user_and_their_clips_and_no_secret(api, bucket):
    user, other = api.database.user(credits=10_000, email="me@example.com"), api.database.user(credits=10_000, email="other@example.com")
    secret = api.new_key(user)
    kept = speak(api, user, "a", "Mine: straße, 你好")
    speak(api, other, "a", "Another's text")
    key = f"results/users/{user}/jobs/{kept['id']}.mp3"
    api.database.call("settle_job", job_id=kept["id"], seconds=1, frames=20, bytes=10, sha256="0" * 64, object_key=key)
    queued = speak(api, user, "b", "Waits.")
    api.database.call(
        "apply_stripe_event",
        event_id="1",
        type="t",
        reference="pi_1",
        kind="purchase",
        user_id=user,
        credits=500,
        cents=500,
        currency="eur",
    )
    api.database.call("apply_stripe_event", event_id="2", type="t", reference="pi_1", kind="refund", object="re_1", cents=100)
    voice = api.database.call("create_voice", user_id=user, name="Me", transcript="Hello", content_type="audio/wav", bytes=5)["voice"]
    api.database.call("confirm_voice", user_id=user, voice_id=voice["id"], seconds=1, sha256="0" * 64)
    bucket.s3.put_object(Bucket=BUCKET, Key=voice["object_key"], Body=b"clip!")

    whole, found = exported(api, user)
    assert set(found) >= {"profiles", "ledger", "jobs", "voices", "payments", "payment_returns", "api_keys", "usage"}
    assert [(row["email"], row["stripe_customer"]) for row in found["profiles"]] == [("me@example.com", None)]
    assert [row["kind"] for row in found["ledger"]] == ["grant", "reserve", "settle", "reserve", "purchase", "chargeback"]
    jobs = [(row["id"], row["text"], row["audio_kept"]) for row in found["jobs"]]
    assert jobs == [(kept["id"], "Mine: straße, 你好", True), (queued["id"], "Waits.", False)]
    assert [(row["amount_cents"], row["currency"]) for row in found["payments"]] == [(500, "eur")]
    assert [(row["id"], row["cents"]) for row in found["payment_returns"]] == [("re_1", 100)]
    (row,) = found["voices"]
    assert (row["name"], whole.read(row["clip"])) == ("Me", b"clip!")
    assert row["clip"] == f"clips/{voice['id']}.wav"
    assert {name for rows in found.values() for row in rows for name in row} & SECRET_COLUMNS == set()
    text = json.dumps(found, ensure_ascii=False)
    assert secret.split("_", 2)[2] not in text
    assert str(other) not in text
    assert "Another's text" not in text


def test_each_table_of_users_is_in_it(api):
    """One that a later migration adds, too."""
    holds = {
        row["name"]
        for row in api.database.sql(
            "select c.relname as name from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attname = 'user_id'"
        )
    }
    assert holds - {"admin_actions"} | {"profiles", "payment_returns"} == set(api.database.call("export_tables"))


def test_rows_come_page_by_page_each_once_and_in_order(api):
    user = api.database.user(credits=1_000_000)
    many = 2 * PAGE + 1
    api.database.sql("update settings set max_waiting = null")
    api.database.sql("select process_audio_request(%s, 'key ' || n, 'f', 'Text ' || n, 't') from generate_series(1, %s) n", user, many)
    _, found = exported(api, user)
    assert sorted(row["text"] for row in found["jobs"]) == sorted(f"Text {n + 1}" for n in range(many))
    assert [row["id"] for row in found["ledger"]] == sorted(row["id"] for row in found["ledger"])
    assert len(found["ledger"]) == many + 1


def test_nothing_but_tables_of_users_can_be_asked_for(api):
    for table in ("settings", "stripe_events", "jobs; drop table jobs", "", None):
        with pytest.raises(Exception, match="holds rows of users"):
            api.database.call("export_rows", user_id=api.database.user(), table=table)


def test_a_key_and_a_closed_account_export_nothing(api):
    user = api.database.user()
    with api.with_key(api.new_key(user)) as client:
        assert client.get("/api/me/export").status_code == 403
    with api.as_user(user) as client:
        client.delete("/api/me")
        answer = client.get("/api/me/export")
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "this account was closed")


@pytest.mark.drill
def test_an_export_of_a_large_clip_and_many_rows_takes_little_memory(api, bucket):
    """The API runs in this process. Before the first export, what is loaded once is loaded."""
    user, clip = api.database.user(credits=1), bytes(200_000_000)
    voice = api.database.call("create_voice", user_id=user, name="Me", transcript="", content_type="audio/wav", bytes=len(clip))["voice"]
    api.database.call("confirm_voice", user_id=user, voice_id=voice["id"], seconds=1, sha256="0" * 64)
    bucket.s3.put_object(Bucket=BUCKET, Key=voice["object_key"], Body=clip)
    del clip
    api.database.sql(
        "insert into jobs (user_id, idempotency_key, fingerprint, text, characters, price_id, reserved, token_hash, status, finished_at)"
        " select %s, n, 'f', repeat('Text ', 800), 4000, p.id, 0, 't', 'failed', now() from generate_series(1, 20000) n, prices p where p.active",
        user,
    )

    exported(api, api.database.user())
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    highest, size = before, 0
    with api.as_user(user) as client, client.stream("GET", "/api/me/export") as answer:
        for piece in answer.iter_raw():
            size += len(piece)
            highest = max(highest, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    assert size > 200_000_000
    assert highest - before < 40_000_000
