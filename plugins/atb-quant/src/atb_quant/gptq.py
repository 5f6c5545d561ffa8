# SPDX-License-Identifier: Apache-2.0
"""Reads GPTQ: integers of 2, 4 or 8 bits, packed along the inputs, with scales and zeros for groups of inputs.

`qweight [k bits / 32, n]`, `qzeros [groups, n bits / 32]`, `scales [groups, n]` and `g_idx [k]`, the group of each
input. In the first version of the format, zeros are stored less 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.graph.arrays import HostArray, to_numpy
from atb_quant.loader import Parts
from atb_quant.matrix import Groups, IntegerMatrix, floats, unpacked
from atb_quant.settings import FLOATS, check_settings, either, group_count, integer, need, need_order, refuse

_NAME = "gptq"
_SUFFIX = ".qweight"
_READ = ("quant_method", "bits", "group_size", "checkpoint_format", "format")
_MEANINGLESS = (
    "sym", "desc_act", "static_groups", "true_sequential", "damp_percent", "damp_auto_increment", "dataset",
    "tokenizer", "batch_size", "block_name_to_quantize", "module_name_preceding_first_block", "pad_token_id",
    "modules_in_block_to_quantize", "cache_block_outputs", "use_cuda_fp16", "model_seqlen", "max_input_length",
    "model_file_base_name", "model_name_or_path", "quantizer", "meta", "lm_head", "backend", "use_exllama",
    "disable_exllama", "exllama_config", "act_group_aware", "mse", "version", "packer", "hyb_act", "offload_to_disk",
    "offload_to_disk_path", "pack_impl", "mock_quantization", "gc_mode", "wait_for_submodule_finalizers",
)  # fmt: skip
_ONLY = {"pack_dtype": ("int32",), "method": ("gptq",), "is_marlin_format": (False, None)}


def parts(stored: SafetensorsLoader, settings: Mapping[str, Any]) -> Parts:
    """Returns the matrices of a checkpoint; raises `WeightsError` for what is not supported or does not fit."""
    check_settings(stored, _NAME, settings, _READ, _MEANINGLESS, _ONLY)
    bits = integer(stored, _NAME, settings, "bits", "2, 4 or 8")
    size = integer(stored, _NAME, settings, "group_size", "a positive number or -1")
    kind = settings.get(either(stored, _NAME, settings, "checkpoint_format", "format"))
    if bits not in (2, 4, 8):
        raise refuse(stored, _NAME, f"its integers have {bits} bits; supported are 2, 4 and 8")
    if size != -1 and size < 1:
        raise refuse(stored, _NAME, f"its group_size is {size}, not a positive number or -1")
    if kind not in ("gptq", "gptq_v2", "", None):
        raise refuse(stored, _NAME, f"its checkpoint_format is {str(kind)[:100]!r}; supported are 'gptq' and 'gptq_v2'")
    less = 0 if kind == "gptq_v2" else 1
    prefixes = [name.removesuffix(_SUFFIX) for name in stored.names() if name.endswith(_SUFFIX)]
    ordered = bool(settings.get("desc_act"))
    matrices = [_GptqMatrix(stored, prefix, bits, size, less, ordered) for prefix in prefixes]
    if not matrices:
        raise refuse(stored, _NAME, "it has no tensor *.qweight")
    return Parts(matrices)


class _GptqMatrix(IntegerMatrix):
    """A matrix in GPTQ's layout."""

    lowest = 0

    def __init__(self, stored: SafetensorsLoader, prefix: str, bits: int, size: int, less: int, ordered: bool) -> None:
        names = {suffix: f"{prefix}.{suffix}" for suffix in ("qweight", "qzeros", "scales")}
        shape = stored.shape(names["qweight"])
        if len(shape) != 2:
            raise refuse(stored, _NAME, f"{names['qweight']} has shape {list(shape)}, not two dimensions")
        per_word = 32 // bits
        rows, columns = shape[1], shape[0] * per_word
        groups = group_count(columns, size)
        need(stored, _NAME, names["qweight"], shape, ("I32",))
        need(stored, _NAME, names["qzeros"], (groups, -(-rows // per_word)), ("I32",))
        need(stored, _NAME, names["scales"], (groups, rows), FLOATS)
        index = f"{prefix}.g_idx"
        if ordered:
            need_order(stored, _NAME, index, groups)
        if index in stored:
            need(stored, _NAME, index, (columns,), ("I32", "I64"))
            names["g_idx"] = index
        super().__init__(stored, prefix, tuple(names.values()), (rows, columns))
        self._names, self._bits, self._less = names, bits, less
        self._size = columns if size == -1 else size
        self.highest = 2**bits - 1

    def integers(self, start: int, stop: int) -> HostArray:
        words = to_numpy(self.stored.get_slice(self._names["qweight"], 1, start, stop)).T
        return unpacked(np.ascontiguousarray(words), self._bits).reshape(stop - start, -1).astype(np.int16)

    def read_groups(self) -> Groups:
        zeros = unpacked(to_numpy(self.stored.get(self._names["qzeros"])), self._bits)
        zeros = zeros.reshape(len(zeros), -1)[:, : self.shape[0]].astype(np.int32) + self._less
        scales = floats(self.stored, self._names["scales"])
        order = None
        if "g_idx" in self._names:
            order = to_numpy(self.stored.get(self._names["g_idx"])).astype(np.int64)
            if np.array_equal(order, np.arange(self.shape[1]) // self._size):
                order = None
        return Groups(np.ascontiguousarray(scales.T), np.ascontiguousarray(zeros.T), self._size, order)
