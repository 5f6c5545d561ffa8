# SPDX-License-Identifier: Apache-2.0
"""Bias, least length and penalties are transformers' where it has them, and a plain formula elsewhere; processors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from atb_core.errors import RequestError
from atb_core.runner.outputs import RequestOutput
from atb_core.runner.request import Request
from atb_core.runner.sampler import FloatRow, process_logits
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.token_mask import LogitsProcessor, TokenMask

VOCAB = 40
PROMPT = [3, 3, 7, 21]
OUTPUT = [5, 7, 7, 30, 7]
STOP_IDS = (5, 11)


def request_after(
    output: list[int], options: dict[str, Any], stop_ids: Collection[int] = (), token_mask: TokenMask | None = None
) -> Request:
    """A request that has generated `output`."""
    params = SamplingParams(**options)
    result = RequestOutput("0", None, PROMPT, [])
    request = Request(result, 0, params, 1000, frozenset(stop_ids), token_mask=token_mask)
    for token_id in output:
        request.append(token_id, None)
    return request


def row() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(scale=4, size=VOCAB).astype(np.float32)


def hugging_face(processors: list[Any], tokens: list[int]) -> list[float]:
    """The scores that transformers' processors make of `row()`, one after another."""
    scores = torch.from_numpy(row())[None]
    for processor in processors:
        scores = processor(torch.tensor([tokens]), scores)
    values: list[float] = scores[0].tolist()
    return values


def test_the_row_itself_is_not_changed() -> None:
    logits = row()
    process_logits(logits, request_after(OUTPUT, {"repetition_penalty": 2.0, "logit_bias": {1: 1.0}}))
    assert logits.tolist() == row().tolist()


@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_the_repetition_penalty_is_hugging_faces(penalty: float) -> None:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    ours = process_logits(row(), request_after(OUTPUT, {"repetition_penalty": penalty}))
    assert ours.tolist() == pytest.approx(hugging_face([RepetitionPenaltyLogitsProcessor(penalty)], PROMPT + OUTPUT))


def test_the_bias_is_hugging_faces_sequence_bias_of_single_tokens() -> None:
    from transformers.generation.logits_process import SequenceBiasLogitsProcessor

    bias = {0: 2.5, 39: -100.0, 7: 0.25}
    ours = process_logits(row(), request_after(OUTPUT, {"logit_bias": bias}))
    theirs = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})
    assert ours.tolist() == pytest.approx(hugging_face([theirs], PROMPT + OUTPUT))


@pytest.mark.parametrize("length", [0, 2, 3, 4])
def test_the_least_length_is_hugging_faces(length: int) -> None:
    from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor

    output = [1, 2, 4, 6][:length]
    ours = process_logits(row(), request_after(output, {"min_tokens": 3}, STOP_IDS))
    theirs = MinNewTokensLengthLogitsProcessor(len(PROMPT), 3, list(STOP_IDS), device="cpu")
    assert ours.tolist() == hugging_face([theirs], PROMPT + output)
    assert np.isinf(ours).sum() == (len(STOP_IDS) if length < 3 else 0)


@pytest.mark.parametrize(("presence", "frequency"), [(1.5, 0.0), (0.0, 0.7), (-2.0, 2.0), (0.3, -0.4)])
def test_presence_and_frequency_count_the_output_alone(presence: float, frequency: float) -> None:
    options = {"presence_penalty": presence, "frequency_penalty": frequency}
    expected = row().astype(np.float64)
    for token_id, count in Counter(OUTPUT).items():
        expected[token_id] -= presence + frequency * count
    ours = process_logits(row(), request_after(OUTPUT, options))
    assert ours.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    # Nothing has been generated yet: nothing is changed.
    assert process_logits(row(), request_after([], options)).tolist() == row().tolist()


def test_all_together_in_the_documented_order() -> None:
    from transformers.generation import logits_process as hf

    options = {
        "logit_bias": {7: -9.0, 2: 4.0}, "min_tokens": 9, "repetition_penalty": 1.5, "frequency_penalty": 0.5,
        "presence_penalty": 0.25,
    }  # fmt: skip
    ours = process_logits(row(), request_after(OUTPUT, options, (11,)))
    processors = [
        hf.SequenceBiasLogitsProcessor({(7,): -9.0, (2,): 4.0}),
        hf.MinNewTokensLengthLogitsProcessor(len(PROMPT), 9, [11], device="cpu"),
        hf.RepetitionPenaltyLogitsProcessor(1.5),
    ]
    expected = hugging_face(processors, PROMPT + OUTPUT)
    for token_id, count in Counter(OUTPUT).items():
        expected[token_id] -= 0.5 * count + 0.25
    assert expected[11] == -math.inf
    assert ours.tolist() == pytest.approx(expected, abs=1e-5)


def test_without_parameters_nothing_is_processed() -> None:
    assert not request_after(OUTPUT, {}, STOP_IDS).processes_logits
    assert not request_after(OUTPUT, {"temperature": 0.5, "top_p": 0.9}, STOP_IDS).processes_logits


class Doubling(LogitsProcessor):
    """Doubles the logits, and allows all tokens but the first; notes the tokens that it got."""

    def process(self, token_ids: Sequence[int], logits: FloatRow) -> FloatRow:
        self.seen = list(token_ids)
        return logits * np.float32(2)

    def next_mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.arange(VOCAB) > 0


def test_a_processor_comes_last_but_for_its_mask() -> None:
    request = request_after(OUTPUT, {"logit_bias": {2: 4.0}}, token_mask=(processor := Doubling()))
    ours = process_logits(row(), request)
    expected = row()
    expected[2] += np.float32(4)
    assert ours[1:].tolist() == (expected * np.float32(2))[1:].tolist()
    assert ours[0] == -math.inf
    assert processor.seen == PROMPT + OUTPUT


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (None, r"must return float32 \[40\], not object"),
        (np.zeros(VOCAB), r"not float64 \[40\]"),
        (np.zeros(VOCAB - 1, np.float32), r"not float32 \[39\]"),
        (np.full(VOCAB, -np.inf, np.float32), "leaves no token to choose"),
        (np.full(VOCAB, np.nan, np.float32), "or returned NaN"),
    ],
)
def test_what_a_processor_returns_is_checked(result: Any, problem: str) -> None:
    processor = LogitsProcessor()
    processor.process = lambda token_ids, logits: result  # type: ignore[method-assign]
    with pytest.raises(RequestError, match=problem):
        process_logits(row(), request_after([], {}, token_mask=processor))
