# SPDX-License-Identifier: Apache-2.0
"""Reads a tensor that msProbe or msit saved of an ATB operation.

The format is what `BinFile` of msProbe writes (`ccsrc/atb_probe/utils/bin_file.cpp`): lines `name=value` up to
`$End=1`, then the bytes. `format` and `dtype` are numbers of ACL's enumerations, `dims` numbers with commas, and
`$Object.data` the offset and the length of the bytes. A tensor that was saved before has `data=IDS_intensorN.bin`
instead, the place of that one.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from atb_core.files import open_regular
from atb_testing.dump import DumpError

#: Element types by their numbers in `aclDataType`.
DTYPES = {
    0: torch.float32,
    1: torch.float16,
    2: torch.int8,
    3: torch.int32,
    4: torch.uint8,
    6: torch.int16,
    9: torch.int64,
    11: torch.float64,
    12: torch.bool,
    27: torch.bfloat16,
}
#: Numbers of `aclFormat` whose bytes are the elements in order; 29, FRACTAL_NZ, is none of them.
PLAIN_FORMATS = (-1, 0, 1, 2)
_MAX_HEADER = 8 << 10
_MAX_RANK = 8
_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class TensorFile:
    """The header of a file.

    Attributes:
        path: the file.
        dtype: element type.
        dims: sizes.
        format: number of the layout in `aclFormat`.
        offset: where the elements begin in the file.
        elsewhere: the place of the tensor with these elements, if the file has none.
    """

    path: Path
    dtype: torch.dtype
    dims: tuple[int, ...]
    format: int
    offset: int
    elsewhere: str | None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)


def read_header(path: Path) -> TensorFile:
    """Reads the header of a file and checks it against the size of the file.

    Raises:
        DumpError: it is no such file, is cut off, or has elements of a type that is not read.
    """
    try:
        with open(open_regular(path, DumpError), "rb") as file:
            head, size = file.read(_MAX_HEADER), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DumpError(f"{path} cannot be read: {error.strerror}") from None
    lines, end, _ = head.partition(b"\n$End=1\n")
    if not end or b"=" not in lines:
        raise DumpError(
            f"{path} is cut off, or no tensor of an ATB operation: it has no header up to $End=1",
            hint="Dump again, and wait until the folder does not grow any more.",
        )
    fields = dict(_field(path, line) for line in lines.split(b"\n"))
    try:
        number, layout = int(fields["dtype"]), int(fields.get("format", "-1"))
        dims = tuple(int(text) for text in fields["dims"].split(","))
    except (KeyError, ValueError):
        raise DumpError(f"{path} is damaged: dtype, format or dims are missing or no numbers") from None
    if len(dims) > _MAX_RANK or any(not 0 < size <= _MAX_BYTES for size in dims):
        raise DumpError(f"{path} is damaged: its dims are {fields['dims']!r:.80}")
    if number not in DTYPES:
        known = ", ".join(f"{key} ({str(dtype).removeprefix('torch.')})" for key, dtype in DTYPES.items())
        raise DumpError(f"{path} has elements of ACL's type {number}; those that are read are {known}")
    found = TensorFile(path, DTYPES[number], dims, layout, len(lines) + len(end), fields.get("data"))
    if found.elsewhere is None:
        return _checked(found, fields.get("$Object.data"), size)
    return found


def _field(path: Path, line: bytes) -> tuple[str, str]:
    name, sign, value = line.decode("utf-8", "replace").partition("=")
    if not sign:
        raise DumpError(f"{path} is damaged: {name!r:.80} is no line name=value")
    return name, value


def _checked(file: TensorFile, place: str | None, size: int) -> TensorFile:
    """Returns the file with the offset of its elements, which lie inside of it."""
    wanted = file.numel * file.dtype.itemsize
    try:
        # `write_atb_data` of msit leaves the place out: the elements are the rest of the file.
        begin, length = (0, wanted) if place is None else (int(part) for part in place.split(","))
    except ValueError:
        raise DumpError(f"{file.path} is damaged: $Object.data is {place!r:.80}") from None
    if begin < 0 or length != wanted:
        raise DumpError(f"{file.path} is damaged: {length} bytes for {list(file.dims)} of {file.dtype}")
    offset = file.offset + begin
    if offset + wanted > size:
        raise DumpError(
            f"{file.path} is cut off: it has {max(size - offset, 0)} of {wanted} bytes of its elements",
            hint="Dump again, and wait until the folder does not grow any more.",
        )
    return TensorFile(file.path, file.dtype, file.dims, file.format, offset, None)


def read_tensor(file: TensorFile) -> torch.Tensor:
    """Returns the elements, of shape `dims`.

    Raises:
        DumpError: they lie in blocks (FRACTAL_NZ), or are more than 4 GiB.
    """
    if file.format not in PLAIN_FORMATS:
        raise DumpError(f"{file.path} is in ACL's format {file.format}, whose elements are not in order")
    if file.numel * file.dtype.itemsize > _MAX_BYTES:
        raise DumpError(f"{file.path} has more than 4 GiB of elements")
    count = file.numel * file.dtype.itemsize
    with open(open_regular(file.path, DumpError), "rb") as opened:
        elements = np.fromfile(opened, np.uint8, count, offset=file.offset)
    if elements.size != count:
        raise DumpError(f"{file.path} became shorter while it was read")
    values = torch.from_numpy(elements)
    # Any byte but 0 is true; torch's own type knows 0 and 1 alone.
    return (values != 0 if file.dtype is torch.bool else values.view(file.dtype)).reshape(file.dims)
