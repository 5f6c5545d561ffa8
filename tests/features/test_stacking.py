# SPDX-License-Identifier: Apache-2.0
"""Stacking rules are checked when a class is decorated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from atb_core.errors import EngineError, GraphError
from atb_core.features import FeatureDecorator, check_stacking
from atb_core.features.base import check_active


def feature(
    name: str | None,
    whitelist: tuple[str, ...] = ("prefill", "decode"),
    requires: tuple[str, ...] = (),
    conflicts: Mapping[str, str] | None = None,
) -> type[FeatureDecorator]:
    class Feature(FeatureDecorator):
        feature_stackable_whitelist = whitelist
        feature_requires = requires
        feature_conflicts: ClassVar = conflicts or {}
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
        ([int], "no subclass of FeatureDecorator"),
        ([FeatureDecorator], "abstract; it lacks is_activated, is_enabled"),
        ([feature(None)], "no feature_name"),
        ([feature("a"), feature("a")], "'a' .*taken"),
        ([feature("prefill")], "'prefill' .*taken"),
        ([feature("a", ("b",))], "could never be used"),
        ([feature("a", ("decode", "b")), feature("b")], "'a' stacks on 'b', which is listed after it"),
        ([feature("a", ("decode", "*"), requires=("b",))], "'a' requires 'b', which is not listed before it"),
        ([feature("b"), feature("a", requires=("b",))], "'a' requires 'b'.* does not stack on"),
    ],
)
def test_features_that_cannot_work_together_are_refused(features: list[Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        check_stacking(features)


def test_a_feature_for_all_stacks_on_features_that_it_does_not_know_but_only_on_its_bases() -> None:
    any_of_them = feature("a", ("decode", "*"))(None)
    assert any_of_them.is_stackable(["decode", "unknown"])
    assert not any_of_them.is_stackable(["prefill", "unknown"])


def test_active_features_that_conflict_are_refused_with_the_reason() -> None:
    one, two = feature("a")(None), feature("b", ("decode", "*"), conflicts={"a": "both turn the hidden states"})(None)
    with pytest.raises(EngineError, match="'b' does not stack on 'a': both turn the hidden states"):
        check_active([one, two], "decode")
    assert check_active([two], "decode") == ["decode", "b"]


def test_an_active_feature_needs_those_that_it_requires() -> None:
    one, two = feature("a")(None), feature("b", ("decode", "a"), requires=("a",))(None)
    assert check_active([one, two], "decode") == ["decode", "a", "b"]
    with pytest.raises(EngineError, match="'b' requires 'a', which the step does not activate"):
        check_active([two], "decode")
