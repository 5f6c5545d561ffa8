# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of a GGUF file, delivered under Hugging Face names and in one floating type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gguf.constants import GGML_QUANT_SIZES

from atb_core.checkpoint.base import WeightLoader, check_slice
from atb_core.checkpoint.files import CheckedFile
from atb_core.checkpoint.gguf.config import config_from_header, gguf_dtype
from atb_core.checkpoint.gguf.header import GgufTensor, header_of
from atb_core.checkpoint.gguf.names import hugging_face_names
from atb_core.checkpoint.gguf.quants import SUPPORTED_TYPES, decode
from atb_core.checkpoint.reading import empty, memory_of
from atb_core.checkpoint.rules import GgufRules
from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch

# Elements decoded at a time. torch runs operations of up to 2^15 elements on the calling thread alone. Above that, each
# of the dozen small operations of a decoder would be a fork and join, which takes milliseconds when the processor is
# busy with something else; and the temporaries of this size stay in the first levels of cache.
_CHUNK_ELEMENTS = 1 << 15
# A few times what the largest published models have: each expert becomes an entry of the table.
_MAX_EXPERTS = 4096
_PERMUTED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


class GgufLoader(WeightLoader):
    """Reads one GGUF file.

    All tensors are delivered in `dtype`, whatever the file stores: a quantised file keeps norms and biases in
    float32, but the checkpoint it was made from had one type.
    """

    def __init__(self, path: Path, rules: GgufRules, dtype: DataType | None = None) -> None:
        """Opens and checks the file; `dtype` defaults to `gguf_dtype` of the file and must be a floating type."""
        self._path = path
        self._file = CheckedFile(path)
        try:
            header = header_of(self._file, texts=False)
            _refuse_unsupported(path, header.tensors)
            self._dtype = gguf_dtype(header) if dtype is None else dtype
            names = hugging_face_names(header.tensors, rules.names, str(path))
            self._tensors = {
                name: tensor
                for pattern, stored in names.items()
                for name, tensor in _matrices(path, pattern, stored, header.tensors[stored])
            }
            self._ordered = tuple(sorted(self._tensors, key=lambda name: self._tensors[name].offset))
            self._heads: dict[str, int] = {}
            if rules.permuted_qk:
                config = config_from_header(self._file, header)
                self._heads = {stem: config[key] for stem, key in _PERMUTED.items()}
        except BaseException:
            self._file.close()
            raise

    @property
    def source(self) -> str:
        return str(self._path)

    def names(self) -> Sequence[str]:
        return self._ordered

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def _locate(self, name: str) -> GgufTensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise self.unknown(name) from None

    def shape(self, name: str) -> tuple[int, ...]:
        return self._locate(name).shape

    def dtype(self, name: str) -> DataType:
        self._locate(name)
        return self._dtype

    def nbytes(self, name: str) -> int:
        return self._locate(name).nbytes

    def get(self, name: str) -> torch.Tensor:
        tensor = self._locate(name)
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        whole = self._read_rows(name, tensor, 0, rows).view(tensor.shape)
        return self._unpermute(name, whole)

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        tensor = self._locate(name)
        check_slice(self.source, name, tensor.shape, dim, start, stop)
        if dim == 0 and len(tensor.shape) > 1 and not self._is_permuted(name):
            return self._read_rows(name, tensor, start, stop).view(stop - start, *tensor.shape[1:])
        # Blocks run along a row, so a cut through rows needs the rows; the copy frees what was cut off.
        return self.get(name).narrow(dim, start, stop - start).clone()

    def _read_rows(self, name: str, tensor: GgufTensor, start: int, stop: int) -> torch.Tensor:
        """Reads rows `[start, stop)` of the outermost dimension (a vector is one row), flat, in the delivered type."""
        import torch

        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        block_elements, block_bytes = GGML_QUANT_SIZES[tensor.type]
        blocks = tensor.nbytes // block_bytes // rows * (stop - start)
        offset = tensor.offset + tensor.nbytes // rows * start
        out = empty((blocks * block_elements,), self._dtype)
        step = max(1, _CHUNK_ELEMENTS // block_elements)
        buffer = torch.empty((min(step, blocks), block_bytes), dtype=torch.uint8)
        for first in range(0, blocks, step):
            count = min(step, blocks - first)
            chunk = buffer[:count]
            self._file.read_into(offset + first * block_bytes, memory_of(chunk), f"tensor {name!r}")
            out[first * block_elements : (first + count) * block_elements] = decode(chunk, tensor.type).view(-1)
        return out

    def _is_permuted(self, name: str) -> bool:
        return any(f".{stem}." in name for stem in self._heads)

    def _unpermute(self, name: str, stored: torch.Tensor) -> torch.Tensor:
        """Puts the rows of a head from (pair, half) order, where rotation pairs neighbours, back to (half, pair)."""
        for stem, heads in self._heads.items():
            if f".{stem}." in name:
                if stored.shape[0] % (2 * heads):
                    raise WeightsError(f"{self._path}: {name} has {stored.shape[0]} rows, not {heads} even heads")
                pairs = stored.view(heads, stored.shape[0] // heads // 2, 2, -1)
                return pairs.transpose(1, 2).reshape(stored.shape)
        return stored

    def close(self) -> None:
        self._file.close()


def _matrices(path: Path, pattern: str, stored: str, tensor: GgufTensor) -> Iterator[tuple[str, GgufTensor]]:
    """Yields the tensors that one tensor of the file is in a checkpoint: itself, or a matrix for each expert."""
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
    unsupported = Counter(t.type.name for t in tensors.values() if t.type not in SUPPORTED_TYPES)
    if unsupported:
        found = ", ".join(f"{kind} ({count} tensors)" for kind, count in unsupported.items())
        known = ", ".join(kind.name for kind in SUPPORTED_TYPES)
        raise WeightsError(
            f"{path} uses quantised types that are not supported: {found}. Supported are {known}",
            "Use a file of the same model quantised as Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16 or BF16.",
        )
