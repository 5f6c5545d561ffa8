# SPDX-License-Identifier: Apache-2.0
"""Holds what is measured: our engine with the record of its nodes, and other programs that are installed."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from checkpoints import write_w8a8

from atb_core import ModelRunner, SamplingParams
from atb_profile import Profile

Prompts = list[list[int]]


class Times(NamedTuple):
    """Seconds of one run, with the record of its nodes if there is one."""

    first: float
    total: float
    profile: Profile | None = None


class Subject(Protocol):
    """Generates greedily and ignores the end-of-sequence token."""

    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Returns the seconds until all prompts have their first token, and until all tokens are there."""
        ...


class Ours:
    """`ModelRunner.generate`, including scheduling, sampling and bookkeeping; "w8a8" is a checkpoint of its own."""

    def __init__(self, directory: Path, threads: int, max_model_len: int, quantization: str | None = None) -> None:
        stored = quantization == "w8a8"
        self.runner = ModelRunner(
            str(write_w8a8(directory) if stored else directory),
            dtype="auto" if stored else "bfloat16",
            num_threads=threads,
            quantization=None if stored else quantization,
            load_tokenizer=False,
            max_model_len=max_model_len,
            enable_prefix_caching=False,
        )

    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Measures one run and records its nodes."""
        sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        waiting = set(range(len(prompts)))
        with Profile(self.runner) as profile:
            start = first = time.perf_counter()
            for chunk in self.runner.generate(prompts, sampling, stream=True):
                if chunk.prompt_index in waiting:
                    waiting.remove(chunk.prompt_index)
                    first = time.perf_counter()
            end = time.perf_counter()
        return Times(first - start, end - start, profile)


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
    "bfloat16": ("atb_core", Ours),
}


def installed_peers() -> list[str]:
    """Returns the names of the other programs whose packages are installed."""
    return [name for name, (package, kind) in PEERS.items() if kind is not Ours and find_spec(package) is not None]
