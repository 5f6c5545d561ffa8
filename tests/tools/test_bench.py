# SPDX-License-Identifier: Apache-2.0
"""The benchmark makes of its samples: tables, and what is far below the limits of the machine."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench

    return bench


def phase(of_read: float, of_products: float) -> dict[str, Any]:
    rates = {"bytes_per_second": 2e10, "flops_per_second": 3e11}
    return {**rates, "of_read": of_read, "of_products": of_products, "shares": {"Linear": 0.9, "RmsNorm": 0.1}}


def record(of_read: float = 0.9, of_products: float = 0.8) -> dict[str, Any]:
    """Three rounds of one task; the share of the second one is not to count."""
    samples = [
        {
            "round": number, "batch": 1, "context": 512, "new": 9, "threads": 2,
            "prefill_tokens_per_second": 500.0 + number, "decode_tokens_per_second": 20.0 + number,
            "prefill": phase(0.1, share * of_products), "decode": phase(share * of_read, 0.01),
        }
        for number, share in ((1, 1), (2, 0.01), (3, 1))
    ]  # fmt: skip
    limits = [{"round": 1, "threads": 2, "read": 2.5e10, "products": 4e11}]
    pairs = [{"peer": "other", "batch": 1, "context": 512, "first_ratio": r, "decode_ratio": 2 * r, "total_ratio": r}
             for r in (1.0, 2.0, 3.0)]  # fmt: skip
    return {"limits": limits, "samples": samples, "pairs": pairs}


def test_tables_have_limits_medians_and_spread(bench: ModuleType) -> None:
    text = bench.tables(record())
    assert "| read stream, GB/s | 2 | 25.0 (25.0 to 25.0) |" in text
    assert "| 1 | 512 | 2 | decode | 22.0 (21.0 to 23.0) | 20.0 (20.0 to 20.0) | 0.90 (0.01 to 0.90) |" in text
    assert "Linear 90 %, RmsNorm 10 %" in text
    assert "| other | 1 | 512 | 2.00 (1.00 to 3.00) | 4.00 (2.00 to 6.00) | 2.00 (1.00 to 3.00) |" in text


def test_medians_above_the_bars_pass(bench: ModuleType) -> None:
    assert bench.below(record()) == []


def test_what_is_far_below_the_limits_is_named(bench: ModuleType) -> None:
    slow = bench.below(record(of_read=0.3, of_products=0.2))
    assert slow == [
        "decode of 1 x 512, 2 threads: 0.30 of the limit",
        "prefill of 1 x 512, 2 threads: 0.20 of the limit",
    ]


def test_tasks_vary_batch_context_and_threads_without_repeating_one(bench: ModuleType) -> None:
    chosen = bench.tasks([1, 4], [64, 512], 2, 9)
    assert {(t.batch, t.context, t.threads) for t in chosen} == {
        (1, 64, 2), (4, 64, 2), (1, 512, 2), (1, 64, 1), (1, 512, 1),
    }  # fmt: skip
    assert len(chosen) == 5
    assert chosen[0].prompts(500, seed=1) != chosen[0].prompts(500, seed=2)
