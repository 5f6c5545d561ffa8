# SPDX-License-Identifier: Apache-2.0
"""`atb doctor`: what it prints and how it ends; the checks themselves are tested in plugins/atb-ascend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ascend_machines import Box, good_box

from atb_core.names import pip_install

Run = Callable[..., Any]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """A machine with everything, which `atb doctor` looks at."""
    box = good_box(tmp_path)
    monkeypatch.setattr("atb_ascend.report.Machine", box.machine)
    return box


def test_a_good_machine_is_a_table_of_what_was_found_and_every_backend(atb: Run, box: Box) -> None:
    result = atb("doctor")
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[:4] == [f"backend {name}: can be used" for name in ("cpu", "reference", "atb", "atb-sim")]
    assert lines[5].split() == ["CHECK", "STATUS", "FOUND"]
    assert any(line.split() == ["torch_npu", "ok", "2.9.0"] for line in lines)


def test_a_machine_without_a_card_reads_first_what_it_can_use_and_once_what_it_lacks(
    atb: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Box(tmp_path, packages={"torch": "2.9.0"}, modules={"_cpu"})
    monkeypatch.setattr("atb_ascend.report.Machine", bare.machine)
    result = atb("doctor")
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[:2] == ["backend cpu: can be used", "backend reference: can be used"]
    assert lines[2].startswith("backend atb: cannot be used: no NPU in /dev")
    assert lines[3].startswith("  next: Nothing, unless this machine has an Ascend NPU")
    for part in ("CANN", "NPU", "torch_npu", pip_install("atb-sim")):
        assert sum(part in line for line in lines) <= 2, part
    assert len(lines) < 15


def test_what_is_absent_has_a_next_step_and_is_no_failure(atb: Run, box: Box) -> None:
    box.packages.pop("torch_npu")
    result = atb("doctor")
    assert result.status == 0
    assert "torch_npu: warning: it is not installed, and torch reaches an NPU through it" in result.out
    assert '  next: pip install "torch_npu==2.9.*"' in result.out
    assert "backend atb: cannot be used: see torch_npu" in result.out


def test_what_does_not_match_is_status_1(atb: Run, box: Box) -> None:
    box.packages["torch_npu"] = "2.8.0"
    assert atb("doctor").status == 1


def test_json_has_every_finding_and_the_backends(atb: Run, box: Box) -> None:
    box.packages["torch_npu"] = "2.8.0"
    result = atb("doctor", "--json")
    assert result.status == 1
    report = json.loads(result.out)
    assert report["healthy"] is False
    assert report["backends"]["atb"] == {"usable": False, "missing": ["torch_npu"]}
    assert report["backends"]["cpu"] == {"usable": True, "missing": []}
    (found,) = (finding for finding in report["findings"] if finding["check"] == "torch_npu")
    assert found["level"] == "error"
    assert found["message"] == "2.8.0"
    assert found["fix"]


def test_control_characters_in_what_was_found_do_not_reach_the_terminal(atb: Run, box: Box) -> None:
    box.broken["libatb.so"] = "OSError: \x1b[2J"
    out = atb("doctor").out
    assert "\x1b" not in out
    assert "OSError: \\x1b[2J" in out


def test_this_machine_is_examined_without_importing_torch() -> None:
    probe = (
        "import sys\nfrom atb_cli import main\nstatus = main(['doctor'])\n"
        "print('torch' in sys.modules)\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    assert "backend cpu: can be used" in done.stdout
    if "backend atb: can be used" not in done.stdout:  # on a machine with ATB, torch may have to be asked
        assert done.stdout.splitlines()[-1] == "False"
