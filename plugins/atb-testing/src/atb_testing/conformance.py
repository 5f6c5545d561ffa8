# SPDX-License-Identifier: Apache-2.0
"""Compares a model's errors with torch's in the same precision; the truth is Hugging Face's model in float32."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atb_core.checkpoint import open_checkpoint
from atb_core.graph.arrays import dtype_to_torch
from atb_core.models.base.router import router_of
from atb_testing.checkpoints import boundaries, load_reference
from atb_testing.driver import PagedDriver, available_backends, open_model

# In float32 both agree up to the order of summation.
_FLOAT32_TOLERANCE = 2e-5


@dataclass(frozen=True)
class ErrorReport:
    """Errors against float32, divided by the mean magnitude of the true logits."""

    ours_max: float
    ours_mean: float
    torch_max: float
    torch_mean: float

    def within(self, factor: float = 2.0) -> bool:
        """Returns true if ours is at most `factor` times torch's by mean, and a quarter more by maximum."""
        slack = _FLOAT32_TOLERANCE
        # A single logit depends on where each rounds: with a smaller mean error than torch's, 2.2 times was seen.
        largest = 1.25 * factor * self.torch_max + slack
        return self.ours_max <= largest and self.ours_mean <= factor * self.torch_mean + slack


def compare_logits(ours: torch.Tensor, peer: torch.Tensor, truth: torch.Tensor) -> ErrorReport:
    """Returns the errors of `ours` and of `peer` against `truth`; all `[tokens, vocab]`."""
    scale = truth.float().abs().mean()
    own, other = ((x.float() - truth.float()).abs() / scale for x in (ours, peer))
    return ErrorReport(own.max().item(), own.mean().item(), other.max().item(), other.mean().item())


@dataclass(frozen=True)
class Oracle:
    """Hugging Face's logits for some sequences with a checkpoint's weights.

    `truth` and `peer` are its logits `[tokens, vocab]` in float32 and in the checkpoint's own type; each sequence
    is its first `prompts[i]` tokens at once, then one token at a time.
    """

    sequences: list[list[int]]
    prompts: tuple[int, ...]
    truth: torch.Tensor
    peer: torch.Tensor

    @classmethod
    def of(cls, directory: Path, prompts: tuple[int, ...] | None = None, new_tokens: int = 4) -> Oracle:
        """Runs random sequences of different lengths through Hugging Face's model of the checkpoint.

        Args:
            directory: the checkpoint.
            prompts: lengths of the prompts; by default those of `prompt_lengths`.
            new_tokens: number of tokens of each sequence that come one by one after its prompt.
        """
        prompts = prompt_lengths(directory)[0] if prompts is None else prompts
        truth_model = load_reference(directory)
        generator = torch.Generator().manual_seed(3)
        vocab = truth_model.config.vocab_size
        sequences = [torch.randint(vocab, (n + new_tokens,), generator=generator).tolist() for n in prompts]
        truth = hugging_face_logits(truth_model, sequences, prompts)
        dtype = read_dtype(directory)
        narrow = dtype != torch.float32
        peer = hugging_face_logits(load_reference(directory, dtype), sequences, prompts) if narrow else truth
        return cls(sequences, prompts, truth, peer)

    def run(self, model: Any) -> torch.Tensor:
        """Returns our logits `[tokens, vocab]` for the same sequences, computed in one batch.

        Raises:
            AssertionError: a logit is not finite.
        """
        driver = PagedDriver(model, len(self.prompts), max(map(len, self.sequences)))
        logits = torch.cat(driver.run(self.sequences, self.prompts))
        if not torch.isfinite(logits).all():
            raise AssertionError("the logits are not finite")
        return logits

    def report(self, ours: torch.Tensor) -> ErrorReport:
        """Returns the errors of `ours`, logits of the same sequences, and torch's."""
        return compare_logits(ours, self.peer, self.truth)


def assert_conforms(
    directory: Path, backends: Sequence[str] | None = None, new_tokens: int = 4, max_model_len: int | None = None
) -> dict[str, ErrorReport]:
    """Runs prompts of different lengths together and compares every token's logits with Hugging Face's.

    Computes in the checkpoint's element type; the truth is Hugging Face in float32 on the same weights.

    Args:
        directory: the checkpoint.
        backends: by default all that this machine can run.
        new_tokens: number of tokens of each sequence that come one by one after its prompt.
        max_model_len: as in `open_model`.

    Raises:
        AssertionError: an error is more than twice torch's in that type; the message names backends and errors.
    """
    with torch_threads(1):
        oracle = Oracle.of(directory, new_tokens=new_tokens)
        names = available_backends() if backends is None else backends
        models = {name: open_model(directory, name, max_model_len) for name in names}
        reports = {name: oracle.report(oracle.run(model)) for name, model in models.items()}
    wrong = {name: report for name, report in reports.items() if not report.within()}
    if wrong:
        raise AssertionError(f"errors are more than twice torch's: {wrong}")
    return reports


def prompt_lengths(directory: Path, longest: int = 512) -> tuple[tuple[int, ...], list[int]]:
    """Returns the lengths of the prompts that a checkpoint is compared by, and the boundaries that they leave out.

    For each length at which the computation changes, a prompt is longer, and one is so short that decode crosses it.

    Args:
        directory: the checkpoint.
        longest: the longest prompt.
    """
    lengths, beyond = [1, 7, 33, 18], []
    for boundary in boundaries(directory):
        if boundary + 3 > longest:
            beyond.append(boundary)
            continue
        lengths += [length for length in (boundary - 2, boundary + 3) if length > 0]
    return tuple(dict.fromkeys(lengths)), beyond


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Runs torch on `count` threads; models of this size are slower with more than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_dtype(directory: Path) -> torch.dtype:
    """Returns the element type in which the family of a checkpoint runs it."""
    return dtype_to_torch(router_of(open_checkpoint(str(directory))).config.data_type)


def hugging_face_logits(
    model: Any, sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int] | None = None
) -> torch.Tensor:
    """Returns the logits of every token of every sequence, each run alone.

    With `prompt_lengths` the tokens after the prompt come one by one, over Hugging Face's own cache: rotary
    frequencies may depend on the length of the sequence so far.
    """
    rows = []
    for index, sequence in enumerate(sequences):
        # Rotary modules keep frequencies adapted to the last sequence, so each sequence gets a fresh model.
        fresh = copy.deepcopy(model)
        tokens = torch.tensor([list(sequence)])
        first = len(sequence) if prompt_lengths is None else prompt_lengths[index]
        with torch.no_grad():
            cache = cache_argument(fresh)
            out = fresh(tokens[:, :first], use_cache=True)
            rows.append(out.logits[0])
            for position in range(first, len(sequence)):
                step = tokens[:, position : position + 1]
                out = fresh(step, use_cache=True, **{cache: getattr(out, cache)})
                rows.append(out.logits[0])
    return torch.cat(rows)


def cache_argument(model: Any) -> str:
    """Returns the name of the cache in a model's arguments and output, which depends on transformers' version."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
