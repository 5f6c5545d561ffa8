# SPDX-License-Identifier: Apache-2.0
"""The functions have ATB-Models' names and keywords, and compute on every engine what torch computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atb_core.engine import BACKENDS
from atb_core.errors import GraphError
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn import functional as F

LOCAL = [backend for backend in BACKENDS if backend in ("cpu", "reference")]
FLOATS = {DataType.FLOAT: torch.float32, DataType.FLOAT16: torch.float16, DataType.BF16: torch.bfloat16}


def run(backend: str, call: Any, inputs: dict[str, torch.Tensor], declared: DataType | None = None) -> tuple[Any, ...]:
    """Runs what `call` records; only the first input is declared, if `declared` is its type."""
    with Network() as network:
        first = next(iter(inputs))
        tensors = {
            name: Tensor(name, tuple(value.shape), declared) if declared and name == first else Tensor(name)
            for name, value in inputs.items()
        }
        results = call(**tensors)
        results = results if isinstance(results, tuple) else (results,) if results is not None else ()
        for number, result in enumerate(results):
            network.mark_output(result, f"result_{number}")
    out = network.build_engine(backend=backend).forward(inputs)
    return tuple(out[f"result_{number}"] for number in range(len(results)))


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize("declared", [None, *FLOATS])
@pytest.mark.parametrize("backend", LOCAL)
def test_norm_adds_the_absolute_values_of_the_last_dimension(backend: str, declared: DataType | None) -> None:
    x = torch.randn(5, 3, 70).to(FLOATS[declared or DataType.FLOAT])
    (y,) = run(backend, lambda x: F.norm(x), {"x": x}, declared)
    expected = x.double().abs().sum(-1, keepdim=True)
    torch.testing.assert_close(y, expected.to(x.dtype))


@pytest.mark.parametrize("declared", [None, *FLOATS])
@pytest.mark.parametrize("backend", LOCAL)
def test_std_divides_by_the_number_of_elements(backend: str, declared: DataType | None) -> None:
    x = (torch.randn(5, 3, 70) * 7 + 2).to(FLOATS[declared or DataType.FLOAT])
    (y,) = run(backend, lambda x: F.std(x), {"x": x}, declared)
    expected = x.double().std(-1, correction=0, keepdim=True)
    torch.testing.assert_close(y, expected.to(x.dtype))


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("backend", LOCAL)
def test_std_holds_for_very_small_and_very_large_values(backend: str, scale: float) -> None:
    x = torch.randn(4, 33) * scale
    (y,) = run(backend, lambda x: F.std(x), {"x": x})
    torch.testing.assert_close(y, x.double().std(-1, correction=0, keepdim=True).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", LOCAL)
def test_std_of_equal_values_is_zero(backend: str) -> None:
    assert torch.equal(run(backend, lambda x: F.std(x), {"x": torch.full((2, 8), 3.0)})[0], torch.zeros(2, 1))


@pytest.mark.parametrize("backend", LOCAL)
def test_copy_blocks_writes_each_block_to_the_places_that_the_sums_end(backend: str) -> None:
    caches = {"key_cache": torch.randn(9, 4, 2, 8), "value_cache": torch.randn(9, 4, 2, 8)}
    expected = {name: cache.clone() for name, cache in caches.items()}
    for cache in expected.values():
        cache[2], cache[7], cache[0] = cache[1].clone(), cache[1].clone(), cache[4].clone()
    # The second source has no destination.
    lists = {"src_block_indices": ints(1, 8, 4), "dst_block_indices": ints(2, 7, 0), "cum_sum": ints(2, 2, 3)}
    run(backend, lambda **given: F.copy_blocks(**given), {**caches, **lists})
    assert all(torch.equal(caches[name], expected[name]) for name in caches)


def kept_groups(x: torch.Tensor, group_num: int, k: int, n: int) -> torch.Tensor:
    groups = x.float().unflatten(1, (group_num, -1))
    # Sums may be equal: a stable sort keeps the first groups, as the function says.
    best = groups.topk(n).values.sum(-1).sort(dim=-1, descending=True, stable=True).indices[:, :k]
    return (groups * torch.zeros(len(x), group_num).scatter_(1, best, 1)[..., None]).flatten(1).to(x.dtype)


@pytest.mark.parametrize(("options", "n"), [({}, 1), ({"group_multi_flag": "SUM_MULTI_MAX", "n": 2}, 2)])
@pytest.mark.parametrize("backend", LOCAL)
def test_group_topk_keeps_the_best_groups_in_place(backend: str, options: dict[str, Any], n: int) -> None:
    x = (torch.stack([torch.randperm(64) for _ in range(6)]) / 64).half()
    expected = kept_groups(x, 8, 3, n)
    inputs = {"input_": x, "idx_arr": torch.arange(1024, dtype=torch.int32)}
    call = lambda **given: F.group_topk(**given, group_num=8, k=3, **options)  # noqa: E731
    (result,) = run(backend, call, inputs, DataType.FLOAT16)
    assert torch.equal(x, expected) and torch.equal(result, expected)


@pytest.mark.parametrize("backend", LOCAL)
def test_group_topk_keeps_the_first_of_equal_groups(backend: str) -> None:
    x = torch.ones(2, 8)
    run(backend, lambda x, idx: F.group_topk(x, idx, 4, 2), {"x": x, "idx": ints(0, 1, 2, 3)}, DataType.FLOAT)
    assert torch.equal(x, torch.tensor([[1.0] * 4 + [0.0] * 4] * 2))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("backend", LOCAL)
def test_gating_orders_the_choices_by_expert(backend: str, k: int, wide: bool) -> None:
    topk = torch.randint(0, 5, (7 * k,), dtype=torch.int32)
    inputs = {"topk": topk, "idx_arr": torch.arange(7 * k, dtype=torch.int32)}
    call = lambda **given: F.gating(**given, topk_expert_num=k, cum_sum_num=5, cum_sum_int64=wide)  # noqa: E731
    tokens, ends, places = run(backend, call, inputs)
    order = topk.sort(stable=True).indices
    assert places.tolist() == order.tolist() and tokens.tolist() == (order // k).tolist()
    assert ends.tolist() == topk.bincount(minlength=5).cumsum(0).tolist()
    assert ends.dtype is (torch.int64 if wide else torch.int32)


def test_what_the_functions_cannot_do_is_refused() -> None:
    with Network():
        x, i = Tensor("x", (4, 8), DataType.FLOAT), Tensor("i", (8,), DataType.INT32)
        with pytest.raises(GraphError, match="group_topk needs the type"):
            F.group_topk(Tensor("y"), i, 4, 2)
        with pytest.raises(GraphError, match="cannot keep 5 of 4 groups"):
            F.group_topk(x, i, 4, 5)
        with pytest.raises(GraphError, match="group_multi_flag is 'MEAN'"):
            F.group_topk(x, i, 4, 2, "MEAN")
        with pytest.raises(GraphError, match="device_expert"):
            F.gating(i, i, 2, 4, device_expert=[0, 1])
        with pytest.raises(GraphError, match="2 experts of 0"):
            F.gating(i, i, 2, 0)
