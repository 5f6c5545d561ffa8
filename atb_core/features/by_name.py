# SPDX-License-Identifier: Apache-2.0
"""Finds features by name: those of plugins and those that a model is decorated with."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import GraphError, PluginError, RequestError
from atb_core.extensions import Extensions
from atb_core.features.base import FeatureDecorator, check_stacking


def feature_problem(item: type[FeatureDecorator]) -> str | None:
    """Returns a sentence that names the fault of a contributed feature, `None` if it has none."""
    try:
        check_stacking([item])
    except GraphError as error:
        return str(error)
    return None


FEATURES: Extensions[type[FeatureDecorator]] = Extensions(
    "atb_features", FeatureDecorator, feature_problem, subclasses=True, name="feature_name"
)


def features_by_name(
    names: Sequence[str], decorated: Sequence[type[FeatureDecorator]]
) -> tuple[type[FeatureDecorator], ...]:
    """Returns the features of plugins for those requested features that a model is not decorated with.

    Raises:
        RequestError: no plugin offers a feature of that name; lists those that exist.
        PluginError: several plugins offer it.
        GraphError: the features do not stack on those that the model is decorated with.
    """
    own = [feature.feature_name for feature in decorated]
    wanted = [name for name in dict.fromkeys(names) if name not in own]
    shown = [f"{name} (of the model)" for name in own]
    features = tuple(FEATURES.required(name, f"the feature {name!r}", RequestError, shown).value for name in wanted)
    if features:
        check_stacking([*decorated, *features])
    return features


def check_enabled(names: Sequence[str], features: Sequence[FeatureDecorator]) -> None:
    """Raises PluginError for a requested feature whose `is_enabled` is false on this model."""
    for feature in features:
        if feature.feature_name in names and not feature.is_enabled:
            raise PluginError(
                f"the feature {feature.feature_name!r} ({type(feature).__module__}) is not enabled on this model: "
                "its is_enabled is false",
                hint="Its documentation says what a model needs for it.",
            )
