# SPDX-License-Identifier: Apache-2.0
"""Adds GGUF to the formats of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atb_core.checkpoint.files import CheckedFile
from atb_core.errors import AtbError
from atb_core.plugins import CheckpointFormat, hookimpl
from atb_gguf.names import parts_of

if TYPE_CHECKING:
    from atb_core.checkpoint import Checkpoint

_SUFFIX = ".gguf"
_MAGIC = b"GGUF"


@hookimpl
def atb_checkpoint_formats() -> list[CheckpointFormat]:
    """Returns the format GGUF."""
    return [CheckpointFormat("GGUF", _matches, _open, (_SUFFIX,), parts_of)]


def _matches(path: Path) -> bool:
    if path.suffix.lower() == _SUFFIX or path.is_dir():
        return not path.is_dir()
    try:
        with CheckedFile(path) as file:
            return file.size >= len(_MAGIC) and file.read(0, len(_MAGIC), "its start") == _MAGIC
    except AtbError:  # not a regular file, or one that may not be read
        return False


def _open(path: Path) -> Checkpoint:
    # The format's tables take 50 ms to import.
    from atb_gguf.checkpoint import GgufCheckpoint

    return GgufCheckpoint(path)
