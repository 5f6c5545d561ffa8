# SPDX-License-Identifier: Apache-2.0
"""`atb cache` lists and removes files of packed weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATB_CACHE_PACKED", str(tmp_path))
    for name, size in (("a.packed", 2048), ("b.7.partial", 1024), ("other.txt", 5)):
        (tmp_path / name).write_bytes(bytes(size))
    return tmp_path


def test_it_lists_files_and_sizes(atb: Run, folder: Path) -> None:
    result = atb("cache")
    assert result.status == 0
    assert [line.split() for line in result.out.splitlines()] == [
        ["FILE", "SIZE"],
        ["a.packed", "2.00", "KiB"],
        ["b.7.partial", "1.00", "KiB"],
    ]
    assert str(folder) in result.err
    assert json.loads(atb("cache", "--json", "a.packed").out) == [{"path": str(folder / "a.packed"), "bytes": 2048}]


def test_it_removes_one_or_all_and_nothing_else(atb: Run, folder: Path) -> None:
    assert atb("cache", "--remove", "-y", "a.packed").status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["b.7.partial", "other.txt"]
    assert "removed 1 files of packed weights, 1.00 KiB" in atb("cache", "--remove", "-y").err
    assert [path.name for path in folder.iterdir()] == ["other.txt"]
    assert "no packed weights" in atb("cache").err


def test_it_asks_first(atb: Run, folder: Path) -> None:
    assert atb("cache", "--remove").status != 0
    assert (folder / "a.packed").exists()


def test_an_unknown_file_is_named(atb: Run, folder: Path) -> None:
    result = atb("cache", "--remove", "-y", "a.packed", "c.packed")
    assert result.status == 1
    assert "has no file 'c.packed'" in result.err
    assert (folder / "a.packed").exists()


def test_the_option_reaches_the_runner(atb: Run, runner: Any) -> None:
    for option, value in (("--cache-packed", True), ("--no-cache-packed", False)):
        atb("run", "m", "hello", option)
        assert runner.loaded_with["cache_packed"] is value
