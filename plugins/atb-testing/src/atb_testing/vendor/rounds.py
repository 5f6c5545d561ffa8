# SPDX-License-Identifier: Apache-2.0
"""Reads the folder of one round that msProbe or msit saved: ATB's operations with the tensors that they wrote.

The layout is in msProbe's page on dumps of ATB ("Output Description") and in msit's ("Dump 落盘位置"):
`atb_dump_data/data/DEVICE_PID/ROUND` or `msit_dump_TIME/tensors/DEVICE_PID/ROUND`, in it a folder `ID_NAME` for each
operation, with those of its nodes and kernels inside, and `before` and `after` with `intensorN.bin` and
`outtensorN.bin`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from atb_testing.dump import DumpError
from atb_testing.vendor.tensor_file import PLAIN_FORMATS, TensorFile, read_header, read_tensor

# A name of digits alone belongs to a device and process: `0_39943`.
_OPERATION = re.compile(r"(\d{1,9})_([A-Za-z_][^/]{0,200})")
# Newer versions of ATB append the name of the tensor: `outtensor0_y.bin`.
_TENSOR = re.compile(r"(in|out)tensor(\d{1,4})(?:_[^/]*)?\.bin")
_ELSEWHERE = re.compile(r"((?:\d{1,9}_)+)((?:in|out)tensor\d{1,4})\.bin")
_MAX_DEPTH = 24
_MAX_FOLDERS = 500_000
_KERNEL = "Kernel"


@dataclass(frozen=True)
class Operation:
    """An operation that ran.

    Attributes:
        ids: number of the operation and of those around it, outermost first.
        names: their names; the last one is the type, such as `RmsNormOperation`, or a graph's own name.
        inputs: files of the tensors that it read, by number.
        outputs: those that it wrote.
        leaf: true if no operation inside of it was saved.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    inputs: dict[int, Path]
    outputs: dict[int, Path]
    leaf: bool

    @property
    def path(self) -> str:
        """Number and name of the operation, behind those around it."""
        return "/".join(f"{number}_{name}" for number, name in zip(self.ids, self.names, strict=True))


class Round:
    """One round of a dump, with operations in the order of their numbers.

    Args:
        directory: the round's folder.

    Raises:
        DumpError: it holds no operation.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._folders = 0
        self.operations = sorted(self._read(directory, (), ()), key=lambda operation: operation.ids)
        self._by_ids = {operation.ids: operation for operation in self.operations}
        if not any(operation.outputs for operation in self.operations):
            raise DumpError(
                f"{directory} has no tensor that an operation wrote",
                hint='Statistics alone are not compared: dump with "task": "tensor".'
                if (directory / "statistic.csv").exists()
                else "Give the folder of a round, as atb_dump_data/data/0_39943/0.",
            )

    def _read(self, directory: Path, ids: tuple[int, ...], names: tuple[str, ...]) -> Iterator[Operation]:
        """Yields the operations inside of one, without kernels, which are the vendor's way to compute it."""
        if len(ids) > _MAX_DEPTH:
            raise DumpError(f"{directory} is deeper than {_MAX_DEPTH} operations")
        for folder in _folders(directory):
            match = _OPERATION.fullmatch(folder.name)
            if match is None or match[2].endswith(_KERNEL):
                continue
            self._folders += 1
            if self._folders > _MAX_FOLDERS:
                raise DumpError(f"{self.directory} has more than {_MAX_FOLDERS} operations")
            here = (*ids, int(match[1])), (*names, match[2])
            inside = list(self._read(folder, *here))
            yield Operation(*here, _tensors(folder / "before", "in"), _tensors(folder / "after", "out"), not inside)
            yield from inside

    def header(self, path: Path) -> TensorFile | None:
        """Reads a file's header; `None` if its elements were not saved, or lie in blocks."""
        file = read_header(path)
        if file.elsewhere is not None:
            other = self._elsewhere(file.elsewhere)
            if other is None or other == path:
                return None
            alike = read_header(other)
            if alike.elsewhere is not None or (alike.numel, alike.dtype) != (file.numel, file.dtype):
                return None
            file = replace(alike, dims=file.dims)
        return file if file.format in PLAIN_FORMATS else None

    def tensor(self, path: Path) -> torch.Tensor:
        """Reads the elements of a file that has a header."""
        file = self.header(path)
        if file is None:
            raise DumpError(f"the elements of {path} are not in the dump")
        return read_tensor(file)

    def _elsewhere(self, place: str) -> Path | None:
        match = _ELSEWHERE.fullmatch(place)
        operation = match and self._by_ids.get(tuple(int(text) for text in match[1].split("_")[:-1]))
        if not match or not operation:
            return None
        side, number = match[2].split("tensor")
        return (operation.inputs if side == "in" else operation.outputs).get(int(number))


def _folders(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            # Links are not followed: a loop of them would have no end.
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise DumpError(f"{directory} cannot be read: {error.strerror}") from None


def _tensors(directory: Path, side: str) -> dict[int, Path]:
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DumpError(f"{directory} cannot be read: {error.strerror}") from None
    matches = [(_TENSOR.fullmatch(path.name), path) for path in paths]
    return {int(match[2]): path for match, path in matches if match and match[1] == side}


def find_round(directory: Path) -> Path | None:
    """Returns the folder of a round: the directory, or the only one below it; `None` if there is no dump.

    Raises:
        DumpError: there are several rounds, which the message names.
    """
    if not directory.is_dir():
        return None
    if _is_round(directory):
        return directory
    processes = [directory]
    for pattern in ("*", "data/*", "tensors/*", "*/data/*", "*/tensors/*"):
        processes += [path for path in directory.glob(pattern) if path.is_dir() and not path.is_symlink()]
    found = sorted(
        each for process in processes for each in _folders(process) if each.name.isdecimal() and _is_round(each)
    )
    if len(found) > 1:
        named = ", ".join(str(path.relative_to(directory)) for path in found[:8])
        raise DumpError(
            f"{directory} has {len(found)} rounds: {named}{', ...' if len(found) > 8 else ''}",
            hint="Give the folder of one: a device and process, then the number of the run of the model.",
        )
    return found[0] if found else None


def _is_round(directory: Path) -> bool:
    return any(_OPERATION.fullmatch(folder.name) for folder in _folders(directory))
