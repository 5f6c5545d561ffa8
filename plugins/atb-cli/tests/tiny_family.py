# SPDX-License-Identifier: Apache-2.0
"""A family for the tests of the command line: the common decoder under a model type of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.modeling_python import DecoderModel
from atb_core.models.base.router import BaseRouter
from atb_core.nn.functional import gather

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LAYER_SHAPES = {
    "input_layernorm": (32,),
    "self_attn.q_proj": (32, 32),
    "self_attn.k_proj": (16, 32),
    "self_attn.v_proj": (16, 32),
    "self_attn.o_proj": (32, 32),
    "post_attention_layernorm": (32,),
    "mlp.gate_proj": (48, 32),
    "mlp.up_proj": (48, 32),
    "mlp.down_proj": (32, 48),
}


@dataclass
class TinyConfig(BaseConfig):
    model_type: str = "tiny"


class TinyRouter(BaseRouter):
    pass


@torch_to_mindie_graph()
class FlashTinyForCausalLMV3(FlashCausalLMV3):
    def __init__(self, mindie_llm_config: Any, weight_loader: Any, **kwargs: Any) -> None:
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        config = mindie_llm_config.hf_config
        self.model = DecoderModel(config, weight_loader, prefix="model")
        self.lm_head = ColumnParallelLinear(
            config, weight_loader, "lm_head", in_features=config.hidden_size, out_features=config.vocab_size
        )

    def forward(self, **kwargs: Any) -> Mapping[str, Any]:
        hidden = self.model(**kwargs)
        if kwargs["lm_head_indices"] is not None:
            hidden = gather(hidden, 0, kwargs["lm_head_indices"])
        return {"model_out": self.lm_head(hidden)}


def weights(vocab: int = SIZES["vocab_size"]) -> dict[str, torch.Tensor]:
    """The tensors of a tiny model in float32."""
    shapes = {"model.embed_tokens": (vocab, 32), "model.norm": (32,), "lm_head": (vocab, 32)}
    for layer in range(SIZES["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in LAYER_SHAPES.items()}
    return {f"{name}.weight": torch.randn(shape) * 0.1 for name, shape in shapes.items()}


def write_checkpoint(directory: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """Writes a model directory without a tokenizer."""
    directory.mkdir()
    full = {"model_type": "tiny", "architectures": ["TinyForCausalLM"], "torch_dtype": "float32", **SIZES}
    (directory / "config.json").write_text(json.dumps({**full, **config}), encoding="utf-8")
    save_file(tensors, directory / "model.safetensors")
    return directory


def install(site: Path) -> None:
    """Writes what pip does when it installs the family into the folder `site`."""
    info = site / "atb_tiny-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: atb-tiny\nVersion: 1.2.3\nSummary: Tiny models\n", encoding="utf-8")
    classes = {"routers": "TinyRouter", "configs": "TinyConfig", "models": "FlashTinyForCausalLMV3"}
    entries = [f"[atb_core.{group}]\ntiny = tiny_family:{name}\n" for group, name in classes.items()]
    (info / "entry_points.txt").write_text("\n".join(entries), encoding="utf-8")
