# SPDX-License-Identifier: Apache-2.0
"""`atb ascend check` writes one file about a device; here the device is the simulator's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from atb_ascend.backend import AtbEngine, load_simulator
from atb_cli import main
from atb_testing.ascend import command
from atb_testing.ascend.faults import fault_cases
from atb_testing.ascend.ops import run_op
from atb_testing.ascend.privacy import Anonymizer
from atb_testing.ascend.report import Case, CheckReport, Outcome
from atb_testing.one_op import core_ops
from atb_testing.op_samples import samples_of

pytest.importorskip("atb_sim", reason="needs the distribution atb-sim: pip install ./plugins/atb-sim")

SIM = load_simulator().sim


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Runs the command on the simulator; exit status, the file, and what was printed."""

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        file = tmp_path / "check.json"
        status = main(["ascend", "check", "--backend", "atb-sim", "-o", str(file), *arguments])
        printed = capsys.readouterr()
        return status, json.loads(file.read_text(encoding="utf-8")), printed.out + printed.err

    return run


def names(result: dict[str, Any], status: str) -> set[str]:
    return {case["name"].partition(",")[0] for case in result["cases"] if case["status"] == status}


def test_all_of_it_runs_on_the_simulator_and_nothing_fails(check: Any) -> None:
    status, result, printed = check()
    assert status == 0, printed
    assert (result["state"], result["current"]) == ("complete", None)
    assert result["summary"][0].startswith("SIMULATOR of Ascend910B2, not a card")
    assert result["summary"][0] in printed
    assert {case["group"] for case in result["cases"]} == {"ops", "models", "faults", "benchmark"}
    tried = {case["name"].partition(":")[0] for case in result["cases"] if case["group"] == "ops"}
    assert tried == {name for name, op in core_ops().items() if "atb" in op.backends}
    assert {"llama", "qwen2", "qwen3"} <= names(result, "passed")
    # On a loaded machine, steps may take less than runs differ.
    measured = [case for case in result["cases"] if case["group"] == "benchmark" and case["status"] == "passed"]
    (recorded,) = [case for case in measured if case["name"].endswith("times of nodes")]
    assert {"ms Linear", "ms PagedAttention", "ms between nodes"} <= recorded["figures"].keys()
    measured.remove(recorded)
    assert len(measured) >= 2
    assert all(case["figures"]["tokens/s"] > 0 for case in measured)
    assert {"python", "torch", "atb-core"} <= result["versions"].keys()
    assert "cpu engine" in {finding["check"] for finding in result["findings"]}


def test_cases_are_chosen_by_group_and_by_name(check: Any) -> None:
    status, result, _ = check("--only", "ops", "--match", "Softmax: rows")
    assert status == 0
    assert [case["name"] for case in result["cases"]] == ["Softmax: rows, float16", "Softmax: rows, bfloat16"]


def test_a_300i_duo_tries_float16_alone_and_leaves_its_caches_to_models(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    options = ["--backend", "atb-sim", "--only", "ops", "--match", "ReshapeAndCache", "-o", str(file)]
    # The chip is chosen when the process opens the device.
    environment = {**os.environ, "ATB_SIM_SOC": "Ascend310P3", "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-m", "atb_cli", "ascend", "check", *options]
    subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=240)
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["summary"][0].startswith("SIMULATOR of Ascend310P3")
    assert {case["name"].rpartition(", ")[2] for case in result["cases"]} == {"float16"}
    assert {case["status"] for case in result["cases"]} == {"skipped", "refused"}


def test_a_text_that_no_case_has_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "check.json"
    options = ["--backend", "atb-sim", "--only", "faults", "--match", "nothing", "-o", str(file)]
    assert main(["ascend", "check", *options]) == 2
    assert "no case has 'nothing' in its name" in capsys.readouterr().err
    assert not file.exists()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "missing" / "check.json"
    assert main(["ascend", "check", "--backend", "atb-sim", "--only", "faults", "-o", str(file)]) == 1
    assert "check.json cannot be written: No such file" in capsys.readouterr().err


