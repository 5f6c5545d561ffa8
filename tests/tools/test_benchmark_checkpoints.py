# SPDX-License-Identifier: Apache-2.0
"""The copy in W8A8 that the benchmarks make has the values of its source, as far as 8 bits have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_values_of_w8a8_are_half_a_step_from_those_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from checkpoints import Shape, write_checkpoint, write_w8a8

    source = tmp_path / "model"
    write_checkpoint(source, Shape(64, 128, 1, 2, 2, 512))
    floats = load_file(source / "model.safetensors")
    copy = load_file(write_w8a8(source) / "model.safetensors")
    matrices = [name for name in floats if name.endswith("_proj.weight")]
    assert len(matrices) == 7
    for name in matrices:
        scale = copy[f"{name}_scale"].float()
        assert ((copy[name].float() * scale - floats[name].float()).abs() <= scale * 0.5001).all(), name
    assert copy["model.norm.weight"].equal(floats["model.norm.weight"])
