# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: finding them, opening them, reading tensors by slices, writing them."""

from __future__ import annotations

from pathlib import Path

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.foreign import find_format, format_names, open_foreign
from atb_core.checkpoint.gguf.rules import GgufRules
from atb_core.checkpoint.progress import BarProgress, Progress, SilentProgress, default_progress
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_core.graph.dtype import DataType

__all__ = [
    "BarProgress",
    "GgufRules",
    "Progress",
    "SilentProgress",
    "WeightLoader",
    "default_progress",
    "open_weights",
]

_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def open_weights(path: Path, gguf_rules: GgufRules | None = None, dtype: DataType | None = None) -> WeightLoader:
    """Open the checkpoint at `path` and check its structure.

    Args:
        path: a directory with safetensors (one file, or shards with an index), a .safetensors or a .gguf file; or
            what the weight format of a plugin claims.
        gguf_rules: what the family's GGUF files store otherwise than Hugging Face; ignored for safetensors.
        dtype: element type in which a GGUF file's tensors are delivered (default: `gguf_dtype` of the file).
            Safetensors are delivered as stored.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        WeightsError: the checkpoint is damaged, incomplete or of a kind that is not supported.
    """
    path = Path(path)
    foreign = find_format(path)
    if foreign is not None:
        return open_foreign(foreign, path)
    if path.is_dir():
        from atb_core.checkpoint.safetensors.loader import open_safetensors_directory

        return open_safetensors_directory(path)
    if path.suffix == ".gguf":
        from atb_core.checkpoint.gguf.loader import GgufLoader

        return GgufLoader(path, gguf_rules or GgufRules(), dtype)
    if path.suffix == ".safetensors":
        from atb_core.checkpoint.safetensors.loader import SafetensorsLoader

        return SafetensorsLoader(path, [path])
    if not path.exists():
        raise ModelNotFoundError(f"{path} does not exist", "Check the path.")
    if path.suffix in _PICKLE_SUFFIXES:
        raise WeightsError(
            f"{path} is a pickle file, which can run code when it is loaded and is never opened here",
            "Convert it to safetensors first.",
        )
    raise WeightsError(
        f"{path} is not a checkpoint that can be opened",
        f"Known are model directories with .safetensors files, .gguf files{format_names()}.",
    )
