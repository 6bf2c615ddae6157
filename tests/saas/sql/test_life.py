"""Jobs, voices, keys and accounts from their beginning to their end, as the functions have it."""

from uuid import uuid4

import psycopg
import pytest

from saas.database import Refused

WAV = {"transcript": "What I said.", "content_type": "audio/wav", "bytes": 1000}
RESULT = {"seconds": 1.5, "frames": 32, "bytes": 12345, "sha256": "s"}


def ask(database, who, **others):
    asked = {"user_id": who, "idempotency_key": str(uuid4()), "fingerprint": "f", "text": "Hello.", "token_hash": "t"} | others
    return database.call("process_audio_request", **asked)["job"]


def ready_voice(database, who, name="Me"):
    voice = database.call("create_voice", user_id=who, name=name, **WAV)["voice"]
    return database.call("confirm_voice", user_id=who, voice_id=voice["id"], seconds=3, sha256="s")["voice"]


def refused(status, call, *names, **arguments):
    with pytest.raises(Refused) as e:
        call(*names, **arguments)
    assert e.value.status == status
    return e.value.message


def test_a_job_goes_from_queued_to_its_price(database):
    who = database.user(credits=100)
    job = ask(database, who, text="x" * 65)
    assert (job["status"], job["characters"], job["reserved"], job["attempts"]) == ("queued", 65, 73, 0)
    (claimed,) = database.call("claim_jobs", limit=10, lease_seconds=60)
    assert (claimed["id"], claimed["text"], claimed["attempts"], claimed["voice"]) == (job["id"], "x" * 65, 1, None)
    assert database.call("start_job", job_id=job["id"], backend="runpod", backend_id="abc")["status"] == "running"
    assert [running["id"] for running in database.call("running_jobs")] == [job["id"]]
    done = database.call("settle_job", job_id=job["id"], object_key="results/1", **RESULT)
    assert (done["job"]["status"], done["job"]["charged"], done["balance"], done["changed"]) == ("succeeded", 15, 85, True)
    kinds = [(entry["kind"], entry["amount"], entry["balance_after"]) for entry in database.call("ledger", user_id=who)]
    assert kinds == [("settle", 58, 85), ("reserve", -73, 27), ("grant", 100, 100)]
    (day,) = database.call("usage", user_id=who)
    assert day | {"jobs": 1, "characters": 65, "seconds": 1.5, "credits": 15} == day


def test_no_job_tells_its_secrets(database):
    who = database.user(credits=100)
    job = ask(database, who)
    told = [job, database.call("get_job", user_id=who, job_id=job["id"]), *database.call("list_jobs", user_id=who)]
    told += [*database.call("claim_jobs", limit=1, lease_seconds=1), database.call("job_of_token", job_id=job["id"], token_hash="t")]
    assert not any({"token_hash", "fingerprint"} & one.keys() for one in told)


def test_a_lease_keeps_others_away_until_it_is_over(database):
    job = ask(database, database.user(credits=100))
    claim = {"limit": 10, "lease_seconds": 60}
    assert len(database.call("claim_jobs", **claim)) == 1
    assert database.call("claim_jobs", **claim) == []
    assert database.call("claim_job", job_id=job["id"], lease_seconds=60) is None
    assert database.call("renew_lease", job_id=job["id"], lease_seconds=-1) == {"renewed": True, "status": "queued"}
    assert database.call("claim_job", job_id=job["id"], lease_seconds=-1)["attempts"] == 2
    database.call("start_job", job_id=job["id"], backend="fishserve")
    assert [claimed["attempts"] for claimed in database.call("claim_jobs", limit=10, lease_seconds=-1)] == [3]
    database.call("start_job", job_id=job["id"], backend="runpod", backend_id="abc")
    assert database.call("claim_jobs", **claim) == []  # RunPod has it


def test_two_that_claim_at_once_get_different_jobs(database):
    who = database.user(credits=100)
    jobs = {ask(database, who)["id"] for _ in range(4)}
    database.sql("update settings set max_running = null")  # with a limit, one claim at a time looks at a user
    with psycopg.connect(database.url) as one, psycopg.connect(database.url) as two:
        halves = [c.execute("select public.claim_jobs(2, 60)").fetchone()[0] for c in (one, two)]
    assert {job["id"] for half in halves for job in half} == jobs


