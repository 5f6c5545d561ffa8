# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the model type `toy`, which `hook_plugins.install_family` serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_model import SMALL, SmallForCausalLM, random_tensors, small_config

CONFIG: dict[str, Any] = {**SMALL, "model_type": "toy", "torch_dtype": "float32"}


def tensors() -> dict[str, torch.Tensor]:
    """Random weights, the same each time."""
    return random_tensors(SmallForCausalLM(small_config(), None))


def write_model(directory: Path) -> Path:
    """A model directory without a tokenizer."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file(tensors(), directory / "model.safetensors")
    return directory
