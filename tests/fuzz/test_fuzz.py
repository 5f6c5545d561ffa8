# SPDX-License-Identifier: Apache-2.0
"""Readers answer, or refuse with an `AtbError`, whatever a file holds: seconds of it here, hours by `nox -s fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import run
from fuzz.readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_what_is_intact_is_read(name: str, tmp_path: Path) -> None:
    for number, files in enumerate(READERS[name].sets):
        for path, content in files.items():
            target = tmp_path / str(number) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        READERS[name].read(tmp_path / str(number))


def test_files_that_are_damaged_at_random_are_read_or_refused(tmp_path: Path) -> None:
    session = run.fuzz(list(READERS), seed=1, count=2000, seconds=10, jobs=1, keep=tmp_path)
    assert session.findings == {}
    assert session.done > 0


def test_a_case_follows_from_its_number(tmp_path: Path) -> None:
    contents = []
    for folder, number in (("a", 5), ("b", 5), ("c", 6)):
        run.write_case("config", 0, number, tmp_path / folder)
        contents.append((tmp_path / folder / "config.json").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_everything_but_an_answer_and_a_refusal_is_found_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUZZ_READERS", "fuzz.broken")
    monkeypatch.setattr(run, "SECONDS", 4.0)
    names = list(run.readers())
    session = run.fuzz(names, seed=0, count=len(names), seconds=200, jobs=1, keep=tmp_path)
    problems = {name: problem.partition(" in ")[0] for name, problem in session.findings}
    assert problems == {
        "crash": "the process ended with status -11",
        "exit": "the process ended with status 0",
        "hunger": "MemoryError",
        "hang": "it takes more than 4 s",
        "raw": "ZeroDivisionError",
    }
    assert session.done == len(names)
    command = (tmp_path / "raw-0-4" / "FINDING").read_text().splitlines()[1]
    assert command.endswith("--seed 0 --case 4") and (tmp_path / "raw-0-4" / "a.txt").exists()