def test_what_is_being_heard_is_not_called_off_for_nothing(database):
    who = database.user(credits=100)
    job = ask(database, who)["id"]
    database.call("claim_job", job_id=job, lease_seconds=60)
    database.call("start_job", job_id=job, backend="fishserve", heard=True)
    assert "listening" in refused(409, database.call, "cancel_job", user_id=who, job_id=job)
    assert "no job" in refused(404, database.call, "cancel_job", user_id=database.user(), job_id=job)
    database.call("renew_lease", job_id=job, lease_seconds=-1)  # whoever spoke it has died: it is spoken again, and nobody hears it
    assert database.call("cancel_job", user_id=who, job_id=job)["balance"] == 100


def test_the_key_of_a_deleted_job_says_so(database):
    who = database.user(credits=100)
    job = ask(database, who, idempotency_key="k")["id"]
    database.call("cancel_job", user_id=who, job_id=job)
    database.call("delete_job", user_id=who, job_id=job)
    assert "was deleted" in refused(410, ask, database, who, idempotency_key="k")


def test_an_ended_job_stays_as_it_ended(database):
    who = database.user(credits=100)
    job = ask(database, who)
    database.call("refund_job", job_id=job["id"], status="cancelled", error="changed my mind")
    assert "cancelled" in refused(409, database.call, "start_job", job_id=job["id"], backend="runpod", backend_id="abc")
    assert database.call("renew_lease", job_id=job["id"], lease_seconds=60) == {"renewed": False, "status": "cancelled"}
    late = database.call("settle_job", job_id=job["id"], object_key="results/late", **RESULT)
    assert (late["changed"], late["job"]["status"], late["balance"]) == (False, "cancelled", 100)
    assert database.call("objects_to_delete") == ["results/late"]  # audio that nobody will ask for


def test_a_result_that_is_told_of_twice_is_not_deleted(database):
    job = ask(database, database.user(credits=100))
    for _ in range(2):
        database.call("settle_job", job_id=job["id"], object_key="results/1", **RESULT)
    assert database.call("objects_to_delete") == []


@pytest.mark.parametrize("seconds", [-1, "NaN", "Infinity", 1e9, None])
def test_audio_of_no_length_is_not_settled(database, seconds):
    job = ask(database, database.user(credits=100))
    refused(422, database.call, "settle_job", job_id=job["id"], object_key="k", **RESULT | {"seconds": seconds})


def test_the_sweeper_leaves_what_is_leased(database):
    who = database.user(credits=100)
    left, _ = ask(database, who), ask(database, who)
    database.call("claim_job", job_id=left["id"], lease_seconds=600)
    (swept,) = database.call("expire_reservations", older_than_seconds=0)
    assert (swept["status"], swept["id"] == left["id"]) == ("expired", False)
    assert database.call("get_profile", user_id=who)["balance"] == 84


def test_results_are_kept_for_days_and_then_listed_for_deletion(database):
    who = database.user(credits=100)
    job = ask(database, who)
    database.call("settle_job", job_id=job["id"], object_key="results/1", **RESULT)
    assert database.call("expire_results") == []
    database.sql("update jobs set expires_at = now() - interval '1 second'")
    assert database.call("expire_results") == [{"job_id": job["id"], "object_key": "results/1"}]
    assert database.call("objects_to_delete") == ["results/1"]
    database.call("object_deleted", key="results/1")
    assert database.call("objects_to_delete") == []
    assert database.call("get_job", user_id=who, job_id=job["id"])["status"] == "succeeded"


def test_jobs_are_listed_newest_first_by_pages_and_by_words(database):
    who = database.user(credits=100)
    for text in ("one Fish", "100% sure", "two fish"):
        ask(database, who, text=text)
    texts = lambda **how: [job["text"] for job in database.call("list_jobs", user_id=who, **how)]  # noqa: E731
    assert texts() == ["two fish", "100% sure", "one Fish"]
    assert texts(search="FISH") == ["two fish", "one Fish"]
    assert texts(search="%") == ["100% sure"]
    first = database.call("list_jobs", user_id=who, limit=2)
    assert texts(before=first[-1]["created_at"]) == ["one Fish"]


def test_a_deleted_job_leaves_no_text(database):
    who = database.user(credits=100)
    job = ask(database, who, text="my secret", options={"note": "my secret"})
    refused(409, database.call, "delete_job", user_id=who, job_id=job["id"])
    database.call("settle_job", job_id=job["id"], object_key="results/1", **RESULT)
    assert database.call("delete_job", user_id=who, job_id=job["id"]) == {"object_key": "results/1"}
    refused(404, database.call, "get_job", user_id=who, job_id=job["id"])
    assert "secret" not in str(database.sql("select * from jobs"))
    assert database.call("audit_ledger") == []


