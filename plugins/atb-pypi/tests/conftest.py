# SPDX-License-Identifier: Apache-2.0
"""Makes wheels that carry models, right ones and wrong ones."""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Wheels:
    """A directory of wheels."""

    directory: Path

    def add(self, files: Mapping[str, bytes], **options: Any) -> Path:
        """Adds one; see `make_wheel` for the options."""
        return make_wheel(self.directory, files, **options)


@pytest.fixture
def wheels(tmp_path: Path) -> Wheels:
    directory = tmp_path / "index"
    directory.mkdir()
    return Wheels(directory)


def record_line(name: str, content: bytes) -> str:
    """Returns a line of a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def make_wheel(
    directory: Path,
    files: Mapping[str, bytes],
    name: str = "tiny-model",
    version: str = "1.0",
    *,
    record: str | None = None,
    links: Mapping[str, str] | None = None,
) -> Path:
    """Writes a wheel that pip accepts, with `files`; `record` replaces the true RECORD, `links` adds symbolic links."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = "".join(record_line(key, value) for key, value in content.items()) + f"{info}/RECORD,,\n"
    path = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in content.items():
            archive.writestr(key, value)
        for key, target in (links or {}).items():
            link = zipfile.ZipInfo(key)
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, target)
        archive.writestr(f"{info}/RECORD", lines if record is None else record)
    return path
