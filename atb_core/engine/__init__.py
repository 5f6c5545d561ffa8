# SPDX-License-Identifier: Apache-2.0
"""Engines run networks; a backend makes engines. `get_backend` and `build_engine` are the factories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.extensions import Extensions
from atb_core.names import BACKENDS, HOST_BACKENDS
from atb_core.plugin_errors import plugin_errors

if TYPE_CHECKING:
    from atb_core.engine.base import Backend, Engine
    from atb_core.graph.network import Network

__all__ = ["BACKENDS", "HOST_BACKENDS", "BackendMaker", "build_engine", "get_backend"]


@dataclass(frozen=True)
class BackendMaker:
    """A backend of a plugin.

    Attributes:
        name: the value of `backend=` that chooses it.
        make: returns the backend; its parameters, `num_threads` among them, are the options of `get_backend`, but not
            those that a `partial` sets. It raises BackendUnavailableError where this machine cannot run the backend.
    """

    name: str
    make: Callable[..., Backend]


def _problem(item: BackendMaker) -> str | None:
    return f"the backend {item.name!r} is the core's" if item.name in ("auto", *HOST_BACKENDS) else None


MAKERS: Extensions[BackendMaker] = Extensions("atb_backends", BackendMaker, _problem, name="name")


def get_backend(name: str = "auto", **options: Any) -> Backend:
    """Returns the backend called `name`; no other backend is used in its place.

    Args:
        name: "cpu" (C++), "reference" (torch), "atb" (Ascend), "atb-sim" (Ascend on a simulator, to check a network
            without a device), "auto" (cpu), or the name of a plugin's.
        options: arguments of the backend's class, e.g. `num_threads`.

    Raises:
        BackendUnavailableError: the name is unknown, or this machine cannot run the backend; the message names why.
        EngineError: an option does not exist or has an impossible value.
    """
    from atb_core.graph.arrays import import_torch

    make: Callable[..., Backend]
    if name in ("cpu", "auto"):
        from atb_core.engine.cpu import CpuBackend as make
    elif name == "reference":
        import_torch()
        from atb_core.engine.reference import ReferenceBackend as make
    else:
        make = MAKERS.required(name, f"the backend {name!r}", BackendUnavailableError, BACKENDS).value.make
    known = [option for option in signature(make).parameters if option not in getattr(make, "keywords", ())]
    if unknown := sorted(set(options) - set(known)):
        raise EngineError(
            f"the backend {name!r} has no option {', '.join(unknown)}", hint=f"Its options: {', '.join(known)}."
        )
    return make(**options)


@plugin_errors()
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
    from atb_core.engine.checks import check_kind
    from atb_core.graph.network import Network
    from atb_core.graph.passes import run_passes

    check_kind("the network of an engine", network, Network)
    store = options.pop("store", None)
    chosen = get_backend(backend, **options)
    engine = chosen.build(run_passes(network, chosen.name, del_fpass_keys), store)
    network.built = True
    return engine