def test_another_user_s_job_voice_and_key_are_not_there(database):
    who, other = database.user(credits=100), database.user(credits=100)
    voice, job = ready_voice(database, who), ask(database, who)
    key = database.call("create_api_key", user_id=who, name="k", prefix="p", hash="0" * 64, scopes=["speak"])["key"]
    for function in ("get_job", "delete_job"):
        refused(404, database.call, function, user_id=other, job_id=job["id"])
    for function in ("get_voice", "delete_voice"):
        refused(404, database.call, function, user_id=other, voice_id=voice["id"])
    refused(404, database.call, "rename_voice", user_id=other, voice_id=voice["id"], name="mine")
    refused(404, database.call, "revoke_api_key", user_id=other, key_id=key["id"])
    with pytest.raises(Refused, match="no voice"):
        ask(database, other, voice_id=voice["id"])
    with pytest.raises(Refused, match="revoked"):
        ask(database, other, api_key_id=key["id"])


def test_a_voice_is_pending_until_its_clip_is_checked(database):
    who = database.user(credits=100)
    voice = database.call("create_voice", user_id=who, name=" Me ", **WAV)["voice"]
    assert (voice["status"], voice["name"], voice["object_key"]) == ("pending", "Me", f"voices/{who}/{voice['id']}")
    with pytest.raises(Refused, match="ready"):
        ask(database, who, voice_id=voice["id"])
    database.call("confirm_voice", user_id=who, voice_id=voice["id"], seconds=3, sha256="s")
    ask(database, who, voice_id=voice["id"])
    (claimed,) = database.call("claim_jobs", limit=1, lease_seconds=1)
    assert claimed["voice"] | {"transcript": "What I said.", "object_key": voice["object_key"]} == claimed["voice"]


def test_a_name_is_used_once_and_free_again_after(database):
    who = database.user()
    voice = ready_voice(database, who, "Me")
    assert "that name already" in refused(409, database.call, "create_voice", user_id=who, name="ME", **WAV)
    other = ready_voice(database, who, "You")
    refused(409, database.call, "rename_voice", user_id=who, voice_id=other["id"], name="me")
    assert database.call("rename_voice", user_id=who, voice_id=voice["id"], name="me")["voice"]["name"] == "me"
    database.call("delete_voice", user_id=who, voice_id=voice["id"])
    ready_voice(database, who, "Me")


def test_twenty_voices_and_twenty_keys_are_the_most(database):
    who = database.user()
    for n in range(20):
        database.call("create_voice", user_id=who, name=f"v{n}", **WAV)
        database.call("create_api_key", user_id=who, name="k", prefix=f"p{n}", hash="0" * 64, scopes=["speak"])
    assert "20 voices" in refused(409, database.call, "create_voice", user_id=who, name="one more", **WAV)
    assert "20 keys" in refused(409, database.call, "create_api_key", user_id=who, name="k", prefix="q", hash="0" * 64, scopes=["speak"])
    database.sql("update cloned_voices set created_at = now() - interval '2 hours' where name = 'v0'")
    database.call("create_voice", user_id=who, name="one more", **WAV)  # in the place of one that was never uploaded


def test_a_deleted_voice_is_gone_at_once_and_its_row_with_its_object(database):
    who = database.user(credits=100)
    voice = ready_voice(database, who)
    ask(database, who, voice_id=voice["id"])
    assert database.call("delete_voice", user_id=who, voice_id=voice["id"]) == {"object_key": voice["object_key"]}
    assert database.call("list_voices", user_id=who) == []
    assert "What I said." not in str(database.sql("select * from cloned_voices"))
    database.call("object_deleted", key=voice["object_key"])  # its upload address is still good: it stays on the list
    database.sql("update deleted_objects set due_at = now()")
    assert database.call("objects_to_delete") == [voice["object_key"]]
    database.call("object_deleted", key=voice["object_key"])
    assert database.sql("select * from cloned_voices") == database.sql("select * from deleted_objects") == []


def test_a_refused_clip_is_deleted_and_says_why(database):
    who = database.user()
    voice = database.call("create_voice", user_id=who, name="Noise", **WAV)["voice"]
    told = database.call("refuse_voice", user_id=who, voice_id=voice["id"], reason="nobody speaks in it")["voice"]
    assert (told["status"], told["reason"]) == ("refused", "nobody speaks in it")
    assert database.sql("select key from deleted_objects") == [{"key": voice["object_key"]}]
    assert "nobody speaks" in refused(409, database.call, "confirm_voice", user_id=who, voice_id=voice["id"], seconds=1, sha256="s")


