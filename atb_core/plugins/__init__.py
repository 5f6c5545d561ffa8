# SPDX-License-Identifier: Apache-2.0
"""Model families that installed packages offer, found from package metadata alone."""

from __future__ import annotations

from atb_core.plugins.registry import (
    CONFIGS,
    MODELS,
    ROUTERS,
    Family,
    FamilyRegistry,
    config_for,
    families,
    model_for,
    registry,
    router_for,
)

__all__ = [
    "CONFIGS",
    "MODELS",
    "ROUTERS",
    "Family",
    "FamilyRegistry",
    "config_for",
    "families",
    "model_for",
    "registry",
    "router_for",
]
