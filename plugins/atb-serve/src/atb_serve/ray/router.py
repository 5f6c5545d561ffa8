# SPDX-License-Identifier: Apache-2.0
"""Ray Serve's choice of a replica for a request, by what replicas have computed."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from atb_serve.ray.calls import HttpCall
from atb_serve.ray.prefixes import PrefixTable


class PrefixRouter(RequestRouter):  # type: ignore[misc]  # Ray is not installed where types are checked
    """Sends requests to replicas that have computed the longest beginning of their prompts.

    Each process that sends requests has a table of its own. Ray calls all methods in one thread.
    """

    def initialize_state(self, slack: int = 8) -> None:
        """Takes the arguments that the configuration has for the router; see `PrefixTable`."""
        self._prefixes = PrefixTable(slack)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Returns the best replicas, and behind them all others, for when those have no place."""
        loads = {
            each.replica_id.to_full_id_str(): self.replica_queue_len_cache.get(each.replica_id) or 0
            for each in candidate_replicas
        }
        best = set(self._prefixes.choose(_keys(pending_request), loads))
        ranks: list[list[RunningReplica]] = [[], []]
        for each in candidate_replicas:
            ranks[each.replica_id.to_full_id_str() not in best].append(each)
        return [rank for rank in ranks if rank]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """Remembers who computes the prompt."""
        self._prefixes.note(_keys(pending_request), replica_id.to_full_id_str())

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forgets replicas that are gone."""
        super().update_replicas(replicas)
        self._prefixes.keep({each.replica_id.to_full_id_str() for each in replicas})

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forgets a replica that died."""
        super().on_replica_actor_died(replica_id)
        self._prefixes.keep({each.to_full_id_str() for each in self.curr_replicas if each != replica_id})


def _keys(request: PendingRequest | None) -> tuple[bytes, ...]:
    call = request.args[0] if request is not None and request.args else None
    return call.prefix_keys if isinstance(call, HttpCall) else ()
