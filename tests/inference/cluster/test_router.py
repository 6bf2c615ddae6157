"""Where calls go, decided by Ray Serve's own router with our choice in it. No cluster runs; replicas are names with loads."""

import asyncio
import importlib.util
import warnings
from types import SimpleNamespace

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: `make cluster` installs it and runs this", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of Ray's own imports
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
    from ray.serve.request_router import PendingRequest

    from inference.cluster.router import SpeechRouter

from inference.cluster.calls import Route

ENGINE = DeploymentID(name="Engine", app_name="fishserve")
NAMES = ["a", "b", "c"]


class Routing:
    """A router over replicas, and where it sends calls; it counts them as Ray Serve does."""

    def __init__(self, **options):
        self.router = SpeechRouter(ENGINE, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)
        self.router.initialize_state(**options)
        self.counts = dict.fromkeys(NAMES, 0)
        self.replicas = {name: self._replica(name) for name in NAMES}
        self.show(NAMES)

    def _replica(self, name):
        async def queue_length(**_):
            return self.counts[name]

        return SimpleNamespace(replica_id=ReplicaID(name, ENGINE), max_ongoing_requests=100, get_queue_len=queue_length)

    def show(self, names):
        """What the controller says there is."""
        self.router.update_replicas([self.replicas[name] for name in names])

    def loads(self, **loads):
        self.counts |= loads
        for name, load in loads.items():
            self.router.on_new_queue_len_info(self.replicas[name].replica_id, load)

    async def send(self, **route):
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})  # Ray Serve asks new replicas for their loads
        metadata = RequestMetadata(request_id="1", internal_request_id=str(id(object())), call_method="ask", is_streaming=True)
        pending = PendingRequest(args=[Route(**route)], kwargs={}, metadata=metadata)
        chosen = await self.router._choose_replica_for_request(pending)
        self.router.on_send_request(chosen.replica_id)
        return chosen.replica_id.unique_id


def test_requests_without_a_voice_go_to_the_least_loaded():
    async def run():
        routing = Routing()
        routing.loads(a=5, b=2, c=9)
        assert [await routing.send() for _ in range(3)] == ["b"] * 3
        for _ in range(13):
            await routing.send()
        loads = [routing.router._load(replica) for replica in routing.replicas.values()]
        assert max(loads) - min(loads) <= 1

    asyncio.run(run())


def test_a_voice_stays_until_its_replica_has_too_much():
    async def run():
        routing = Routing(keep=4)
        routing.loads(a=0, b=0, c=0)
        first = [await routing.send(voice="anna") for _ in range(4)]
        assert len(set(first)) == 1
        assert await routing.send(voice="anna") != first[0]

    asyncio.run(run())


def test_round_robin_takes_turns():
    async def run():
        routing = Routing(routing="round_robin")
        routing.loads(a=0, b=50, c=0)
        assert [await routing.send(voice="anna") for _ in range(6)] == NAMES * 2

    asyncio.run(run())


def test_a_replica_that_refused_is_asked_last():
    async def run():
        routing = Routing()
        routing.loads(a=0, b=5, c=9)
        assert await routing.send(avoid=("a",)) == "b"
        assert await routing.send(avoid=("a", "b")) == "c"
        assert await routing.send(avoid=("a", "b", "c")) == "a"

    asyncio.run(run())


def test_what_belongs_to_a_stream_reaches_a_replica_that_stops():
    async def run():
        routing = Routing()
        routing.show(["a", "b"])
        assert await routing.send(replica="c") == "c"
        assert await routing.send() != "c"
        routing.router.on_replica_actor_died(routing.replicas["c"].replica_id)
        assert await routing.send(replica="c") in ("a", "b")

    asyncio.run(run())
