# SPDX-License-Identifier: Apache-2.0
"""Features that are asked for by name: those of plugins, beside those that a model was decorated with."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import PluginError, RequestError
from atb_core.features.base import FeatureDecorator, check_stacking
from atb_core.plugins import hooks


def features_by_name(
    names: Sequence[str], decorated: Sequence[type[FeatureDecorator]]
) -> tuple[type[FeatureDecorator], ...]:
    """The features of plugins that go on top of those a model was decorated with, checked together.

    Args:
        names: what was asked for; one that the model was decorated with needs nothing further.
        decorated: the model's own, which come first.

    Raises:
        RequestError: nothing offers a feature of that name; says which there are.
        PluginError: several plugins offer it, or the features do not stack.
    """
    own = [feature.feature_name for feature in decorated]
    wanted = [name for name in dict.fromkeys(names) if name not in own]
    if not wanted:
        return ()
    found = tuple(_find(name, own) for name in wanted)
    check_stacking([*decorated, *(offer.value for offer in found)])
    return tuple(offer.value for offer in found)


def _find(name: str, own: Sequence[str]) -> hooks.Offered[type[FeatureDecorator]]:
    offers = hooks.features()
    found = hooks.only([o for o in offers if o.value.feature_name == name], f"the feature {name!r}")
    if found is not None:
        return found
    known = [*(f"{each} (of the model)" for each in own), *(f"{o.value.feature_name} ({o.owner})" for o in offers)]
    raise RequestError(
        f"no installed plugin offers a feature called {name!r}",
        hint=f"There {'are' if known else 'is'}: {', '.join(known) or 'none'}.{hooks.failures()}",
    )


def check_enabled(names: Sequence[str], features: Sequence[FeatureDecorator]) -> None:
    """PluginError for a feature that was asked for, and says itself that it is not enabled on this model."""
    for feature in features:
        if feature.feature_name in names and not feature.is_enabled:
            raise PluginError(
                f"the feature {feature.feature_name!r} ({type(feature).__module__}) is not enabled on this model: "
                "its is_enabled says no",
                hint="Its documentation says what a model needs for it.",
            )
