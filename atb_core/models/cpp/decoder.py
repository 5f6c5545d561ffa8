# SPDX-License-Identifier: Apache-2.0
"""What the C++ decoder is told of a family's model: its parameters, and its weights in order.

Both are read off the modules that the family's Python consists of. They know the names in the checkpoint, what is
packed and what has a bias; nothing of that is written down a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from atb_core.errors import EngineError
from atb_core.nn.parameter import BaseParameter

if TYPE_CHECKING:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

__all__ = ["decoder_parameters", "ordered_weights"]

# The linears of a layer in the order of the field `linearHasBias`.
_LINEARS = ("self_attn.qkv", "self_attn.dense", "mlp.gate_up", "mlp.down")


def decoder_parameters(model: CausalLM, float32_logits: bool) -> dict[str, Any]:
    """The fields of `core_DecoderModel`'s JSON parameter for `model`, but for `isPrefill`."""
    status, config = model.model_status, model.config
    layers = [f"model.layers.{index}" for index in range(status.num_layers)]
    return {
        "torchDtype": model.dtype.short,
        "float32Logits": float32_logits,
        "normEps": config.rms_norm_eps,
        "numHiddenLayers": status.num_layers,
        "numAttentionHeadsPerRank": status.num_heads,
        "numKeyValueHeadsPerRank": status.num_kv_heads,
        "hiddenSizePerAttentionHead": status.head_dim,
        "useQKNorm": _module(model, f"{layers[0]}.self_attn.q_norm") is not None,
        "linearHasBias": [[_has_bias(model, f"{layer}.{linear}") for linear in _LINEARS] for layer in layers],
    }


def ordered_weights(model: CausalLM, order: Sequence[str]) -> list[BaseParameter]:
    """The parameters of `model` in the order that is registered for its C++ graph; see `CppModel.weights`.

    A shared parameter, as a tied embedding is, comes as often as modules have it.
    """
    ordered: list[BaseParameter] = []
    for of_layers, group in groupby(order, key=lambda path: "*" in path):
        paths = list(group)
        for layer in range(model.model_status.num_layers) if of_layers else (0,):
            for path in paths:
                ordered += _parameters(model, path.replace("*", str(layer)))
    return ordered


def _parameters(model: CausalLM, path: str) -> list[BaseParameter]:
    module = _module(model, path)
    weights = [getattr(module, name, None) for name in ("weight", "bias")]
    return [weight for weight in weights if isinstance(weight, BaseParameter)]


def _has_bias(model: CausalLM, path: str) -> bool:
    module = _module(model, path)
    if module is None:
        raise EngineError(
            f"{type(model).__name__} has no module {path!r}, which its C++ graph is described by",
            hint="Use graph='python'.",
        )
    return getattr(module, "bias", None) is not None


def _module(model: CausalLM, path: str) -> Any:
    """The module at a path, `None` if there is none."""
    module: Any = model
    for part in path.split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part, None)
        if module is None:
            return None
    return module
