# SPDX-License-Identifier: Apache-2.0
"""Reads tensors from untrusted files at given offsets, never beyond what a file holds.

Tensors are read with `preadv` into memory the caller owns, not mapped. A mapping would be one copy cheaper, but it
counts in the resident size until it is dropped, and if another process truncates the file, access to it is a SIGBUS;
here it is a short read and an error. The bytes never exist twice in this process, and the kernel may drop its cached
pages at any time.
"""

from __future__ import annotations

import os
import weakref
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from atb_core.checkpoint.base import WeightLoader
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_core.files import open_regular

if TYPE_CHECKING:
    from atb_core.graph.arrays import HostArray

__all__ = ["CheckedFile", "StoredTensor", "TableLoader", "memory_of"]

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
    """A regular file opened for reading, its size fixed when it was opened; `descriptor` is -1 once it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = open_regular(path, WeightsError)
        except FileNotFoundError:
            raise ModelNotFoundError(f"{path} does not exist", "Check the path.") from None
        self._open = weakref.finalize(self, os.close, self.descriptor)
        self.size = os.fstat(self.descriptor).st_size

    def read_into(self, offset: int, target: memoryview, what: str) -> None:
        """Fills `target` (bytes) with the file's content at `offset`; `what` names it in errors."""
        if self.descriptor < 0:
            raise WeightsError(f"{self.path} is closed", "Open the checkpoint again to read more tensors.")
        done = 0
        while done < len(target):
            try:
                count = os.preadv(self.descriptor, [target[done : done + _MAX_READ]], offset + done)
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

    def identity(self) -> list[int]:
        """Returns the file's inode, size and times, of which one changes when the content changes."""
        status = os.fstat(self.descriptor)
        return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    def refuse_pointer(self) -> None:
        """Raises `WeightsError` if this is the small text that Git LFS leaves in place of a large file."""
        if self.size < 1024 and self.read(0, min(self.size, len(_LFS)), "its start") == _LFS:
            raise WeightsError(
                f"{self.path} is a Git LFS pointer, not the weights themselves",
                "Run `git lfs pull` in that directory, or fetch the model again.",
            )

    def close(self) -> None:
        """Closes the file. Closing twice is fine."""
        self._open()
        self.descriptor = -1

    def __enter__(self) -> CheckedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TableLoader(WeightLoader, Generic[K]):
    """Base of the loaders of formats with a table of tensors.

    `tensors` are in the order on disk; `path` is the name for messages.
    """

    def __init__(self, path: Path, tensors: Mapping[str, StoredTensor[K]]) -> None:
        self.path = path
        self.tensors = tensors

    @property
    def source(self) -> str:
        return str(self.path)

    def names(self) -> Sequence[str]:
        return tuple(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def locate(self, name: str) -> StoredTensor[K]:
        """Returns the place of a tensor; raises `WeightsError` for a name that is not in the table."""
        if name not in self.tensors:
            raise self.unknown(name)
        return self.tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.locate(name).shape

    def nbytes(self, name: str) -> int:
        return self.locate(name).nbytes

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> HostArray:
        shape = self.locate(name).shape
        if not 0 <= dim < len(shape) or not 0 <= start <= stop <= shape[dim]:
            raise WeightsError(
                f"{self.path}: tensor {name!r} of shape {list(shape)} has no slice [{start}:{stop}] in dimension {dim}"
            )
        return self.read_slice(name, dim, start, stop)

    @abstractmethod
    def read_slice(self, name: str, dim: int, start: int, stop: int) -> HostArray:
        """Reads a slice that exists."""


def memory_of(array: HostArray) -> memoryview:
    """Returns the bytes of a contiguous array, writable."""
    return array.reshape(-1).view("uint8").data
