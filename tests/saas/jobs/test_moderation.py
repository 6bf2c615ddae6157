"""The operator's hook is asked before anything is reserved; a text that it refuses costs nothing, and nothing of any text is in the log."""

import asyncio
import json
import threading
from types import SimpleNamespace

import httpx
import pytest

from inference.errors import ConfigurationError
from saas.errors import ApiError
from saas.jobs import moderation
from saas.jobs.moderation import Moderation
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE, StandIn, running

TEXT = "What nobody may read in a log."
PATIENCE = 60
"""The most seconds that a hook may have. Here it is down when it says so, and never because this machine was slow."""


@pytest.fixture(scope="module")
def hook():
    with StandIn(lambda _: (200, {"allowed": True})).running() as service:
        yield service


@pytest.fixture(scope="module")
def api(postgres, hook):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moderation, "PAUSE", 0.0)
        given = {"moderation": f"{hook.url}/check", "moderation_key": "s3cret", "moderation_seconds": PATIENCE, "speech_per_minute": 10_000}
        with running(postgres.migrated(), **given) as api:
            yield api


@pytest.fixture
def user(api):
    return api.database.user(credits=1000)


def speak(api, user, path="/api/tts"):
    with api.as_user(user) as client:
        return client.post(path, json={"input" if path.startswith("/v1") else "text": TEXT})


def untouched(api, user):
    return api.database.sql(
        "select p.balance, (select count(*) from jobs where user_id = p.id) as jobs from profiles p where id = %s", user
    ) == [{"balance": 1000, "jobs": 0}]


def test_a_text_that_may_be_spoken_is_taken(api, user, hook):
    hook.answer = lambda _: (200, {"allowed": True, "reason": "of no interest"})
    assert speak(api, user).status_code == 202
    asked = hook.asked[-1]
    assert (asked.method, asked.path, asked.headers["authorization"]) == ("POST", "/check", "Bearer s3cret")
    assert json.loads(asked.body) == {"text": TEXT}


@pytest.mark.parametrize("path", ["/api/tts", "/v1/audio/speech"])
@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("it threatens somebody.", "it threatens somebody"),
        (None, "it was refused by this service's moderation"),
        ("x" * 201, "it was refused by this service's moderation"),
        ("two\nlines", "it was refused by this service's moderation"),
    ],
)
def test_a_text_that_is_refused_costs_nothing_and_says_why(api, user, hook, caplog, path, reason, said):
    hook.answer = lambda _: (200, {"allowed": False, "reason": reason})
    answer = speak(api, user, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "text_refused")
    assert error["message"] == f"this text is not spoken here: {said}; nothing was charged"
    assert untouched(api, user)
    assert "moderation" not in caplog.text
    assert TEXT not in caplog.text


@pytest.mark.parametrize("told", [(500, {}), (204, b""), (200, b"no JSON"), (200, {"allowed": "yes"}), (200, [TEXT]), (302, {})])
def test_without_an_answer_nothing_is_spoken_and_nothing_is_charged(api, user, hook, caplog, told):
    hook.answer = lambda _: told
    answer = speak(api, user)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "moderation_unavailable")
    assert "nothing was charged" in answer.json()["error"]["message"]
    assert "Retry-After" in answer.headers
    assert untouched(api, user)
    assert "the moderation hook failed" in caplog.text
    assert TEXT not in caplog.text


def test_an_operator_may_choose_to_speak_unchecked(postgres, caplog):
    with running(postgres.migrated(), moderation=f"{NOWHERE}/check", moderation_failure="open") as api:
        assert speak(api, api.database.user(credits=1000)).status_code == 202
    assert "spoken unchecked" in caplog.text


# -- a function, in this process --------------------------------------------------------------------------------------------------------


def allows(text):
    assert text == TEXT


async def refuses(_):
    return "it is rude"


def quotes(text):
    raise ValueError(text)


def is_odd(_):
    return False


def check(name, seconds=PATIENCE, **settings):
    async def whole():
        async with httpx.AsyncClient() as http:
            given = Settings(moderation=f"{__name__}:{name}", moderation_seconds=seconds, **settings)
            await Moderation(given, http).check(TEXT, "text")

    asyncio.run(whole())


def test_a_function_is_asked(caplog):
    check("allows")
    with pytest.raises(ApiError, match="it is rude; nothing was charged"):
        check("refuses")
    for name in ("quotes", "is_odd"):
        with pytest.raises(ApiError) as refused:
            check(name)
        assert (refused.value.status, TEXT in str(refused.value)) == (503, False)
        check(name, moderation_failure="open")
    assert "ValueError" in caplog.text
    assert TEXT not in caplog.text


stuck = threading.Event()


def never_answers(_):
    stuck.wait()


def test_one_that_does_not_answer_in_time_counts_as_down_and_ends_nothing(caplog):
    try:
        with pytest.raises(ApiError, match="cannot be checked just now"):
            check("never_answers", seconds=0.05)
    finally:
        stuck.set()
    assert "no answer in time" in caplog.text


def test_a_hook_that_is_down_is_left_alone_for_a_while(monkeypatch, caplog):
    """Else each text would wait for it. One text that the hook fails at does that to nobody else."""
    asked, now = [], [1000.0]
    monkeypatch.setattr(moderation, "PAUSE", 5.0)
    monkeypatch.setattr(moderation, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Hook:
        down = True

    async def hook(text):
        asked.append(text)
        if Hook.down:
            raise ConnectionError

    async def whole():
        async with httpx.AsyncClient() as http:
            checked = Moderation(Settings(moderation=f"{__name__}:allows", moderation_failure="open"), http)
            checked._ask = hook
            for _ in range(2 * moderation.MAX_FAILURES):
                await checked.check(TEXT, "text")
            assert len(asked) == moderation.MAX_FAILURES
            now[0] += moderation.PAUSE + 1
            Hook.down = False
            for _ in range(3):
                await checked.check(TEXT, "text")
            assert len(asked) == moderation.MAX_FAILURES + 3

    asyncio.run(whole())
    assert caplog.text.count("the moderation hook does not answer") == 1


@pytest.mark.parametrize(
    "name", ["no.such.module:check", f"{__name__}:nothing", "https", __name__, f"{__name__}:TEXT", ":", "ftp://example.com"]
)
def test_a_hook_that_is_not_there_is_said_at_the_start(name):
    with pytest.raises(ConfigurationError, match="FISHSERVE_SAAS_MODERATION is"):
        Moderation(Settings(moderation=name), httpx.AsyncClient())
