# SPDX-License-Identifier: Apache-2.0
"""The inputs of a decoder network: names, symbolic shapes and element types, and the checks of a step's values."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from atb_core.errors import RequestError
from atb_core.features.step import Step
from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor

#: Side of the triangular mask that prefill attention gets.
MASK_SIZE = 128

#: Inputs that seldom change: tables and the mask.
CONSTANT_INPUTS = ("cos_table", "sin_table", "attention_mask")

TOKENS, BATCH, ROWS, POSITIONS = Dim("tokens"), Dim("batch"), Dim("rows"), Dim("positions")
BLOCKS, BLOCK_SIZE, MAX_BLOCKS = Dim("blocks"), Dim("block_size"), Dim("max_blocks")


class DecoderSizes(Protocol):
    """The sizes that a decoder's inputs depend on; `ModelStatus` has them."""

    num_layers: int
    num_kv_heads: int
    head_dim: int


def k_cache_name(layer: int) -> str:
    """Returns the name of the input with the keys of layer `layer`."""
    return f"layer_{layer}_k_cache"


def v_cache_name(layer: int) -> str:
    """Returns the name of the input with the values of layer `layer`."""
    return f"layer_{layer}_v_cache"


def symbolic_inputs(status: DecoderSizes, dtype: DataType, is_prefill: bool) -> dict[str, Any]:
    """Returns the keyword arguments of a model's symbolic `forward`.

    In decode there is one token of each sequence, so `input_lengths` and `block_tables` have a row for each token.
    """
    integer, index = DataType.INT32, DataType.INT64
    table = (POSITIONS, status.head_dim)
    cache = (BLOCKS, BLOCK_SIZE, status.num_kv_heads, status.head_dim)
    sequences = BATCH if is_prefill else TOKENS
    mask = Tensor("attention_mask", (MASK_SIZE, MASK_SIZE), dtype)
    return {
        "input_ids": Tensor("input_ids", (TOKENS,), index),
        "position_ids": Tensor("position_ids", (TOKENS,), index),
        "cos_table": Tensor("cos_table", table, dtype),
        "sin_table": Tensor("sin_table", table, dtype),
        "k_caches": [Tensor(k_cache_name(i), cache, dtype) for i in range(status.num_layers)],
        "v_caches": [Tensor(v_cache_name(i), cache, dtype) for i in range(status.num_layers)],
        "slots": Tensor("slots", (TOKENS,), integer),
        "attention_mask": mask if is_prefill else None,
        "input_lengths": Tensor("input_lengths", (sequences,), integer),
        "block_tables": None if is_prefill else Tensor("block_tables", (sequences, MAX_BLOCKS), integer),
        "lm_head_indices": Tensor("lm_head_indices", (ROWS,), index) if is_prefill else None,
        "is_prefill": is_prefill,
    }


def triangular_mask(dtype: torch.dtype) -> torch.Tensor:
    """Returns ATB's causal mask for prefill: non-zero above the diagonal, 1 in bfloat16, else -inf."""
    value = 1.0 if dtype == torch.bfloat16 else float("-inf")
    return torch.full((MASK_SIZE, MASK_SIZE), value, dtype=dtype).triu(1)


def filled_up(inputs: dict[str, torch.Tensor], missing: int) -> dict[str, torch.Tensor]:
    """Returns the inputs of a prefill with `missing` more tokens.

    They follow the last sequence's own tokens, which do not see them, and have no slot in the cache.

    Args:
        inputs: by name in the network; of these `input_ids`, `position_ids` and `slots` `[T]` get longer, and
            the last of `input_lengths` `[B]`.
        missing: number of tokens to add.
    """
    added = {"input_ids": 0, "position_ids": 0, "slots": -1}
    pad = torch.nn.functional.pad
    filled = {name: pad(inputs[name], (0, missing), value=value) for name, value in added.items() if name in inputs}
    if "input_lengths" in inputs:
        filled["input_lengths"] = inputs["input_lengths"].clone()
        filled["input_lengths"][-1] += missing
    return {**inputs, **filled}


def check_step(step: Step, vocab_size: int, cache_slots: int, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns `slots` and `input_lengths` of a step whose values were checked, but for its positions.

    Raises:
        RequestError: something is missing, a token id or slot is out of range, or lengths do not fit the rest.
    """
    if step.slots is None or step.input_lengths is None:
        raise RequestError("a step needs slots and input_lengths")
    if step.input_ids.numel() == 0:
        raise RequestError("a step needs at least one token")
    low, high = (int(value) for value in torch.aminmax(step.input_ids))
    if low < 0 or high >= vocab_size:
        raise RequestError(
            f"token id {low if low < 0 else high} is outside of the vocabulary of {vocab_size} tokens",
            hint="Check that the tokenizer belongs to this model.",
        )
    last = int(step.slots.max())
    if last >= cache_slots:
        raise RequestError(f"slot {last} is outside of a KV cache of {cache_slots} slots")
    if step.is_prefill:
        total, tokens = int(step.input_lengths.sum()), len(step.input_ids)
        if total != tokens:
            raise RequestError(f"input_lengths add up to {total}, but there are {tokens} tokens")
    elif step.block_tables is None:
        raise RequestError("a decode step needs block_tables")
    else:
        room, longest = step.block_tables.shape[-1] * block_size, int(step.input_lengths.max())
        if longest > room:
            raise RequestError(f"a context of {longest} tokens does not fit the {room} slots of its block table")
    return step.slots, step.input_lengths
