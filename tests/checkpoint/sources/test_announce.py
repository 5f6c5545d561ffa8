# SPDX-License-Identifier: Apache-2.0
"""A fetch says before what it will move, and is refused where there is no room for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from atb_core.checkpoint.sources.base import announce
from atb_core.errors import WeightsError


def test_sizes_and_place_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    announce("maker/tiny from a shelf", [1_500_000, 500_000], tmp_path / "new" / "cache", "SHELF_HOME")
    said = capsys.readouterr()
    assert said.err == f"Fetching maker/tiny from a shelf: 2.0 MB in 2 files, to {tmp_path}/new/cache\n"
    assert said.out == ""


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    with pytest.raises(WeightsError, match=r"maker/tiny needs 4 MB below .*, where 3 MB are free") as caught:
        announce("maker/tiny", [4_000_000], tmp_path, "SHELF_HOME")
    assert "SHELF_HOME" in str(caught.value.hint)
    assert "atb models" in str(caught.value.hint)
