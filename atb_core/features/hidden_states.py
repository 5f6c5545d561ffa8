# SPDX-License-Identifier: Apache-2.0
"""The feature of embeddings: hidden states in place of logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atb_core.features.base import FeatureDecorator

if TYPE_CHECKING:
    from atb_core.features.step import Step


class HiddenStates(FeatureDecorator):
    """Makes `model_out` the hidden states behind the last norm, for steps with `hidden_states=True` in their `extras`.

    Every model has it; the symbolic `forward` gets the argument `hidden_states=True` and leaves the logits out.
    """

    feature_name = "hidden_states"
    feature_stackable_whitelist = ("prefill", "mixed")
    is_enabled = True

    def is_activated(self, meta: Step) -> bool:
        """Returns true for a step that asks for them."""
        return bool(meta.extras.get("hidden_states"))

    def variant_arguments(self) -> dict[str, Any]:
        """Returns what tells the model."""
        return {"hidden_states": True}
