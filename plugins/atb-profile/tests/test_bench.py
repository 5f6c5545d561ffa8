# SPDX-License-Identifier: Apache-2.0
"""`atb bench latency` and `atb bench throughput`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atb_cli.app import main
from atb_profile import Limits, limits
from atb_profile.bench.runs import Ours
from atb_profile.bench.tables import latency_table, throughput_table

FEW = ("--max-tokens", "3", "--rounds", "2", "--num-threads", "1")


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Runs `atb bench`: its status, what it printed, and what it said on stderr."""
    return (main(["bench", *map(str, arguments)]), *capsys.readouterr())


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures no limits, and takes those of a machine that reads a byte a second and multiplies twice."""
    monkeypatch.setattr(limits, "measure_limits", lambda threads, dtype: Limits(threads, 1.0, 2.0, dtype))


@pytest.mark.usefixtures("slow_machine")
def test_latency_has_a_line_for_each_length_beside_the_limits(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = bench(capsys, "latency", checkpoint, "--length", 9, "--length", 20, *FEW)
    assert status == 0
    assert "1 threads" in out and "(qwen2, float32, cpu, python): loaded in" in out
    assert "oneDNN's packed products in float32, 512 rows" in out
    assert [line.split()[0] for line in out.splitlines()[-2:]] == ["9", "20"]
    assert "round 2 of 2, 1 x (9+3), 1 threads: ours" in err
    assert err.count("not counted") == 2


@pytest.mark.usefixtures("slow_machine")
def test_throughput_counts_all_sequences(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = bench(capsys, "throughput", checkpoint, "--batch", 2, "--batch", 3, "--length", 9, *FEW, "--json")
    record = json.loads(out)
    assert status == 0
    assert [row["round"] for row in record["limits"]] == [1, 2]
    assert sorted((row["round"], row["batch"]) for row in record["samples"]) == [(1, 2), (1, 3), (2, 2), (2, 3)]
    for row in record["samples"]:
        seconds = row["batch"] * (9 + 3) / row["tokens_per_second"]
        rest = row["batch"] * 2 / row["decode_tokens_per_second"]
        assert seconds == pytest.approx(row["time_to_first_token"] + rest)
        for phase in ("prefill", "decode"):
            assert row[phase]["of_read"] == row[phase]["bytes_per_second"]
            assert row[phase]["of_products"] == row[phase]["flops_per_second"] / 2
    assert throughput_table(record["samples"]).count("\n") == 2


def test_without_limits_speeds_stand_alone(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = bench(capsys, "latency", checkpoint, "--length", 9, *FEW, "--no-limits")
    assert status == 0
    assert "limits" not in out
    assert out.splitlines()[-1].split()[-1] == "-"


def test_columns_are_medians_of_the_rounds() -> None:
    samples: list[dict[str, Any]] = [
        {"context": 64, "time_to_first_token": 0.1 * number, "prefill_tokens_per_second": 10.0 * number,
         "decode_tokens_per_second": 20.0, "decode": {"of_read": 0.5}, "prefill": {"of_products": None}}
        for number in (1, 2, 4)
    ]  # fmt: skip
    cells = latency_table(samples).splitlines()[-1]
    assert cells.split("  ")[0] == "64"
    assert "200.0 (100.0 to 400.0)" in cells and "50.0 (50.0 to 50.0)" in cells
    assert cells.endswith("0.50 (0.50 to 0.50)")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--batch", "9", "--max-tokens", "3", "--kv-cache-memory-bytes", "200000"], 1, "9 sequences of 64+3 tokens"),
        (["--length", "0"], 2, "'--length'"),
        (["--length", "99"], 1, "99 tokens and 65 more are longer than the context of 128"),
        (["--max-model-len", "30"], 1, "than the context of 30 tokens"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_named(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    found, out, err = bench(capsys, "throughput", checkpoint, *arguments)
    assert (found, out) == (status, "")
    assert message in err


def test_an_interrupt_ends_it_without_a_result(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ours, "times", interrupted)
    status, out, err = bench(capsys, "latency", checkpoint, "--length", 9, "--no-limits")
    assert (status, out) == (130, "")
    assert "Traceback" not in err
