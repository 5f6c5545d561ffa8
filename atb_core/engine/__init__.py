# SPDX-License-Identifier: Apache-2.0
"""Engines run networks; a backend makes engines. `get_backend` and `build_engine` are the factories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.names import BACKENDS, HOST_BACKENDS, pip_install
from atb_core.plugin_errors import plugin_errors

if TYPE_CHECKING:
    from atb_core.engine.base import Backend, Engine
    from atb_core.graph.network import Network

__all__ = ["BACKENDS", "HOST_BACKENDS", "build_engine", "get_backend"]


def get_backend(name: str = "auto", **options: Any) -> Backend:
    """Returns the backend called `name`; no other backend is used in its place.

    Args:
        name: "cpu" (C++), "reference" (torch), "atb" (Ascend), "atb-sim" (Ascend on a simulator, to check a network
            without a device) or "auto" (cpu).
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
    elif name in ("atb", "atb-sim"):
        make = partial(_ascend_backend(name), simulator=name == "atb-sim")
    else:
        raise BackendUnavailableError(f"there is no backend called {name!r}", hint=f"Known: {', '.join(BACKENDS)}.")
    known = [option for option in signature(make).parameters if option != "simulator"]
    if unknown := sorted(set(options) - set(known)):
        raise EngineError(
            f"the backend {name!r} has no option {', '.join(unknown)}", hint=f"Its options: {', '.join(known)}."
        )
    return make(**options)


def _ascend_backend(name: str) -> Callable[..., Backend]:
    try:
        make: Callable[..., Backend] = import_module("atb_ascend.backend").AtbBackend
    except ModuleNotFoundError as error:
        problem = f"backend {name!r} needs the distribution atb-ascend, which is not installed"
        raise BackendUnavailableError(problem, hint=f"{pip_install('atb-ascend')}.") from error
    return make


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
