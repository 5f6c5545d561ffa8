# SPDX-License-Identifier: Apache-2.0
"""A model whose next token depends on every token and position it finds in the paged cache.

It writes the cache through ``slots`` and reads it back through ``block_tables`` and ``input_lengths`` only, so a
wrong slot, table, position or length, or two sequences sharing a block, show as wrong tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from atb_core.features.step import Step
from atb_core.graph.arrays import Array, is_tensor, to_torch

VOCAB = 499
_MODULUS = 1_000_003


def mix(state: int, token: int, position: int) -> int:
    """One step of the hash over a context."""
    return (state * 31 + token * 17 + position * 7 + 1) % _MODULUS


def logits_of(state: int) -> torch.Tensor:
    """[VOCAB] float32, a spread-out function of the hash."""
    ids = torch.arange(1, VOCAB + 1, dtype=torch.int64)
    return ((state + 1) * ids * 7919 % _MODULUS).to(torch.float32) / _MODULUS * 12.0


def expected_greedy(prompt: Iterable[int], count: int) -> list[int]:
    """Returns the tokens of greedy decoding for a prompt alone, without any cache."""
    tokens = list(prompt)
    start = len(tokens)
    for _ in range(count):
        state = 0
        for position, token in enumerate(tokens):
            state = mix(state, token, position)
        tokens.append(int(logits_of(state).argmax()))
    return tokens[start:]


class FakeSlicedRun:
    """Writes the cache from slice to slice, two tokens in each, as an engine does from layer to layer.

    Whoever gets a block meanwhile finds there what is not its own.
    """

    def __init__(self, model: FakeModel, step: Step) -> None:
        self._model, self._step, self._written = model, step, 0

    def advance(self, seconds: float) -> dict[str, Array] | None:
        """Returns the logits as `model_out` after the slice of the last token."""
        step, model, end = self._step, self._model, self._written + 2
        assert step.slots is not None
        assert self._written < len(step.input_ids), "this run has ended"
        model.slices += 1
        slots = to_torch(step.slots)[self._written : end].long()
        model.keys.view(-1, 2)[slots, 0] = to_torch(step.input_ids)[self._written : end].float()
        model.values.view(-1, 2)[slots, 0] = to_torch(step.position_ids)[self._written : end].float()
        self._written = end
        return {"model_out": model.forward(step)} if end >= len(step.input_ids) else None


class FakeModel:
    """``forward`` of a model with one layer and a cache of [num_blocks, block_size, 1, 2] float32."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        shape = (num_blocks, block_size, 1, 2)
        self.keys = torch.full(shape, float("nan"))
        self.values = torch.full(shape, float("nan"))
        self.steps: list[tuple[bool, int]] = []
        self.phases: list[str] = []
        self.tokens_per_step: list[int] = []
        self.rows_per_step: list[int] = []
        self.slices = 0
        self.before_step: Callable[[int], None] = lambda step: None

    def forward(self, step: Step) -> Array:
        """Returns logits as the kind of array that the step has."""
        logits = self._logits(step)
        return logits if is_tensor(step.input_ids) else logits.numpy()

    def start(self, step: Step) -> FakeSlicedRun:
        """Begins a step in slices; it is one of `steps` when it ends."""
        return FakeSlicedRun(self, step)

    def _logits(self, step: Step) -> torch.Tensor:
        self.before_step(len(self.steps))
        arrays = (step.input_ids, step.position_ids, step.block_tables, step.slots, step.input_lengths)
        assert len({is_tensor(array) for array in arrays}) == 1
        input_ids, position_ids, block_tables, slots, input_lengths = map(to_torch, arrays)
        is_prefill = step.is_prefill
        assert (input_ids.dtype, position_ids.dtype) == (torch.int64, torch.int64)
        assert (slots.dtype, block_tables.dtype, input_lengths.dtype) == (torch.int32,) * 3
        assert step.max_seq_len == int(input_lengths.max())
        assert block_tables.is_contiguous()
        assert block_tables.shape[0] == input_lengths.shape[0]
        batch = input_lengths.shape[0]
        self.steps.append((is_prefill, batch))
        self.phases.append(step.phase)
        self.tokens_per_step.append(len(input_ids))
        new = step.q_lens
        if new is None:
            new = input_lengths if is_prefill else torch.ones_like(input_lengths)
        new = to_torch(new)
        assert new.dtype == torch.int32
        assert ((new >= 1) & (new <= input_lengths)).all()
        assert input_ids.shape[0] == int(new.sum())
        assert (step.lm_head_indices is None) == (step.phase == "decode")
        flat_keys, flat_values = self.keys.view(-1, 2), self.values.view(-1, 2)
        assert len(set(slots.tolist())) == slots.shape[0], "two tokens were given the same slot"
        flat_keys[slots.long(), 0] = input_ids.float()
        flat_values[slots.long(), 0] = position_ids.float()
        if step.lm_head_indices is None:
            return torch.stack([self._row(block_tables[row], int(input_lengths[row])) for row in range(batch)])
        self.rows_per_step.append(len(step.lm_head_indices))
        ends = new.cumsum(0)
        rows = torch.searchsorted(ends, to_torch(step.lm_head_indices), right=True).tolist()
        positions = [
            int(index - ends[row] + input_lengths[row]) for index, row in zip(step.lm_head_indices, rows, strict=True)
        ]
        return torch.stack([self._row(block_tables[row], at + 1) for row, at in zip(rows, positions, strict=True)])

    def _row(self, table: torch.Tensor, length: int) -> torch.Tensor:
        block_size = self.keys.shape[1]
        state = 0
        for position in range(length):
            block, offset = int(table[position // block_size]), position % block_size
            token, stored_position = self.keys[block, offset, 0, 0], self.values[block, offset, 0, 0]
            assert stored_position == position, "the cache holds another position here"
            state = mix(state, int(token), position)
        return logits_of(state)
