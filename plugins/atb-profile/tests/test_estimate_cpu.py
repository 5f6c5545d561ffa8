# SPDX-License-Identifier: Apache-2.0
"""`atb estimate --soc cpu`: limits that are given, kept or measured, and steps measured beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from atb_core import ModelRunner
from atb_core.errors import RequestError
from atb_profile.costs import Cost
from atb_profile.estimate import measured, processor
from atb_profile.estimate.command import command
from atb_profile.estimate.devices import Device, Figure
from atb_profile.estimate.estimate import Assumptions, bound
from atb_profile.estimate.measured import Step, compare, estimated
from atb_profile.estimate.processor import kept_processor
from atb_profile.estimate.workload import Phase, Work, Workload

RATES = {"bandwidth": 10e9, "products": 200e9, "vector": 4e9, "launch": 1e-6}
FIGURES = {name: Figure(value, "given") for name, value in RATES.items()}
HERE = Device("cpu", Figure(8e9, "given"), link=None, backend="cpu", **FIGURES)


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The measurements that were asked for; each finds `HERE`."""
    asked: list[tuple[int, str]] = []

    def measure(threads: int, dtype: str, *clock: Any) -> Device:
        asked.append((threads, dtype))
        return HERE

    monkeypatch.setattr(processor, "measured_processor", measure)
    monkeypatch.setattr(measured, "measured_processor", measure)
    return asked


def run(*options: str) -> Any:
    return CliRunner().invoke(command, [*options, "--soc", "cpu"], catch_exceptions=False)


def test_a_node_takes_its_bytes_or_its_products_and_other_operations() -> None:
    work = [
        Work("Linear", "", Cost(flops=200_000, bytes=100_000)),
        Work("SelfAttention", "", Cost(flops=240_000, bytes=1_000), vector=40_000),
    ]
    found = bound(Phase("prefill", 1, work, frozenset(), 0, 0), HERE, Assumptions(launch=1e-6))
    assert found.seconds["memory"] == pytest.approx(10e-6)
    assert found.seconds["products"] == pytest.approx(1e-6)
    assert found.seconds["vector"] == pytest.approx(10e-6)
    assert found.seconds["launches"] == pytest.approx(2e-6)
    assert found.by_op["SelfAttention"] == pytest.approx(12e-6)


def test_the_graph_is_that_of_the_cpu_engine_and_attention_has_both_kinds_of_operations(
    open_runner: Callable[..., ModelRunner],
) -> None:
    runner = open_runner()
    phase = Workload(runner.model, backend="cpu").prefill(16)
    assert "SplitLinear" in {work.op for work in phase.work}  # a fusion that the Ascend backend does not have
    size = runner.model.model_status.head_dim
    attention = next(work for work in phase.work if work.op == "SelfAttention")
    assert attention.vector == pytest.approx(attention.cost.flops * 5 / (4 * size + 5), abs=1)
    assert {work.vector for work in phase.work if work.op == "Linear"} == {0}
    assert all(work.vector == work.cost.flops for work in phase.work if work.op in ("RmsNorm", "Activation"))


