# SPDX-License-Identifier: Apache-2.0
"""Cosine and sine tables for the rotary embedding of a step's tokens."""

from __future__ import annotations

import torch

from atb_core.errors import RequestError
from atb_core.models.runtime.protocols import RopeConfig
from atb_core.models.runtime.rotary import Frequencies, rope_frequencies

# A table starts with this many positions and doubles, so that a long context costs memory only when used.
_FIRST_ROWS = 4096


class PositionEmbedding:
    """Tables `[positions, head_dim]` in the model's dtype, both halves filled; cosines are computed in float32.

    Args:
        max_model_len: positions from here on are refused.
    """

    def __init__(self, config: RopeConfig, dtype: torch.dtype, max_model_len: int) -> None:
        self.config = config
        self.dtype = dtype
        self.max_model_len = max_model_len
        self._frequencies = rope_frequencies(config)
        scaling = config.rope_scaling
        # Only for `dynamic` do frequencies depend on a sequence's length, and only beyond this many tokens.
        self._fixed_until = config.max_position_embeddings if scaling and scaling.rope_type == "dynamic" else None
        self._cos = self._sin = torch.empty(0, config.head_dim or 0, dtype=dtype)

    def tables(
        self, position_ids: torch.Tensor, input_lengths: torch.Tensor, is_prefill: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cosines, sines and the row of each token in them.

        Normally these are the growing tables and `position_ids` itself. With rope type `dynamic` and a
        sequence longer than the trained context, every token gets a row of its own, computed for the present
        length of its sequence: what Hugging Face computes for the sequence alone, whatever else is in the
        batch. (Keys already in the cache keep the rotation of the step that wrote them, as there.)

        Args:
            position_ids: `[T]` int64.
            input_lengths: `[B]`, tokens of each sequence in prefill, context length in decode.

        Raises:
            RequestError: a position is negative or not below `max_model_len`.
        """
        if position_ids.numel() == 0:
            raise RequestError("a step needs at least one token")
        low, high = (int(v) for v in torch.aminmax(position_ids))
        if low < 0 or high >= self.max_model_len:
            raise RequestError(
                f"position {low if low < 0 else high} is outside of the context of {self.max_model_len} tokens",
                hint="Shorten the prompt, ask for fewer tokens, or raise max_model_len.",
            )
        if self._fixed_until is not None and high >= self._fixed_until:
            return self._rows_of_tokens(position_ids, input_lengths, is_prefill)
        if high >= len(self._cos):
            self._grow(high + 1)
        return self._cos, self._sin, position_ids

    def _grow(self, rows: int) -> None:
        rows = min(max(rows, _FIRST_ROWS, 2 * len(self._cos)), self.max_model_len)
        if self._fixed_until is not None:
            rows = min(rows, self._fixed_until)
        new = torch.arange(len(self._cos), rows)
        cos, sin = self._compute(new, self._frequencies)
        self._cos, self._sin = torch.cat((self._cos, cos)), torch.cat((self._sin, sin))

    def _compute(self, positions: torch.Tensor, frequencies: Frequencies) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[:, None].float() * frequencies.inverse
        cos = (angles.cos() * frequencies.scaling).to(self.dtype)
        sin = (angles.sin() * frequencies.scaling).to(self.dtype)
        return torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)

    def _rows_of_tokens(
        self, position_ids: torch.Tensor, input_lengths: torch.Tensor, is_prefill: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = len(position_ids)
        cos = torch.empty(tokens, self.config.head_dim or 0, dtype=self.dtype)
        sin = torch.empty_like(cos)
        start = 0
        for length in input_lengths.tolist():
            stop = start + (length if is_prefill else 1)
            frequencies = rope_frequencies(self.config, length)
            cos[start:stop], sin[start:stop] = self._compute(position_ids[start:stop], frequencies)
            start = stop
        return cos, sin, torch.arange(tokens)
