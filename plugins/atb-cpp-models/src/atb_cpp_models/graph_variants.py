# SPDX-License-Identifier: Apache-2.0
"""Replaces a model's recorded graphs by graphs that C++ builds: `ModelRunner(graph="cpp")`.

Names and packing of the weights, the checks of a step, position tables and the binding of the cache stay the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from atb_core.engine.checks import check_names, check_some
from atb_core.engine.native import NativeBackend, NativeEngine, NativeStore
from atb_core.errors import BackendUnavailableError, EngineError, GraphError
from atb_core.graph.arrays import Array, is_tensor
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec
from atb_core.layers.attention.long_form import MODEL_NAMES
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.mlp.mlp import Mlp
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import CausalLM, FlashCausalLMV3
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.runtime.inputs import ROWS, TOKENS
from atb_core.models.runtime.rope_scaling import Rope
from atb_core.models.runtime.variants import VariantStore
from atb_core.nn.parameter import BaseParameter
from atb_core.plugins.registry import registry
from atb_cpp_models.model_torch import ModelTorch
from atb_cpp_models.registered import model_of_family
from atb_cpp_models.registration import CORE_GRAPH

# The linears of a layer in the order of the field `linearHasBias`.
_LINEARS = ("self_attn.qkv", "self_attn.dense", "mlp.gate_up", "mlp.down")
_HINT = "Use graph='python'."
# The inputs of C++ models have ATB-Models' names.
_OWN_NAMES = {theirs: ours for ours, theirs in MODEL_NAMES.items()}


class _Program:
    """The model that `NativeEngine` runs: a C++-built graph, called by our names of the inputs."""

    def __init__(self, model: ModelTorch, network: Network) -> None:
        self.model, self.network = model, network
        self._names = [t.name for t in network.inputs if t.name and t.name not in network.weights_keys]
        # Those of the keys, those of the values.
        self._cache_names = [[name for name in self._names if name.endswith(end)] for end in ("_k_cache", "_v_cache")]
        self._order = [_OWN_NAMES.get(name, name) for name in model.input_names]

    def bind(self, what: str, values: Mapping[str, Array]) -> None:
        """Binds the KV caches of all layers, or inputs that keep their values from step to step."""
        if what == "KV cache":
            check_names("KV caches", values, list(chain.from_iterable(self._cache_names)))
            self.model.set_kv_cache(*([values[name] for name in names] for names in self._cache_names))
        else:
            self.model.set_constant({MODEL_NAMES.get(name, name): value for name, value in values.items()})
        self._names = [name for name in self._names if name not in values]

    def forward(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        runtime_params: Mapping[str, Array],
    ) -> dict[str, Any]:
        """Runs one step. Its JSON has the lengths if their tensor is on a device."""
        check_names("inputs", inputs, self._names)
        check_names("outputs", outputs, ["model_out"], optional=True)
        check_some("input", self.network, inputs, self._names, self.model.backend.input_device)
        given = [inputs.get(name) for name in self._order]
        lengths = runtime_params.get("input_lengths")
        tensor = inputs.get("input_lengths")
        on_device = is_tensor(tensor) and not tensor.is_cpu
        param = json.dumps({"seqLen": lengths.tolist()}) if on_device and lengths is not None else "{}"
        if not outputs:
            return {"model_out": self.model.execute(given, param)[0]}
        self.model.execute_out(given, [outputs["model_out"]], param)
        return dict(outputs)


class CppEngine(NativeEngine):
    """Runs one C++-built graph through the interface of all engines.

    Args:
        model: a model whose parameters are set and whose weights are declared.
        network: inputs and outputs by name, without nodes.
    """

    records_nodes = False

    def __init__(self, model: ModelTorch, network: Network) -> None:
        self.model = model
        self.cache_device = model.backend.input_device
        super().__init__(network, model.store)

    def program_type(self, network: Network, store: NativeStore) -> _Program:  # type: ignore[override]
        """Returns the graph of the model."""
        return _Program(self.model, network)

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
        # What every model can have is left out; it is refused when a step or `load_adapter` asks for it.
        model.features = [each for each in model.features if not each.takes_adapters]
        _check_plain(model, name)
        super().__init__(backend, model.kv_cache_specs, model._symbolic_inputs, [], _no_recording)
        prefill, decode = (ModelTorch(name, backend=backend) for _ in range(2))
        own = _own_forward(model)
        # A C++ model of the family's own may do what its `forward` does.
        if own is not None and prefill.registration.graph == CORE_GRAPH:
            raise _cannot_replace(name, f"{own} has a forward of its own")
        weights = ordered_weights(model, prefill.registration.weights)
        parameters = decoder_parameters(model, backend.float32_logits)
        # A C++ model of another package need not know it.
        if prefill.registration.graph == CORE_GRAPH and backend.packs_caches and model.packed_kv_cache:
            parameters["packedKvCache"] = model.cache_dtype is not DataType.INT8
        logits = DataType.FLOAT if backend.float32_logits else model.dtype
        prefill.set_param({**parameters, "isPrefill": True})
        _declare(prefill, weights)
        decode.set_param({**parameters, "isPrefill": False})
        decode.share_weight(prefill)
        self.store = prefill.store
        for base, built, rows in (("prefill", prefill, ROWS), ("decode", decode, TOKENS)):
            network = _without_nodes(f"{name}_{base}", model._symbolic_inputs(base), weights)
            network.outputs.append(Tensor("model_out", (rows, model.config.vocab_size), logits))
            key = frozenset((base,))
            self.variants[key] = self.variant(key, CppEngine(built, network))


def name_for(model_type: str, config: BaseConfig) -> str:
    """Returns the name of the C++ model that the family registers for its models of this type.

    Raises:
        BackendUnavailableError: the family registers none.
    """
    registered = model_of_family(model_type)
    if registered is not None:
        return registered[0]
    package = registry().find(model_type).package
    experts = ": a mixture of experts is only written in Python" if isinstance(config, MoeConfig) else ""
    raise BackendUnavailableError(
        f"graph='cpp': {package} has no C++ graph for models of type {model_type!r}{experts}", hint=_HINT
    )


def _check_plain(model: CausalLM, name: str) -> None:
    """Raises BackendUnavailableError for features and inputs that the C++ graph would silently lack."""
    own = [feature for feature in model.features if not feature.takes_adapters]
    features = ", ".join(feature.feature_name for feature in own)
    if features:
        reason = f"the model has features ({features}), which need a graph that Python records"
    elif type(model)._update_model_inputs is not FlashCausalLMV3._update_model_inputs:
        reason = f"{type(model).__name__} adds inputs of its own"
    elif not _has_plain_heads(model):
        reason = "its layers differ in heads, or their caches are not of keys and values alone"
    elif model.window is not None or set(model.ropes) != {_plain_rope(model)}:
        reason = "its layers have a sliding window or a rotation other than that of whole heads by halves"
    elif any(_is_special(module) for module in model.modules()):
        reason = "it has an activation other than SiLU, or a factor or a cap of scores, embeddings or logits"
    else:
        return
    raise _cannot_replace(name, reason)


def _cannot_replace(name: str, reason: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"graph='cpp': {name} cannot replace the graph of this model: {reason}", hint=_HINT)


def _own_forward(model: CausalLM) -> str | None:
    """Returns the class of a module whose `forward` is not the core's, `None` if all are."""
    for module in model.modules():
        # A decorated model's `forward` runs steps; what it records is that of the class below.
        classes = (each for each in type(module).__mro__ if "feature_decorators" not in vars(each))
        owner = next(each for each in classes if "forward" in vars(each))
        if not owner.__module__.startswith("atb_core."):
            return owner.__name__
    return None