def test_limits_are_measured_once_for_each_type_and_number_of_threads(
    measurements: list[tuple[int, str]], tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "limits.json"
    for threads, dtype in ((1, "bfloat16"), (1, "bfloat16"), (2, "bfloat16"), (1, "float32"), (2, "bfloat16")):
        assert kept_processor(threads, dtype, path).bandwidth == FIGURES["bandwidth"]
    assert measurements == [(1, "bfloat16"), (2, "bfloat16"), (1, "float32")]


def test_the_command_estimates_from_the_limits_of_a_file(
    measurements: list[tuple[int, str]], checkpoint: Path, tmp_path: Path
) -> None:
    options = [str(checkpoint), "--num-threads", "1", "--limits", str(tmp_path / "limits.json"), "--context", "32"]
    first = json.loads(run(*options, "--json").output)
    assert first["soc"] == "cpu"
    kept = json.loads((tmp_path / "limits.json").read_text())
    for figures in kept.values():
        figures["bandwidth"]["value"] /= 2
    (tmp_path / "limits.json").write_text(json.dumps(kept))
    second = json.loads(run(*options, "--json").output)
    assert second["decode"]["by_limit"]["memory"] == pytest.approx(2 * first["decode"]["by_limit"]["memory"], rel=0.1)
    assert len(measurements) == 1
    text = run(*options).output
    assert "Times on this machine's processor from its measured limits." in text
    assert "bandwidth 5e+09 bytes/s: given" in text


def test_a_cache_of_int8_has_rows_of_integers_with_a_scale(
    measurements: list[tuple[int, str]], checkpoint: Path, tmp_path: Path
) -> None:
    options = [str(checkpoint), "--num-threads", "1", "--limits", str(tmp_path / "limits.json"), "--json"]
    found = {kind: json.loads(run(*options, "--kv-cache-dtype", kind).output) for kind in ("auto", "int8")}
    config = json.loads((checkpoint / "config.json").read_text())
    size = config["hidden_size"] // config["num_attention_heads"]
    itemsize = {"float32": 4, "bfloat16": 2, "float16": 2}[config.get("dtype") or config["torch_dtype"]]
    kept = {kind: each["memory"]["kv"] for kind, each in found.items()}
    assert kept["int8"] * size * itemsize == kept["auto"] * (size + 4)
    read = {kind: each["decode"]["bytes"] for kind, each in found.items()}
    assert read["auto"] - read["int8"] == pytest.approx(kept["auto"] - kept["int8"], rel=0.01)


@pytest.mark.parametrize("value", [0, -1.0, "fast", None, [], {}], ids=str)
def test_unusable_limits_are_refused(measurements: list[tuple[int, str]], tmp_path: Path, value: Any) -> None:
    path = tmp_path / "limits.json"
    kept_processor(1, "bfloat16", path)
    kept = json.loads(path.read_text())
    for figures in kept.values():
        figures["products"]["value"] = value
    path.write_text(json.dumps(kept))
    with pytest.raises(RequestError, match=r"limits\.json: the entry .* has no usable bandwidth, products"):
        kept_processor(1, "bfloat16", path)
    path.write_text("[1]")
    with pytest.raises(RequestError, match="cannot be read"):
        kept_processor(1, "bfloat16", path)


def test_steps_are_measured_in_turns_with_the_limits(
    measurements: list[tuple[int, str]], open_runner: Callable[..., ModelRunner]
) -> None:
    runner = open_runner(num_threads=1, enable_prefix_caching=False)
    workload = Workload(runner.model, backend="cpu")
    steps = [Step("decode", 2, 4), Step("prefill", 1, 16)]
    device, found = compare(runner, workload, steps, rounds=2)
    assert measurements == [(1, runner.config.torch_dtype)] * 2
    assert [each.step for each in found] == steps
    for each in found:
        assert each.estimated == pytest.approx(estimated(workload, device, each.step))
        assert len(each.ratios) == 2
        assert each.measured > 0
        assert min(each.ratios) <= each.measured / each.estimated <= max(each.ratios) or len(set(each.ratios)) == 1


def test_the_command_prints_both_and_keeps_what_it_measured(
    measurements: list[tuple[int, str]], checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "limits.json"
    options = ["--context", "24", "--prompt", "12", "--num-threads", "1", "--limits", str(path), "--measure"]
    result = run(str(checkpoint), *options)
    assert "decode of 1 after 16" in result.output
    assert "prefill of 12" in result.output
    assert len(measurements) == 3
    assert path.exists()


def test_limits_of_this_machine_are_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "read_bandwidth", lambda *_, **__: 1e9)  # a gigabyte takes its time
    monkeypatch.setattr(processor, "product_rate", lambda *_, **__: 0.0)  # as a torch without oneDNN says
    monkeypatch.setattr(processor, "SHAPES", ((16, 32),))
    found = processor.measured_processor(1, "float32")
    assert found.products.value > 0
    assert "the engine's products, float32" in found.products.source
    assert found.vector is not None and found.vector.value > 0
    assert found.launch is not None and 0 <= found.launch.value < 1


def test_options_of_the_processor_and_of_chips_exclude_each_other(checkpoint: Path) -> None:
    assert "--tp is for chips" in run(str(checkpoint), "--tp", "2").output
    result = CliRunner().invoke(command, [str(checkpoint), "--measure"])
    assert result.exit_code == 2
    assert "are for --soc cpu" in result.output
