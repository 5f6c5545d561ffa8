# SPDX-License-Identifier: Apache-2.0
"""Replaces a model's recorded graphs by graphs that C++ builds: `ModelRunner(graph="cpp")`.

Names and packing of the weights, the checks of a step, position tables and the binding of the cache stay the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from atb_core.engine.base import Engine
from atb_core.engine.checks import check_call, check_kind, check_names, check_part, check_tensor
from atb_core.engine.native import NativeBackend
from atb_core.errors import BackendUnavailableError, EngineError, GraphError
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.long_form import MODEL_NAMES
from atb_core.models.base.flash_causal_lm_v3 import CausalLM, FlashCausalLMV3
from atb_core.models.cpp.decoder import decoder_parameters, ordered_weights
from atb_core.models.cpp.model_torch import ModelTorch
from atb_core.models.runtime.inputs import ROWS, TOKENS, k_cache_name, symbolic_inputs, v_cache_name
from atb_core.models.runtime.variants import VariantStore

if TYPE_CHECKING:
    from atb_core.nn.parameter import BaseParameter

_HINT = "Use graph='python'."
# The inputs of C++ models have ATB-Models' names.
_OWN_NAMES = {theirs: ours for ours, theirs in MODEL_NAMES.items()}


class CppEngine(Engine):
    """Runs one C++-built graph through the interface of all engines.

    Args:
        model: a model whose parameters are set and whose weights are declared.
        network: inputs and outputs by name, without nodes.
    """

    def __init__(self, model: ModelTorch, network: Network) -> None:
        self.model = model
        self.network = network
        self._inputs = {t.name: t for t in network.inputs if t.name and t.name not in network.weights_keys}
        self._order = [_OWN_NAMES.get(name, name) for name in model.input_names]
        self._device = model.backend.input_device
        # The inputs of every call: those that have not been bound.
        self._step = dict(self._inputs)

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Copies some of the weights into the engine's store."""
        check_kind("weights", weights, Mapping)
        check_names("weights", weights, self.network.weights_keys, optional=True)
        for name, value in weights.items():
            check_tensor("weight", self.network.input(name), value, "cpu")
        for name, value in weights.items():
            self.model.store.set(name, value)

    def set_weight_part(self, name: str, begin: int, value: torch.Tensor) -> None:
        """Copies a part of a weight into the engine's store."""
        whole = check_part(self.network, name, begin, value, "cpu")[0]
        self.model.store.set_part(name, begin, value, whole)

    def set_kv_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        """Binds the caches of all layers."""
        check_kind("KV caches", caches, Mapping)
        layers = range(len(caches) // 2)
        wanted = [name(layer) for layer in layers for name in (k_cache_name, v_cache_name)]
        check_names("KV caches", caches, wanted)
        for name, value in caches.items():
            check_tensor("KV cache", self._inputs[name], value, self._device)
        self.model.set_kv_cache([caches[k_cache_name(i)] for i in layers], [caches[v_cache_name(i)] for i in layers])
        self._bound(caches)

    def set_constants(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Binds inputs that keep their values from step to step."""
        check_kind("inputs", inputs, Mapping)
        check_names("inputs", inputs, self._inputs, optional=True)
        for name, value in inputs.items():
            check_tensor("input", self._inputs[name], value, self._device)
        self.model.set_constant({MODEL_NAMES.get(name, name): value for name, value in inputs.items()})
        self._bound(inputs)

    def _bound(self, names: Mapping[str, torch.Tensor]) -> None:
        self._step = {name: tensor for name, tensor in self._step.items() if name not in names}

    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor] | None = None,
        runtime_params: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Runs one step; see `Engine.forward`."""
        outputs, runtime_params = check_call(inputs, outputs, runtime_params)
        check_names("inputs", inputs, self._step)
        for name, value in inputs.items():
            check_tensor("input", self._step[name], value, self._device)
        given = [inputs.get(name) for name in self._order]
        param = self._param(inputs, runtime_params)
        if not outputs:
            return {"model_out": self.model.execute(given, param)[0]}
        check_names("outputs", outputs, ["model_out"])
        check_tensor("output", self.network.outputs[0], outputs["model_out"], self._device)
        self.model.execute_out(given, [outputs["model_out"]], param)
        return dict(outputs)

    def _param(self, inputs: Mapping[str, torch.Tensor], copies: Mapping[str, torch.Tensor]) -> str:
        """Returns the step's JSON: the lengths if their tensor is on a device."""
        lengths = copies.get("input_lengths")
        if self._device is not None or lengths is None or inputs["input_lengths"].is_cpu:
            return "{}"
        return json.dumps({"seqLen": lengths.tolist()})

    def __str__(self) -> str:
        nodes = "\n".join(f"  {op}  {label}" for op, label in self.model.nodes())
        return f"{self.model.model_name}, built in C++\n{nodes}"


class CppVariants(VariantStore):
    """Prefill and decode of a model, built by C++ over one set of weights.

    Args:
        model: a model of the family that registers the C++ model; its graphs have not been built.
        name: the registered name.

    Raises:
        BackendUnavailableError: the model has features or inputs that only recorded graphs can have.
        EngineError: the C++ model refuses a parameter or the shapes of the weights.
    """

    def __init__(self, model: CausalLM, name: str) -> None:
        backend = model.backend
        if not isinstance(backend, NativeBackend):
            raise BackendUnavailableError(f"graph='cpp' does not run on the backend {backend.name!r}", hint=_HINT)
        _check_plain(model, name)
        super().__init__(backend, model.model_status, model.dtype, [], _no_recording)
        prefill, decode = (ModelTorch(name, backend=backend) for _ in range(2))
        weights = ordered_weights(model, prefill.registration.weights)
        parameters = decoder_parameters(model, backend.float32_logits)
        logits = DataType.FLOAT if backend.float32_logits else model.dtype
        prefill.set_param({**parameters, "isPrefill": True})
        _declare(prefill, weights)
        decode.set_param({**parameters, "isPrefill": False})
        decode.share_weight(prefill)
        self.store = prefill.store
        for base, built, rows in (("prefill", prefill, ROWS), ("decode", decode, TOKENS)):
            inputs = symbolic_inputs(model.model_status, model.dtype, base == "prefill")
            network = _without_nodes(f"{name}_{base}", inputs, weights)
            network.outputs.append(Tensor("model_out", (rows, model.config.vocab_size), logits))
            key = frozenset((base,))
            self.variants[key] = self.variant(key, CppEngine(built, network))


def _check_plain(model: CausalLM, name: str) -> None:
    """Raises BackendUnavailableError for features and inputs that the C++ graph would silently lack."""
    features = ", ".join(feature.feature_name for feature in model.features)
    if features:
        reason = f"the model has features ({features}), which need a graph that Python records"
    elif type(model)._update_model_inputs is not FlashCausalLMV3._update_model_inputs:
        reason = f"{type(model).__name__} adds inputs of its own"
    else:
        return
    raise BackendUnavailableError(f"graph='cpp': {name} cannot replace the graph of this model: {reason}", hint=_HINT)


def _declare(model: ModelTorch, weights: list[BaseParameter]) -> None:
    wanted = model.weight_names
    if len(weights) != len(wanted):
        raise EngineError(
            f"{model.model_name} takes {len(wanted)} weights, but the order that is registered for it has"
            f" {len(weights)}: {_beginning([weight.name for weight in weights])}",
            hint=f"It takes, in this order: {_beginning(wanted)}.",
        )
    model.declare_weight([weight.name for weight in weights], weights)


def _beginning(names: list[str], count: int = 16) -> str:
    return ", ".join(names[:count]) + (f", and {len(names) - count} more" if len(names) > count else "")


def _without_nodes(name: str, inputs: Mapping[str, Any], weights: list[BaseParameter]) -> Network:
    """Returns a network with the inputs and weights of a graph and no nodes."""
    network = Network(name)
    for value in inputs.values():
        for tensor in value if isinstance(value, list) else [value]:
            if isinstance(tensor, Tensor):
                network.add_input(tensor)
    for weight in dict.fromkeys(weights):
        network.add_input(Tensor(weight.name, weight.declared_shape, weight.declared_dtype))
        network.weights_keys.add(weight.name)
    return network


def _no_recording(**_: Any) -> Mapping[str, Tensor]:
    raise GraphError("this model's graph is built in C++; there is no recorded one", hint=_HINT)