def _is_special(module: Any) -> bool:
    if isinstance(module, Attention):
        return bool(module.logits_soft_cap or abs(module.scale - module.head_dim**-0.5) > 1e-9)
    if isinstance(module, ParallelEmbedding):
        return module.scale is not None
    if isinstance(module, DecoderCausalLM):
        return bool(module.logits_softcap) or module.logits_scale is not None
    return isinstance(module, Mlp) and module.activation not in ("silu", "swish")


def _plain_rope(model: CausalLM) -> Rope:
    rope = model.config.rope()
    return dataclasses.replace(rope, size=model.model_status.head_dim, interleaved=False)


def _has_plain_heads(model: CausalLM) -> bool:
    """Returns true if all layers have the model's heads, and cache their keys and values."""
    status = model.model_status
    plain = KVCacheSpec.of_heads(status.num_kv_heads, status.head_dim, model.cache_dtype)
    return set(model.kv_cache_specs) == {plain} and all(each == status for each in model.layer_status)


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


def decoder_parameters(model: CausalLM, float32_logits: bool) -> dict[str, Any]:
    """Returns the fields of `core_DecoderModel`'s JSON parameter for `model`, except `isPrefill`."""
    status, config = model.model_status, model.config
    layers = [f"model.layers.{index}" for index in range(status.num_layers)]
    return {
        "torchDtype": model.dtype.short,
        "float32Logits": float32_logits,
        # A C++ model of another package need not know it.
        **({"int8KvCache": True} if model.cache_dtype is DataType.INT8 else {}),
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
        raise EngineError(f"{type(model).__name__} has no module {path!r}, which the C++ graph needs", hint=_HINT)
    return getattr(module, "bias", None) is not None


def _module(model: CausalLM, path: str) -> Any:
    """Returns the module at a path, `None` if there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
