# SPDX-License-Identifier: Apache-2.0
"""Stacking rules are checked when a class is decorated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from atb_core.errors import GraphError
from atb_core.features import FeatureDecorator, check_stacking


def feature(name: str | None, whitelist: tuple[str, ...] = ("prefill", "decode")) -> type[FeatureDecorator]:
    class Feature(FeatureDecorator):
        feature_stackable_whitelist = whitelist
        is_enabled = True

        def is_activated(self, meta: Mapping[str, Any]) -> bool:
            return True

    if name is not None:
        Feature.feature_name = name
    return Feature


def test_features_that_stack_are_accepted() -> None:
    check_stacking([feature("a"), feature("b", ("decode", "a"))])


def test_a_feature_is_stackable_on_what_it_lists_and_nothing_else() -> None:
    one = feature("a", ("decode", "b"))(None)
    assert one.is_stackable(["decode"])
    assert one.is_stackable(["decode", "b"])
    assert not one.is_stackable(["prefill"])
    assert not one.is_stackable(["decode", "c"])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([int], "not a subclass"),
        ([FeatureDecorator], "abstract; it lacks is_activated, is_enabled"),
        ([feature(None)], "no feature_name"),
        ([feature("a"), feature("a")], "'a' .*taken"),
        ([feature("prefill")], "'prefill' .*taken"),
        ([feature("a", ("b",))], "could never be used"),
        ([feature("a", ("decode", "b")), feature("b")], "'a' stacks on 'b', which is listed after it"),
    ],
)
def test_features_that_cannot_work_together_are_refused(features: list[Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check_stacking(features)
