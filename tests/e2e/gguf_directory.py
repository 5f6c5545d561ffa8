# SPDX-License-Identifier: Apache-2.0
"""Writes the model of a GGUF file as a directory that transformers can read."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from atb_core.checkpoint import TokenizerParts, open_checkpoint
from atb_core.graph.arrays import to_torch
from atb_core.models.base.router import router_of


def write_directory(gguf: Path, target: Path) -> Path:
    """Writes config, dequantized safetensors and tokenizer into the directory `target`, and returns it."""
    target.mkdir()
    checkpoint = open_checkpoint(gguf)
    _write_json(target / "config.json", router_of(checkpoint).config_dict)
    with checkpoint.weights() as loader:
        tensors = {name: to_torch(loader.get(name)) for name in loader.names()}
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(checkpoint.tokenizer_parts(), target)
    return target


def _write_tokenizer(parts: TokenizerParts, directory: Path) -> None:
    rebuilt = Tokenizer.from_str(parts.backend.to_str())
    if parts.bos_id is not None:
        bos = parts.special_tokens["bos_token"]
        rebuilt.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, parts.bos_id)]
        )
    rebuilt.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "chat_template": parts.chat_templates.get("default"),
            **parts.special_tokens,
        },
    )
    _write_json(directory / "generation_config.json", {"eos_token_id": sorted(parts.eos_token_ids)})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
