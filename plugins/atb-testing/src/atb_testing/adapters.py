# SPDX-License-Identifier: Apache-2.0
"""Random adapters for every linear layer of a model, and the same model with their products in its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from atb_core.checkpoint import SilentProgress, open_weights
from atb_core.graph.arrays import Array, HostArray, to_torch
from atb_testing.driver import build_model

_RANK, _ALPHA = 4, 8


class _Merged:
    """A loader of weights to some of which products are added."""

    def __init__(self, loader: Any, products: Mapping[str, torch.Tensor]) -> None:
        self._loader, self._products = loader, products

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def get(self, name: str) -> Array:
        """Returns a tensor with its product added."""
        array: Array = self._loader.get(name)
        product = self._products.get(name)
        return array if product is None else (to_torch(array).float() + product).to(to_torch(array).dtype)

    def read_into(self, name: str, out: HostArray) -> None:
        """Reads a tensor into an array, with its product added."""
        self._loader.read_into(name, out)
        if name in self._products:
            out[...] = (to_torch(out).float() + self._products[name]).to(to_torch(out).dtype).float().numpy()


def write_random_adapter(model: Any, directory: Path) -> dict[str, torch.Tensor]:
    """Writes an adapter for all linear layers of a model in PEFT's form.

    Returns:
        The product that merging it adds to each weight, by the weight's name in the checkpoint.
    """
    generator = torch.Generator().manual_seed(5)
    tensors, products = {}, {}
    for target in model.lora.targets:
        for prefix, rows in zip(target.linear.prefixes, target.sizes, strict=True):
            a = torch.randn(_RANK, target.k, generator=generator) / target.k**0.5
            b = torch.randn(rows, _RANK, generator=generator) * 0.2
            tensors[f"base_model.model.{prefix}.lora_A.weight"] = a
            tensors[f"base_model.model.{prefix}.lora_B.weight"] = b
            products[f"{prefix}.weight"] = _ALPHA / _RANK * b @ a
        if len(target.linear.prefixes) > 1:
            whole = torch.cat([products[f"{prefix}.weight"] for prefix in target.linear.prefixes])
            products |= dict.fromkeys(target.linear.weight.aliases, whole)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": _RANK, "lora_alpha": _ALPHA, "target_modules": "all-linear"}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return products


def open_merged(checkpoint: Path, products: Mapping[str, torch.Tensor], backend: Any) -> Any:
    """Loads a checkpoint with products added to its weights."""
    with open_weights(checkpoint) as loader:
        model = build_model(checkpoint, loader, backend)
        model.load_weights(_Merged(loader, products), SilentProgress())
    return model
