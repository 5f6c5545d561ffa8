# SPDX-License-Identifier: Apache-2.0
"""Construction of engines from recorded networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atb_core.engine import get_backend
from atb_core.engine.base import Engine
from atb_core.graph.network import Network
from atb_core.graph.passes import run_passes

__all__ = ["build_engine"]


def build_engine(
    network: Network, del_fpass_keys: Sequence[str] | None = None, *, backend: str = "cpu", **options: Any
) -> Engine:
    """Runs the passes on `network` and returns an engine of it; `Network.build_engine` calls this.

    Args:
        network: the recorded network.
        del_fpass_keys: names of fusion passes to leave out; `["All"]` leaves out every one.
        backend: see `get_backend`.
        options: `store`, a weight store that the engine shares with others, and arguments of the backend.

    Raises:
        BackendUnavailableError: this machine does not have the backend.
        GraphError: a pass does not exist, or the backend cannot run the network.
    """
    store = options.pop("store", None)
    chosen = get_backend(backend, **options)
    engine = chosen.build(run_passes(network, chosen.name, del_fpass_keys), store)
    network.built = True
    return engine
