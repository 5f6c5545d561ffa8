# SPDX-License-Identifier: Apache-2.0
"""A tiny Qwen2 checkpoint, adapters that PEFT writes for it, and PEFT's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

SIZES = {
    "vocab_size": 199, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
#: What each adapter is made with; together they have all that decides about ranks, scales, targets and biases.
ADAPTERS: dict[str, dict[str, Any]] = {
    "qv": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "patterns": {
        "r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": "all-linear",
        "rank_pattern": {"up_proj": 16, r"layers\.\d+\.self_attn\.o_proj": 3},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3, "down_proj": 1},
    },
    "biases": {
        "r": 5, "target_modules": ["o_proj", "k_proj", "down_proj"], "bias": "all", "layers_to_transform": [1],
    },
    "pattern": {"r": 6, "target_modules": r".*\.0\..*\.(o|k|gate)_proj", "bias": "lora_only", "lora_dropout": 0.1},
}  # fmt: skip


def write_base(directory: Path) -> Path:
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)).float().save_pretrained(directory)
    return directory


def write_adapter(base: Path, directory: Path, seed: int = 0, **settings: Any) -> Any:
    """Writes an adapter with random matrices and biases; returns PEFT's model."""
    model = transformers.Qwen2ForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if tensor.requires_grad:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.2 if "lora_" in name else 0.5))
    adapted.save_pretrained(directory)
    return adapted


def change_settings(directory: Path, **changes: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@torch.no_grad()
def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    out = model.generate(**given, max_new_tokens=count, min_new_tokens=count, do_sample=False)
    return list(out[0, len(prompt) :].tolist())
