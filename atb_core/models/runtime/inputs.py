# SPDX-License-Identifier: Apache-2.0
"""The inputs of a decoder network: names, symbolic shapes and element types, and the checks of a step's values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from atb_core.errors import ConfigError, RequestError
from atb_core.features.step import Step
from atb_core.graph.arrays import Array, HostArray, numpy_dtype, to_numpy
from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec, named_tensors
from atb_core.models.runtime.rope_scaling import Rope

#: Side of the triangular mask that prefill attention gets.
MASK_SIZE = 128

#: Beginnings of the names of inputs that seldom change: tables and masks.
CONSTANT_INPUTS = ("cos_table", "sin_table", "attention_mask", "window_mask")
# Up to this many numbers a list costs less than calls into numpy.
_SHORT = 32
# Above it the mask of a window would have gigabytes.
_LONGEST_MASKED = 1 << 15

TOKENS, BATCH, ROWS, POSITIONS, LONGEST = map(Dim, ("tokens", "batch", "rows", "positions", "longest"))
BLOCKS, BLOCK_SIZE, MAX_BLOCKS = Dim("blocks"), Dim("block_size"), Dim("max_blocks")


def single_window(windows: Iterable[int | None]) -> int | None:
    """Returns the window of the layers that have one; ConfigError if there are several."""
    different = sorted({window for window in windows if window is not None})
    if len(different) > 1:
        raise ConfigError(f"layers with different sliding windows ({', '.join(map(str, different))}) are not supported")
    return different[0] if different else None


def table_names(index: int) -> tuple[str, str]:
    """Returns the names of the inputs with cosines and sines of the settings with this index."""
    return (f"cos_table_{index}", f"sin_table_{index}") if index else ("cos_table", "sin_table")


def symbolic_inputs(
    specs: Sequence[KVCacheSpec], tables: Sequence[Rope], dtype: DataType, phase: str, window: int | None = None, *,
    masked: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Returns the keyword arguments of a model's symbolic `forward` for a phase, see `Step.phase`.

    In decode there is one token of each sequence, so `input_lengths` and `block_tables` have a row for each token.
    Models with several `tables`, or a window, get the inputs of those layers as `layer_inputs`, by name. Only in mixed
    steps there is `q_lens`; if `masked`, they have a mask for each token.
    """
    is_prefill, is_decode = phase == "prefill", phase == "decode"
    integer, index = DataType.INT32, DataType.INT64
    cos_table, sin_table, *further = (
        Tensor(name, (POSITIONS, rope.size), dtype) for i, rope in enumerate(tables) for name in table_names(i)
    )
    if window is not None:
        full, counts = ("window_mask", (LONGEST, LONGEST), dtype), ("window_lengths", (TOKENS,), integer)
        further += [Tensor("window_slots", (TOKENS,), integer), Tensor(*(full if is_prefill else counts))]
    caches = [
        [Tensor(name, each.shape(BLOCKS, BLOCK_SIZE), each.dtype) for name, each in layer.items()]
        for layer in named_tensors(specs)
    ]
    sequences = TOKENS if is_decode else BATCH
    mask = Tensor("attention_mask", (MASK_SIZE, MASK_SIZE), dtype) if is_prefill else None
    if phase == "mixed" and masked:
        mask = Tensor("mixed_mask", (TOKENS, LONGEST), dtype)
    return {
        "input_ids": Tensor("input_ids", (TOKENS,), index),
        "position_ids": Tensor("position_ids", (TOKENS,), index),
        "cos_table": cos_table,
        "sin_table": sin_table,
        "k_caches": [cache[0] for cache in caches],
        "v_caches": [cache[-1] for cache in caches],
        "slots": Tensor("slots", (TOKENS,), integer),
        "attention_mask": mask,
        "input_lengths": Tensor("input_lengths", (sequences,), integer),
        "block_tables": None if is_prefill else Tensor("block_tables", (sequences, MAX_BLOCKS), integer),
        "lm_head_indices": None if is_decode else Tensor("lm_head_indices", (ROWS,), index),
        "is_prefill": is_prefill,
        **({"q_lens": Tensor("q_lens", (BATCH,), integer)} if phase == "mixed" else {}),
        **({"layer_inputs": {tensor.name: tensor for tensor in further}} if further else {}),
    }


def triangular_mask(dtype: DataType) -> HostArray:
    """Returns ATB's causal mask for prefill: non-zero above the diagonal, 1 in bfloat16, else -inf."""
    value = 1.0 if dtype is DataType.BF16 else float("-inf")
    row = np.arange(MASK_SIZE)
    return np.where(row > row[:, None], value, 0.0).astype(numpy_dtype(dtype))


