# SPDX-License-Identifier: Apache-2.0
"""The networks of a model, one for each set of features, recorded and built when first needed."""

from __future__ import annotations

import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from atb_core.engine.base import Backend, Engine
from atb_core.errors import GraphError, RequestError
from atb_core.features import BASE_FEATURES, FeatureDecorator
from atb_core.features.base import check_active
from atb_core.features.step import KVCache, Step
from atb_core.graph.arrays import Array, HostArray, is_tensor, numpy_dtype
from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.passes import run_passes
from atb_core.graph.passes.caches import pack_caches, round_prefill
from atb_core.graph.passes.linears import widen_outputs
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec, named_tensors
from atb_core.models.runtime.inputs import CONSTANT_INPUTS

VariantKey = frozenset[str]
# Logits of a long prompt are large; buffers above this size are not kept from step to step.
_KEPT_BYTES = 64 << 20
#: Number of variants that are kept; the one that was used least recently goes first.
MAX_VARIANTS = 24


@dataclass
class Variant:
    """One built network, what a step needs to know of it, and its buffers.

    `input_names` are the inputs that come with every step: all but weights and KV caches. Of these, `constant_names`
    seldom change.
    """

    key: VariantKey
    engine: Engine
    input_names: tuple[str, ...]
    constant_names: tuple[str, ...]
    cache_names: tuple[str, ...]
    kv_generation: int = -1
    constants: dict[str, Array] = field(default_factory=dict)
    _buffers: dict[str, HostArray] = field(default_factory=dict)
    _binding: Mapping[str, int] = field(default_factory=dict)
    _outputs: dict[str, Array] = field(default_factory=dict)
    _of_features: dict[str, Mapping[str, Array]] = field(default_factory=dict)

    def bind_features(self, active: Sequence[FeatureDecorator], step: Step) -> None:
        """Gives the engine those `constants` of features that are others than in the variant's last step."""
        for feature in active:
            constants = feature.constants(step)
            if constants and constants is not self._of_features.get(feature.feature_name):
                self.engine.set_constants(constants)
                self._of_features[feature.feature_name] = constants
                self.input_names = tuple(name for name in self.input_names if name not in constants)

    def bind_constants(self, inputs: dict[str, Array]) -> None:
        """Removes the inputs that seldom change and gives the engine those that did."""
        for name in self.constant_names:
            value = inputs.pop(name, None)
            if value is not None and value is not self.constants.get(name):
                self.engine.set_constants({name: value})
                self.constants[name] = value

    def outputs(self, binding: Mapping[str, int]) -> dict[str, Array]:
        """Returns an array for every output, reused from step to step while its buffer is large enough."""
        if binding == self._binding:
            return dict(self._outputs)
        outputs: dict[str, Array] = {o.name: self._output(o, binding) for o in self.engine.network.outputs if o.name}
        if sum(output.nbytes for output in outputs.values()) <= _KEPT_BYTES:
            self._binding, self._outputs = binding, dict(outputs)
        return outputs

    def _output(self, output: Tensor, binding: Mapping[str, int]) -> HostArray:
        if output.shape is None or output.dtype is None:
            raise GraphError(f"the shape of the model's output {output.name!r} could not be inferred")
        shape = [size.evaluate(binding) if isinstance(size, Dim) else size for size in output.shape]
        numel = math.prod(shape)
        assert output.name is not None
        buffer = self._buffers.get(output.name)
        if buffer is None or buffer.size < numel:
            buffer = np.empty(numel, numpy_dtype(output.dtype))
            if numel * output.dtype.itemsize <= _KEPT_BYTES:
                self._buffers[output.name] = buffer
        return buffer[:numel].reshape(shape)


class KVBinding:
    """The cache tensors in use; `generation` changes when a step brings others.

    Holding the tensors keeps their addresses from being reused by another cache. The addresses of
    torch tensors are compared too, because their storage can be replaced in place.
    """

    def __init__(self, specs: Sequence[KVCacheSpec]) -> None:
        self._counts = [len(spec.tensors) for spec in specs]
        self._names = [*chain.from_iterable(named_tensors(specs))]
        self.generation = 0
        self.block_size = 0
        self.slots = 0
        self._tensors: list[Array] = []
        # Those that are not of numpy, and their addresses.
        self._foreign: list[Any] = []
        self._places: list[int] = []
        # The tuples that hold the tensors; `None` for lists, which may hold others by the next step.
        self._pairs: list[tuple[Array, ...]] | None = None

    def update(self, kv_cache: KVCache) -> None:
        """Takes the cache of a step.

        Raises:
            RequestError: it is no list with the tensors of each layer, or they have no four dimensions.
        """
        # Maps, because this runs over every layer in every step.
        pairs = self._pairs
        tensors = (
            self._tensors
            if pairs is not None and type(kv_cache) is list and _same(kv_cache, pairs)
            else _tensors_of(kv_cache)
        )
        is_known = self.generation > 0 and _same(tensors, self._tensors)
        if is_known and [value.data_ptr() for value in self._foreign] == self._places:
            return
        if [*map(len, kv_cache)] != self._counts:
            raise RequestError(
                f"the KV cache has {len(tensors)} tensors for {len(self._counts)} layers",
                hint="Give (k, v) per layer, or what the model's kv_cache_specs say.",
            )
        if tensors[0].ndim != 4:
            raise RequestError(f"a KV cache must be [blocks, block_size, heads, size], not {list(tensors[0].shape)}")
        self._tensors = tensors
        self._foreign = [value for value in tensors if not isinstance(value, np.ndarray)]
        self._places = [value.data_ptr() for value in self._foreign]
        self._pairs = list(kv_cache) if {*map(type, kv_cache)} == {tuple} else None
        self.block_size = tensors[0].shape[1]
        self.slots = tensors[0].shape[0] * self.block_size
        self.generation += 1

    def bind(self, variant: Variant) -> None:
        """Gives the cache to the variant's engine if the engine does not have it yet."""
        if variant.kv_generation == self.generation:
            return
        named = dict(zip(self._names, self._tensors, strict=True))
        variant.engine.set_kv_caches({name: named[name] for name in variant.cache_names})
        variant.kv_generation = self.generation


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    return some is others or (len(some) == len(others) and all(map(operator.is_, some, others)))


