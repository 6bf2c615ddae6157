"""How a call finds a replica: Ray Serve's request router, extended by voices, by calls that belong to a stream, and by refusals.

Ray Serve pickles this module by value, so it holds no state of its own. It overrides `_select_from_candidate_replicas`, which is not
public: tests/inference/cluster/test_router.py notices when it changes.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from inference.cluster.ring import Ring, bounded, least_loaded, most

MAX_LEAVING = 256
"""Replicas that take no new requests, of which the streams that they still have can be reached."""


class SpeechRouter(RequestRouter):
    """Sends a call to the replica that it names, else by `routing`: voice, least_loaded or round_robin.

    `keep` is how many requests a replica has before it loses one of its voices to a less loaded one.
    """

    def initialize_state(self, routing: str = "voice", keep: int = 1) -> None:
        self._routing, self._keep = routing, keep
        self._ring, self._turn = Ring(), count()
        self._leaving: OrderedDict[ReplicaID, RunningReplica] = OrderedDict()

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Remember replicas that stop: they finish their streams, whose further text must reach them."""
        staying = {replica.replica_id for replica in replicas}
        self._leaving.update((name, replica) for name, replica in self.curr_replicas.items() if name not in staying)
        while len(self._leaving) > MAX_LEAVING:
            self._leaving.popitem(last=False)
        super().update_replicas(replicas)
        self._ring = Ring(name.unique_id for name in staying)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        self._leaving.pop(replica_id, None)
        super().on_replica_actor_died(replica_id)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each, the preferred one first."""
        if pending_request is None or not candidate_replicas:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        route: Any = pending_request.args[0]  # a Route
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        if route.replica:
            replicas |= {name.unique_id: replica for name, replica in self._leaving.items()}
            # One that has ended takes no call; another one ignores what belongs to a stream that it does not have.
            return [[replicas.get(route.replica) or candidate_replicas[0]]]
        ranked = self._ranked(route.voice, {name: self._load(replica) for name, replica in replicas.items()})
        return [[replicas[name]] for name in sorted(ranked, key=lambda name: name in route.avoid)]

    def _ranked(self, voice: str, loads: dict[str, int]) -> list[str]:
        if self._routing == "round_robin":
            names = sorted(loads)
            first = next(self._turn) % len(names)
            return names[first:] + names[:first]
        if self._routing == "voice" and voice:
            limit = most(sum(loads.values()), len(loads), self._keep)
            return bounded((name for name in self._ring.order(voice) if name in loads), loads, limit)
        return least_loaded(list(loads), loads)

    def _load(self, replica: RunningReplica) -> int:
        """The calls that a replica has, as far as this process knows."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0

    async def _select_from_candidate_replicas(self, candidates: list[RunningReplica], backoff_index: int) -> RunningReplica | None:
        """As Ray Serve's, which refuses a replica that stops."""
        if len(candidates) == 1 and candidates[0].replica_id in self._leaving:
            return candidates[0]
        chosen: RunningReplica | None = await super()._select_from_candidate_replicas(candidates, backoff_index)
        return chosen