def mixed_mask(q_lens: HostArray, lengths: HostArray, dtype: DataType) -> HostArray:
    """Returns the causal mask of a mixed step for ATB: `[T, longest]`, 0 where a token is seen, else -10000.

    The number of columns is a multiple of `MASK_SIZE`, so that few sizes occur.
    """
    counts = q_lens.astype(np.int64)
    first = np.repeat(lengths - counts - (counts.cumsum() - counts), counts)
    last_seen = first + np.arange(len(first))
    columns = np.arange(-(-int(lengths.max()) // MASK_SIZE) * MASK_SIZE)
    return np.where(columns > last_seen[:, None], -10000.0, 0.0).astype(numpy_dtype(dtype))


def window_mask(longest: int, window: int, dtype: DataType) -> HostArray:
    """Returns the mask of a window for prompts of up to `longest` tokens: 0 where a token is seen, else -inf.

    Its size is a power of two, so that few sizes occur.

    Raises:
        RequestError: the mask would be too large.
    """
    if longest > _LONGEST_MASKED:
        raise RequestError(
            f"a prompt of {longest} tokens is too long for a model with a sliding window",
            hint=f"It may have {_LONGEST_MASKED} tokens.",
        )
    size = max(MASK_SIZE, 1 << (longest - 1).bit_length())
    hidden = np.array(float("-inf"), dtype=numpy_dtype(dtype))
    distance = np.arange(size, dtype=np.int32)[:, None] - np.arange(size, dtype=np.int32)
    return np.where((distance < 0) | (distance >= window), hidden, np.zeros_like(hidden))


def window_inputs(step: Step, slots: Array, lengths: Array, window: int, block_size: int) -> dict[str, HostArray]:
    """Returns the slots of layers with a window, and in decode the lengths.

    The token at position p takes the slot of position `p % window` of its sequence. So the cache holds the last
    `window` tokens, in whatever order, and in decode attention to all of it is attention to the window.
    """
    given, counts = to_numpy(slots), to_numpy(lengths)
    if step.is_prefill:
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        places = np.arange(len(given)) - starts
        kept = places >= np.repeat(counts, counts) - window
        rolled = np.where(kept, given[starts + places % window], -1)
        return {"window_slots": rolled.astype(given.dtype)}
    assert step.block_tables is not None
    places = (counts - 1) % window
    blocks = to_numpy(step.block_tables)[np.arange(len(counts)), places // block_size]
    rolled = np.where(given < 0, given, blocks.astype(np.int64) * block_size + places % block_size)
    return {
        # Too large a block stays too large.
        "window_slots": rolled.clip(max=np.iinfo(given.dtype).max).astype(given.dtype),
        "window_lengths": np.minimum(counts, window),
    }


def bounds(values: Array) -> tuple[int, int]:
    """Returns the smallest and the largest of the integers `[N]`.

    Raises:
        RequestError: N is 0.
    """
    if values.shape[0] > _SHORT:
        array = to_numpy(values)
        return int(array.min()), int(array.max())
    numbers = values.tolist()
    if not numbers:
        raise RequestError("a step needs at least one token")
    return min(numbers), max(numbers)


def check_step(step: Step, vocab_size: int, cache_slots: int, block_size: int) -> tuple[Array, Array]:
    """Returns `slots` and `input_lengths` of a step whose values were checked, but for its positions.

    Raises:
        RequestError: something is missing, a token id or slot is out of range, or lengths do not fit the rest.
    """
    if step.slots is None or step.input_lengths is None:
        raise RequestError("a step needs slots and input_lengths")
    low, high = bounds(step.input_ids)
    if low < 0 or high >= vocab_size:
        raise RequestError(
            f"token id {low if low < 0 else high} is outside of the vocabulary of {vocab_size} tokens",
            hint="Check that the tokenizer belongs to this model.",
        )
    _, last = bounds(step.slots)
    if last >= cache_slots:
        raise RequestError(f"slot {last} is outside of a KV cache of {cache_slots} slots")
    shortest, longest = bounds(step.input_lengths)
    if shortest < (least := 0 if step.is_prefill else 1):
        raise RequestError(f"input_lengths has {shortest}; the least is {least}, as the new tokens count too")
    tokens, sequences = step.input_ids.shape[0], step.input_lengths.shape[0]
    if step.is_prefill:
        total = int(to_numpy(step.input_lengths).sum())
        if total != tokens:
            raise RequestError(f"input_lengths add up to {total}, but there are {tokens} tokens")
    elif step.block_tables is None:
        raise RequestError("a step over the cache needs block_tables")
    else:
        room = step.block_tables.shape[-1] * block_size
        if longest > room:
            raise RequestError(f"a context of {longest} tokens does not fit the {room} slots of its block table")
        if step.q_lens is not None:
            _check_new_tokens(to_numpy(step.q_lens), to_numpy(step.input_lengths), tokens)
        elif sequences != tokens:
            raise RequestError(f"input_lengths has {sequences} entries for {tokens} tokens")
        if step.block_tables.shape[0] != sequences:
            raise RequestError(f"block_tables has {step.block_tables.shape[0]} rows for {sequences} sequences")
    return step.slots, step.input_lengths


def _check_new_tokens(q_lens: HostArray, lengths: HostArray, tokens: int) -> None:
    """Raises RequestError unless every sequence has new tokens, within its context, and their sum is `tokens`."""
    if q_lens.shape != lengths.shape:
        raise RequestError(f"q_lens has {len(q_lens)} entries and input_lengths {len(lengths)}, one for each sequence")
    wrong = np.flatnonzero((q_lens < 1) | (q_lens > lengths))
    if len(wrong):
        place = int(wrong[0])
        new, context = int(q_lens[place]), int(lengths[place])
        raise RequestError(f"sequence {place} has {new} new tokens in a context of {context}; there must be 1 to all")
    if int(q_lens.sum()) != tokens:
        raise RequestError(f"q_lens add up to {int(q_lens.sum())}, but there are {tokens} tokens")
