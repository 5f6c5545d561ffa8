# SPDX-License-Identifier: Apache-2.0
"""Runs a model's variants on real tensors. One object a model; a step costs little besides its kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from atb_core.engine.base import Backend
from atb_core.errors import RequestError
from atb_core.features import FeatureDecorator
from atb_core.features.step import Step
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_to_torch
from atb_core.models.runtime.inputs import (
    CONSTANT_INPUTS,
    MASK_SIZE,
    filled_up,
    k_cache_name,
    symbolic_inputs,
    v_cache_name,
)
from atb_core.models.runtime.kv_binding import KVBinding
from atb_core.models.runtime.position_embedding import PositionEmbedding
from atb_core.models.runtime.protocols import DecoderSizes, RuntimeConfig
from atb_core.models.runtime.variants import Variant, VariantStore

UpdateInputs = Callable[[Step], Any]


class GraphRuntime:
    """Variants, position tables, mask, KV binding and outputs of one model.

    Args:
        record: the symbolic forward.
        update_inputs: the model's hook for inputs of its own.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        status: DecoderSizes,
        max_model_len: int,
        backend: Backend,
        features: Sequence[FeatureDecorator],
        record: Callable[..., Mapping[str, Tensor]],
        update_inputs: UpdateInputs,
    ) -> None:
        self.config = config
        self.features = features
        self._update_inputs = update_inputs
        layers = range(status.num_layers)
        self.variants = VariantStore(
            backend,
            features,
            record,
            lambda base: symbolic_inputs(status, config.data_type, base == "prefill"),
            [*map(k_cache_name, layers), *map(v_cache_name, layers)],
        )
        self._kv = KVBinding(status.num_layers)
        dtype = dtype_to_torch(config.data_type)
        self.positions = PositionEmbedding(config, dtype, max_model_len)
        self._mask = triangular_mask(dtype)
        self._all_rows = torch.arange(0)

    def variant(self, base: str, *features: str) -> Variant:
        """The built variant for a base feature, "prefill" or "decode", and further features."""
        return self.variants.get(frozenset((base, *features)))

    def network(self, base: str, *features: str) -> Network:
        """A fresh recording of a variant, before passes, for looking at."""
        return self.variants.network(frozenset((base, *features)))

    def step(self, step: Step) -> torch.Tensor:
        """Runs one step and returns its logits; see `CausalLM.run`."""
        active = [feature for feature in self.features if feature.is_activated(step)]
        base = "prefill" if step.is_prefill else "decode"
        variant = self.variants.get(self.variants.key(base, active) if active else frozenset((base,)))
        self._kv.update(step.kv_cache)
        self._kv.bind(variant)
        inputs = self._inputs(step, variant)
        tokens = step.input_ids.shape[0]
        missing = -tokens % self.variants.backend.token_multiple if step.is_prefill else 0
        if missing:
            inputs = filled_up(inputs, missing)
        rows = inputs.get("lm_head_indices")
        lengths = inputs.get("input_lengths")
        binding = {"tokens": tokens + missing}
        if rows is not None:
            binding["rows"] = rows.shape[0]
        if lengths is not None:
            binding["batch"] = lengths.shape[0]
        outputs = variant.outputs(binding)
        runtime_params = {} if lengths is None else {"input_lengths": lengths}
        self._extend(step, inputs, outputs, runtime_params)
        for feature in active:
            feature.modify_inputs(inputs, outputs, runtime_params, step)
        variant.bind_constants(inputs, CONSTANT_INPUTS)
        return variant.engine.forward(inputs, outputs, runtime_params)["model_out"]

    def _extend(
        self,
        step: Step,
        inputs: dict[str, torch.Tensor],
        outputs: dict[str, torch.Tensor],
        runtime_params: dict[str, torch.Tensor],
    ) -> None:
        extras = self._update_inputs(step)
        if not (isinstance(extras, tuple) and len(extras) == 3 and all(isinstance(e, dict) for e in extras)):
            raise RequestError(
                "_update_model_inputs must return three dicts (inputs, outputs, runtime parameters), "
                f"not {_described(extras)}"
            )
        inputs.update(extras[0])
        outputs.update(extras[1])
        runtime_params.update(extras[2])

    def _inputs(self, step: Step, variant: Variant) -> dict[str, torch.Tensor]:
        """Returns those inputs that the variant's network reads, of the ones that every model has."""
        is_prefill = step.is_prefill
        input_ids, slots, lengths = step.input_ids, step.slots, step.input_lengths
        if slots is None or lengths is None:
            raise RequestError("a step needs slots and input_lengths")
        self._check_ids(input_ids)
        self._check_slots(slots)
        self._check_lengths(lengths, len(input_ids), is_prefill, step.block_tables)
        cos, sin, positions = self.positions.tables(step.position_ids, lengths, is_prefill)
        known = {
            "input_ids": input_ids,
            "position_ids": positions,
            "cos_table": cos,
            "sin_table": sin,
            "slots": slots,
            "input_lengths": lengths,
        }
        if is_prefill:
            known["attention_mask"] = self._mask
            rows = step.lm_head_indices
            known["lm_head_indices"] = self._rows(len(input_ids)) if rows is None else rows
        elif step.block_tables is not None:
            known["block_tables"] = step.block_tables
        return {name: known[name] for name in variant.input_names if name in known}

    def _rows(self, tokens: int) -> torch.Tensor:
        if len(self._all_rows) < tokens:
            self._all_rows = torch.arange(tokens)
        return self._all_rows[:tokens]

    def _check_ids(self, input_ids: torch.Tensor) -> None:
        if input_ids.numel() == 0:
            raise RequestError("a step needs at least one token")
        low, high = torch.aminmax(input_ids)
        if int(low) < 0 or int(high) >= self.config.vocab_size:
            wrong = int(low) if int(low) < 0 else int(high)
            raise RequestError(
                f"token id {wrong} is outside of the vocabulary of {self.config.vocab_size} tokens",
                hint="Check that the tokenizer belongs to this model.",
            )

    def _check_lengths(
        self, lengths: torch.Tensor, tokens: int, is_prefill: bool, block_tables: torch.Tensor | None
    ) -> None:
        if is_prefill:
            total = int(lengths.sum())
            if total != tokens:
                raise RequestError(f"input_lengths add up to {total}, but there are {tokens} tokens")
            return
        if block_tables is None:
            raise RequestError("a decode step needs block_tables")
        room, longest = block_tables.shape[-1] * self._kv.block_size, int(lengths.max())
        if longest > room:
            raise RequestError(f"a context of {longest} tokens does not fit the {room} slots of its block table")

    def _check_slots(self, slots: torch.Tensor) -> None:
        last = int(slots.max())
        if last >= self._kv.slots:
            raise RequestError(f"slot {last} is outside of a KV cache of {self._kv.slots} slots")


def triangular_mask(dtype: torch.dtype) -> torch.Tensor:
    """What ATB's prefill attention takes as a causal mask: non-zero above the diagonal, 1 in bfloat16, else -inf."""
    value = 1.0 if dtype == torch.bfloat16 else float("-inf")
    return torch.full((MASK_SIZE, MASK_SIZE), value, dtype=dtype).triu(1)


def _described(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__
