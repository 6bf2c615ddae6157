"""Several servers that speak: which gets a request, and what becomes of it when that server fails."""

import asyncio
import logging
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import REGISTRY

from inference.errors import ConfigurationError
from saas import go_live_check, settings
from saas.admin.service import Desk
from saas.jobs.backend import BackendUnavailable, JobRejected, Options, Order
from saas.jobs.fishserve import Fishserve
from saas.jobs.servers import Servers
from saas.storage.bucket import Bucket
from tests.saas.api_harness import NOWHERE
from tests.waiting import HANG_SECONDS

SOUND = bytes(2 * 44_100)
"""A second."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Here a server is away when it says so, and never because it was slow."""
    monkeypatch.setattr("saas.jobs.servers.LOOK_SECONDS", HANG_SECONDS)


class Speaker:
    """A server on this machine. `does` says what it does with a request, `ready` what it says of itself."""

    def __init__(self, does="speaks", ready=(200, {"status": "ready", "slots": 4})):
        self.does, self.ready, self.asked, self.gate = does, ready, 0, asyncio.Event()

    async def look(self, _):
        return web.json_response(self.ready[1], status=self.ready[0])

    async def speak(self, request):
        self.asked += 1
        assert await request.read()
        match self.does:
            case int() as status:
                return web.json_response({"message": "said so"}, status=status, headers={"Retry-After": "60"})
            case "dies unheard":
                request.transport.abort()
        response = web.StreamResponse(headers={"Content-Type": "audio/pcm"})
        await response.prepare(request)
        if self.does == "dies after its headers":
            request.transport.abort()
        await response.write(SOUND)
        if self.does == "holds":
            await self.gate.wait()
        if self.does == "dies heard":
            request.transport.abort()
        await response.write(SOUND)
        return response


@asynccontextmanager
async def backend(*speakers):
    """What asks these servers."""
    async with AsyncExitStack() as stack:
        urls = []
        for speaker in speakers:
            app = web.Application()
            app.router.add_get("/ready", speaker.look)
            app.router.add_post("/v1/tts", speaker.speak)
            server = await stack.enter_async_context(TestServer(app))
            urls.append(str(server.make_url("")).rstrip("/"))
        http = await stack.enter_async_context(httpx.AsyncClient())
        bucket = Bucket(NOWHERE, "a", "b", "c")
        stack.callback(bucket.close)
        yield Fishserve(http, bucket, urls, "a key")


ORDER = Order("00000000-0000-4000-8000-000000000000", "u", "k", "Hello.", Options("pcm"), None, None)


async def heard(fishserve):
    """Seconds of a whole job."""
    async with fishserve.open(ORDER) as speech:
        async for _ in speech:
            pass
        return speech.seconds


FAILURES = ["dies unheard", "dies after its headers", 429, 503, 500, 401]


@pytest.mark.parametrize("does", FAILURES)
def test_a_job_without_sound_goes_to_another_server_and_the_next_one_there_at_once(does, caplog):
    async def story():
        bad, good = Speaker(does), Speaker()
        async with backend(bad, good) as fishserve:
            while not bad.asked:  # either may be the first
                assert await heard(fishserve) == 2
            before = good.asked
            for _ in range(4):
                assert await heard(fishserve) == 2
            assert (bad.asked, good.asked) == (1, before + 4)

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert len([record for record in caplog.records if record.name == "saas.jobs.servers"]) == (0 if does == 429 else 1)


def test_a_stream_that_has_sounded_breaks_off():
    async def story():
        bad, good = Speaker("dies heard"), Speaker(ready=(503, {}))
        async with backend(bad, good) as fishserve:
            await fishserve.look()
            with pytest.raises(BackendUnavailable, match="does not answer"):
                await heard(fishserve)
            assert (bad.asked, good.asked) == (1, 0)

    asyncio.run(story())


def test_a_job_that_is_at_fault_is_refused_by_one_server_for_all():
    async def story():
        one, other = Speaker(400), Speaker(400)
        async with backend(one, other) as fishserve:
            with pytest.raises(JobRejected, match="said so"):
                await heard(fishserve)
            assert one.asked + other.asked == 1

    asyncio.run(story())


def test_servers_get_work_by_how_many_slots_they_have():
    async def story():
        large, small = Speaker("holds", (200, {"slots": 6})), Speaker("holds", (200, {"slots": 2}))
        async with backend(large, small) as fishserve, AsyncExitStack() as stack:
            await fishserve.look()
            assert fishserve.slots == 8
            for _ in range(8):
                await stack.enter_async_context(fishserve.open(ORDER))
            assert (large.asked, small.asked) == (6, 2)
            large.gate.set()
            small.gate.set()

    asyncio.run(story())


