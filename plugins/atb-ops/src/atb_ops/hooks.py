# SPDX-License-Identifier: Apache-2.0
"""Adds the functions to `atb_core.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from atb_core.plugins import hookimpl


@hookimpl
def atb_functions() -> list[Callable[..., Any]]:
    """Returns the functions of this package."""
    from atb_ops.functions import copy_blocks, gating, group_topk, norm, std
    from atb_ops.latent_attention import multi_latent_attention

    return [std, norm, copy_blocks, gating, group_topk, multi_latent_attention]
