# SPDX-License-Identifier: Apache-2.0
"""Runs a model over prompts with a paged KV cache, without a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from atb_core.checkpoint import SilentProgress, WeightLoader, open_checkpoint, open_weights
from atb_core.engine import HOST_BACKENDS, get_backend
from atb_core.errors import BackendUnavailableError
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.router import router_of
from atb_core.runner.kv_cache import allocate, as_tensors


def available_backends() -> list[str]:
    """Returns the backends that this machine and installation can run, for `pytest.mark.parametrize`."""
    available = []
    for name in HOST_BACKENDS:
        try:
            get_backend(name)
        except (BackendUnavailableError, ImportError):
            continue
        available.append(name)
    return available


def open_model(
    directory: Path,
    backend: Any = "reference",
    max_model_len: int | None = None,
    quantization: str | None = None,
    **config: Any,
) -> Any:
    """Loads a checkpoint with the installed family of its type; `config` changes fields of the configuration."""
    with open_weights(directory) as loader:
        model = build_model(directory, loader, backend, max_model_len, **config)
        model.load_weights(loader, SilentProgress(), quantization)
    return model


def build_model(
    directory: Path, loader: WeightLoader, backend: Any = "reference", max_model_len: int | None = None, **config: Any
) -> Any:
    """Builds the model of `open_model` without loading weights."""
    router = router_of(open_checkpoint(str(directory)))
    settings = router.config.replace(**config) if config else router.config
    return router.model_cls(MindIELLMConfig(settings), loader, backend=backend, max_model_len=max_model_len)


class PagedDriver:
    """Runs a batch of sequences over one KV cache whose blocks are assigned in random order.

    Args:
        model: the model.
        sequences: number of sequences.
        max_len: the most tokens of one.
        block_size: tokens of a block.
        seed: of the order.
        kv_cache: the cache; `None`: one of its own.
    """

    def __init__(
        self, model: Any, sequences: int, max_len: int = 128, block_size: int = 16, seed: int = 1, kv_cache: Any = None
    ) -> None:
        self.model = model
        self.block_size = block_size
        per_sequence = -(-max_len // block_size)
        order = torch.randperm(sequences * per_sequence, generator=torch.Generator().manual_seed(seed))
        self.tables = order.to(torch.int32).view(sequences, per_sequence)
        self.kv_cache = self._own_cache(order.numel()) if kv_cache is None else kv_cache
        self.lengths = [0] * sequences
        #: The adapter of each sequence, `None` for none at all.
        self.adapter_ids: list[str | None] | None = None

    def _own_cache(self, blocks: int) -> list[tuple[torch.Tensor, ...]]:
        # Memory that was never written must not be read; NaN makes such a read visible, in int8 as the scale.
        specs, make = self.model.kv_cache_specs, self.model.backend.allocate
        caches = as_tensors(allocate(specs, blocks, self.block_size, make))
        for tensor in chain.from_iterable(caches):
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
        return caches

    def slots(self, sequence: int, start: int, stop: int) -> list[int]:
        """Returns the slots in the cache of the positions [start, stop) of a sequence."""
        table = self.tables[sequence].tolist()
        return [table[p // self.block_size] * self.block_size + p % self.block_size for p in range(start, stop)]

    def prefill(self, prompts: Sequence[Sequence[int]], last_only: bool = False) -> torch.Tensor:
        """Returns the logits of all tokens of all prompts, one after another, or of the last token of each."""
        self.lengths = [len(prompt) for prompt in prompts]
        ends = torch.tensor(self.lengths).cumsum(0)
        slots = [slot for i, prompt in enumerate(prompts) for slot in self.slots(i, 0, len(prompt))]
        logits = self.model.forward(
            input_ids=torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.int64),
            position_ids=torch.cat([torch.arange(length) for length in self.lengths]),
            is_prefill=True,
            kv_cache=self.kv_cache,
            block_tables=None,
            slots=torch.tensor(slots, dtype=torch.int32),
            input_lengths=torch.tensor(self.lengths, dtype=torch.int32),
            max_seq_len=max(self.lengths),
            adapter_ids=self.adapter_ids,
            lm_head_indices=ends - 1 if last_only else None,
        )
        return torch.Tensor.clone(logits)

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Returns the logits `[sequences, vocab]` after one more token for each sequence."""
        return self._over_cache([[token] for token in tokens])

    def extend(self, tokens: Sequence[Sequence[int]], last_only: bool = False) -> torch.Tensor:
        """Returns the logits of all new tokens, one after another, or of the last of each sequence: one mixed step.

        Args:
            tokens: the next tokens of each sequence, at least one.
            last_only: leaves out the logits of all tokens but the last of each sequence.
        """
        news = torch.tensor(list(map(len, tokens)), dtype=torch.int32)
        return self._over_cache(tokens, lm_head_indices=news.cumsum(0) - 1 if last_only else None, q_lens=news)

    def _over_cache(self, tokens: Sequence[Sequence[int]], **wanted: torch.Tensor | None) -> torch.Tensor:
        """Runs the next tokens of each sequence."""
        spans = [(length, length + len(new)) for length, new in zip(self.lengths, tokens, strict=True)]
        self.lengths = [stop for _, stop in spans]
        slots = [slot for i, span in enumerate(spans) for slot in self.slots(i, *span)]
        logits = self.model.forward(
            input_ids=torch.tensor([token for new in tokens for token in new]),
            position_ids=torch.cat([torch.arange(*span) for span in spans]),
            is_prefill=False,
            kv_cache=self.kv_cache,
            block_tables=self.tables,
            slots=torch.tensor(slots, dtype=torch.int32),
            input_lengths=torch.tensor(self.lengths, dtype=torch.int32),
            max_seq_len=max(self.lengths),
            adapter_ids=self.adapter_ids,
            **wanted,
        )
        return torch.Tensor.clone(logits)

    def run(self, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> list[torch.Tensor]:
        """Returns the logits `[len, vocab]` of each sequence: first tokens in one prefill, the others by decode steps.

        All sequences must have the same number of tokens after their prompts.
        """
        prompts = [list(s[:n]) for s, n in zip(sequences, prompt_lengths, strict=True)]
        rests = [list(s[n:]) for s, n in zip(sequences, prompt_lengths, strict=True)]
        logits = [[part] for part in torch.split(self.prefill(prompts), list(prompt_lengths))]
        for step in zip(*rests, strict=True):
            for rows, row in zip(logits, self.decode(step), strict=True):
                rows.append(row[None])
        return [torch.cat(rows) for rows in logits]
