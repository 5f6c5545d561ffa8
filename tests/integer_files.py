# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose activations are integers of 8 bits, and torch's model that rounds its activations as they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import quant_files as files
import torch

from atb_core.checkpoint.progress import SilentProgress
from atb_testing import load_reference, tiny_checkpoint
from atb_testing.driver import build_model, open_weights

# Coarse, so that a model that does not round is far away.
SCALE, OFFSET = np.float32(0.25), 5
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}


def slim_static(weight: np.ndarray) -> files.Packed:
    tensors, values = files.int_quantized(half=False)(weight)
    return {
        "weight": tensors["weight"],
        "input_scale": np.array([SCALE], np.float32),
        "input_offset": np.array([OFFSET], np.float32),
        "deq_scale": tensors["weight_scale"][:, 0] * SCALE,
        "quant_bias": (-OFFSET * tensors["weight"].astype(np.int64).sum(1)).astype(np.int32),
    }, values


def slim_static_bits(weight: np.ndarray) -> files.Packed:
    """As msModelSlim writes models of float16."""
    tensors, values = slim_static(weight)
    return {**tensors, "deq_scale": tensors["deq_scale"].view(np.uint32).astype(np.int64)}, values


def compressed_static(weight: np.ndarray) -> files.Packed:
    tensors, values = files.int_quantized(half=False)(weight)
    zero = np.array([OFFSET], np.int8)
    return {**tensors, "input_scale": np.array([SCALE], np.float32), "input_zero_point": zero}, values


def _compressed(**activations: Any) -> dict[str, Any]:
    config = files.compressed_config(8, "int", "channel", "int-quantized", symmetric=True)
    config["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8, "type": "int", **activations}
    return config


@dataclass(frozen=True)
class Case:
    """A family, how its matrices are packed, what the checkpoint says, and whether activations have one scale."""

    family: str
    pack: files.Packer
    static: bool
    config: dict[str, Any] | None = None
    kind: str | None = None

    def write(self, directory: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
        """Writes the checkpoint, and one with the values of its matrices as floats."""
        source = tiny_checkpoint(directory / "source", self.family, dtype, max_position_embeddings=256, **SIZES)
        description = {"model_quant_type": self.kind, "version": "1.0.0"} if self.kind else None
        return files.quantise_directory(source, directory / "quantised", self.pack, self.config, description)


CASES = {
    "W8A8": Case("llama", slim_static, True, kind="W8A8"),
    "W8A8 with bits of scales": Case("qwen3", slim_static_bits, True, kind="W8A8"),
    "W8A8_DYNAMIC": Case("qwen2", files.slim_dynamic, False, kind="W8A8_DYNAMIC"),
    "W8A8_MIX": Case("llama", files.slim_dynamic, False, kind="W8A8_MIX"),
    "compressed-tensors, static": Case(
        "qwen3", compressed_static, True, _compressed(strategy="tensor", dynamic=False, symmetric=False)
    ),
    "compressed-tensors, dynamic": Case(
        "llama", files.int_quantized(), False, _compressed(strategy="token", dynamic=True, symmetric=True)
    ),
}


def open_integers(directory: Path, backend: Any, integers: bool = True, **config: Any) -> Any:
    """Loads a checkpoint as a runner does that gives no dtype."""
    with open_weights(directory) as loader:
        loader.keeps_integers = integers
        model = build_model(directory, loader, backend, 128, **config)
        model.load_weights(loader, SilentProgress())
    return model


#: Scale and offset of activations; `None` for a scale of each row.
Static = tuple[float, int] | None


def rounded(x: torch.Tensor, static: Static) -> torch.Tensor:
    """The numbers that integers of 8 bits leave of activations."""
    if static is not None:
        scale, offset = static
        return ((x / scale).round() + offset).clamp(-128, 127).sub(offset) * scale
    scales = x.abs().amax(-1, keepdim=True) / 127
    return (x / scales).round() * scales


def round_inputs(model: Any, static: Static, added: Mapping[str, torch.Tensor] | None = None) -> None:
    """Lets the linear layers of torch's model round their inputs, but not experts and the head.

    `added` has products `[n, k]`, by the names of weights, whose inputs are not rounded.
    """
    for name, module in model.named_modules():
        if not name.endswith("_proj") or ".experts." in name:
            continue
        product = (added or {}).get(f"{name}.weight")

        def forward(x: torch.Tensor, linear: Any = module.forward, product: torch.Tensor | None = product) -> Any:
            y = linear(rounded(x, static))
            return y if product is None else y + x @ product.T

        module.forward = forward


def slow_logits(
    plain: Path, static: bool, prompts: list[list[int]], change: Callable[[Any], None] | None = None
) -> Any:
    """The logits of torch's model in float32, with the values of the matrices and rounded inputs of these."""
    model = load_reference(plain)
    if change is not None:
        change(model)
    round_inputs(model, (float(SCALE), OFFSET) if static else None)
    with torch.no_grad():
        return torch.cat([model(torch.tensor([prompt])).logits[0] for prompt in prompts])
