# SPDX-License-Identifier: Apache-2.0
"""Opens a model in GGUF: one file, or the parts of a split one as if they were one file."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.files import CheckedFile
from atb_core.errors import WeightsError
from atb_gguf.header import GgufHeader, GgufTensor, read_header
from atb_gguf.names import parts_of

if TYPE_CHECKING:
    from typing_extensions import Self


class GgufFile:
    """A model in GGUF, open for reading.

    Attributes:
        path: the file; the first one of a split model.
        header: metadata of the first file, and tensors of all, at offsets as if the files followed each other.

    Args:
        path: the file; any one of a split model.
        texts: reads lists of strings (the vocabulary), too.
        before: the model as it was opened before; if no file has changed since, the header is not read again.

    Raises:
        ModelNotFoundError: there is no file at `path`.
        WeightsError: a file is damaged or missing.
    """

    def __init__(self, path: Path, *, texts: bool = True, before: GgufFile | None = None) -> None:
        self._files: list[CheckedFile] = []
        self._starts: list[int] = []
        paths = parts_of(path)
        self.path = paths[0] if len(paths) > 1 else path
        try:
            for part in paths:
                if len(paths) > 1 and not part.exists():
                    raise WeightsError(f"{part} is missing, one of {len(paths)} parts", "Fetch all parts of the model.")
                self._starts.append(sum(file.size for file in self._files))
                self._files.append(CheckedFile(part))
            self._opened = self.identity()
            same = before and before._opened == self._opened
            self.header: GgufHeader = before.header if before and same else self._read_header(texts)
        except BaseException:
            self.close()
            raise

    def _read_header(self, texts: bool) -> GgufHeader:
        metadata: dict[str, Any] = {}
        tensors: dict[str, GgufTensor] = {}
        for number, (file, start) in enumerate(zip(self._files, self._starts, strict=True)):
            header = read_header(file, texts)
            _check_part(file.path, header, number, len(self._files))
            metadata = metadata or header.metadata
            for name, tensor in header.tensors.items():
                if name in tensors:
                    raise WeightsError(f"{file.path}: the tensor {name!r} is in a part before it, too")
                tensors[name] = replace(tensor, offset=start + tensor.offset)
        if metadata.get("split.tensors.count", len(tensors)) != len(tensors):
            raise WeightsError(f"{self.path}: its parts have {len(tensors)} tensors, not as many as it says")
        return GgufHeader(metadata, tensors)

    def read_into(self, offset: int, target: memoryview, what: str) -> None:
        """Fills `target` (bytes) with the content at `offset`; `what` names it in errors."""
        index = bisect_right(self._starts, offset) - 1
        self._files[index].read_into(offset - self._starts[index], target, what)

    def place(self, offset: int) -> tuple[int, int]:
        """Returns the descriptor of the file that has the content at `offset`, and where it is there."""
        index = bisect_right(self._starts, offset) - 1
        return self._files[index].descriptor, offset - self._starts[index]

    def identity(self) -> list[list[int]]:
        """Returns what `WeightLoader.identity` does."""
        return [file.identity() for file in self._files]

    def close(self) -> None:
        """Closes the files. Closing twice is fine."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_gguf_header(path: Path, *, texts: bool = True) -> GgufHeader:
    """Reads and checks the header of the GGUF model at `path`; raises what `GgufFile` raises."""
    with GgufFile(path, texts=texts) as file:
        return file.header


def _check_part(path: Path, header: GgufHeader, number: int, count: int) -> None:
    declared, no = header.metadata.get("split.count", 1), header.metadata.get("split.no", 0)
    if (declared, no) != (count, number) and not (count == 1 and declared == 0):
        raise WeightsError(
            f"{path} is part number {no} of {declared} by its metadata, but number {number} of {count} by its name",
            "Give the parts of a split model their names back, NAME-00001-of-00003.gguf and so on.",
        )
