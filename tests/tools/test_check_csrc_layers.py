# SPDX-License-Identifier: Apache-2.0
"""An include that points up is found, with its place and the two folders."""

from __future__ import annotations

from pathlib import Path

import check_csrc_layers as tool
import pytest


def tree(csrc: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (csrc / name).parent.mkdir(parents=True, exist_ok=True)
        (csrc / name).write_text(text, encoding="utf-8")
    return csrc


DOWN = {
    "include/atb_core/types.h": "#include <cstdint>\n",
    "graph/graph.h": '#include "atb_core/types.h"\n',
    "models/model.h": '#include "graph/graph.h"\n',
    "cpu/isa.h": "",
    "cpu/kernels/linear.h": '#include "cpu/isa.h"\n',
    "cpu/engine/program.h": '#include "graph/graph.h"\n#include "cpu/kernels/linear.h"\n',
    "sim/include/atb/types.h": "#include <acl/acl.h>\n",
    "sim/src/state.h": '#include "atb/types.h"\n',
    "sim/src/acl.cpp": '#include "state.h"\n',
    "atb/device.h": "#include <acl/acl.h>\n",
}


def test_the_sources_include_only_what_stands_below_them() -> None:
    assert list(tool.violations()) == []


def test_includes_that_point_down_are_allowed(tmp_path: Path) -> None:
    assert list(tool.violations(tree(tmp_path / "csrc", DOWN))) == []


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("graph/op.h", '#pragma once\n#include "cpu/isa.h"\n', "csrc/graph/op.h:2: graph -> cpu (cpu/isa.h)"),
        (
            "cpu/kernels/sort.h",
            '#include "cpu/engine/program.h"\n',
            "csrc/cpu/kernels/sort.h:1: cpu/kernels -> cpu/engine (cpu/engine/program.h)",
        ),
        ("models/up.h", '#include "atb/device.h"\n', "csrc/models/up.h:1: models -> atb (atb/device.h)"),
        ("cpu/npu.cpp", "#include <acl/acl.h>\n", "csrc/cpu/npu.cpp:1: cpu -> vendor (acl/acl.h)"),
        ("sim/src/up.h", '#include "graph/graph.h"\n', "csrc/sim/src/up.h:1: sim -> graph (graph/graph.h)"),
        ("npu/new.h", "", "csrc/npu/new.h:1: the folder is not in the table of layers"),
    ],
)
def test_an_include_that_points_up_is_named(tmp_path: Path, file: str, text: str, line: str) -> None:
    assert list(tool.violations(tree(tmp_path / "csrc", {**DOWN, file: text}))) == [line]


def test_the_exit_status_is_1_when_an_arrow_points_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    csrc = tree(tmp_path / "csrc", {**DOWN, "graph/op.h": '#include "models/model.h"\n'})
    monkeypatch.setattr(tool.violations, "__defaults__", (csrc,))
    assert tool.main([]) == 1
    assert "graph -> models" in capsys.readouterr().out
