# SPDX-License-Identifier: Apache-2.0
"""Adds the backends `atb` and `atb-sim`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atb_core.plugins import hookimpl

if TYPE_CHECKING:
    from atb_core.engine import BackendMaker


@hookimpl
def atb_backends() -> list[BackendMaker]:
    """Returns both; what this machine lacks for them is said when one is made."""
    from atb_ascend.backend import AtbBackend
    from atb_core.engine import BackendMaker

    makers = {"atb": partial(AtbBackend, simulator=False), "atb-sim": partial(AtbBackend, simulator=True)}
    return [BackendMaker(name, make) for name, make in makers.items()]
