# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of a GGUF file, delivered under Hugging Face names and in one floating type."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from atb_core.checkpoint import FormatRules
from atb_core.checkpoint.files import TableLoader, memory_of
from atb_core.errors import WeightsError
from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, numpy_dtype, to_numpy
from atb_core.graph.quantized import FileRows, QuantizedRows
from atb_gguf.config import config_of, gguf_dtype
from atb_gguf.file import GgufFile
from atb_gguf.header import GgufTensor
from atb_gguf.names import hugging_face_names
from atb_gguf.quants import SUPPORTED_TYPES, decode, integers

_log = logging.getLogger(__name__)

# Elements decoded at a time: temporaries of this size stay in the first levels of cache.
_CHUNK_ELEMENTS = 1 << 15
# A few times what the largest published models have: each expert becomes an entry of the table.
_MAX_EXPERTS = 4096
_PLAIN = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
# Formats of engines that take integers with scales and zeros.
_INTEGERS = {"INTEGERS4", "INTEGERS8"}
_PERMUTED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


class GgufLoader(TableLoader[GGMLQuantizationType]):
    """Reads a model in GGUF.

    All tensors are delivered in one type: a quantised file keeps norms and biases in float32, but the checkpoint that
    it was made from had one type.

    Args:
        path: the file.
        rules: the family's differences.
        dtype: the floating type to deliver; `None`: `gguf_dtype` of the file.
        before: as for `GgufFile`.
    """

    def __init__(
        self, path: Path, rules: FormatRules, dtype: DataType | None = None, before: GgufFile | None = None
    ) -> None:
        self._file = GgufFile(path, texts=False, before=before)
        self._heads: dict[str, int] = {}
        self._expanded: dict[str, str] = {}
        self._transforms = rules.transforms
        try:
            header = self._file.header
            _refuse_unsupported(path, header.tensors)
            self._dtype = gguf_dtype(header) if dtype is None else dtype
            tensors = [
                matrix
                for pattern, stored in hugging_face_names(header.tensors, rules.names, str(path)).items()
                for matrix in _matrices(path, pattern, stored, header.tensors[stored])
            ]
            super().__init__(path, dict(sorted(tensors, key=lambda item: item[1].offset)))
            if rules.permuted_qk:
                config, _ = config_of(self._file)
                self._heads = {stem: config[key] for stem, key in _PERMUTED.items()}
        except BaseException:
            self._file.close()
            raise

    def dtype(self, name: str) -> DataType:
        self.locate(name)
        return self._dtype

    def get(self, name: str) -> HostArray:
        tensor = self.locate(name)
        stored = self._unpermute(name, self._read_rows(name, 0, _rows(tensor)).reshape(tensor.shape))
        transform = self._transforms.get(_pattern(name))
        if transform is None:
            return stored
        transformed = np.ascontiguousarray(to_numpy(transform(stored)).astype(stored.dtype, copy=False))
        if transformed.shape != stored.shape:
            raise WeightsError(
                f"{self.path}: the family's rule makes {list(transformed.shape)} of {name} {list(stored.shape)}"
            )
        return transformed

    def blocks(self, name: str, formats: Collection[str]) -> QuantizedRows | None:
        tensor = self.locate(name)
        if len(tensor.shape) != 2 or _pattern(name) in self._transforms:
            return None
        rows, columns = tensor.shape
        if tensor.type.name not in formats and not _INTEGERS & set(formats):
            return None
        shape = (rows, tensor.nbytes // rows)

        def read() -> HostArray:
            stored = np.empty(shape, np.uint8)
            self._file.read_into(tensor.offset, memory_of(stored), f"tensor {name!r}")
            return np.ascontiguousarray(self._unpermute(name, stored))

        if tensor.type.name not in formats:
            return _integers(QuantizedRows(tensor.type.name, columns, read()), tensor.type)
        in_order = not any(f".{stem}." in name for stem in self._heads)
        place = FileRows(shape, *self._file.place(tensor.offset), read)
        return QuantizedRows(tensor.type.name, columns, place if in_order else read())

    def read_slice(self, name: str, dim: int, start: int, stop: int) -> HostArray:
        shape = self.locate(name).shape
        plain = _pattern(name) not in self._transforms and not any(f".{stem}." in name for stem in self._heads)
        if dim == 0 and len(shape) > 1 and plain:
            return self._read_rows(name, start, stop).reshape(stop - start, *shape[1:])
        # Blocks run along a row, so a cut through rows needs the rows; the copy frees what was cut off.
        return np.take(self.get(name), range(start, stop), dim)

    def _read_rows(self, name: str, start: int, stop: int) -> HostArray:
        """Reads rows `[start, stop)` of the outermost dimension, flat, in the delivered type."""
        tensor = self.locate(name)
        if tensor.type not in _PLAIN:
            self._expanded[name] = tensor.type.name
        block_elements, block_bytes = GGML_QUANT_SIZES[tensor.type]
        row_bytes = tensor.nbytes // _rows(tensor)
        blocks = row_bytes // block_bytes * (stop - start)
        out = np.empty(blocks * block_elements, numpy_dtype(self._dtype))
        step = max(1, _CHUNK_ELEMENTS // block_elements)
        buffer = np.empty((min(step, blocks), block_bytes), np.uint8)
        for first in range(0, blocks, step):
            chunk = buffer[: blocks - first]
            offset = tensor.offset + row_bytes * start + first * block_bytes
            self._file.read_into(offset, memory_of(chunk), f"tensor {name!r}")
            decoded = decode(chunk, tensor.type).reshape(-1)
            with np.errstate(over="ignore"):
                out[first * block_elements :][: len(decoded)] = decoded
        return out

    def _unpermute(self, name: str, stored: HostArray) -> HostArray:
        """Puts the rows of a head from (pair, half) order, where rotation pairs neighbours, back to (half, pair)."""
        for stem, heads in self._heads.items():
            if f".{stem}." in name:
                if stored.shape[0] % (2 * heads):
                    raise WeightsError(f"{self.path}: {name} has {stored.shape[0]} rows, not {heads} even heads")
                pairs = stored.reshape(heads, stored.shape[0] // heads // 2, 2, -1)
                return np.reshape(pairs.swapaxes(1, 2), stored.shape)
        return stored

    def identity(self) -> list[list[int]]:
        return self._file.identity()

    def close(self) -> None:
        if self._expanded and self.keeps_integers:
            kinds = ", ".join(f"{count} of {kind}" for kind, count in Counter(self._expanded.values()).items())
            _log.warning(
                "%s: %s are expanded to %s, as the engine has no blocks for them: %s%s", self.path, kinds,
                self._dtype.short, ", ".join([*self._expanded][:2]), ", ..." if len(self._expanded) > 2 else "",
            )  # fmt: skip
        self._expanded = {}
        self._file.close()


def _integers(rows: QuantizedRows, kind: GGMLQuantizationType) -> QuantizedRows | None:
    """Returns rows of int8, float32 scales and float32 zeros; `None` if they are no such integers."""
    number, (_, size) = len(rows.blocks), GGML_QUANT_SIZES[kind]
    found = integers(rows.blocks.reshape(-1, size), kind)
    if found is None:
        return None
    name, *parts = found
    blocks = [np.ascontiguousarray(part.reshape(number, -1)).view(np.uint8) for part in parts]
    return QuantizedRows(name, rows.columns, np.concatenate(blocks, 1))


def _pattern(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "{}", name)


def _rows(tensor: GgufTensor) -> int:
    return tensor.shape[0] if len(tensor.shape) > 1 else 1


def _matrices(path: Path, pattern: str, stored: str, tensor: GgufTensor) -> Iterator[tuple[str, GgufTensor]]:
    """Yields the checkpoint's tensors for one of the file: itself, or a matrix for each expert."""
    if "{}" in pattern:
        if len(tensor.shape) != 3 or tensor.shape[0] > _MAX_EXPERTS:
            raise WeightsError(
                f"{path}: {stored} has the shape {list(tensor.shape)}; the matrices of up to {_MAX_EXPERTS} experts "
                "were expected"
            )
        experts, *shape = tensor.shape
        size = tensor.nbytes // experts
        for expert in range(experts):
            part = replace(tensor, shape=tuple(shape), offset=tensor.offset + expert * size, nbytes=size)
            yield pattern.replace("{}", str(expert)), part
    elif pattern.endswith(".shared_expert_gate.weight") and len(tensor.shape) == 1:
        # Writers differ on whether a matrix of one row is a vector.
        yield pattern, replace(tensor, shape=(1, *tensor.shape))
    else:
        yield pattern, tensor


def _refuse_unsupported(path: Path, tensors: dict[str, GgufTensor]) -> None:
    unsupported = Counter(tensor.type.name for tensor in tensors.values() if tensor.type not in SUPPORTED_TYPES)
    if unsupported:
        counts = ", ".join(f"{kind} ({count} tensors)" for kind, count in unsupported.items())
        raise WeightsError(
            f"{path} uses quantised types that are not supported: {counts}. Supported are "
            f"{', '.join(kind.name for kind in SUPPORTED_TYPES)}",
            "Use a file of the same model quantised as Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16 or BF16.",
        )
