# SPDX-License-Identifier: Apache-2.0
"""Causal language models: a family writes a symbolic `forward`, and `torch_to_mindie_graph` makes it run on tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from atb_core import nn
from atb_core.engine import get_backend
from atb_core.errors import (
    AtbError,
    BackendUnavailableError,
    EngineError,
    GraphError,
    RequestError,
    WeightsError,
    error_text,
)
from atb_core.features import FeatureDecorator, check_enabled, check_stacking, features_by_name
from atb_core.features.adapters import BASE_NAMES, adapter_manager
from atb_core.features.hidden_states import HiddenStates
from atb_core.features.step import Step
from atb_core.graph.arrays import Array, HostArray, to_numpy, to_torch
from atb_core.graph.dtype import DataType
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec, head_dims
from atb_core.layers.attention.long_form import in_own_names
from atb_core.models.base.mindie_llm_config import InferenceParameter, MindIELLMConfig, ModelStatus
from atb_core.models.runtime.inputs import (
    bounds,
    check_step,
    mixed_mask,
    single_window,
    symbolic_inputs,
    table_names,
    triangular_mask,
    window_inputs,
    window_mask,
)
from atb_core.models.runtime.rope_scaling import Rope
from atb_core.models.runtime.rotary import Frequencies, PositionEmbedding, rope_frequencies
from atb_core.models.runtime.variants import KVBinding, Variant, VariantStore
from atb_core.models.runtime.weight_loading import (
    BlockSink,
    collect_parameters,
    matrices_to_quantize,
    plan_loading,
    stream_weights,
)
from atb_core.nn.distributed.distributed import recording_in
from atb_core.plugin_errors import plugin_errors

if TYPE_CHECKING:
    from atb_core.checkpoint.base import WeightLoader
    from atb_core.checkpoint.progress import Progress
    from atb_core.engine.base import Backend, SlicedRun
    from atb_core.graph.tensor import Tensor
    from atb_core.layers.base import ShapeSource
    from atb_core.models.runtime.packed_weights import PackedWeights

__all__ = ["FlashCausalLMV3", "torch_to_mindie_graph"]

Extras: TypeAlias = "tuple[dict[str, Array], dict[str, Array], dict[str, Array]]"
ModelT = TypeVar("ModelT", bound="type[FlashCausalLMV3]")


class FlashCausalLMV3(nn.Module):
    """Base of causal language models. Construction is cheap: shapes only, no weights.

    A subclass sets `self.model` and `self.lm_head` and implements
    `forward(**kwargs) -> {"model_out": Tensor}` over the inputs of `models.runtime.inputs.symbolic_inputs`.

    Args:
        weight_loader: read only for shapes that the subclass's layers are not given; may be `None`.
        max_model_len: the longest sequence that will be run, in tokens; the model's own limit by default.
    """

    model_status_cls: type[ModelStatus] = ModelStatus
    #: False if an op other than attention reads the cache, which engines then keep as `ReshapeAndCache` describes it.
    packed_kv_cache: bool = True
    #: What tensors are called, to begin with, that a checkpoint may have and the model leaves out.
    unread_weights: Sequence[str] = ()

    def __init__(
        self,
        mindie_llm_config: MindIELLMConfig,
        weight_loader: ShapeSource | None,
        max_model_len: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        config = mindie_llm_config.hf_config
        self.mindie_llm_config = mindie_llm_config
        self.config = config
        self.max_model_len = max_model_len or config.context_length
        self.model_status = self.model_status_cls.from_config(mindie_llm_config)
        self.infer_param = InferenceParameter(config.data_type, self.max_model_len)
        layers = range(config.num_hidden_layers)
        #: The sizes with the heads of each layer.
        self.layer_status = [self.model_status.of_layer(config, layer) for layer in layers]
        #: The settings of rotary embedding of each layer, `None` for a layer without.
        self.ropes = [config.rope_of(layer) for layer in layers]
        #: The number of tokens that a token sees in layers with a window, itself included.
        self.window = single_window(map(config.window_of, layers))

    @property
    def dtype(self) -> DataType:
        """Returns the element type of weights and activations."""
        return self.config.data_type

    def rope_frequencies(self, rope: Rope, seq_len: int | None) -> Frequencies:
        """Returns the frequencies of rotary embedding by which tables are made; override it for a kind of your own.

        Args:
            rope: the settings of the layers, from the configuration's `rope_of`.
            seq_len: length of the sequence; `None` for frequencies that no length changes.
        """
        return rope_frequencies(rope, seq_len)

    def kv_cache_spec(self, layer_idx: int, dtype: DataType) -> KVCacheSpec:
        """Returns what layer `layer_idx` keeps of a token, keys and values; override it for a cache of your own.

        Args:
            layer_idx: number of the layer, from 0.
            dtype: element type of caches that the user chose, the model's or INT8.
        """
        heads = self.layer_status[layer_idx]
        return KVCacheSpec.of_heads(heads.num_kv_heads, heads.head_dim, dtype)

    def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
        """Records the model; returns its outputs by name, the logits as `model_out`."""
        raise GraphError(f"{type(self).__name__} defines no forward")

    def _update_model_inputs(self, meta: Step) -> Extras:
        """Returns further inputs, outputs and runtime parameters of a step, by name in the network.

        Args:
            meta: the step's record; a mapping as well, `meta["is_prefill"]`.
        """
        return {}, {}, {}


def torch_to_mindie_graph(*features: type[FeatureDecorator]) -> Callable[[ModelT], ModelT]:
    """Returns a decorator that makes a class with a symbolic `forward` run on real tensors.

    Args:
        features: features that may be stacked on the model; checked now, see `check_stacking`.
    """
    check_stacking(features)

    def decorate(cls: ModelT) -> ModelT:
        if not (isinstance(cls, type) and issubclass(cls, FlashCausalLMV3)):
            raise GraphError(f"torch_to_mindie_graph decorates subclasses of FlashCausalLMV3, not {cls!r}")
        record = in_own_names(cls.forward)

        @functools.wraps(CausalLM.run)
        def forward(self: CausalLM, *args: Any, **kwargs: Any) -> Any:
            # A subclass of a decorated class reaches its parent's symbolic forward through super().
            return record(self, *args, **kwargs) if self._recording else self.run(*args, **kwargs)

        copied = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        bases = (cls,) if issubclass(cls, CausalLM) else (CausalLM, cls)
        return type(cls.__name__, bases, {**copied, "forward": forward, "feature_decorators": features})  # type: ignore[return-value]

    return decorate


class CausalLM(FlashCausalLMV3):
    """A causal language model on real tensors: the base that `torch_to_mindie_graph` puts in front of a symbolic one.

    Records a network for each variant, has an engine built from it, loads the weights and runs steps.

    Args:
        backend: supplies the engines; `"cpu"`, `"reference"`, `"auto"` or a backend object.
        features: names of features of plugins to add to the model, or of features that it is decorated with.
        kv_cache_dtype: `"auto"`, the model's, or `"int8"`; `cache_dtype` is the result.

    Raises:
        RequestError: there is no feature of that name.
        GraphError, PluginError: the features do not stack, or one is not enabled on this model.
    """

    feature_decorators: Sequence[type[FeatureDecorator]] = ()

    def __init__(
        self,
        mindie_llm_config: MindIELLMConfig,
        weight_loader: ShapeSource | None,
        *,
        backend: Backend | str = "auto",
        features: Sequence[str] = (),
        kv_cache_dtype: str = "auto",
        **kwargs: Any,
    ) -> None:
        # Every model can have adapters, decorated with their features or not.
        manager = adapter_manager()
        own = {feature.feature_name: feature for feature in (*manager.features, *self.feature_decorators)}
        further = features_by_name(features, [HiddenStates, *own.values()])
        with recording_in(mindie_llm_config.mapping.group):
            super().__init__(mindie_llm_config, weight_loader, **kwargs)
        self.cache_dtype = DataType.INT8 if kv_cache_dtype == "int8" else self.dtype
        #: The cache of each layer, from which come its memory, its inputs of networks and the checks of steps.
        self.kv_cache_specs = [self.kv_cache_spec(i, self.cache_dtype) for i in range(len(self.layer_status))]
        every = [feature(self) for feature in (*own.values(), *further)]
        check_enabled(features, every)
        self.features = [feature for feature in every if feature.is_enabled]
        self.hidden_states = HiddenStates(self)
        self._recording = False
        self._loaded = False
        #: Bytes of weights in mapped files, which count as available memory.
        self.mapped_bytes = 0
        self.variants = VariantStore(
            get_backend(backend) if isinstance(backend, str) else backend,
            self.kv_cache_specs,
            self._symbolic_inputs,
            [self.hidden_states, *self.features],
            self._record,
            self.packed_kv_cache,
        )
        #: Called with each step before it runs; by it, a group's first process tells the others.
        self.before_step: Callable[[Step], None] | None = None
        #: The adapters of the model; a `ModelRunner` puts one of its own limits here.
        self.lora = manager(self)
        self._kv = KVBinding(self.kv_cache_specs)
        # The different settings, each of which needs tables.
        ropes = self._tables = [*dict.fromkeys(rope for rope in self.ropes if rope)] or [self.config.rope()]
        copied = self.backend.copies_constants
        self._positions = PositionEmbedding(ropes, self.dtype, self.max_model_len, self.rope_frequencies, copied)
        self._table_names = [name for index in range(len(ropes)) for name in table_names(index)]
        self._mask = triangular_mask(self.dtype)
        self._window_mask: HostArray = np.empty(0)

    def _symbolic_inputs(self, phase: str) -> dict[str, Any]:
        masked = self.backend.masks_new_tokens
        return symbolic_inputs(self.kv_cache_specs, self._tables, self.dtype, phase, self.window, masked=masked)

    def _record(self, **arguments: Any) -> Mapping[str, Tensor]:
        self._recording = True
        try:
            with recording_in(self.mindie_llm_config.mapping.group):
                return self(**arguments)  # type: ignore[no-any-return]
        finally:
            self._recording = False

    @property
    def backend(self) -> Backend:
        """Returns the supplier of the model's engines."""
        return self.variants.backend

    @property
    def supports_mixed_steps(self) -> bool:
        """Returns true if a step may bring any number of new tokens of each sequence, see `Step.q_lens`."""
        return self.mixed_steps_problem() is None

    def mixed_steps_problem(self, block_size: int | None = None) -> str | None:
        """Returns why the model has no steps with `q_lens`, `None` if it has them.

        Args:
            block_size: of the cache, on which it may depend.
        """
        problem = self._mixed_variant_problem
        for feature in self.features:
            # One that stacks on nothing is never active.
            if problem is None and (feature.is_stackable(["prefill"]) or feature.is_stackable(["decode"])):
                problem = feature.stacking_problem(["mixed"])
        if block_size is not None:
            for head_dim in head_dims(self.kv_cache_specs):
                problem = problem or self.backend.mixed_steps_problem(head_dim, block_size)
        return problem

    @functools.cached_property
    def _mixed_variant_problem(self) -> str | None:
        if self.window is not None:
            return (
                "in the cache of a sliding window, later tokens of a step take the place of ones that earlier ones see"
            )
        if self._positions.depends_on_length:
            return "its rotary embedding depends on the length of the whole prompt"
        try:
            self.variants.get("mixed")
        # A `forward` of a family that does not know `q_lens` ends with a TypeError, or attention refuses the shapes.
        except (AtbError, TypeError) as error:
            return error_text(error)
        return None

    @plugin_errors()
    def load_weights(
        self, loader: WeightLoader, progress: Progress | None = None, quantization: str | None = None, *,
        keep_blocks: bool = False, packed: PackedWeights | None = None,
    ) -> None:  # fmt: skip
        """Reads all weights into the engine's store.

        Names and shapes are compared first, from metadata; then tensors are read one by one, converted to the
        model's dtype and dropped once the engine has them.

        Args:
            loader: the checkpoint's tensors.
            progress: shows how far the loading is.
            quantization: format of matrices of linears and embeddings, `"int8"` or `"int4"`; `None`: the model's dtype.
            keep_blocks: keeps matrices that the checkpoint has in a quantised format in it, if the engine can.
            packed: file from which packed weights are mapped; written if it is not there.

        Raises:
            BackendUnavailableError: the backend cannot quantise.
            WeightsError: one message with every missing, misshapen and unexpected tensor; or a quantized checkpoint.
        """
        quantized = self.config.quantization_config or self.config.quantize
        if quantized and loader.quantization is None:
            method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
            raise WeightsError(
                f"the configuration says that the weights are quantised ({method}), and these are plain tensors",
                hint="Open the checkpoint by its directory, or use the unquantised one.",
            )
        plan = plan_loading(collect_parameters([self]), loader, self.unread_weights)
        engine = self.variants.get("prefill").engine
        unused = sorted({p.name for p in plan.parameters} - engine.network.weights_keys)
        if unused:
            raise GraphError(f"{type(self).__name__} never uses these parameters: {', '.join(unused)}")
        if quantization is not None and quantization not in self.backend.quantizations:
            raise BackendUnavailableError(
                f"the backend {self.backend.name!r} does not quantise weights to {quantization}",
                hint=f"It can: {', '.join(sorted(self.backend.quantizations)) or 'nothing'}.",
            )
        store = self.variants.store
        if packed is not None and packed.load(store, loader):
            self.mapped_bytes, self._loaded = store.nbytes, True
            return
        matrices = matrices_to_quantize(plan.parameters, engine.network, quantization or "")

        def sink(name: str, weight: HostArray) -> None:
            if quantization is not None and name in matrices:
                engine.quantize_weight(name, weight, quantization)
            else:
                engine.set_weights({name: weight})

        formats = self.backend.block_formats if keep_blocks and quantization is None else ()
        blocks = BlockSink(matrices, formats, engine.set_weight_blocks) if formats else None
        stream_weights(plan, loader, sink, progress, engine.set_weight_part, blocks, self.backend.copies_weights)
        self._loaded = True
        if packed is not None:
            packed.save(store, loader)

    @plugin_errors()
    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Runs one step: the `forward` of a decorated class.

        The arguments are the fields of `Step`, which describes their shapes; others are for features and hooks.

        Returns:
            Logits `[R, vocab_size]` (`[T, vocab_size]` in decode), float32 where the backend has `float32_logits`,
            else in the model's dtype; valid until the next call. A torch tensor if `input_ids` is one.

        Raises:
            RequestError: an argument is missing or of another kind, or a token id, position or slot is out of range;
                named before anything runs.
            EngineError: wrong shapes or dtypes, or weights that have not been loaded.
        """
        try:
            step = Step.of(*args, **kwargs)
        except TypeError as error:
            raise RequestError(f"forward: {str(error).replace('Step.__init__() ', '')}") from None
        return self.run_step(step.checked())

    def run_step(self, step: Step) -> Any:
        """Runs one step that is a record already, see `run`; callers name the plugins whose code raises something."""
        variant, *arguments = self._prepared(step)
        return variant.engine.forward(*arguments)["model_out"]

    @property
    def slices_steps(self) -> bool:
        """True if there is `start_step`: engines can pause, and no other process takes part in steps."""
        return self.before_step is None and self.variants.get("mixed").engine.slices_runs

    def start_step(self, step: Step) -> SlicedRun:
        """Begins a step over the cache, or of whole prompts, that other steps may interrupt; its arrays are of numpy.

        Until it has ended, nothing else may write the slots that it writes, and adapters that it names must stay.
        The outputs at its end have the logits as `model_out`, of the shape that `run` says. Raises as `run`.
        """
        variant, inputs, outputs, _ = self._prepared(step)
        # The originals may be buffers that other steps use, too.
        own = {name: np.copy(to_numpy(value)) for name, value in inputs.items()}
        return variant.engine.start(own, {name: np.empty_like(to_numpy(value)) for name, value in outputs.items()})

    def _prepared(self, step: Step) -> tuple[Variant, dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Returns the variant of a step, with its caches and constants, its inputs, outputs and runtime parameters."""
        if not self._loaded:
            raise EngineError("the weights have not been loaded", hint="Call load_weights(loader) first.")
        self._kv.update(step.kv_cache)
        if self.before_step is not None:
            self.before_step(step)
        if step.q_lens is not None:
            self.check_mixed_steps(self._kv.block_size)
        active = [each for each in (self.hidden_states, *self.features) if each.is_activated(step)]
        named = [each for each in step.adapter_ids or () if each not in BASE_NAMES]
        if named and not any(each.takes_adapters for each in active):
            raise RequestError(
                f"{type(self).__name__} has no feature that takes adapters here, and the step names adapters",
                hint="Leave adapter_ids out. Adapters need atb-lora; graphs that C++ builds (graph='cpp') have none.",
            )
        variant = self.variants.get(step.phase, active)
        self._kv.bind(variant)
        inputs = self._inputs(step, variant)
        rows, lengths = inputs.get("lm_head_indices"), inputs.get("input_lengths")
        binding = {"tokens": step.input_ids.shape[0]}
        if rows is not None:
            binding["rows"] = rows.shape[0]
        if lengths is not None:
            binding["batch"] = lengths.shape[0]
        outputs = variant.outputs(binding)
        if not isinstance(step.input_ids, np.ndarray):
            outputs = {name: to_torch(value) for name, value in outputs.items()}
        # What ATB reads on the host, too.
        runtime_params = {name: value for name, value in inputs.items() if name in ("input_lengths", "q_lens")}
        if type(self)._update_model_inputs is not FlashCausalLMV3._update_model_inputs:
            for own, values in zip((inputs, outputs, runtime_params), self._extras(step), strict=True):
                own.update(values)
        for feature in active:
            feature.modify_inputs(inputs, outputs, runtime_params, step)
        variant.bind_features(active, step)
        variant.bind_constants(inputs)
        return variant, inputs, outputs, runtime_params

    def _extras(self, step: Step) -> Extras:
        extras = self._update_model_inputs(step)
        if not (isinstance(extras, tuple) and len(extras) == 3 and all(isinstance(e, dict) for e in extras)):
            types = [type(extra).__name__ for extra in (extras if isinstance(extras, tuple) else [extras])]
            raise RequestError(
                "_update_model_inputs must return three dicts (inputs, outputs, runtime parameters), "
                f"not ({', '.join(types)})"
            )
        return extras

    def check_mixed_steps(self, block_size: int | None = None) -> None:
        """Raises RequestError if there is a `mixed_steps_problem`."""
        if (problem := self.mixed_steps_problem(block_size)) is not None:
            raise RequestError(
                f"{type(self).__name__} has no steps with q_lens: {problem}",
                hint="Run whole prompts (is_prefill=True), then one token of each sequence at a time.",
            )

    def _inputs(self, step: Step, variant: Variant) -> dict[str, Array]:
        """Returns those inputs that the variant's network reads, of the ones that every model has."""
        slots, lengths = check_step(step, self.config.vocab_size, self._kv.slots, self._kv.block_size)
        tables, positions = self._positions.tables(step.position_ids, lengths, step.is_prefill)
        available: dict[str, Array] = {
            **dict(zip(self._table_names, chain.from_iterable(tables), strict=True)),
            "input_ids": step.input_ids,
            "position_ids": positions,
            "slots": slots,
            "input_lengths": lengths,
        }
        if step.is_prefill:
            available["attention_mask"] = self._mask
        elif step.block_tables is not None:
            available["block_tables"] = step.block_tables
        if step.is_prefill or step.q_lens is not None:
            rows = step.lm_head_indices
            available["lm_head_indices"] = np.arange(len(step.input_ids)) if rows is None else rows
        if step.q_lens is not None:
            available["q_lens"] = step.q_lens
            if self.backend.masks_new_tokens:
                available["mixed_mask"] = mixed_mask(to_numpy(step.q_lens), to_numpy(lengths), self.dtype)
        window = self.window
        if window is not None:
            available.update(window_inputs(step, slots, lengths, window, self._kv.block_size))
            if bounds(available["window_slots"])[1] >= self._kv.slots:
                raise RequestError(f"block_tables leads out of a KV cache of {self._kv.slots} slots")
            longest = bounds(lengths)[1]
            if step.is_prefill and longest > len(self._window_mask):
                self._window_mask = window_mask(longest, window, self.dtype)
            available["window_mask"] = self._window_mask
        return {name: available[name] for name in variant.input_names if name in available}
