# SPDX-License-Identifier: Apache-2.0
"""Measures prefill and decode of a model on a device."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from atb_core.errors import AtbError
from atb_core.runner.model_runner import ModelRunner
from atb_core.runner.sampling_params import SamplingParams
from atb_testing.ascend.report import Case, Outcome
from atb_testing.checkpoints import tiny_checkpoint

#: A model that loads in seconds, yet whose steps take longer on a card than their launches.
_CARD = {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 6,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip
_SIMULATOR = {"num_hidden_layers": 2, "max_position_embeddings": 256}
_FAMILY = "llama"
_REPEATS = 5


class Benchmark:
    """Loads a model on first use and measures it.

    Args:
        backend: what runs it.
        model: a checkpoint; `None` for a random one.
        dtype: element type.
    """

    def __init__(self, backend: str, model: str | None, dtype: torch.dtype) -> None:
        self.backend, self.model = backend, model
        self.dtype = str(dtype).removeprefix("torch.")
        self.small = backend == "atb-sim"
        self._runner: ModelRunner | AtbError | None = None

    def cases(self) -> Iterator[Case]:
        """Yields prefill of two lengths and decode of two batches."""
        short, long, new = (16, 128, 24) if self.small else (128, 1024, 64)
        for length in (short, long):
            yield Case("benchmark", f"prefill, {length} tokens", partial(self._prefill, length))
        for batch in (1, 8):
            name = f"decode, batch {batch} after {short} tokens"
            yield Case("benchmark", name, partial(self._decode, batch, short, new))
        yield Case("benchmark", "decode, batch 8, times of nodes", partial(self._nodes, 8, short, new))

    def _prefill(self, length: int) -> Outcome:
        self._seconds(1, length, 1)  # builds the engines
        seconds = median(self._seconds(1, length, 1) for _ in range(_REPEATS))
        return Outcome("passed", figures={"ms": round(seconds * 1e3, 3), "tokens/s": round(length / seconds, 1)})

    def _decode(self, batch: int, length: int, new: int) -> Outcome:
        """Measures pairs of a long and a short generation: what else the machine does then meets both."""
        self._seconds(batch, length, 1 + new)
        pairs = [(self._seconds(batch, length, 1 + new), self._seconds(batch, length, 1)) for _ in range(_REPEATS)]
        step = median(longer - shorter for longer, shorter in pairs) / new
        if step <= 0:
            return Outcome("skipped", "the time of a step is below what differs from run to run")
        return Outcome("passed", figures={"ms a step": round(step * 1e3, 3), "tokens/s": round(batch / step, 1)})

    def _nodes(self, batch: int, length: int, new: int) -> Outcome:
        """Records steps node by node, by events of the device; tells a step's milliseconds of the longest ops."""
        engine: Any = self._loaded().model.variants.get("decode").engine
        engine.set_recording(True)
        try:
            self._seconds(batch, length, 1 + new)
            runs = engine.take_runs()
        finally:
            engine.set_recording(False)
        taken: Counter[str] = Counter()
        for run in runs:
            (times,) = run.threads
            taken["between nodes"] += times[-1] - times[0]
            for index, begin, end in zip(run.steps, times[::2], times[1::2], strict=True):
                taken[run.network.nodes[index].op.name if index >= 0 else "copies"] += end - begin
                taken["between nodes"] -= end - begin
        if min(taken.values(), default=-1) < 0:
            return Outcome("failed", f"the events of {len(runs)} steps are missing or in the wrong order")
        longest = {f"ms {op}": round(ns / len(runs) * 1e-6, 4) for op, ns in taken.most_common(9)}
        return Outcome("passed", figures=longest)

    def _seconds(self, batch: int, length: int, new: int) -> float:
        """Returns the time of one generation."""
        runner = self._loaded()
        step = runner.vocab_size // 7 + 1
        prompts: list[Any] = [
            [(i + 1) * (row + 1) * step % runner.vocab_size for i in range(length)] for row in range(batch)
        ]
        sampling = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True)
        begin = time.perf_counter()
        runner.generate(prompts, sampling)
        return time.perf_counter() - begin

    def _loaded(self) -> ModelRunner:
        if isinstance(self._runner, AtbError):
            raise self._runner
        if self._runner is None:
            try:
                self._runner = self._load()
            except AtbError as error:
                # The other cases must not load it again.
                self._runner = error
                raise
        return self._runner

    def _load(self) -> ModelRunner:
        options: dict[str, Any] = {"load_tokenizer": False, "enable_prefix_caching": False, "max_num_seqs": 8}
        options |= {"backend": self.backend, "dtype": self.dtype, "max_model_len": 256 if self.small else 2048}
        if self.model is not None:
            return ModelRunner(self.model, **options)
        with tempfile.TemporaryDirectory(prefix="atb-check-") as folder:
            size = _SIMULATOR if self.small else _CARD
            path = tiny_checkpoint(Path(folder), _FAMILY, getattr(torch, self.dtype), **size)
            return ModelRunner(str(path), **options)
