# SPDX-License-Identifier: Apache-2.0
"""Lists the variants of a loaded model, and rebuilds them from other networks over the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from atb_core.features import BASE_FEATURES
from atb_core.graph.network import Network

VariantKey = frozenset[str]


def variant_keys(model: Any) -> list[VariantKey]:
    """Returns every variant of the model: each base that it has, with each set of features that stacks on it."""
    features = [feature for feature in model.features if feature.need_additional_engine]
    keys = []
    for base in BASE_FEATURES:
        if base == "mixed" and not model.supports_mixed_steps:
            continue
        for size in range(len(features) + 1):
            for chosen in combinations(features, size):
                names = [base, *(feature.feature_name for feature in chosen)]
                if all(feature.is_stackable(names[: i + 1]) for i, feature in enumerate(chosen)):
                    keys.append(frozenset(names))
    return keys


def replace_networks(model: Any, networks: Mapping[VariantKey, Network]) -> Any:
    """Gives a loaded model engines built from `networks`; returns the model."""
    store = model.variants
    for key, network in networks.items():
        store.variants[key] = store.build(key, network)
    return model


def unfused(model: Any) -> Any:
    """Gives a loaded model engines that were built without any fusion; returns the model."""
    store = model.variants
    return replace_networks(model, {key: store.prepared(key, leave_out=["All"]) for key in variant_keys(model)})
