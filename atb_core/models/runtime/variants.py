# SPDX-License-Identifier: Apache-2.0
"""The networks of a model, one for each set of features, recorded and built when first needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from atb_core.engine.base import Backend, Engine
from atb_core.errors import EngineError, GraphError
from atb_core.features import BASE_FEATURES, FeatureDecorator
from atb_core.graph.dim import Dim, DimLike
from atb_core.graph.network import Network
from atb_core.graph.passes import run_passes
from atb_core.graph.passes.linears import widen_outputs
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_to_torch

VariantKey = frozenset[str]
# Logits of a long prompt are large; buffers above this size are not kept from step to step.
_KEPT_BYTES = 64 << 20


@dataclass
class Variant:
    """One built network and what a step needs to know of it.

    `input_names` are the inputs that come with every step: all but weights and KV caches.
    """

    key: VariantKey
    engine: Engine
    input_names: tuple[str, ...]
    cache_names: tuple[str, ...]
    kv_generation: int = -1
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    _buffers: dict[str, torch.Tensor] = field(default_factory=dict)

    def bind_constants(self, inputs: dict[str, torch.Tensor], names: Collection[str]) -> None:
        """Takes the inputs called `names` out of `inputs`; the engine gets those that are not the ones it has."""
        for name in names:
            value = inputs.pop(name, None)
            if value is not None and value is not self.constants.get(name):
                self.engine.set_constants({name: value})
                self.constants[name] = value

    def outputs(self, binding: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """A tensor for every output, reused from step to step while its buffer is large enough."""
        return {output.name: self._output(output, binding) for output in self.engine.network.outputs if output.name}

    def _output(self, output: Tensor, binding: Mapping[str, int]) -> torch.Tensor:
        if output.shape is None or output.dtype is None:
            raise GraphError(f"the shape of the model's output {output.name!r} could not be inferred")
        shape = [_size(size, binding) for size in output.shape]
        numel = 1
        for size in shape:
            numel *= size
        assert output.name is not None
        buffer = self._buffers.get(output.name)
        if buffer is None or buffer.numel() < numel:
            buffer = torch.empty(numel, dtype=dtype_to_torch(output.dtype))
            if numel * output.dtype.itemsize <= _KEPT_BYTES:
                self._buffers[output.name] = buffer
        return buffer[:numel].view(shape)


class VariantStore:
    """All variants of one model over one weight store.

    Args:
        record: the model's symbolic forward with a variant's keyword arguments, giving its outputs by name.
        base_inputs: symbolic inputs and flags for a base feature, "prefill" or "decode".
        cache_names: inputs that hold the KV cache.
    """

    def __init__(
        self,
        backend: Backend,
        features: Sequence[FeatureDecorator],
        record: Callable[..., Mapping[str, Tensor]],
        base_inputs: Callable[[str], dict[str, Any]],
        cache_names: Collection[str],
    ) -> None:
        self.backend = backend
        self.store = backend.new_store()
        self.variants: dict[VariantKey, Variant] = {}
        self._features = features
        self._record = record
        self._base_inputs = base_inputs
        self._cache_names = frozenset(cache_names)

    def get(self, key: VariantKey) -> Variant:
        """The variant for exactly these features, built now if it is the first use."""
        variant = self.variants.get(key)
        if variant is None:
            variant = self.variants[key] = self.build(key, self.prepared(key))
        return variant

    def key(self, base: str, active: Sequence[FeatureDecorator]) -> VariantKey:
        """The key of a step; EngineError names two active features that do not stack."""
        names = [base]
        for feature in active:
            if not feature.is_stackable(names):
                others = ", ".join(repr(n) for n in names if n not in feature.feature_stackable_whitelist)
                raise EngineError(f"the feature {feature.feature_name!r} does not stack on {others}")
            if feature.need_additional_engine:
                names.append(feature.feature_name)
        return frozenset(names)

    def network(self, key: VariantKey) -> Network:
        """The variant as it is recorded, before any pass."""
        (base,) = key & set(BASE_FEATURES)
        arguments = self._base_inputs(base)
        for feature in self._features:
            if feature.feature_name in key:
                arguments.update(feature.variant_inputs())
                arguments.update(feature.variant_arguments())
        with Network("_".join(sorted(key))) as network:
            outputs = self._record(**arguments)
            if not isinstance(outputs, Mapping) or "model_out" not in outputs:
                raise GraphError("a model's forward must return a dict with the key 'model_out'")
            for name, tensor in outputs.items():
                network.mark_output(tensor, name)
        return network

    def prepared(self, key: VariantKey, leave_out: Sequence[str] = ()) -> Network:
        """The variant as the backend gets it, after the passes; see `passes.pipeline` for those left out."""
        recorded = self.network(key)
        if self.backend.float32_logits:
            recorded = widen_outputs(recorded)
        return run_passes(recorded, self.backend.name, leave_out)

    def build(self, key: VariantKey, network: Network) -> Variant:
        """An engine for `network` over the model's weights. Keeps nothing: `variants[key]` is what a step uses."""
        engine = self.backend.build(network, self.store)
        names = [t.name for t in engine.network.inputs if t.name and t.name not in engine.network.weights_keys]
        return Variant(
            key,
            engine,
            tuple(name for name in names if name not in self._cache_names),
            tuple(name for name in names if name in self._cache_names),
        )


def _size(size: DimLike, binding: Mapping[str, int]) -> int:
    return size.evaluate(binding) if isinstance(size, Dim) else size
