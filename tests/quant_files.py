# SPDX-License-Identifier: Apache-2.0
"""Quantises matrices and packs them as each format's description says, element by element.

Nothing here uses the package's readers. Every function returns the stored tensors and the matrix that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, np.ndarray]
Packed = tuple[Tensors, np.ndarray]
Packer = Callable[[np.ndarray], Packed]


def to_groups(weight: np.ndarray, bits: int, size: int, symmetric: bool, half: bool = True) -> tuple[np.ndarray, ...]:
    """Unsigned integers `[n, k]`, scales `[n, groups]` and zeros `[n, groups]` of the nearest values."""
    rows, columns = weight.shape
    count = -(-columns // size)
    q = np.zeros((rows, columns), np.int64)
    scales, zeros = np.zeros((rows, count), np.float32), np.zeros((rows, count), np.int64)
    top = 2**bits - 1
    for g in range(count):
        part = weight[:, g * size : (g + 1) * size]
        if symmetric:
            scale = np.abs(part).max(1) / (top // 2)
            zero = np.full(rows, (top + 1) // 2)
        else:
            low, high = np.minimum(part.min(1), 0), np.maximum(part.max(1), 0)
            scale = (high - low) / top
            zero = np.clip(np.rint(-low / scale), 1, top).astype(np.int64)
        scale = scale.astype(np.float16).astype(np.float32) if half else scale.astype(np.float32)
        q[:, g * size : (g + 1) * size] = np.clip(np.rint(part / scale[:, None]) + zero[:, None], 0, top)
        scales[:, g], zeros[:, g] = scale, zero
    return q, scales, zeros


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Words of 32 bits along the last axis, lowest bits first."""
    per_word = 32 // bits
    *outer, last = values.shape
    out = np.zeros((*outer, -(-last // per_word)), np.uint32)
    for i in range(last):
        out[..., i // per_word] |= values[..., i].astype(np.uint32) << np.uint32(bits * (i % per_word))
    return out.view(np.int32)


def gptq(bits: int = 4, size: int = 32, symmetric: bool = True, less: int = 1, reordered: bool = False) -> Packer:
    def pack(weight: np.ndarray) -> Packed:
        columns = weight.shape[1]
        length = columns if size == -1 else size
        q, scales, zeros = to_groups(weight, bits, length, symmetric)
        groups = np.arange(columns) // length
        if reordered:  # the inputs of a group lie anywhere
            groups = np.random.default_rng(0).permutation(groups)
            q = np.clip(np.rint(weight / scales[:, groups]) + zeros[:, groups], 0, 2**bits - 1).astype(np.int64)
        tensors = {
            "qweight": packed(q, bits).T.copy(),
            "qzeros": packed(zeros.T - less, bits),
            "scales": scales.T.astype(np.float16),
            "g_idx": groups.astype(np.int32),
        }
        return tensors, (scales[:, groups] * (q - zeros[:, groups])).astype(np.float32)

    return pack


def awq(size: int = 32) -> Packer:
    def pack(weight: np.ndarray) -> Packed:
        q, scales, zeros = to_groups(weight, 4, size, symmetric=False)
        groups = np.arange(weight.shape[1]) // size

        def words(values: np.ndarray) -> np.ndarray:
            mixed = values.reshape(len(values), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
            return packed(mixed.reshape(values.shape), 4)

        tensors = {"qweight": words(q.T), "qzeros": words(zeros.T), "scales": scales.T.astype(np.float16)}
        return tensors, (scales[:, groups] * (q - zeros[:, groups])).astype(np.float32)

    return pack


def pack_quantized(bits: int = 4, size: int = 32, symmetric: bool = True) -> Packer:
    def pack(weight: np.ndarray) -> Packed:
        length = weight.shape[1] if size == -1 else size
        q, scales, zeros = to_groups(weight, bits, length, symmetric)
        groups = np.arange(weight.shape[1]) // length
        tensors = {
            "weight_packed": packed(q, bits),
            "weight_scale": scales.astype(np.float16),
            "weight_shape": np.array(weight.shape, np.int64),
        }
        if not symmetric:
            tensors["weight_zero_point"] = packed(np.ascontiguousarray(zeros.T), bits).T.copy()
        return tensors, (scales[:, groups] * (q - zeros[:, groups])).astype(np.float32)

    return pack


def int_quantized(half: bool = True, static: bool = False) -> Packer:
    def pack(weight: np.ndarray) -> Packed:
        q, scales, zeros = to_groups(weight, 8, weight.shape[1], symmetric=True, half=half)
        signed = np.clip(q - zeros, -128, 127)
        tensors = {"weight": signed.astype(np.int8), "weight_scale": scales}
        if static:
            tensors["input_scale"] = np.array([0.02], np.float32)
        return tensors, (scales * signed).astype(np.float32)

    return pack


def float_quantized(weight: np.ndarray) -> Packed:
    scales = np.abs(weight).max(1, keepdims=True) / 448
    stored = (weight / scales).astype(ml_dtypes.float8_e4m3fn)
    return {"weight": stored, "weight_scale": scales}, stored.astype(np.float32) * scales


def fp8_blocks(weight: np.ndarray) -> Packed:
    """Blocks of 16 rows and 32 columns."""
    rows, columns = weight.shape
    scales = np.zeros((-(-rows // 16), -(-columns // 32)), np.float32)
    stored, values = np.zeros(weight.shape, ml_dtypes.float8_e4m3fn), np.zeros(weight.shape, np.float32)
    for i in range(len(scales)):
        for j in range(scales.shape[1]):
            place = (slice(16 * i, 16 * i + 16), slice(32 * j, 32 * j + 32))
            scales[i, j] = np.abs(weight[place]).max() / 448
            stored[place] = (weight[place] / scales[i, j]).astype(ml_dtypes.float8_e4m3fn)
            values[place] = stored[place].astype(np.float32) * scales[i, j]
    return {"weight": stored, "weight_scale_inv": scales}, values


def slim_dynamic(weight: np.ndarray) -> Packed:
    tensors, values = int_quantized()(weight)
    return {**tensors, "weight_offset": np.zeros((len(weight), 1), np.float32)}, values


def slim_packed(size: int | None = None, symmetric: bool = True) -> Packer:
    """W4A16 of the format ascendV1: pairs of neighbours in a row, or, with scales for groups of a row, of rows."""

    def pack(weight: np.ndarray) -> Packed:
        columns = weight.shape[1]
        q, scales, zeros = to_groups(weight, 4, size or columns, symmetric)
        stored = nibble_pairs(q - 8, 1 if size is None else 0)
        groups = np.arange(columns) // (size or columns)
        tensors = {"weight": stored, "weight_scale": scales, "weight_offset": (zeros - 8).astype(np.float32)}
        return tensors, (scales[:, groups] * (q - zeros[:, groups])).astype(np.float32)

    return pack


def nibble_pairs(integers: np.ndarray, axis: int) -> np.ndarray:
    """Two integers of 4 bits in each byte, the first one along the axis in the low half."""
    low, high = (integers.take(range(i, integers.shape[axis], 2), axis) for i in (0, 1))
    return (low & 15 | high << 4).astype(np.int8)


def slim_static(weight: np.ndarray) -> Packed:
    """No bias: `quant_bias` takes back what the offset adds."""
    tensors, values = int_quantized(half=False)(weight)
    scale, offset = np.float32(0.03125), 7
    return {
        "weight": tensors["weight"],
        "input_scale": np.array([scale], np.float32),
        "input_offset": np.array([offset], np.float32),
        "deq_scale": tensors["weight_scale"][:, 0] * scale,
        "quant_bias": (-offset * tensors["weight"].astype(np.int64).sum(1)).astype(np.int32),
    }, values


def quantise_directory(
    source: Path,
    target: Path,
    pack: Packer,
    config: Mapping[str, Any] | None = None,
    description: Mapping[str, Any] | None = None,
    modules: str = "_proj.weight",
) -> tuple[Path, Path]:
    """Writes a checkpoint whose matrices are quantised, and beside it one with the values, for transformers."""
    plain = target.with_name(f"{target.name}-plain")
    tensors, values, kinds = {}, {}, {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith(modules):
            tensors[name] = values[name] = tensor
            kinds[name] = "FLOAT"
            continue
        stored, dequantised = pack(tensor.float().numpy())
        values[name] = torch.from_numpy(np.ascontiguousarray(dequantised, np.float32))
        for suffix, array in stored.items():
            stored_name = f"{name.removesuffix('weight')}{suffix}"
            tensors[stored_name] = as_tensor(array)
            kinds[stored_name] = (description or {}).get("model_quant_type", "")
    _move_biases(tensors, values)
    for directory, content in ((target, tensors), (plain, values)):
        directory.mkdir()
        for file in source.iterdir():
            if file.suffix != ".safetensors":
                (directory / file.name).write_bytes(file.read_bytes())
        save_file({k: v.contiguous() for k, v in content.items()}, directory / "model.safetensors")
    if config is not None:
        change_config(target, quantization_config=dict(config))
    if description is not None:
        text = json.dumps({**description, **kinds})
        (target / "quant_model_description.json").write_text(text, encoding="utf-8")
        (target / "model.safetensors").rename(target / "quant_model_weights.safetensors")
    return target, plain


def _move_biases(tensors: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    """Rounds the biases of static products into their `quant_bias`, where msModelSlim has them."""
    for name in [name for name in tensors if name.endswith("quant_bias")]:
        bias, scale = name.replace("quant_bias", "bias"), tensors[name.replace("quant_bias", "deq_scale")]
        if bias in values:
            rounded = (values[bias] / scale).round()
            tensors[name] += rounded.int()
            values[bias] = rounded * scale


def as_tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype == ml_dtypes.float8_e4m3fn:
        return torch.from_numpy(array.view(np.uint8)).view(torch.float8_e4m3fn)
    return torch.from_numpy(np.ascontiguousarray(array))


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def compressed_config(bits: int, kind: str, strategy: str, layout: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"num_bits": bits, "type": kind, "strategy": strategy, **weights}}
    return {
        "quant_method": "compressed-tensors", "format": layout, "quantization_status": "compressed",
        "config_groups": {"group_0": group}, "ignore": ["lm_head"], "kv_cache_scheme": None,
    }  # fmt: skip
