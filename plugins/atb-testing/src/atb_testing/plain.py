# SPDX-License-Identifier: Apache-2.0
"""The values of a quantised checkpoint as a plain one, which transformers reads without the tools that quantised it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from atb_core.checkpoint import WeightLoader, open_checkpoint, open_weights
from atb_core.errors import ConfigError
from atb_core.graph.arrays import to_torch
from atb_core.models.base.router import router_of

_FILE_BYTES = 2 << 30


@contextmanager
def plain_weights(directory: Path) -> Iterator[tuple[Path, str | None]]:
    """Gives a directory with the values of a checkpoint and the scheme that it is quantised by.

    That is the checkpoint itself, and `None`, if it is not quantised; else a temporary directory.

    Raises:
        ConfigError: transformers' model has no place for a tensor, such as a bias against outliers.
    """
    dtype = router_of(open_checkpoint(str(directory))).config.data_type
    with open_weights(directory, dtype=dtype) as loader:
        if loader.quantization is None:
            yield directory, None
            return
        with tempfile.TemporaryDirectory(prefix="atb-verify-") as name:
            _write(directory, loader, Path(name))
            yield Path(name), loader.quantization


def _write(directory: Path, loader: WeightLoader, target: Path) -> None:
    from safetensors.torch import save_file

    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    for key in ("quantization_config", "quantize"):
        config.pop(key, None)
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    known = _known_names(target)
    held: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}

    def flush() -> None:
        file = f"model-{len(set(places.values()))}.safetensors"
        save_file(held, target / file)
        places.update(dict.fromkeys(held, file))
        held.clear()

    for name in loader.names():
        tensor = to_torch(loader.get(name))
        if name.endswith(".bias") and name not in known:
            if bool(tensor.any()):
                raise ConfigError(
                    f"{loader.source} adds {name}, which transformers' model has no place for: it cannot be compared",
                    hint="Compare the checkpoint that it was made from, and both by benchmarks/quality.py.",
                )
            continue
        held[name] = tensor.clone()
        if sum(each.nbytes for each in held.values()) > _FILE_BYTES:
            flush()
    if held:
        flush()
    index = {"metadata": {}, "weight_map": places}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _known_names(directory: Path) -> set[str]:
    """Returns the names of the tensors of transformers' model of a configuration, which takes no memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        return set(AutoModelForCausalLM.from_config(config).state_dict())
