# SPDX-License-Identifier: Apache-2.0
"""Writes tiny random checkpoints with Hugging Face's implementation of an architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from atb_core.errors import ConfigError
from atb_testing.cases import ACTIVE, BOUNDARIES
from atb_testing.routing import separate_routes

_TINY: dict[str, Any] = {
    "vocab_size": 203,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def tiny_checkpoint(
    directory: Path, model_type: str, dtype: torch.dtype = torch.float32, shards: int = 1, seed: int = 0, **config: Any
) -> Path:
    """Writes a random model of `model_type` into `directory` and returns it.

    Every tensor is random, biases and norms included, at a scale that keeps activations of order one, so that an
    ignored bias or a wrong norm changes the logits. `config` overrides fields of the Hugging Face configuration. What
    its class turns on, such as a sliding window or a multiplier, gets a value that changes the logits too.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(_settings(model_type, config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_random(name, parameter, generator))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, buffer in model.state_dict().items():
            if name not in parameters and buffer.is_floating_point():
                # Small enough to leave the choice of experts, which such a bias is for, as clear as it is.
                buffer.copy_(0.05 * torch.randn(buffer.shape, generator=generator))
        separate_routes(model)
    model = model.to(dtype)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(directory, max_shard_size=-(-size // shards) if shards > 1 else 10 * size)
    return directory


def _settings(model_type: str, config: dict[str, Any]) -> Any:
    """Returns Hugging Face's configuration of a tiny model."""
    from transformers import AutoConfig

    config = {**_TINY, **config}
    try:
        usual = AutoConfig.for_model(model_type)
    except ValueError:  # it lists the five hundred types that there are
        raise ConfigError(
            f"the installed transformers has no model of type {model_type!r} to compare with",
            hint="Upgrade it (pip install --upgrade transformers), or register your own implementation in the tests' "
            "conftest.py: AutoConfig.register and AutoModelForCausalLM.register.",
        ) from None
    active = {name: value for name, value in ACTIVE.items() if getattr(usual, name, None) not in (None, False)}
    if kinds := list(dict.fromkeys(getattr(usual, "layer_types", None) or [])):
        layers = config["num_hidden_layers"]
        if len(kinds) > 1:
            active["layer_types"] = (kinds * layers)[:layers]
    if (getattr(usual, "pad_token_id", None) or 0) >= config["vocab_size"]:
        # Hugging Face refuses to embed with a padding token beyond the vocabulary.
        active["pad_token_id"] = None
    return AutoConfig.for_model(model_type, **installed_spelling({**active, **config}))


def boundaries(directory: Path) -> list[int]:
    """Returns the lengths at which a checkpoint's computation changes: windows, chunks, contexts of the training."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config.get("use_sliding_window") is False:
        config.pop("sliding_window", None)
    parts = [config]
    for part in parts:
        parts += [value for value in part.values() if isinstance(value, dict)]
        if part.get("rope_type") == "dynamic":
            part["original_max_position_embeddings"] = config.get("max_position_embeddings")
    return sorted({part[name] for part in parts for name in BOUNDARIES if type(part.get(name)) is int})


def installed_spelling(config: dict[str, Any]) -> dict[str, Any]:
    """Returns `config` with rotary settings where the installed transformers reads them (`rope_scaling` before 5.0)."""
    if _major_version() >= 5 or "rope_parameters" not in config:
        return config
    config = dict(config)
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta", 10000.0)
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    return config


def _random(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(like.shape, generator=generator)
    if like.dim() >= 2:
        return noise if "embed" in name else noise / like.shape[-1] ** 0.5
    return 1 + 0.2 * noise if "norm" in name else 0.3 * noise


def load_reference(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Loads Hugging Face's model of a checkpoint in `dtype`, with plain attention and plain experts."""
    from transformers import AutoModelForCausalLM

    # Its default kernels for experts refuse sizes that are no multiple of 16 bytes.
    plain = {"experts_implementation": "eager"} if _major_version() >= 5 else {}
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="eager", **plain)
    return model.eval()


def _major_version() -> int:
    import transformers

    return int(transformers.__version__.split(".")[0])
