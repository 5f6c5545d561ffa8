# SPDX-License-Identifier: Apache-2.0
"""Prefills that a device takes in steps of several tokens are filled up, and nobody sees with what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from atb_core.engine.cpu import CpuBackend
from atb_core.models.runtime.inputs import filled_up
from atb_testing import PagedDriver, open_model, tiny_checkpoint


def test_what_is_added_belongs_to_the_last_sequence_and_has_no_slot() -> None:
    given = {
        "input_ids": np.array([5, 6, 7]),
        "position_ids": np.array([0, 1, 0]),
        "slots": np.array([16, 17, 32], dtype=np.int32),
        "input_lengths": np.array([2, 1], dtype=np.int32),
        "attention_mask": np.ones((2, 2), np.float32),
    }
    filled = filled_up(given, 2)
    assert filled["input_ids"].tolist() == [5, 6, 7, 0, 0]
    assert filled["position_ids"].tolist() == [0, 1, 0, 0, 0]
    assert filled["slots"].tolist() == [16, 17, 32, -1, -1]
    assert filled["input_lengths"].tolist() == [2, 3]
    assert all(filled[name].dtype == given[name].dtype for name in given)
    assert filled["attention_mask"] is given["attention_mask"]
    assert given["input_lengths"].tolist() == [2, 1]


class InSixteens(CpuBackend):
    token_multiple = 16


@pytest.mark.parametrize("lengths", [[1], [16], [3, 20, 7], [15, 1, 17]], ids=str)
def test_the_logits_are_those_of_the_tokens_alone(tmp_path: Path, lengths: list[int]) -> None:
    pytest.importorskip("transformers")
    path = tiny_checkpoint(tmp_path, "qwen2", torch.bfloat16)
    sequences = [list(range(3, 3 + length + 4)) for length in lengths]
    results = []
    for backend in (CpuBackend(num_threads=2), InSixteens(num_threads=2)):
        model = open_model(path, backend)
        results.append(PagedDriver(model, len(sequences)).run(sequences, lengths))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)
