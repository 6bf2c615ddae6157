"""A voice or clip that the operator blocks is not spoken and not added, whoever has it; and what a user agreed to who added one is kept."""

import hashlib
import threading
from uuid import uuid4

import httpx
import psycopg
import pytest

from saas.voices.consent import VERSION, WORDING
from tests.saas.admin.conftest import acts, desk, operate, told  # noqa: F401 - fixtures: the desk's commands
from tests.saas.api_harness import running
from tests.saas.conftest import called
from tests.saas.voices.test_voices import clip
from tests.waiting import HANG_SECONDS, wait

ACT = ("--reason", "report 17", "--actor", "kim", "--yes")
BLOCKED = "this voice is blocked by the operator of this service"


@pytest.fixture(scope="module")
def api(data, bucket):
    with running(data, speech_per_minute=1000, **{name.lower(): value for name, value in bucket.environment.items()}) as api:
        yield api


@pytest.fixture
def anna(api):
    with api.as_user(api.database.user(credits=1000)) as client:
        yield client


@pytest.fixture
def ben(api):
    with api.as_user(api.database.user(credits=1000)) as client:
        yield client


def confirmed(client, content, **more):
    body = {"name": uuid4().hex, "transcript": "Hum.", "content_type": "audio/wav", "bytes": len(content), "consent": True} | more
    made = client.post("/api/voices", json=body).json()
    assert httpx.put(made["upload"]["url"], content=content, headers=made["upload"]["headers"]).status_code == 200
    return client.post(f"/api/voices/{made['voice']['id']}/confirm")


