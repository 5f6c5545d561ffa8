# SPDX-License-Identifier: Apache-2.0
"""Blocks decode to the very floats that the reference decoder of the `gguf` package gives."""

from __future__ import annotations

import gguf
import gguf.quants
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES

from atb_gguf.config import PLAIN_TYPES
from atb_gguf.quants import SUPPORTED_TYPES, decode


@pytest.mark.parametrize("kind", SUPPORTED_TYPES, ids=lambda kind: kind.name)
def test_random_blocks_decode_to_the_same_bits(kind: gguf.GGMLQuantizationType) -> None:
    size = GGML_QUANT_SIZES[kind][1]
    raw = np.random.default_rng(1).integers(0, 256, (997, size), dtype=np.uint8)
    with np.errstate(invalid="ignore"):  # random scales include NaN
        expected = gguf.quants.dequantize(raw, kind)
    got = decode(raw, kind).astype(np.float32)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    finite = ~np.isnan(expected)
    assert np.array_equal(got[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_the_types_are_those_that_the_documentation_names() -> None:
    names = {kind.name for kind in SUPPORTED_TYPES}
    assert names == {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"} | {
        "Q2_K", "Q3_K", "IQ4_NL", "MXFP4",
    }  # fmt: skip
    assert set(PLAIN_TYPES) < set(SUPPORTED_TYPES)
