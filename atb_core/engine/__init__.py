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
    """The backend called `name`: "cpu" (C++), "reference" (torch), "atb" (Ascend), "atb-sim" or "auto" (cpu).

    "atb-sim" is the Ascend backend on a simulator, for checking a network without a device. Options are the
    backend's: `num_threads` for cpu. BackendUnavailableError says why one cannot be had; no
    other backend is ever taken in its place.
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
    raise BackendUnavailableError(f"there is no backend called {name!r}", hint=f"known: {', '.join(BACKENDS)}")
