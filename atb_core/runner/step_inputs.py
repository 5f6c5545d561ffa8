# SPDX-License-Identifier: Apache-2.0
"""The tensors of one step, in buffers that are made once and filled in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from atb_core.runner.request import Request

__all__ = ["StepInputs"]


class StepInputs:
    """Builds the keyword arguments of a model's ``forward`` from the requests of a step.

    The tensors returned are views of this object's buffers: they hold until the next call. Block tables
    always have the width of the longest context, so that the shapes of decode steps depend on the batch size
    alone.

    Args:
        max_num_seqs: rows to make room for.
        max_blocks: blocks of the longest context.
        block_size: slots in a block.
    """

    def __init__(self, max_num_seqs: int, max_blocks: int, block_size: int) -> None:
        self._block_size = block_size
        self._ids = np.zeros(max_num_seqs, dtype=np.int64)
        self._positions = np.zeros(max_num_seqs, dtype=np.int64)
        self._slots = np.zeros(max_num_seqs, dtype=np.int32)
        self._lengths = np.zeros(max_num_seqs, dtype=np.int32)
        self._tables = np.zeros((max_num_seqs, max_blocks), dtype=np.int32)
        # Who is in which row of the tables, and how many of its blocks are written there.
        self._rows: list[Request] = []
        self._written: list[int] = []
        self._views: dict[int, dict[str, Any]] = {}

    def decode(self, requests: list[Request]) -> dict[str, Any]:
        """One token for each request: its newest.

        Returns:
            ``input_ids`` [B] i64, ``position_ids`` [B] i64, ``slots`` [B] i32, ``input_lengths`` [B] i32 (the
            context with this token), ``block_tables`` [B, max_blocks] i32, ``max_seq_len``.
        """
        if requests != self._rows:
            self._rows = list(requests)
            self._written = [0] * len(requests)
        block_size = self._block_size
        longest = 0
        for row, request in enumerate(requests):
            tokens, table = request.token_ids, request.block_table
            length = len(tokens)
            position = length - 1
            self._ids[row] = tokens[position]
            self._positions[row] = position
            self._lengths[row] = length
            self._slots[row] = table[position // block_size] * block_size + position % block_size
            if self._written[row] != len(table):
                self._tables[row, : len(table)] = table
                self._written[row] = len(table)
            longest = max(longest, length)
        kwargs = self._decode_views(len(requests))
        kwargs["max_seq_len"] = longest
        return kwargs

    def _decode_views(self, batch: int) -> dict[str, Any]:
        views = self._views.get(batch)
        if views is None:
            views = {
                "input_ids": torch.from_numpy(self._ids[:batch]),
                "position_ids": torch.from_numpy(self._positions[:batch]),
                "is_prefill": False,
                "block_tables": torch.from_numpy(self._tables[:batch]),
                "slots": torch.from_numpy(self._slots[:batch]),
                "input_lengths": torch.from_numpy(self._lengths[:batch]),
                "lm_head_indices": None,
            }
            self._views[batch] = views
        return dict(views)

    def prefill(self, requests: list[Request]) -> dict[str, Any]:
        """All tokens of each request, one request after another.

        Returns:
            As :meth:`decode` with T tokens in all; ``input_lengths`` are the requests' lengths and
            ``lm_head_indices`` [B] i64 points at their last tokens.
        """
        lengths = np.array([len(request) for request in requests], dtype=np.int32)
        ends = np.cumsum(lengths, dtype=np.int64)
        total = int(ends[-1])
        ids = np.empty(total, dtype=np.int64)
        positions = np.empty(total, dtype=np.int64)
        slots = np.empty(total, dtype=np.int32)
        tables = np.zeros((len(requests), self._tables.shape[1]), dtype=np.int32)
        for row, request in enumerate(requests):
            end, length = int(ends[row]), len(request)
            here = slice(end - length, end)
            ids[here] = request.token_ids
            positions[here] = np.arange(length)
            slots[here] = self._slots_of(request.block_table, length)
            tables[row, : len(request.block_table)] = request.block_table
        return {
            "input_ids": torch.from_numpy(ids),
            "position_ids": torch.from_numpy(positions),
            "is_prefill": True,
            "block_tables": torch.from_numpy(tables),
            "slots": torch.from_numpy(slots),
            "input_lengths": torch.from_numpy(lengths),
            "lm_head_indices": torch.from_numpy(ends - 1),
            "max_seq_len": int(lengths.max()),
        }

    def _slots_of(self, table: list[int], length: int) -> npt.NDArray[np.int32]:
        starts = np.array(table, dtype=np.int32) * np.int32(self._block_size)
        slots = np.add(starts[:, None], np.arange(self._block_size, dtype=np.int32), dtype=np.int32)
        flat: npt.NDArray[np.int32] = slots.reshape(-1)[:length]
        return flat
