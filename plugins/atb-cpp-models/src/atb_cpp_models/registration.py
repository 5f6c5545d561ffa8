# SPDX-License-Identifier: Apache-2.0
"""Registrations of C++-built models: the defaults of their parameters and the order of their weights.

The core's C++ has decoders and no families. A package registers a name for one of them by an entry point in the group
`atb_core.cpp_models`, such as `qwen_DecoderModel = "atb_foo.cpp_model:DECODER"`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The decoder of the core.
CORE_GRAPH = "core_DecoderModel"

#: The order of `core_DecoderModel`: the modules of a family's decoder, each with its weight and its bias, if any. `*`
#: is every layer; modules that a model does not have (norms of heads) are left out.
DECODER_WEIGHTS = (
    "model.embed_tokens",
    "model.layers.*.input_layernorm",
    "model.layers.*.self_attn.qkv",
    "model.layers.*.self_attn.q_norm",
    "model.layers.*.self_attn.k_norm",
    "model.layers.*.self_attn.dense",
    "model.layers.*.post_attention_layernorm",
    "model.layers.*.mlp.gate_up",
    "model.layers.*.mlp.down",
    "model.norm",
    "lm_head",
)

# Spellings of one field: a default is dropped if the user gives either.
_SPELLINGS = (("normEps", "rmsNormEps"), ("isBF16", "torchDtype"), ("enableSwiGLU", "supportSwiGLU"))


@dataclass(frozen=True)
class CppModel:
    """A model that C++ builds under a family's name. Packages that register one name must agree on it.

    Attributes:
        defaults: default values of fields of the JSON parameter.
        weights: the order of the weights, as paths of modules in the family's model class; see `DECODER_WEIGHTS`.
        graph: the C++ model that builds the graph.
        model_types: types of this package that `ModelRunner(graph="cpp")` runs with the model. Another package that
            registers the same name has others.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weights: tuple[str, ...] = DECODER_WEIGHTS
    graph: str = CORE_GRAPH
    model_types: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        try:
            json.dumps(dict(self.defaults), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"the defaults of a C++ model must be a JSON object: {error}") from None

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the user's parameters and the defaults of those that the user does not give."""
        taken = set(given)
        for spellings in _SPELLINGS:
            if taken.intersection(spellings):
                taken.update(spellings)
        return {**{name: value for name, value in self.defaults.items() if name not in taken}, **given}

    def differences(self, other: CppModel) -> list[str]:
        """Returns the attributes in which two registrations of one name contradict each other."""
        compared = [field.name for field in dataclasses.fields(self) if field.compare]
        return [name for name in compared if getattr(self, name) != getattr(other, name)]
