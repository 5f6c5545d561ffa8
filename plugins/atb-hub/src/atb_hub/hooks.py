# SPDX-License-Identifier: Apache-2.0
"""Adds the hub to the sources of checkpoints."""

from __future__ import annotations

from atb_core.checkpoint import Source
from atb_core.plugins import hookimpl
from atb_hub.source import HubSource


@hookimpl
def atb_checkpoint_sources() -> list[Source]:
    """Returns the source of hub ids."""
    return [HubSource()]
