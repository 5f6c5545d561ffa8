# SPDX-License-Identifier: Apache-2.0
"""Finds features by name: those of plugins, beside those that a model was decorated with."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import GraphError, PluginError, RequestError
from atb_core.extensions import Contribution, Extensions
from atb_core.features.base import FeatureDecorator, check_stacking


def feature_problem(item: object) -> str | None:
    """Returns a sentence that names the fault of a contributed feature, `None` if it has none."""
    try:
        check_stacking([item])  # type: ignore[list-item] # It refuses anything but a feature.
    except GraphError as error:
        return str(error)
    return None


FEATURES: Extensions[type[FeatureDecorator]] = Extensions(
    "atb_features", "a list of subclasses of atb_core.FeatureDecorator", feature_problem
)


def features_by_name(
    names: Sequence[str], decorated: Sequence[type[FeatureDecorator]]
) -> tuple[type[FeatureDecorator], ...]:
    """Returns the features of plugins that go on top of those a model was decorated with, checked together.

    Args:
        names: the requested features; one that the model was decorated with needs nothing further.
        decorated: the model's own, which come first.

    Raises:
        RequestError: nothing offers a feature of that name; says which there are.
        PluginError: several plugins offer it, or the features do not stack.
    """
    own = [feature.feature_name for feature in decorated]
    wanted = [name for name in dict.fromkeys(names) if name not in own]
    if not wanted:
        return ()
    features = tuple(_find(name, own).value for name in wanted)
    check_stacking([*decorated, *features])
    return features


def _find(name: str, own: Sequence[str]) -> Contribution[type[FeatureDecorator]]:
    contribution = FEATURES.only(lambda feature: feature.feature_name == name, f"the feature {name!r}")
    if contribution is not None:
        return contribution
    offered = [f"{each.value.feature_name} ({each.owner})" for each in FEATURES.all()]
    known = [*(f"{each} (of the model)" for each in own), *offered]
    raise RequestError(
        f"no installed plugin offers a feature called {name!r}",
        hint=f"There {'are' if known else 'is'}: {', '.join(known) or 'none'}.{FEATURES.failures()}",
    )


def check_enabled(names: Sequence[str], features: Sequence[FeatureDecorator]) -> None:
    """Raises PluginError for a requested feature that says itself that it is not enabled on this model."""
    for feature in features:
        if feature.feature_name in names and not feature.is_enabled:
            raise PluginError(
                f"the feature {feature.feature_name!r} ({type(feature).__module__}) is not enabled on this model: "
                "its is_enabled says no",
                hint="Its documentation says what a model needs for it.",
            )