def _tensors_of(kv_cache: KVCache) -> list[Array]:
    if not (
        isinstance(kv_cache, (list, tuple)) and all(issubclass(kind, (list, tuple)) for kind in {*map(type, kv_cache)})
    ):
        raise RequestError(f"kv_cache must be a list of (k_cache, v_cache), not {type(kv_cache).__name__}")
    tensors = list(chain.from_iterable(kv_cache))
    if {*map(type, tensors)} != {np.ndarray} and not all(isinstance(t, np.ndarray) or is_tensor(t) for t in tensors):
        raise RequestError("kv_cache has something that is neither a torch.Tensor nor a numpy array")
    return tensors


class VariantStore:
    """All variants of one model over one weight store.

    Args:
        specs: the KV cache of each layer.
        inputs: returns the keyword arguments of the model's symbolic forward for a base of variants.
        record: the model's symbolic forward; takes a variant's keyword arguments and returns its outputs by name.
        packed_kv: whether engines may keep the cache in an order of their own.
    """

    def __init__(
        self,
        backend: Backend,
        specs: Sequence[KVCacheSpec],
        inputs: Callable[[str], dict[str, Any]],
        features: Sequence[FeatureDecorator],
        record: Callable[..., Mapping[str, Tensor]],
        packed_kv: bool = True,
    ) -> None:
        self.backend = backend
        self.store = backend.new_store()
        # The one that was used last at the end.
        self.variants: OrderedDict[VariantKey, Variant] = OrderedDict()
        self._inputs = inputs
        self._features = features
        self._record = record
        self._packed_kv = packed_kv and backend.packs_caches
        self._cache_names = frozenset(chain.from_iterable(named_tensors(specs)))

    def get(self, base: str, active: Sequence[FeatureDecorator] = ()) -> Variant:
        """Returns the variant of a base, such as "prefill", with the active features, built on first use.

        Raises:
            EngineError: two active features do not stack; names both and the reason.
        """
        key = self.key(base, active)
        variant = self.variants.get(key)
        if variant is None:
            variant = self.build(key, self.prepared(key))
            while len(self.variants) >= MAX_VARIANTS:
                self.variants.popitem(last=False)
            self.variants[key] = variant
        self.variants.move_to_end(key)
        return variant

    def key(self, base: str, active: Sequence[FeatureDecorator]) -> VariantKey:
        """Returns the key of a variant; raises EngineError as `get` does."""
        return frozenset(check_active(active, base))

    def network(self, key: VariantKey) -> Network:
        """Records a variant and returns its network before any pass."""
        (base,) = key & set(BASE_FEATURES)
        arguments = self._inputs(base)
        features = [feature for feature in self._features if feature.feature_name in key]
        for feature in features:
            arguments.update(feature.variant_inputs())
            arguments.update(feature.variant_arguments())
        with Network("_".join(sorted(key))) as network:
            with ExitStack() as stack:
                for feature in features:
                    stack.enter_context(feature.recording())
                outputs = self._record(**arguments)
            if isinstance(outputs, Mapping):
                outputs = dict(outputs)
                for feature in features:
                    feature.modify_outputs(outputs)
            if not isinstance(outputs, Mapping) or "model_out" not in outputs:
                raise GraphError("a model's forward must return a dict with the key 'model_out'")
            for name, tensor in outputs.items():
                network.mark_output(tensor, name)
            if base == "mixed" and not {"q_lens", "lm_head_indices"} <= {tensor.name for tensor in network.inputs}:
                raise GraphError("forward reads q_lens or lm_head_indices in no way")
        is_int8 = any(cache.dtype is DataType.INT8 for cache in arguments.get("k_caches", ()))
        return round_prefill(network) if is_int8 else network

    def prepared(self, key: VariantKey, leave_out: Sequence[str] = ()) -> Network:
        """Returns the variant's network after the passes but those in `leave_out`, see `passes.pipeline`."""
        recorded = self.network(key)
        if self.backend.float32_logits:
            recorded = widen_outputs(recorded)
        if self._packed_kv:
            recorded = pack_caches(recorded, self._cache_names)
        return run_passes(recorded, self.backend.name, leave_out)

    def build(self, key: VariantKey, network: Network) -> Variant:
        """Builds an engine for `network` over the model's weights. `get` returns only what is in `variants`."""
        return self.variant(key, self.backend.build(network, self.store))

    def variant(self, key: VariantKey, engine: Engine) -> Variant:
        """Returns the record of a built engine."""
        names = [t.name for t in engine.network.inputs if t.name and t.name not in engine.network.weights_keys]
        return Variant(
            key,
            engine,
            tuple(name for name in names if name not in self._cache_names),
            tuple(name for name in names if name.startswith(CONSTANT_INPUTS)),
            tuple(name for name in names if name in self._cache_names),
        )
