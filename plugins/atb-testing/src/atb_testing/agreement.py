# SPDX-License-Identifier: Apache-2.0
"""Compares greedy generation with Hugging Face's, token by token, on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from atb_core.runner.model_runner import ModelRunner
from atb_core.runner.sampling_params import SamplingParams
from atb_testing.conformance import cache_argument


@dataclass(frozen=True)
class Divergence:
    """The first step at which two greedy generations of one prompt differ, with each side's token and best ones."""

    prompt: int
    step: int
    ours: int
    theirs: int
    our_top: tuple[int, ...]
    their_top: tuple[int, ...]

    @property
    def is_close(self) -> bool:
        """Returns true if each side's token is among the other's best ones, so that they differ by rounding."""
        return self.ours in self.their_top and self.theirs in self.our_top


def greedy_divergences(
    runner: ModelRunner, reference: Any, prompts: Sequence[Sequence[int]], new_tokens: int, top: int = 5
) -> list[Divergence]:
    """Returns the first difference of each prompt that has one, among `new_tokens` greedy tokens.

    Args:
        runner: ours; all prompts run in one batch.
        reference: Hugging Face's model of the same weights; each prompt runs alone.
        prompts: token ids.
        new_tokens: number of tokens after each prompt.
        top: number of the best tokens of a step that are kept.
    """
    sampling = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True, logprobs=top)
    divergences = []
    outputs = runner.generate([list(prompt) for prompt in prompts], sampling)
    for index, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        theirs = _greedy(reference, prompt, new_tokens)
        logprobs = output.outputs[0].logprobs
        assert logprobs is not None
        for step, (token, logits) in enumerate(zip(output.token_ids, theirs, strict=True)):
            # Not the first of the best ones: among equal logits, topk and argmax choose differently.
            chosen = int(logits.argmax())
            if token != chosen:
                our_top = tuple(logprobs[step])
                divergences.append(
                    Divergence(index, step, token, chosen, our_top, tuple(logits.topk(top).indices.tolist()))
                )
                break
    return divergences


def _greedy(model: Any, prompt: Sequence[int], new_tokens: int) -> list[torch.Tensor]:
    """Returns the logits `[vocab]` float32 of every step of a greedy generation that ignores the end of the text."""
    tokens, cache, steps = torch.tensor([list(prompt)]), None, []
    name = cache_argument(model)
    with torch.no_grad():
        for _ in range(new_tokens):
            result = model(tokens, use_cache=True, logits_to_keep=1, **{name: cache})
            cache = getattr(result, name)
            steps.append(result.logits[0, -1].float())
            tokens = steps[-1].argmax().view(1, 1)
    return steps
