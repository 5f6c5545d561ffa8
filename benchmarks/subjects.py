# SPDX-License-Identifier: Apache-2.0
"""Holds what is measured: our engine, and other programs that are installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from checkpoints import write_w8a8

from atb_core import ModelRunner
from atb_profile.bench.runs import Ours, Prompts, Subject, Times


def ours(directory: Path, threads: int, max_model_len: int, quantization: str | None = None) -> Ours:
    """Returns our engine; "w8a8" is a checkpoint of its own."""
    stored = quantization == "w8a8"
    return Ours(
        ModelRunner(
            str(write_w8a8(directory) if stored else directory),
            dtype="auto" if stored else "bfloat16",
            num_threads=threads,
            quantization=None if stored else quantization,
            load_tokenizer=False,
            max_model_len=max_model_len,
            enable_prefix_caching=False,
        )
    )


class Transformers:
    """transformers' `model(...)` in bfloat16, eager, with a dynamic cache: less overhead than `generate`."""

    def __init__(self, directory: Path, threads: int, max_model_len: int) -> None:
        from transformers import AutoModelForCausalLM

        from atb_testing.conformance import cache_argument

        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
        self.cache = cache_argument(self.model)

    @torch.inference_mode()
    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Measures one run."""
        start = time.perf_counter()
        out = self.model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        first = time.perf_counter() - start
        for _ in range(max_tokens - 1):
            out = self.model(token, use_cache=True, **{self.cache: getattr(out, self.cache)})
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        return Times(first, time.perf_counter() - start)


#: Other programs by name: the package that must be installed, and the class. "bfloat16" is our engine with the weights
#: as they are, for comparison with quantised ones.
PEERS: dict[str, tuple[str, Callable[[Path, int, int], Subject]]] = {
    "transformers": ("transformers", Transformers),
    "bfloat16": ("atb_core", ours),
}


def installed_peers() -> list[str]:
    """Returns the names of the other programs whose packages are installed."""
    return [name for name, (package, kind) in PEERS.items() if kind is not ours and find_spec(package) is not None]
