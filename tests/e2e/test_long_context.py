# SPDX-License-Identifier: Apache-2.0
"""Rotary settings for long contexts give Hugging Face's logits up to four times the original length and beyond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atb_testing.checkpoints import tiny_checkpoint
from atb_testing.conformance import Oracle
from atb_testing.driver import open_model

ORIGINAL = 16
HALF_OF_HEAD = 8
SETTINGS: dict[str, dict[str, Any]] = {
    "yarn": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "llama3": {
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL
    },
    "longrope": {
        "factor": 4.0, "original_max_position_embeddings": ORIGINAL,
        "short_factor": [1.0 + 0.1 * i for i in range(HALF_OF_HEAD)],
        "long_factor": [1.5 + 0.4 * i for i in range(HALF_OF_HEAD)],
    },
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", SETTINGS)
def test_four_times_the_original_length(kind: str, tmp_path: Path) -> None:
    longest = ORIGINAL if kind == "dynamic" else 4 * ORIGINAL
    directory = tiny_checkpoint(
        tmp_path, "llama", head_dim=2 * HALF_OF_HEAD, max_position_embeddings=longest,
        rope_parameters={"rope_type": kind, "rope_theta": 1e4, **SETTINGS[kind]},
    )  # fmt: skip
    # Within the original length, over its end, over four times that, and beyond.
    oracle = Oracle.of(directory, prompts=(5, ORIGINAL - 2, 4 * ORIGINAL - 4, 5 * ORIGINAL), new_tokens=8)
    report = oracle.report(oracle.run(open_model(directory, "cpu", 6 * ORIGINAL)))
    assert report.within(), report
