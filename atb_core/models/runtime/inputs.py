# SPDX-License-Identifier: Apache-2.0
"""The inputs of a decoder network: their names, symbolic shapes and element types."""

from __future__ import annotations

from typing import Any

import torch

from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.models.runtime.protocols import DecoderSizes

#: Side of the triangular mask that prefill attention gets.
MASK_SIZE = 128

#: Inputs that seldom change: tables and the mask.
CONSTANT_INPUTS = ("cos_table", "sin_table", "attention_mask")

TOKENS = Dim("tokens")
BATCH = Dim("batch")
ROWS = Dim("rows")
POSITIONS = Dim("positions")
BLOCKS = Dim("blocks")
BLOCK_SIZE = Dim("block_size")
MAX_BLOCKS = Dim("max_blocks")


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


def filled_up(inputs: dict[str, torch.Tensor], missing: int) -> dict[str, torch.Tensor]:
    """Returns the inputs of a prefill with `missing` more tokens.

    They follow the last sequence's own tokens, which do not see them, and have no slot in the cache.

    Args:
        inputs: by name in the network; of these `input_ids`, `position_ids` and `slots` `[T]` get longer, and
            the last of `input_lengths` `[B]`.
    """
    added = {"input_ids": 0, "position_ids": 0, "slots": -1}
    pad = torch.nn.functional.pad
    filled = {name: pad(inputs[name], (0, missing), value=value) for name, value in added.items() if name in inputs}
    if "input_lengths" in inputs:
        filled["input_lengths"] = inputs["input_lengths"].clone()
        filled["input_lengths"][-1] += missing
    return {**inputs, **filled}
