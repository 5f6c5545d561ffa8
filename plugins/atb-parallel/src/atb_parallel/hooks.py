# SPDX-License-Identifier: Apache-2.0
"""Adds the fusion of a product and its sum over devices."""

from __future__ import annotations

from atb_core.graph.passes import Pass
from atb_core.plugins import hookimpl


@hookimpl
def atb_fusion_passes() -> list[Pass]:
    """Returns the fusion."""
    from atb_parallel.fusions import PASSES

    return PASSES
