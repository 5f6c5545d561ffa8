# SPDX-License-Identifier: Apache-2.0
"""Keeps fetched models in a directory, where a model is complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from atb_core.checkpoint.sources.base import disk_error
from atb_core.errors import WeightsError

# Space that must remain after unpacking, so that other programs can go on.
_RESERVE_BYTES = 64 << 20


def cache_root() -> Path:
    """Returns `$ATB_CACHE`, else `atb_core` in the user's cache directory. It need not exist yet.

    Raises:
        WeightsError: no home directory is known, and no variable names a directory.
    """
    if own := os.environ.get("ATB_CACHE"):
        return Path(os.path.expanduser(own))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if base.startswith("~"):
        raise WeightsError("there is no home directory to keep models in", hint="Set ATB_CACHE to a directory.")
    return Path(base) / "atb_core"


@contextmanager
def workspace(parent: Path, name: str) -> Iterator[Path]:
    """Makes an empty directory inside `parent`, used by one process at a time per `name` and removed at the end.

    The caller moves a finished result out with `os.replace`, which is atomic within `parent`. After an error nothing
    remains; files of a killed process are removed by the next holder of the lock.

    Raises:
        WeightsError: the disk is full, or the cache cannot be written.
    """
    with explained_disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(parent / f".{name}.lock")):
            for stale in parent.glob(f".{name}.*.tmp"):
                shutil.rmtree(stale, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=parent))
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def explained_disk_errors(directory: Path) -> Iterator[None]:
    """Turns failures to write below `directory` into `WeightsError`."""
    try:
        yield
    except OSError as error:
        raise (disk_error(error, directory, "ATB_CACHE") or error) from None


def no_room(directory: Path, purpose: str) -> WeightsError:
    """Returns the error for a full disk."""
    return WeightsError(
        f"not enough disk space below {directory} to {purpose}",
        "Free some space, or set ATB_CACHE to a directory on a larger disk. No partial file remains.",
    )


def require_room(directory: Path, needed: int, purpose: str) -> None:
    """Raises `WeightsError` unless `needed` bytes and a reserve fit on the disk of `directory`."""
    free = shutil.disk_usage(directory).free
    if free < needed + _RESERVE_BYTES:
        raise no_room(directory, f"{purpose}: {needed >> 20} MiB needed, {free >> 20} MiB free")
