# SPDX-License-Identifier: Apache-2.0
"""Derives the parameters of the C++ decoder and the order of its weights from the modules of a family's model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from atb_core.errors import EngineError
from atb_core.nn.parameter import BaseParameter

if TYPE_CHECKING:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

# The linears of a layer in the order of the field `linearHasBias`.
_LINEARS = ("self_attn.qkv", "self_attn.dense", "mlp.gate_up", "mlp.down")


def decoder_parameters(model: CausalLM, float32_logits: bool) -> dict[str, Any]:
    """Returns the fields of `core_DecoderModel`'s JSON parameter for `model`, except `isPrefill`."""
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
    """Returns the parameters of `model` in the order registered for its C++ graph; see `CppModel.weights`.

    A shared parameter, such as a tied embedding, occurs once for each module that has it.
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
            f"{type(model).__name__} has no module {path!r}, which the C++ graph needs", hint="Use graph='python'."
        )
    return getattr(module, "bias", None) is not None


def _module(model: CausalLM, path: str) -> Any:
    """Returns the module at a path, `None` if there is none."""
    module: Any = model
    for part in path.split("."):
        module = module[int(part)] if part.isdigit() else getattr(module, part, None)
        if module is None:
            return None
    return module
