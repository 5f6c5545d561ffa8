# SPDX-License-Identifier: Apache-2.0
"""A disk that is full: commands name the file, say what to do, and leave no unfinished directory behind."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atb_cli.app import main
from atb_cli.output import write_whole
from atb_core import ModelRunner, SamplingParams
from atb_core.errors import AtbError
from atb_testing import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model"), "qwen2"))


@contextmanager
def full_disk() -> Iterator[None]:
    """Lets no file of this process grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("convert", []),
        ("draw", []),
        ("dump", ["--token-ids", "1,2,3", "-o"]),
        ("graph", ["--html"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_file_is_named(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, options: list[str]
) -> None:
    target = tmp_path / "target"
    with full_disk():
        assert main([command, checkpoint, *options, str(target)]) == 1
    err = capsys.readouterr().err
    assert f"error: {target} cannot be written: " in err
    assert "too large" in err
    assert "next: Check that you may write there and that the disk has room" in err
    assert not target.is_dir()


def test_a_trace_that_cannot_be_written_is_named(checkpoint: str, tmp_path: Path) -> None:
    pytest.importorskip("atb_profile")
    runner = ModelRunner(checkpoint, load_tokenizer=False)
    with (
        pytest.raises(AtbError, match=r"trace\.json cannot be written"),
        full_disk(),
        runner.profile(tmp_path / "trace.json"),
    ):
        runner.generate([[1, 2]], SamplingParams(max_tokens=3, ignore_eos=True))


def test_a_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write_whole(tmp_path / "null", "nothing")
    assert (tmp_path / "null").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["null"]
