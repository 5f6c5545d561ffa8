# SPDX-License-Identifier: Apache-2.0
"""The inputs of a decoder network: their names, symbolic shapes and element types."""

from __future__ import annotations

from typing import Any

import torch

from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.models.base.mindie_llm_config import ModelStatus

#: Side of the triangular mask that prefill attention gets.
MASK_SIZE = 128

#: Inputs that seldom change: tables and the mask.
CONSTANT_INPUTS = ("cosine_table", "sine_table", "attention_mask")

TOKENS = Dim("tokens")
BATCH = Dim("batch")
ROWS = Dim("rows")
POSITIONS = Dim("positions")
BLOCKS = Dim("blocks")
BLOCK_SIZE = Dim("block_size")
MAX_BLOCKS = Dim("max_blocks")


def k_cache_name(layer: int) -> str:
    """The input that holds layer `layer`'s keys."""
    return f"layer_{layer}_k_cache"


def v_cache_name(layer: int) -> str:
    """The input that holds layer `layer`'s values."""
    return f"layer_{layer}_v_cache"


def symbolic_inputs(status: ModelStatus, dtype: DataType, is_prefill: bool) -> dict[str, Any]:
    """The keyword arguments of a model's symbolic `forward`.

    In decode there is one token a sequence, so `seq_len` and `block_table` count sequences in tokens.
    """
    integer, index = DataType.INT32, DataType.INT64
    table = (POSITIONS, status.head_dim)
    cache = (BLOCKS, BLOCK_SIZE, status.num_kv_heads, status.head_dim)
    sequences = BATCH if is_prefill else TOKENS
    mask = Tensor("attention_mask", (MASK_SIZE, MASK_SIZE), dtype)
    return {
        "input_ids": Tensor("input_ids", (TOKENS,), index),
        "position_ids": Tensor("position_ids", (TOKENS,), index),
        "cosine_table": Tensor("cosine_table", table, dtype),
        "sine_table": Tensor("sine_table", table, dtype),
        "k_caches": [Tensor(k_cache_name(i), cache, dtype) for i in range(status.num_layers)],
        "v_caches": [Tensor(v_cache_name(i), cache, dtype) for i in range(status.num_layers)],
        "slots_mapping": Tensor("slots_mapping", (TOKENS,), integer),
        "attention_mask": mask if is_prefill else None,
        "seq_len": Tensor("seq_len", (sequences,), integer),
        "block_table": None if is_prefill else Tensor("block_table", (sequences, MAX_BLOCKS), integer),
        "lm_head_indices": Tensor("lm_head_indices", (ROWS,), index) if is_prefill else None,
        "is_prefill": is_prefill,
    }


def filled_up(inputs: dict[str, torch.Tensor], missing: int) -> dict[str, torch.Tensor]:
    """The inputs of a prefill with `missing` more tokens.

    They follow the last sequence's own tokens, which do not see them, and have no slot in the cache.

    Args:
        inputs: by name in the network; of these `input_ids`, `position_ids` and `slots_mapping` `[T]` get longer, and
            the last of `seq_len` `[B]`.
    """
    added = {"input_ids": 0, "position_ids": 0, "slots_mapping": -1}
    pad = torch.nn.functional.pad
    filled = {name: pad(inputs[name], (0, missing), value=value) for name, value in added.items() if name in inputs}
    if "seq_len" in inputs:
        filled["seq_len"] = inputs["seq_len"].clone()
        filled["seq_len"][-1] += missing
    return {**inputs, **filled}
