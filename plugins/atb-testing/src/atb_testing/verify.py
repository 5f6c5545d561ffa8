# SPDX-License-Identifier: Apache-2.0
"""Compares a whole checkpoint with Hugging Face's implementation, like the kit, but on real weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from atb_core.runner.model_runner import ModelRunner
from atb_testing.agreement import Divergence, greedy_divergences
from atb_testing.checkpoints import load_reference
from atb_testing.conformance import ErrorReport, Oracle, prompt_lengths, read_dtype
from atb_testing.diagnosis import explain_difference
from atb_testing.driver import open_model
from atb_testing.plain import plain_weights

# Ordinary text: on what a model was trained for, ties between tokens are rare.
TEXTS = (
    "The capital of France is",
    "def fibonacci(n):",
    "Once upon a time, in a small village by the sea, there lived",
    "一个数的平方根是",
)


class Quality(NamedTuple):
    """Holds the mean error of the logits, by their mean magnitude, and the share of equal best tokens."""

    mean: float
    same_best: float


@dataclass(frozen=True)
class Verification:
    """The result of a comparison.

    Attributes:
        dtype: the checkpoint's element type, in which ours and torch's are computed; the truth is in float32.
        reports: errors of all logits by backend.
        differences: the first difference by backend, for those whose errors exceed twice torch's.
        divergences: differences of greedy generations by backend.
        prompts: number of texts that were continued by `tokens` tokens.
        lengths: lengths of the prompts whose logits were compared.
        beyond: lengths at which the computation changes and that no prompt reached.
        quantization: the scheme of a quantised checkpoint, whose values are compared; `None` for plain elements.
        as_stored: of a quantised checkpoint, what a runner gives without a dtype, by backend: how far the logits are
            from those of the values, and the share of tokens after which the best one is the same. It does not decide.
    """

    dtype: str
    reports: dict[str, ErrorReport]
    differences: dict[str, str] = field(default_factory=dict)
    divergences: dict[str, list[Divergence]] = field(default_factory=dict)
    prompts: int = 0
    tokens: int = 0
    lengths: tuple[int, ...] = ()
    beyond: list[int] = field(default_factory=list)
    quantization: str | None = None
    as_stored: dict[str, Quality] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Returns true if no error is too large and rounding explains every difference of generations."""
        apart = [d for divergences in self.divergences.values() for d in divergences if not d.is_close]
        return not self.differences and not apart


def verify(
    directory: Path,
    backends: Sequence[str],
    tokens: int,
    say: Callable[[str], None] = lambda text: None,
    longest: int = 8192,
) -> Verification:
    """Compares the logits of random prompts, and `tokens` greedy tokens after ordinary texts.

    Prompts are longer than every window and other length at which the computation changes, and decode crosses it.

    Needs memory for the weights once in float32 and twice in the checkpoint's type.

    Args:
        directory: a directory with config.json and safetensors.
        backends: the backends to compare.
        tokens: number of greedy tokens; 0 for none.
        say: receives a line before each stage.
        longest: the longest prompt in tokens.
    """
    with plain_weights(directory) as (plain, scheme):
        return _compare(directory, plain, scheme, backends, tokens, say, longest)


def _compare(
    directory: Path,
    plain: Path,
    scheme: str | None,
    backends: Sequence[str],
    tokens: int,
    say: Callable[[str], None],
    longest: int,
) -> Verification:
    dtype = str(read_dtype(directory)).removeprefix("torch.")
    lengths, beyond = prompt_lengths(directory, longest)
    if scheme is not None:
        say(f"the checkpoint is quantised by {scheme}: Hugging Face gets the values of its matrices in {dtype}")
    say(f"Hugging Face in float32 and in {dtype}: the logits of prompts of {', '.join(map(str, lengths))} tokens")
    oracle = Oracle.of(plain, lengths)
    reports: dict[str, ErrorReport] = {}
    differences: dict[str, str] = {}
    as_stored: dict[str, Quality] = {}
    for backend in backends:
        say(f"backend {backend}: the same prompts")
        reports[backend] = oracle.report(oracle.run(open_model(directory, backend)))
        if not reports[backend].within():
            say(f"backend {backend}: looking for the first module that differs")
            differences[backend] = explain_difference(plain, backend, longest)
        if scheme is not None:
            say(f"backend {backend}: the same prompts, with matrices as they are stored")
            with ModelRunner(directory, backend=backend, load_tokenizer=False, max_num_seqs=1) as stored:
                as_stored[backend] = _quality(oracle, oracle.run(stored.model))
    divergences: dict[str, list[Divergence]] = {}
    if tokens:
        reference = load_reference(plain, read_dtype(directory))
        # With a dtype, matrices are expanded to their values.
        chosen = "auto" if scheme is None else dtype
        for backend in backends:
            say(f"backend {backend}: {tokens} greedy tokens after {len(TEXTS)} texts")
            runner = ModelRunner(directory, backend=backend, dtype=chosen, load_tokenizer=_has_tokenizer(directory))
            divergences[backend] = greedy_divergences(runner, reference, _prompts(runner), tokens)
    return Verification(
        dtype,
        reports,
        differences,
        divergences,
        len(TEXTS) if tokens else 0,
        tokens,
        lengths,
        beyond,
        scheme,
        as_stored,
    )


def _quality(oracle: Oracle, ours: torch.Tensor) -> Quality:
    """Returns how far logits are from the true ones."""
    same = (ours.argmax(-1) == oracle.truth.argmax(-1)).float().mean()
    return Quality(oracle.report(ours).ours_mean, same.item())


def _has_tokenizer(directory: Path) -> bool:
    return (directory / "tokenizer.json").is_file() or (directory / "tokenizer_config.json").is_file()


def _prompts(runner: ModelRunner) -> list[list[int]]:
    if runner.tokenizer is not None:
        return [runner.tokenizer.encode(text) for text in TEXTS]
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(runner.vocab_size, (8 + i,), generator=generator).tolist() for i in range(len(TEXTS))]