def added(client, content, **more):
    answer = confirmed(client, content, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def error(answer):
    return answer.status_code, answer.json()["error"]["code"]


def status(client, voice):
    found = client.get(f"/api/voices/{voice['id']}").json()
    return found["status"], found["reason"]


def test_a_blocked_voice_is_not_spoken_and_its_clip_is_not_added_by_anybody(api, anna, ben, desk):  # noqa: F811 - a fixture
    content = clip(1.25)
    voice, same = added(anna, content, name="Star"), added(ben, content)
    queued = anna.post("/api/tts", json={"text": "Hello.", "voice_id": voice["id"]}).json()
    done = desk("block-voice", voice["id"], *ACT)
    assert (done.code, done.words) == (0, f"{voice['id']} is blocked; 2 voices are not spoken any more")
    assert status(anna, voice) == status(ben, same) == ("blocked", BLOCKED)
    for path, body in (
        ("/api/tts", {"text": "Hello.", "voice_id": voice["id"]}),
        ("/v1/audio/speech", {"input": "Hello.", "voice": "Star"}),
    ):
        answer = anna.post(path, json=body)
        assert error(answer) == (403, "voice_blocked")
        assert answer.json()["error"]["message"] == "the voice 'Star' is blocked by the operator of this service; nothing was charged"
    job = wait(lambda: (found := anna.get(f"/api/jobs/{queued['id']}").json())["status"] == "failed" and found)
    assert (job["error"], job["charged"]) == ("its voice was deleted or blocked before it was spoken", 0)

    refused = confirmed(ben, content)
    assert error(refused) == (422, "voice_blocked")
    assert refused.json()["error"]["message"] == BLOCKED
    (row,) = desk("blocked-voices", "--json").json
    digest = hashlib.sha256(content).hexdigest()
    assert (row["voice_id"], row["sha256"], row["voices"], row["actor"], row["reason"]) == (voice["id"], digest, 2, "kim", "report 17")
    assert digest in desk("blocked-voices").out
    assert "is blocked already" in desk("block-voice", voice["id"], *ACT).words

    anna.delete(f"/api/voices/{voice['id']}")
    assert error(confirmed(anna, content)) == (422, "voice_blocked")
    undone = desk("unblock-voice", digest, "--reason", "a mistake", "--actor", "kim")
    assert "1 voices may be spoken again" in undone.words
    assert status(ben, same) == ("ready", None)
    assert ben.post("/api/tts", json={"text": "Hello.", "voice_id": same["id"]}).status_code == 202
    assert [row["action"] for row in acts(api.database, voice["id"]) + acts(api.database, digest)] == ["block voice", "unblock voice"]
    assert "is not blocked" in desk("unblock-voice", digest, "--reason", "x").words


def test_a_clip_is_blocked_before_anybody_has_it(api, anna, desk, bucket):  # noqa: F811 - a fixture
    content = clip(1.5)
    desk("block-voice", hashlib.sha256(content).hexdigest().upper(), *ACT)
    assert error(confirmed(anna, content)) == (422, "voice_blocked")
    (row,) = api.database.sql(
        "select status, object_key from cloned_voices where reason = %s and status = 'refused' order by created_at desc limit 1", BLOCKED
    )
    with pytest.raises(bucket.s3.exceptions.ClientError):
        bucket.s3.head_object(Bucket=bucket.environment["R2_BUCKET_NAME"], Key=row["object_key"])
    assert api.database.sql("select 1 as one from deleted_objects where key = %s", row["object_key"])
    assert confirmed(anna, clip(1.75)).status_code == 200


@pytest.mark.parametrize(
    ("voice", "words"),
    [("00000000-0000-4000-8000-000000000000", "there is no voice"), ("Star", "named by its id"), ("ab" * 31, "named by its id")],
)
def test_what_names_no_voice_is_said(desk, voice, words):  # noqa: F811 - a fixture
    assert words in desk("block-voice", voice, *ACT).words


def test_a_name_that_was_given_away_meanwhile_is_told_apart(api, anna):
    first = added(anna, clip(2.25), name="Mine")
    api.database.call("admin_block_voice", actor="kim", reason="x", voice=first["id"])
    second = added(anna, clip(2.5), name="mine")
    api.database.call("admin_unblock_voice", actor="kim", reason="x", voice=first["id"])
    names = {voice["id"]: voice["name"] for voice in anna.get("/api/voices").json()}
    assert names == {first["id"]: f"Mine {first['id']}", second["id"]: "mine"}


def test_a_clip_that_is_confirmed_while_it_is_blocked_is_not_spoken(database):
    digest = "ab" * 32
    user = database.user()
    voice = database.call("create_voice", user_id=user, name="Me", transcript="", content_type="audio/wav", bytes=5)["voice"]
    blocking = threading.Thread(target=database.call, args=("admin_block_voice",), kwargs={"actor": "kim", "reason": "x", "voice": digest})
    waits = "select 1 as one from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    given = {"p_user_id": str(user), "p_voice_id": voice["id"], "p_seconds": 1, "p_sha256": digest}
    with psycopg.connect(database.url) as confirming:
        called(confirming, "confirm_voice", given)
        blocking.start()
        wait(lambda: database.sql(waits))
    blocking.join(HANG_SECONDS)
    assert database.call("get_voice", user_id=user, voice_id=voice["id"])["voice"]["status"] == "blocked"


def test_which_wording_a_user_agreed_to_is_kept_after_the_voice_is_gone(api, anna):
    config = anna.get("/api/config").json()
    assert config["consent"] == {"version": VERSION, "wording": WORDING}
    voice = added(anna, clip(2.75), consent_version=VERSION)
    other = added(anna, clip(3.0))
    anna.delete(f"/api/voices/{voice['id']}")
    rows = api.database.sql(
        "select voice_id::text, version from voice_consents where voice_id = any (%s::uuid[])", [voice["id"], other["id"]]
    )
    assert {row["voice_id"]: row["version"] for row in rows} == {voice["id"]: VERSION, other["id"]: VERSION}
    body = {"name": "Old", "transcript": "Hum.", "content_type": "audio/wav", "bytes": 5, "consent": True, "consent_version": "2020-01"}
    answer = anna.post("/api/voices", json=body)
    assert error(answer) == (409, "other_version")
    assert WORDING in answer.json()["error"]["message"]


def test_a_program_from_before_the_consents_adds_voices_as_it_did(database):
    database.call("create_voice", user_id=database.user(), name="Me", transcript="", content_type="audio/wav", bytes=5)
    assert database.sql("select 1 as one from voice_consents") == []