def test_a_key_is_known_by_its_hash_until_it_is_revoked(database):
    who = database.user(credits=100)
    made = database.call("create_api_key", user_id=who, name="laptop", prefix="abc", hash="1" * 64, scopes=["speak", "read"])["key"]
    assert "hash" not in made
    known = database.call("authenticate_api_key", prefix="abc", hash="1" * 64)
    assert known == {"user_id": str(who), "key_id": made["id"], "scopes": ["speak", "read"], "plan": "free"}
    refused(401, database.call, "authenticate_api_key", prefix="abc", hash="2" * 64)
    (listed,) = database.call("list_api_keys", user_id=who)
    assert listed["last_used_at"] is not None
    assert "hash" not in listed
    database.call("revoke_api_key", user_id=who, key_id=made["id"])
    assert "revoked" in refused(401, database.call, "authenticate_api_key", prefix="abc", hash="1" * 64)
    assert database.call("list_api_keys", user_id=who) == []
    with pytest.raises(Refused, match="revoked"):
        ask(database, who, api_key_id=made["id"])


def test_who_is_suspended_spends_nothing_until_the_day(database):
    who = database.user(credits=100)
    database.call("create_api_key", user_id=who, name="k", prefix="abc", hash="1" * 64, scopes=["speak"])
    database.sql("update auth.users set banned_until = now() + interval '1 hour'")
    with pytest.raises(Refused, match="suspended"):
        ask(database, who)
    assert "suspended" in refused(401, database.call, "authenticate_api_key", prefix="abc", hash="1" * 64)
    database.sql("update auth.users set banned_until = now() - interval '1 second'")
    ask(database, who)
    assert database.call("authenticate_api_key", prefix="abc", hash="1" * 64)


@pytest.mark.parametrize(
    "by", ["close_account", "delete from auth.users where id = %s", "update auth.users set deleted_at = now() where id = %s"]
)
def test_a_closed_account_leaves_a_ledger_without_a_name(database, by):
    who, other = database.user(credits=100, email="ann@example.com"), database.user(credits=5)
    voice = ready_voice(database, who)
    database.call("create_api_key", user_id=who, name="laptop", prefix="abc", hash="1" * 64, scopes=["speak"])
    database.call("settle_job", job_id=ask(database, who, text="my secret")["id"], object_key="results/1", **RESULT)
    running = ask(database, who, text="my secret", idempotency_key="mine")
    database.call(
        "apply_stripe_event",
        event_id="1",
        type="t",
        user_id=who,
        credits=9,
        reference="pi",
        kind="purchase",
        receipt_url="r",
        customer="cus_ann",
    )
    if by == "close_account":
        assert sorted(database.call("close_account", user_id=who)["object_keys"]) == ["results/1", voice["object_key"]]
    else:
        database.sql(by, who)
    everything = "".join(
        str(database.sql(f"select * from {table}")) for table in ("profiles", "jobs", "cloned_voices", "api_keys", "usage", "payments")
    )
    for personal in ("ann", "secret", "What I said", "laptop", "mine", "1" * 64):
        assert personal not in everything
    assert database.sql("select status from jobs where id = %s", running["id"]) == [{"status": "cancelled"}]
    assert {row["key"] for row in database.sql("select key from deleted_objects")} == {"results/1", voice["object_key"]}
    assert database.call("audit_ledger") == []
    assert database.sql("select balance from profiles where id = %s", who) == [{"balance": 94}]
    refused(403, database.call, "get_profile", user_id=who)
    with pytest.raises(Refused, match="closed"):
        ask(database, who)
    refused(401, database.call, "authenticate_api_key", prefix="abc", hash="1" * 64)
    assert database.call("get_profile", user_id=other)["balance"] == 5


def test_health_names_what_is_not_protected(database):
    from saas import schema

    assert database.call("health") == {"schema_version": schema.version(), "rls_ok": True, "definer_ok": True, "unprotected": []}
    database.sql("create table public.mine (); create function public.open() returns int language sql security definer as 'select 1'")
    found = database.call("health")
    assert (found["rls_ok"], found["definer_ok"], found["unprotected"]) == (False, False, ["mine", "open"])
