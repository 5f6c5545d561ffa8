# SPDX-License-Identifier: Apache-2.0
"""Engines run networks; a backend makes engines. `get_backend` is the factory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atb_core.errors import BackendUnavailableError
from atb_core.names import BACKENDS, HOST_BACKENDS

if TYPE_CHECKING:
    from atb_core.engine.base import Backend

__all__ = ["BACKENDS", "HOST_BACKENDS", "get_backend"]


def get_backend(name: str = "auto", **options: Any) -> Backend:
    """Returns the backend called `name`; no other backend is used in its place.

    Args:
        name: "cpu" (C++), "reference" (torch), "atb" (Ascend), "atb-sim" (Ascend on a simulator, to check a network
            without a device) or "auto" (cpu).
        options: arguments of the backend's class, e.g. `num_threads`.

    Raises:
        BackendUnavailableError: the name is unknown, or this machine cannot run the backend; the message names why.
    """
    if name in ("cpu", "auto"):
        from atb_core.engine.cpu import CpuBackend

        return CpuBackend(**options)
    if name == "reference":
        from atb_core.engine.reference import ReferenceBackend

        return ReferenceBackend(**options)
    if name in ("atb", "atb-sim"):
        from atb_core.engine.atb import AtbBackend

        return AtbBackend(simulator=name == "atb-sim", **options)
    raise BackendUnavailableError(f"there is no backend called {name!r}", hint=f"Known: {', '.join(BACKENDS)}.")