def test_a_server_that_is_not_ready_gets_no_work_until_it_is():
    async def story():
        one, other = Speaker(), Speaker(ready=(503, {"status": "loading"}))
        async with backend(one, other) as fishserve:
            await fishserve.look()
            assert fishserve.slots == 4
            for _ in range(5):
                await heard(fishserve)
            assert (one.asked, other.asked) == (5, 0)
            one.ready, other.ready = (503, {}), (200, [])
            await fishserve.look()
            await heard(fishserve)
            assert (one.asked, other.asked, fishserve.slots) == (5, 1, 8)  # it did not say how many it has

    asyncio.run(story())


def test_where_no_server_is_ready_all_are_asked_and_a_refused_key_is_what_is_told():
    async def story():
        locked, loading = Speaker(401), Speaker(503)
        async with backend(locked, loading) as fishserve:
            for _ in range(2):
                with pytest.raises(BackendUnavailable, match="refuses FISHSERVE_KEY") as refused:
                    await heard(fishserve)
                assert refused.value.fault == "key"
            assert (locked.asked, loading.asked) == (2, 2)
            loading.does = "speaks"
            assert await heard(fishserve) == 2

    asyncio.run(story())


def test_metrics_name_servers_by_their_addresses_alone():
    async def story():
        async with httpx.AsyncClient() as http:
            servers = Servers(http, ["http://user:secret@127.0.0.1:9/tts"])
            await servers.look()

    asyncio.run(story())
    labels = {"server": "127.0.0.1:9/tts"}
    assert REGISTRY.get_sample_value("fishserve_saas_speech_servers_up", labels) == 0
    text = str([sample for metric in REGISTRY.collect() for sample in metric.samples])
    assert "secret" not in text


def test_the_desk_and_the_check_say_which_servers_are_ready():
    async def story():
        one, other = Speaker(), Speaker(ready=(503, {"status": "loading"}))
        async with backend(one, other) as fishserve, httpx.AsyncClient() as http:
            urls = [server.url for server in fishserve._servers.in_turn()]
            nobody = settings.read(fishserve_url=",".join([*urls, NOWHERE]), runpod_endpoint_id="")
            items = [item async for item in go_live_check._speech(nobody, http)]
            return urls, await Desk(nobody, None).health(), sorted((item.state, item.found) for item in items)

    urls, told, items = asyncio.run(story())
    assert (told["backend"], told["answers"]) == ("fishserve", "1 of 3 are ready")
    assert sorted(told[url]["status"] for url in urls) == ["loading", "ready"]
    assert told[NOWHERE]["answers"] == "does not answer: ConnectError"
    assert [state for state, _ in items] == ["ok", "wrong", "wrong"]
    assert items[1][1].endswith("/ready answers 503") or items[2][1].endswith("/ready answers 503")


def test_each_address_of_a_name_is_a_server(monkeypatch):
    """Names of this machine's loopback interface stand for those of a cluster."""
    found = [["127.0.0.1"]]

    async def addresses(_, __, port, **___):
        if not found[-1]:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if found[-1] == ["?"]:
            raise socket.gaierror(socket.EAI_AGAIN, "ask later")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in found[-1]]

    async def story():
        one = Speaker()
        async with backend(one) as plain, httpx.AsyncClient() as http:
            port = next(plain._servers.in_turn()).url.rpartition(":")[2]
            monkeypatch.setattr(asyncio.get_running_loop().__class__, "getaddrinfo", addresses)
            servers = Servers(http, [f"dns+http://speech.internal:{port}"])
            assert (servers.slots, list(servers.in_turn())) == (0, [])
            await servers.look()
            (first,) = servers.in_turn()
            assert (first.url, servers.slots) == (f"http://127.0.0.1:{port}", 4)
            found.append(["127.0.0.1", "127.0.0.2"])  # nobody listens at the second
            await servers.look()
            assert list(servers.in_turn()) == [first]
            found.append(["?"])
            await servers.look()
            assert list(servers.in_turn()) == [first]
            found.append([])
            await servers.look()
            assert list(servers.in_turn()) == []
            return f"speech.internal:{port}"

    label = asyncio.run(story())
    servers = {s.labels["server"] for m in REGISTRY.collect() if "speech_server" in m.name for s in m.samples}
    assert label in servers
    assert not any(name.startswith("127.0.0.2") for name in servers)


def test_addresses_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("FISHSERVE_URL", " http://one:8080/, https://two ,http://one:8080,")
    assert settings.read().fishserve_urls == ["http://one:8080", "https://two"]
    monkeypatch.setenv("FISHSERVE_URL", "http://one:8080,two")
    with pytest.raises(ConfigurationError, match="FISHSERVE_URL cannot be used: this is no address"):
        settings.read()
    monkeypatch.setenv("FISHSERVE_URL", "dns+http://speech:8080")
    assert settings.read().fishserve_urls == ["dns+http://speech:8080"]
    monkeypatch.setenv("FISHSERVE_URL", "dns+https://speech")
    with pytest.raises(ConfigurationError, match=r"an address with dns\+ has the form dns\+http"):
        settings.read()
    monkeypatch.undo()
    assert settings.read(fishserve_url="").fishserve_urls == []
