# SPDX-License-Identifier: Apache-2.0
"""Reads an untrusted file at given offsets, never beyond what it holds.

Tensors are read with `preadv` into memory the caller owns, not mapped. A mapping would be one copy cheaper, but it
counts in the resident size until it is dropped, and if another process truncates the file, access to it is a SIGBUS;
here it is a short read and an error. The bytes never exist twice in this process, and the kernel may drop its cached
pages at any time.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from atb_core.errors import ModelNotFoundError, WeightsError

K = TypeVar("K")

# Linux moves at most 0x7ffff000 bytes per call; smaller pieces also keep Ctrl-C responsive.
_MAX_READ = 64 << 20
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredTensor(Generic[K]):
    """Locates one tensor: `nbytes` bytes at `offset` from the start of the file.

    Attributes:
        type: the element type, in the format's own terms.
        shape: outermost dimension first, as in torch.
    """

    type: K
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class CheckedFile:
    """A regular file opened for reading, with its size fixed when it was opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer; regular files ignore it.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise ModelNotFoundError(f"{path} does not exist", "Check the path.") from None
        except OSError as error:
            raise WeightsError(f"cannot open {path}: {error.strerror}", "Check that you may read it.") from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise WeightsError(f"{path} is not a regular file", "Pass a checkpoint file or a model directory.")
        self.size = status.st_size

    def read_into(self, offset: int, target: memoryview, what: str) -> None:
        """Fills `target` (bytes) with the file's content at `offset`; `what` names it in errors."""
        if self._fd < 0:
            raise WeightsError(f"{self.path} is closed", "Open the checkpoint again to read more tensors.")
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self._fd, [target[done : done + _MAX_READ]], offset + done)
            except OSError as error:
                raise WeightsError(f"reading {what} from {self.path} failed: {error.strerror}") from error
            if count == 0:
                raise WeightsError(
                    f"{self.path} ends inside {what}: {len(target)} bytes expected at offset {offset}, {done} found",
                    "The file is truncated or is being written; fetch it again.",
                )
            done += count

    def read(self, offset: int, length: int, what: str) -> bytearray:
        """Reads `length` bytes at `offset`, after a check of the range against the file's size."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise WeightsError(
                f"{self.path} is too short for {what}: {length} bytes at offset {offset} in {self.size} bytes",
                "The file is truncated or damaged; fetch it again.",
            )
        data = bytearray(length)
        self.read_into(offset, memoryview(data), what)
        return data

    def refuse_pointer(self) -> None:
        """Raises `WeightsError` if this is the small text that Git LFS leaves in place of a large file."""
        if self.size < 1024 and self.read(0, min(self.size, len(_LFS)), "its start") == _LFS:
            raise WeightsError(
                f"{self.path} is a Git LFS pointer, not the weights themselves",
                "Run `git lfs pull` in that directory, or fetch the model again.",
            )

    def close(self) -> None:
        """Closes the file. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> CheckedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()
