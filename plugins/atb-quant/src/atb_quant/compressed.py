# SPDX-License-Identifier: Apache-2.0
"""Reads compressed-tensors: integers of 8 bits or packed ones of 4, and 8-bit floats.

Integers have `weight [n, k]` (8 bits), or `weight_packed [n, k bits / 32]` with `weight_shape [2]`. There are
`weight_scale` and, if they are not symmetric, `weight_zero_point` for the matrix, its rows, or groups of inputs, and
`weight_g_idx [k]` where inputs were reordered. Packed integers and zeros are stored plus half their range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, numpy_dtype, to_numpy
from atb_quant.fp8 import FloatMatrix
from atb_quant.loader import Parts
from atb_quant.matrix import (
    MAX_INPUTS,
    Groups,
    IntegerMatrix,
    Product,
    QuantMatrix,
    dynamic_product,
    floats,
    static_product,
    unpacked,
)
from atb_quant.settings import FLOATS, check_settings, group_count, need, need_order, refuse

_NAME = "compressed-tensors"
_READ = ("quant_method", "config_groups", "transform_config", "sparsity_config")
_MEANINGLESS = ("ignore", "global_compression_ratio", "version", "run_compressed")
_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")
_ONLY = {"quantization_status": ("compressed",), "format": _FORMATS}
_WEIGHTS_READ = ("num_bits", "type", "strategy", "group_size", "symmetric")
_WEIGHTS_MEANINGLESS = ("actorder", "observer", "observer_kwargs", "scale_dtype", "zp_dtype", "dynamic")
# Regular expressions run on short names; few repetitions, of single characters, end soon.
_PATTERN = re.compile(r"[\w.\-^$*+|()\\]{1,500}")
_REPEATED_GROUP = re.compile(r"\)[*+?{]|[*+?][*+?]")
_MAX_REPETITIONS = 4


def parts(stored: SafetensorsLoader, settings: Mapping[str, Any]) -> Parts:
    """Returns the matrices of a checkpoint; raises `WeightsError` for what is not supported or does not fit."""
    check_settings(stored, _NAME, settings, _READ, _MEANINGLESS, _ONLY)
    for key in ("transform_config", "sparsity_config"):
        value = settings.get(key)
        if value and not (isinstance(value, dict) and value.get("format") == "dense"):
            raise refuse(stored, _NAME, f"its {key} is not empty, which is not supported")
    groups = _read_groups(stored, settings)
    matrices: list[QuantMatrix] = []
    inputs = set()
    for name in stored.names():
        prefix, _, suffix = name.rpartition(".")
        if suffix == "weight_scale":
            matrices.append(_matrix(stored, prefix, _group_of(stored, prefix, groups)))
        elif suffix in ("input_scale", "input_zero_point"):
            inputs.add(name)
        elif suffix == "weight_packed" and f"{prefix}.weight_scale" not in stored:
            raise refuse(stored, _NAME, f"it has {name}, but no {prefix}.weight_scale")
    if not matrices:
        raise refuse(stored, _NAME, "it has no tensor *.weight_scale")
    return Parts(matrices, {}, frozenset(inputs))


def _read_groups(stored: SafetensorsLoader, settings: Mapping[str, Any]) -> list[tuple[list[str], Mapping[str, Any]]]:
    """Returns the targets of each group and the arguments of its weights, among them those of `activations`."""
    groups = settings.get("config_groups")
    if not isinstance(groups, dict) or not 1 <= len(groups) <= 64:
        raise refuse(stored, _NAME, f"its config_groups are {str(groups)[:100]}")
    found: list[tuple[list[str], Mapping[str, Any]]] = []
    for name, group in groups.items():
        label = f"of config_groups, {str(name)[:100]!r}"
        if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
            raise refuse(stored, _NAME, f"{label} says nothing of weights")
        check_settings(stored, _NAME, group, ("targets", "weights", "input_activations"), (), {"format": _FORMATS})
        weights, inputs, targets = group["weights"], group.get("input_activations"), group.get("targets")
        check_settings(stored, _NAME, weights, _WEIGHTS_READ, _WEIGHTS_MEANINGLESS)
        if inputs is not None and (not isinstance(inputs, dict) or inputs.get("num_bits") != 8):
            raise refuse(stored, _NAME, f"{label} has activations other than of 8 bits: {str(inputs)[:100]}")
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise refuse(stored, _NAME, f"{label} has the targets {str(targets)[:100]}")
        found.append((targets, {**weights, "activations": inputs}))
    return found


def _group_of(
    stored: SafetensorsLoader, module: str, groups: list[tuple[list[str], Mapping[str, Any]]]
) -> Mapping[str, Any]:
    """Returns the arguments for a module: those of a group that names it, else of one for all linears."""
    if len(groups) == 1:
        return groups[0][1]
    for named in (True, False):
        for targets, weights in groups:
            if any(_matches(stored, target, module) if named else target == "Linear" for target in targets):
                return weights
    raise refuse(stored, _NAME, f"none of its config_groups is for {module}")


def _matches(stored: SafetensorsLoader, target: str, module: str) -> bool:
    if not target.startswith("re:"):
        return target == module or module.endswith(f".{target}")
    pattern = target.removeprefix("re:")
    repetitions = sum(map(pattern.count, "*+"))
    if not _PATTERN.fullmatch(pattern) or _REPEATED_GROUP.search(pattern) or repetitions > _MAX_REPETITIONS:
        raise refuse(stored, _NAME, f"the target {target[:100]!r} is a pattern that is not supported")
    try:
        return re.match(pattern, module[:256]) is not None
    except re.error as error:
        raise refuse(stored, _NAME, f"the target {target[:100]!r} is no pattern: {error}") from None


def _matrix(stored: SafetensorsLoader, prefix: str, weights: Mapping[str, Any]) -> QuantMatrix:
    bits, kind, strategy = (weights.get(key) for key in ("num_bits", "type", "strategy"))
    if kind == "float" and bits == 8 and strategy in ("tensor", "channel", "token"):
        return FloatMatrix(stored, _NAME, prefix, "weight_scale", None)
    if kind != "int" or bits not in (4, 8) or strategy not in ("tensor", "channel", "group"):
        raise refuse(
            stored, _NAME,
            f"{prefix} has weights of type {str(kind)[:20]!r}, {str(bits)[:20]} bits, {str(strategy)[:20]!r}; "
            "supported are 'int' of 4 and 8 bits with 'tensor', 'channel' or 'group', and 'float' of 8",
        )  # fmt: skip
    size = weights.get("group_size") if strategy == "group" else -1
    if type(size) is not int or (size < 1 and size != -1):
        raise refuse(stored, _NAME, f"the group_size of {prefix} is {str(size)[:100]}, not a positive number")
    packed = f"{prefix}.weight_packed" in stored
    matrix = _IntMatrix(stored, prefix, bits, size, packed, strategy == "tensor")
    matrix.activations = weights["activations"]
    if weights.get("actorder") in ("group", "dynamic", True):
        need_order(stored, _NAME, f"{prefix}.weight_g_idx", group_count(matrix.shape[1], size))
    zeros, symmetric = f"{prefix}.weight_zero_point", weights.get("symmetric", True)
    if not isinstance(symmetric, bool):
        raise refuse(stored, _NAME, f"symmetric of {prefix} is {str(symmetric)[:100]!r}, not true or false")
    if not symmetric and zeros not in stored:
        raise refuse(stored, _NAME, f"{prefix} is not symmetric, and there is no {zeros}")
    if symmetric and zeros in stored and matrix.groups().zeros.any():
        raise refuse(stored, _NAME, f"{prefix} is symmetric, and {zeros} is not zero")
    return matrix


class _IntMatrix(IntegerMatrix):
    """A matrix of integers, packed or not; `activations` are the arguments of its input."""

    activations: Mapping[str, Any] | None = None

    def __init__(
        self, stored: SafetensorsLoader, prefix: str, bits: int, size: int, packed: bool, one_scale: bool
    ) -> None:
        names = {"weight": f"{prefix}.{'weight_packed' if packed else 'weight'}", "scale": f"{prefix}.weight_scale"}
        if names["weight"] not in stored or len(found := stored.shape(names["weight"])) != 2:
            raise refuse(stored, _NAME, f"it has {names['scale']}, but no matrix {names['weight']}")
        shape = _unpacked_shape(stored, prefix, found, 32 // bits) if packed else (found[0], found[1])
        need(stored, _NAME, names["weight"], found, ("I32",) if packed else ("I8",))
        rows, columns = shape
        groups = group_count(columns, size)
        scales = stored.shape(names["scale"])
        flat = one_scale or groups == 1
        allowed: list[tuple[int, ...]] = [(rows, groups)] if not one_scale else []
        allowed += [(1,), (1, 1), ()] if one_scale else [(rows,)] if flat else []
        need(stored, _NAME, names["scale"], scales if scales in allowed else allowed[0], FLOATS)
        zeros = f"{prefix}.weight_zero_point"
        if zeros in stored:
            if packed and one_scale:
                raise refuse(stored, _NAME, f"{zeros} is one for a whole packed matrix, which is not supported")
            whole = (-(-rows // (32 // bits)), groups) if packed else scales
            need(stored, _NAME, zeros, whole, ("I32",) if packed else ("I8",))
            names["zeros"] = zeros
        if (index := f"{prefix}.weight_g_idx") in stored:
            need(stored, _NAME, index, (columns,), ("I32", "I64"))
            names["index"] = index
        extra = (f"{prefix}.weight_shape",) if packed else ()
        super().__init__(stored, prefix, (*names.values(), *extra), shape)
        self._names, self._bits, self._packed = names, bits, packed
        self._size = columns if size == -1 else min(size, columns)
        self.lowest, self.highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def product(self, dtype: DataType) -> Product | None:
        given, groups = self.activations or {}, self.groups()
        symmetric = not groups.zeros.any() and groups.of_column is None and groups.scales.shape[1] == 1
        whole = self._bits == 8 and not self._packed and symmetric and self.shape[1] <= MAX_INPUTS
        if not whole or given.get("type") != "int":
            return None
        rows, kind = self.shape[0], (given.get("dynamic"), given.get("strategy"))
        scales = np.broadcast_to(groups.scales[:, 0], (rows,))
        if kind == (True, "token") and given.get("symmetric", True) is True:
            return dynamic_product("W8A8_DYNAMIC", rows, lambda: scales)
        if kind != (False, "tensor") or f"{self.prefix}.input_scale" not in self.stored:
            return None
        scale, zero = self._input()
        self.check_input(scale, zero, dtype)
        rounded = np.array([scale], np.float32).astype(numpy_dtype(dtype)).astype(np.float32)

        def bias() -> HostArray:
            sums: HostArray = -zero * self.integers(0, rows).sum(1, dtype=np.int64)
            return sums.astype(np.int32)

        return static_product(rows, dtype, (scale, zero), lambda: scales * rounded, bias)

    def _input(self) -> tuple[float, int]:
        """Returns scale and zero point of activations that have one for all."""
        names = [f"{self.prefix}.{suffix}" for suffix in ("input_scale", "input_zero_point")]
        shape = self.stored.shape(names[0])
        need(self.stored, _NAME, names[0], shape if shape == () else (1,), FLOATS)
        scale, zero = float(floats(self.stored, names[0]).reshape(-1)[0]), 0
        if names[1] in self.stored:
            need(self.stored, _NAME, names[1], shape, ("I8",))
            zero = int(to_numpy(self.stored.get(names[1])).reshape(-1)[0])
        return scale, zero

    def integers(self, start: int, stop: int) -> HostArray:
        stored = to_numpy(self.stored.get_slice(self._names["weight"], 0, start, stop))
        if not self._packed:
            integers = stored.astype(np.int16)
            if self._bits < 8 and integers.size and not self.lowest <= integers.min() <= integers.max() <= self.highest:
                raise self.fail(f"has integers of more than {self._bits} bits")
            return integers
        whole = unpacked(stored, self._bits).reshape(len(stored), -1)[:, : self.shape[1]]
        signed: HostArray = whole.astype(np.int16) + np.int16(self.lowest)
        return signed

    def read_groups(self) -> Groups:
        scales = floats(self.stored, self._names["scale"])
        scales = scales.reshape(1 if scales.size == 1 else self.shape[0], -1)
        order = None
        if "index" in self._names:
            order = to_numpy(self.stored.get(self._names["index"])).astype(np.int64)
            # Of -1 is what was not set.
            if (order == -1).all() or np.array_equal(order, np.arange(self.shape[1]) // self._size):
                order = None
        return Groups(scales, self._zeros(scales.shape), self._size, order)

    def _zeros(self, shape: tuple[int, ...]) -> HostArray:
        if "zeros" not in self._names:
            return np.zeros((1, shape[1]), np.int32)
        stored = to_numpy(self.stored.get(self._names["zeros"]))
        if not self._packed:
            if stored.size and not self.lowest <= stored.min() <= stored.max() <= self.highest:
                raise self.fail(f"has zero points of more than {self._bits} bits", "Fetch the checkpoint again.")
            return stored.astype(np.int32).reshape(shape)
        # Packed along the rows, where the integers are packed along the columns.
        words = np.ascontiguousarray(stored.T)
        zeros: HostArray = unpacked(words, self._bits).reshape(len(words), -1).T[: self.shape[0]]
        zeros = zeros.astype(np.int32) + np.int32(self.lowest)
        return zeros


def _unpacked_shape(stored: SafetensorsLoader, prefix: str, packed: tuple[int, ...], per_word: int) -> tuple[int, int]:
    name = f"{prefix}.weight_shape"
    need(stored, _NAME, name, (2,), ("I32", "I64"))
    rows, columns = map(int, to_numpy(stored.get(name)))
    if rows != packed[0] or not 0 < columns <= packed[1] * per_word or -(-columns // per_word) != packed[1]:
        raise refuse(stored, _NAME, f"{name} is [{rows}, {columns}], but {prefix}.weight_packed is {list(packed)}")
    return rows, columns
