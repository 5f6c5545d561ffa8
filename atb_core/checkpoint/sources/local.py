# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on the disk."""

from __future__ import annotations

from pathlib import Path

from atb_core.checkpoint.progress import Progress
from atb_core.checkpoint.sources.base import Source
from atb_core.errors import ModelNotFoundError


class LocalSource(Source):
    """Finds a directory or a file; `~` stands for the user's home."""

    form = "a directory, a .gguf file"

    def claims(self, reference: str) -> bool:
        try:
            return reference != "" and Path(reference).expanduser().exists()
        except (OSError, RuntimeError) as error:  # too long a name, a forbidden directory, an unknown ~user
            raise ModelNotFoundError(
                f"{reference[:200]!r} cannot be looked up: {error}"[:400], "Check the path and that you may read it."
            ) from error

    def fetch(self, reference: str, progress: Progress | None) -> Path:
        return Path(reference).expanduser()
