# SPDX-License-Identifier: Apache-2.0
"""A real model by both ways of writing its graph: the same bits unfused, and as good as fused ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb_core import ModelRunner, SamplingParams
from atb_testing import PagedDriver, compare_logits, load_reference
from atb_testing.conformance import hugging_face_logits
from atb_testing.variants import unfused

pytestmark = [pytest.mark.weights, pytest.mark.timeout(1200)]

QUESTIONS = ("What is the capital of France?", "def fibonacci(n):", "1, 1, 2, 3, 5, 8,")


def test_smollm2_has_the_same_bits_whoever_writes_its_graph(smollm2_directory: Path) -> None:
    import torch

    built, recorded = (ModelRunner(smollm2_directory, graph=graph, max_model_len=512) for graph in ("cpp", "python"))
    assert built.tokenizer is not None
    prompts = [built.tokenizer.encode(question) for question in QUESTIONS]
    greedy = SamplingParams(temperature=0.0, max_tokens=48, ignore_eos=True, logprobs=5)
    ours, theirs = (runner.generate(prompts, greedy) for runner in (built, recorded))
    for left, right in zip(ours, theirs, strict=True):
        tops = left.outputs[0].logprobs, right.outputs[0].logprobs
        assert tops[0] is not None and tops[1] is not None
        for step, (a, b) in enumerate(zip(left.token_ids, right.token_ids, strict=True)):
            if a != b:  # two roundings of one distribution
                assert a in tops[1][step] and b in tops[0][step]
                break

    def logits(model: object, new: int = 4) -> torch.Tensor:
        sequences = [prompt + [17] * new for prompt in prompts]
        return torch.cat(PagedDriver(model, len(prompts), 512).run(sequences, [len(prompt) for prompt in prompts]))

    mine, fused = logits(built.model).clone(), logits(recorded.model).clone()
    assert torch.equal(mine, logits(unfused(recorded.model)))
    sequences = [prompt + [17] * 4 for prompt in prompts]
    truth = hugging_face_logits(load_reference(smollm2_directory), sequences)
    peer = hugging_face_logits(load_reference(smollm2_directory, torch.bfloat16), sequences)
    for way in (mine, fused):
        assert compare_logits(way, peer, truth).within(2.0)
