# SPDX-License-Identifier: Apache-2.0
"""Real weights: sensible answers, and Hugging Face's tokens on the same dequantised weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb_core import ModelRunner, SamplingParams
from atb_testing import PagedDriver, compare_logits, load_reference, open_model
from atb_testing.agreement import greedy_divergences
from atb_testing.conformance import hugging_face_logits

pytestmark = [pytest.mark.weights, pytest.mark.timeout(1200)]

GREEDY = SamplingParams(temperature=0.0, max_tokens=64)
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "def fibonacci(n):",
    "List three prime numbers and say why they are prime.",
    "用一句话介绍北京。",
    "Translate 'good morning' into Spanish and German.",
    "The quick brown fox jumps over the lazy dog. " * 12 + "How often did it jump?",
    "1, 1, 2, 3, 5, 8,",
)


def prompts_of(runner: ModelRunner) -> list[list[int]]:
    assert runner.tokenizer is not None
    return [runner.tokenizer.encode(question) for question in QUESTIONS]


def check_agreement(directory: Path, new_tokens: int) -> None:
    """Greedy tokens of eight prompts in one batch, and logits three ways, against Hugging Face in bfloat16."""
    import torch

    runner = ModelRunner(directory, max_model_len=512, num_threads=2)
    prompts = prompts_of(runner)
    peer = load_reference(directory, torch.bfloat16)
    far = [d for d in greedy_divergences(runner, peer, prompts, new_tokens) if not d.is_close]
    assert not far
    sequences = prompts[:4]
    lengths = [len(sequence) for sequence in sequences]
    model = open_model(directory, "cpu", 512)
    ours = torch.cat(PagedDriver(model, len(sequences), 512).run(sequences, lengths))
    truth = hugging_face_logits(load_reference(directory), sequences)
    report = compare_logits(ours, hugging_face_logits(peer, sequences), truth)
    print(f"errors relative to the mean logit: {report}")
    assert report.within(2.0)


def test_smollm2_knows_the_capital_of_japan(smollm2_gguf: Path) -> None:
    # The first token of this answer is twice as probable as the next best one in every precision. Of the answer about
    # France it is one of two equal ones, and rounding decides.
    runner = ModelRunner(smollm2_gguf, max_model_len=256)
    (output,) = runner.generate([[{"role": "user", "content": "What is the capital of Japan?"}]], GREEDY)
    assert "Tokyo" in output.text
    assert output.outputs[0].finish_reason == "stop"


def test_smollm2_agrees_with_hugging_face(smollm2_directory: Path) -> None:
    check_agreement(smollm2_directory, 48)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["gguf", "directory"])
def test_qwen_coder_writes_a_fibonacci_function_that_works(source: str, request: pytest.FixtureRequest) -> None:
    runner = ModelRunner(request.getfixturevalue(f"qwen_coder_{source}"), max_model_len=512)
    question = "Write a Python function fibonacci(n) that returns the n-th Fibonacci number, with fibonacci(1) == 1."
    sampling = SamplingParams(temperature=0.0, max_tokens=256)
    (output,) = runner.generate([[{"role": "user", "content": question}]], sampling)
    code = output.text.split("```python\n")[1].split("```")[0]
    scope: dict[str, object] = {}
    exec(code, scope)
    fibonacci = scope["fibonacci"]
    assert callable(fibonacci)
    assert [fibonacci(n) for n in range(1, 11)] == [1, 1, 2, 3, 5, 8, 13, 21, 34, 55]


@pytest.mark.slow
def test_qwen_coder_agrees_with_hugging_face(qwen_coder_directory: Path) -> None:
    check_agreement(qwen_coder_directory, 128)