def test_a_wrong_kernel_fails_the_check(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = AtbEngine.forward

    def wrong(self: AtbEngine, *arguments: Any, **named: Any) -> dict[str, Any]:
        return {name: value + 0.01 for name, value in forward(self, *arguments, **named).items()}

    monkeypatch.setattr(AtbEngine, "forward", wrong)
    status, result, printed = check("--only", "ops", "--match", "Softmax: rows, float16")
    (case,) = result["cases"]
    assert (status, case["status"]) == (1, "failed")
    assert "150 of 150 elements differ; the largest difference is 0.01" in case["message"]
    assert "1 of 1 cases failed" in printed


def test_a_result_that_is_no_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = AtbEngine.forward
    monkeypatch.setattr(AtbEngine, "forward", lambda *a, **k: {n: v * torch.nan for n, v in forward(*a, **k).items()})
    (sample, *_) = samples_of(core_ops()["Softmax"])
    assert run_op(sample, torch.float16, "atb-sim").status == "failed"


def test_steps_without_times_of_nodes_fail(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AtbEngine, "take_runs", lambda _: [])
    status, result, _ = check("--only", "benchmark", "--match", "times of nodes")
    (case,) = result["cases"]
    assert (status, case["status"]) == (1, "failed")
    assert "the events of 0 steps are missing" in case["message"]


def test_an_error_of_the_device_is_recorded_and_the_next_case_runs(check: Any) -> None:
    SIM.inject("aclrtSynchronizeStream", 0, 507015)
    try:
        status, result, _ = check("--only", "ops", "--match", "Softmax: rows")
    finally:
        SIM.clear_faults()
    first, second = result["cases"]
    assert (status, first["status"], second["status"]) == (1, "failed", "passed")
    assert "507015" in first["message"]


def test_a_fault_that_nobody_refuses_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_ascend.backend.AtbBackend.check_model", lambda *_: None)
    case = next(case for case in fault_cases("atb-sim") if case.name == "a model in float32")
    assert case.run() == Outcome("failed", "it was not refused")


def test_an_interruption_leaves_a_file_that_says_so(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Outcome:
        raise KeyboardInterrupt

    cases = [Case("ops", "one", lambda: Outcome("passed")), Case("ops", "two", interrupted)]
    monkeypatch.setattr(command, "_cases", lambda *_: iter(cases))
    status, result, printed = check()
    assert status == 130
    assert (result["state"], result["current"]) == ("interrupted", "ops: two")
    assert [case["name"] for case in result["cases"]] == ["one"]
    assert "PARTIAL: interrupted in ops: two" in result["summary"]
    assert "marked as partial" in printed


def test_a_crash_leaves_the_name_of_its_case(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    report = CheckReport(file, {"device": "a device"}, Anonymizer())
    seen = []

    def crash() -> Outcome:
        seen.append(json.loads(file.read_text(encoding="utf-8")))
        return Outcome("passed")

    report.run(Case("ops", "it", crash))
    assert (seen[0]["state"], seen[0]["current"]) == ("running", "ops: it")
    assert "PARTIAL: running in ops: it" in seen[0]["summary"]


def test_names_of_people_machines_and_folders_are_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "rack7.example.org")
    monkeypatch.setenv("USER", "wilma")
    monkeypatch.setenv("HOME", "/data/people/wilma")
    monkeypatch.chdir(tmp_path)
    cleaner = Anonymizer([("/models/secret-7b", "MODEL")])
    texts = {
        "cannot open /data/people/wilma/x": "cannot open ~/x",
        "cannot open /home/fred/ascend/log": "cannot open ~/ascend/log",
        "rack7.example.org: refused; rack7 too": "HOST: refused; HOST too",
        "owner wilma": "owner USER",
        "/opt/env/lib/python3.11/site-packages/torch/x.py": "PACKAGES/torch/x.py",
        "/models/secret-7b/config.json": "MODEL/config.json",
        f"in {os.getcwd()}/out": "in ./out",
        "8.5.0 in /usr/local/Ascend/nnal": "8.5.0 in /usr/local/Ascend/nnal",
    }
    assert {text: cleaner.text(text) for text in texts} == texts
    assert cleaner.clean({"a /home/fred": ["/home/fred/b", 3, None]}) == {"a ~": ["~/b", 3, None]}
