# SPDX-License-Identifier: Apache-2.0
"""Tests the size of the cache, and the message when it does not fit."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from atb_core.engine.host_memory import available_memory
from atb_core.errors import EngineError
from atb_core.graph.arrays import dtype_of, to_numpy
from atb_core.graph.dtype import DataType
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec
from atb_core.runner.kv_cache import allocate, plan_cache

# 16 tokens * 2 heads * 8 * 2 bytes, keys and values, 3 layers.
SPECS = [KVCacheSpec.of_heads(2, 8, DataType.BF16)] * 3
BLOCK = 16 * 2 * 8 * 2 * 2 * 3


def plan(**options: Any) -> tuple[int, int]:
    return plan_cache(BLOCK, 16, **{"context_len": 100, "max_model_len": None, "max_num_seqs": 4, **options})


def test_the_size_of_a_block() -> None:
    assert 16 * sum(spec.bytes_per_token for spec in SPECS) == BLOCK


def test_by_default_a_full_batch_of_full_contexts_fits() -> None:
    assert plan() == (7 * 4, 100)
    assert plan(max_model_len=20) == (2 * 4, 20)


def test_but_no_more_than_half_of_the_memory() -> None:
    assert plan(available=40 * BLOCK) == (20, 100)


def test_a_context_that_does_not_fit_is_shortened_only_if_nobody_asked_for_it() -> None:
    assert plan(available=8 * BLOCK) == (4, 64)
    with pytest.raises(EngineError, match=r"context of 100 tokens takes 7 blocks .* but there are 4"):
        plan(available=8 * BLOCK, max_model_len=100)
    with pytest.raises(EngineError, match="there are 0"):
        plan(available=BLOCK)


def test_a_size_in_blocks_or_bytes_is_taken_as_told() -> None:
    assert plan(num_blocks=9) == (9, 100)
    assert plan(kv_cache_memory_bytes=9 * BLOCK + 5) == (9, 100)
    assert plan(num_blocks=5) == (5, 80)
    with pytest.raises(EngineError, match="takes 9 blocks"):
        plan(num_blocks=8, max_model_len=130)


def test_more_than_there_is_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"cache of 20 blocks takes .* are available"):
        plan(num_blocks=20, available=19 * BLOCK)


@pytest.mark.parametrize("dtype", [DataType.FLOAT, DataType.FLOAT16, DataType.BF16])
def test_allocation_is_zero_aligned_and_contiguous(dtype: DataType) -> None:
    specs = [KVCacheSpec.of_heads(3, 4, dtype)] * 2
    layers = allocate(specs, 7, 5)
    assert len(layers) == 2
    arrays = [to_numpy(array) for layer in layers for array in layer]
    assert len({array.ctypes.data for array in arrays}) == 4
    for array in arrays:
        assert array.shape == (7, 5, 3, 4)
        assert dtype_of(array) is dtype
        assert array.flags.carray
        assert array.ctypes.data % 64 == 0
        assert not array.any()
        array.fill(1)
    assert sum(array.nbytes for array in arrays) == 7 * 5 * sum(spec.bytes_per_token for spec in specs)


def test_a_large_cache_costs_only_what_is_used() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spec = KVCacheSpec.of_heads(1, 64, DataType.BF16)
    ((keys, _),) = allocate([spec], (2 << 30) // (128 * spec.bytes_per_token), 128)
    keys[-1] = 1
    assert (to_numpy(keys)[-1] == 1).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_what_the_system_refuses_is_an_error() -> None:
    with pytest.raises(EngineError, match="which the system refuses"):
        allocate(SPECS, 1 << 45, 16)


def test_available_memory_is_a_plausible_number() -> None:
    available = available_memory()
    assert available is None or 1 << 20 < available < 1 << 50
