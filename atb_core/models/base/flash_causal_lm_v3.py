# SPDX-License-Identifier: Apache-2.0
"""Causal language models: a symbolic `forward` written by a family, run on real tensors.

The author derives from `FlashCausalLMV3`, writes a `forward` over symbolic tensors and decorates the class
with `torch_to_mindie_graph`. The decorated class's `forward` takes real tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from atb_core import nn
from atb_core.engine import get_backend
from atb_core.errors import EngineError, GraphError, WeightsError
from atb_core.features import FeatureDecorator, check_enabled, check_stacking, features_by_name
from atb_core.features.step import KVCache, Step
from atb_core.graph.dtype import DataType
from atb_core.layers.attention.long_form import in_own_names
from atb_core.models.base.mindie_llm_config import InferenceParameter, MindIELLMConfig, ModelStatus
from atb_core.models.runtime.graph_runtime import GraphRuntime
from atb_core.models.runtime.weight_loading import collect_parameters, plan_loading, stream_weights

if TYPE_CHECKING:
    from atb_core.checkpoint.base import WeightLoader
    from atb_core.checkpoint.progress import Progress
    from atb_core.engine.base import Backend
    from atb_core.graph.tensor import Tensor
    from atb_core.layers.base import ShapeSource

__all__ = ["FlashCausalLMV3", "torch_to_mindie_graph"]

Extras = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]
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

    @property
    def dtype(self) -> DataType:
        """Element type of weights, activations and KV cache."""
        return self.config.data_type

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
    """Makes a class with a symbolic `forward` into one that runs on real tensors.

    Args:
        features: what may be stacked on the model; checked now, see `check_stacking`.
    """
    check_stacking(features)

    def decorate(cls: ModelT) -> ModelT:
        if not (isinstance(cls, type) and issubclass(cls, FlashCausalLMV3)):
            raise GraphError(f"torch_to_mindie_graph decorates subclasses of FlashCausalLMV3, not {cls!r}")
        return _decorated(cls, features)  # type: ignore[return-value]

    return decorate


def _decorated(cls: type[FlashCausalLMV3], features: Sequence[type[FeatureDecorator]]) -> type[FlashCausalLMV3]:
    record = in_own_names(cls.forward)

    @functools.wraps(CausalLM.run)
    def forward(self: CausalLM, *args: Any, **kwargs: Any) -> Any:
        # A subclass of a decorated class reaches its parent's symbolic forward through super().
        return record(self, *args, **kwargs) if self._recording else self.run(*args, **kwargs)

    namespace = {
        "forward": forward,
        "feature_decorators": tuple(features),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    bases = (cls,) if issubclass(cls, CausalLM) else (CausalLM, cls)
    return type(cls.__name__, bases, namespace)


class CausalLM(FlashCausalLMV3):
    """A causal language model on real tensors: the base that `torch_to_mindie_graph` puts in front of a symbolic one.

    Records a network for each variant, has an engine built from it, loads the weights and runs steps.

    Args:
        backend: supplies the engines; `"cpu"`, `"reference"`, `"auto"` or a backend object.
        features: names of features of plugins to add to the model, or of features that it is decorated with.

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
        **kwargs: Any,
    ) -> None:
        further = features_by_name(features, self.feature_decorators)
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        self.features = [feature(self) for feature in (*self.feature_decorators, *further)]
        check_enabled(features, self.features)
        self._recording = False
        self._loaded = False
        self.runtime = GraphRuntime(
            config=self.config,
            status=self.model_status,
            max_model_len=self.max_model_len,
            backend=get_backend(backend) if isinstance(backend, str) else backend,
            features=[feature for feature in self.features if feature.is_enabled],
            record=self._record,
            update_inputs=self._update_model_inputs,
        )

    def _record(self, **arguments: Any) -> Mapping[str, Tensor]:
        self._recording = True
        try:
            return self(**arguments)  # type: ignore[no-any-return]
        finally:
            self._recording = False

    @property
    def backend(self) -> Backend:
        """Returns the supplier of the model's engines."""
        return self.runtime.variants.backend

    def load_weights(self, loader: WeightLoader, progress: Progress | None = None) -> None:
        """Reads all weights into the engine's store.

        Names and shapes are compared first, from metadata; then tensors are read one by one, converted to the
        model's dtype and dropped once the engine has them.

        Raises:
            WeightsError: one message with every missing, misshapen and unexpected tensor; or a quantised checkpoint.
        """
        quantized = self.config.quantization_config
        if quantized:
            method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
            raise WeightsError(
                f"the checkpoint is quantised ({method}), which is not supported",
                hint="Use the model's unquantised checkpoint, or a GGUF file of it.",
            )
        plan = plan_loading(collect_parameters([self]), loader)
        engine = self.runtime.variant("prefill").engine
        unused = sorted({p.name for p in plan.parameters} - engine.network.weights_keys)
        if unused:
            raise GraphError(f"{type(self).__name__} never uses these parameters: {', '.join(unused)}")
        stream_weights(
            plan, loader, lambda name, tensor: engine.set_weights({name: tensor}), progress, engine.set_weight_part
        )
        self._loaded = True

    def run(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        is_prefill: bool,
        kv_cache: KVCache,
        block_tables: torch.Tensor | None = None,
        slots: torch.Tensor | None = None,
        input_lengths: torch.Tensor | None = None,
        max_seq_len: int | None = None,
        lm_head_indices: torch.Tensor | None = None,
        adapter_ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Runs one step: the `forward` of a decorated class.

        The arguments are the fields of `Step`, where their shapes are; others are for features and hooks.

        Returns:
            Logits `[R, vocab_size]` (`[T, vocab_size]` in decode), float32 where the backend has `float32_logits`,
            else in the model's dtype; valid until the next call.

        Raises:
            RequestError: a token id, position or slot out of range, named before anything runs.
            EngineError: wrong shapes or dtypes, or weights that have not been loaded.
        """
        step = Step(
            input_ids,
            position_ids,
            is_prefill,
            kv_cache,
            block_tables,
            slots,
            input_lengths,
            max_seq_len,
            lm_head_indices,
            adapter_ids,
            kwargs,
        )
        return self.run_step(step)

    def run_step(self, step: Step) -> torch.Tensor:
        """Runs one step that is a record already; see `run`."""
        if not self._loaded:
            raise EngineError("the weights have not been loaded", hint="Call load_weights(loader) first.")
        return self.runtime.step(step)
