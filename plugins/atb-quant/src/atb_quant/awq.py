# SPDX-License-Identifier: Apache-2.0
"""Reads AWQ: integers of 4 bits, packed along the outputs, with scales and zeros for groups of inputs.

`qweight [k, n / 8]`, `qzeros [groups, n / 8]` and `scales [groups, n]`. A word has its eight outputs in the order 0, 2,
4, 6, 1, 3, 5, 7, lowest bits first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.graph.arrays import HostArray, to_numpy
from atb_quant.loader import Parts
from atb_quant.matrix import Groups, IntegerMatrix, floats, unpacked
from atb_quant.settings import FLOATS, check_settings, either, group_count, integer, need, refuse

_NAME = "awq"
_SUFFIX = ".qweight"
_PER_WORD = 8
# The place of each output in a word.
_PLACES = np.argsort([0, 2, 4, 6, 1, 3, 5, 7])
_READ = ("quant_method", "bits", "w_bit", "group_size", "q_group_size", "version")
_MEANINGLESS = (
    "modules_to_not_convert", "backend", "do_fuse", "modules_to_fuse", "fuse_max_seq_len", "exllama_config",
    "provider",
)  # fmt: skip
_ONLY = {"zero_point": (True,)}


def parts(stored: SafetensorsLoader, settings: Mapping[str, Any]) -> Parts:
    """Returns the matrices of a checkpoint; raises `WeightsError` for what is not supported or does not fit."""
    check_settings(stored, _NAME, settings, _READ, _MEANINGLESS, _ONLY)
    bits = integer(stored, _NAME, settings, either(stored, _NAME, settings, "w_bit", "bits"), "4")
    key = either(stored, _NAME, settings, "q_group_size", "group_size")
    size = integer(stored, _NAME, settings, key, "a positive number or -1")
    version = str(settings.get("version", "gemm")).lower()
    if bits != 4:
        raise refuse(stored, _NAME, f"its integers have {bits} bits; supported are 4")
    if size != -1 and size < 1:
        raise refuse(stored, _NAME, f"its group_size is {size}, not a positive number or -1")
    if version != "gemm":
        raise refuse(stored, _NAME, f"its version is {version[:100]!r}; supported is 'gemm'")
    prefixes = [name.removesuffix(_SUFFIX) for name in stored.names() if name.endswith(_SUFFIX)]
    if not prefixes:
        raise refuse(stored, _NAME, "it has no tensor *.qweight")
    return Parts([_AwqMatrix(stored, prefix, size) for prefix in prefixes])


class _AwqMatrix(IntegerMatrix):
    """A matrix in AWQ's layout for matrix products."""

    lowest = 0
    highest = 15

    def __init__(self, stored: SafetensorsLoader, prefix: str, size: int) -> None:
        weight, zeros, scales = (f"{prefix}.{suffix}" for suffix in ("qweight", "qzeros", "scales"))
        shape = stored.shape(weight)
        if len(shape) != 2:
            raise refuse(stored, _NAME, f"{weight} has shape {list(shape)}, not two dimensions")
        columns, rows = shape[0], shape[1] * _PER_WORD
        groups = group_count(columns, size)
        need(stored, _NAME, weight, shape, ("I32",))
        need(stored, _NAME, zeros, (groups, shape[1]), ("I32",))
        need(stored, _NAME, scales, (groups, rows), FLOATS)
        super().__init__(stored, prefix, (weight, zeros, scales), (rows, columns))
        self._size = columns if size == -1 else size

    def integers(self, start: int, stop: int) -> HostArray:
        first, last = start // _PER_WORD, -(-stop // _PER_WORD)
        words = to_numpy(self.stored.get_slice(self.tensors[0], 1, first, last))
        rows: HostArray = _outputs(words)[:, start - first * _PER_WORD :][:, : stop - start].T.astype(np.int16)
        return rows

    def read_groups(self) -> Groups:
        zeros = _outputs(to_numpy(self.stored.get(self.tensors[1]))).astype(np.int32)
        scales = floats(self.stored, self.tensors[2])
        return Groups(np.ascontiguousarray(scales.T), np.ascontiguousarray(zeros.T), self._size)


def _outputs(words: HostArray) -> HostArray:
    """Returns the integers of each output in order: int32 `[m, w]` to uint8 `[m, 8 w]`."""
    ordered: HostArray = np.reshape(unpacked(words, 4)[..., _PLACES], (len(words), -1))
    return ordered
