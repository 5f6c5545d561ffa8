# SPDX-License-Identifier: Apache-2.0
"""Builds the record of each step, with arrays in buffers that are allocated once and filled in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atb_core.features.step import KVCache, Step
from atb_core.runner.request import Request
from atb_core.runner.scheduler import Batch

if TYPE_CHECKING:
    from atb_core.features.adapters import Adapter


class StepInputs:
    """Builds the record of a step from its requests.

    The arrays of a decode step are views of this object's buffers: they are valid until the next call. Block tables
    always have the width of the longest context, so that the shapes of decode steps depend on the batch size alone.
    """

    def __init__(self, max_num_seqs: int, max_blocks: int, block_size: int, kv_cache: KVCache) -> None:
        self._kv_cache = kv_cache
        self._block_size = block_size
        self._ids = np.zeros(max_num_seqs, dtype=np.int64)
        self._positions = np.zeros(max_num_seqs, dtype=np.int64)
        self._slots = np.zeros(max_num_seqs, dtype=np.int32)
        self._lengths = np.zeros(max_num_seqs, dtype=np.int32)
        self._tables = np.zeros((max_num_seqs, max_blocks), dtype=np.int32)
        # The request in each row of the tables, and the number of its blocks that are written there. Forgotten in other
        # steps: requests may get other blocks then.
        self._rows: list[Request] = []
        self._written: list[int] = []
        self._views: list[npt.NDArray[Any]] = []

    def decode(self, requests: list[Request]) -> Step:
        """Returns the step of one token for each request: its newest."""
        if requests != self._rows:
            self._rows = list(requests)
            self._written = [0] * len(requests)
            buffers = (self._ids, self._positions, self._tables, self._slots, self._lengths)
            self._views = [buffer[: len(requests)] for buffer in buffers]
        block_size = self._block_size
        for row, request in enumerate(requests):
            tokens, table = request.token_ids, request.block_table
            position = len(tokens) - 1
            self._ids[row], self._positions[row], self._lengths[row] = tokens[-1], position, len(tokens)
            self._slots[row] = table[position // block_size] * block_size + position % block_size
            if self._written[row] != len(table):
                self._tables[row, : len(table)] = table
                self._written[row] = len(table)
        ids, positions, tables, slots, lengths = self._views
        sizes = lengths, max(map(len, requests))
        return Step(ids, positions, False, self._kv_cache, tables, slots, *sizes, adapter_ids=_adapters(requests))

    def packed(self, batch: Batch) -> Step:
        """Returns the step of a batch: the next tokens of each request and its draft, one request after another.

        `lm_head_indices` are the newest tokens of those that bring it, each followed by its draft, or one token that
        nobody asks for.
        """
        self._rows = []
        requests, drafts = batch.requests, [batch.drafts.get(request, []) for request in batch.requests]
        starts = [request.num_computed for request in requests]
        newest = [start + count for start, count in zip(starts, batch.counts, strict=True)]
        ends = [end + len(draft) for end, draft in zip(newest, drafts, strict=True)]
        tokens = [
            [*request.token_ids[start:end], *draft]
            for request, start, end, draft in zip(requests, starts, newest, drafts, strict=True)
        ]
        lasts = np.cumsum([len(each) for each in tokens]) - 1
        wanted = [
            np.arange(last - len(draft), last + 1)
            for last, draft, request, end in zip(lasts, drafts, requests, newest, strict=True)
            if end == len(request)
        ]
        tables = np.zeros((len(requests), self._tables.shape[1]), dtype=np.int32)
        for row, request in enumerate(requests):
            tables[row, : len(request.block_table)] = request.block_table
        spans, is_prefill = list(zip(requests, starts, ends, strict=True)), batch.phase == "prefill"
        return Step(
            input_ids=np.concatenate([np.array(each, dtype=np.int64) for each in tokens]),
            position_ids=np.concatenate([np.arange(start, end) for _, start, end in spans]),
            is_prefill=is_prefill,
            kv_cache=self._kv_cache,
            block_tables=tables,
            slots=np.concatenate([self._slots_of(*span) for span in spans]),
            input_lengths=np.array(ends, dtype=np.int32),
            max_seq_len=max(ends),
            lm_head_indices=np.concatenate(wanted) if wanted else np.zeros(1, dtype=np.int64),
            q_lens=None if is_prefill else np.array([len(each) for each in tokens], dtype=np.int32),
            adapter_ids=_adapters(requests),
        )

    def _slots_of(self, request: Request, start: int, end: int) -> npt.NDArray[np.int32]:
        positions = np.arange(start, end, dtype=np.int32)
        blocks = np.array(request.block_table, dtype=np.int32)
        slots: npt.NDArray[np.int32] = blocks[positions // self._block_size] * np.int32(self._block_size)
        return slots + positions % self._block_size


def _adapters(requests: list[Request]) -> list[Adapter | None] | None:
    adapters = [request.adapter for request in requests]
    return adapters if any(adapters) else None
