# SPDX-License-Identifier: Apache-2.0
"""A decoder of two small layers as `ModelTorch`, its weights and the inputs of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from atb_core import ModelTorch

#: The repository: the tests of atb-cpp-models also run from a copy outside of it.
ROOT = Path(__file__).resolve().parents[1]
HEADS, KV_HEADS, HEAD, HIDDEN, INNER, VOCAB = 4, 2, 16, 32, 48, 64
PARAMETERS: dict[str, Any] = {
    "isPrefill": True, "torchDtype": "float16", "normEps": 1e-6, "numHiddenLayers": 2,
    "numAttentionHeadsPerRank": HEADS, "numKeyValueHeadsPerRank": KV_HEADS, "hiddenSizePerAttentionHead": HEAD,
}  # fmt: skip
SHAPES = {
    "embed_tokens": (VOCAB, HIDDEN), "lm_head": (VOCAB, HIDDEN), "qkv.weight": ((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN),
    "dense.weight": (HIDDEN, HEADS * HEAD), "gate_up.weight": (2 * INNER, HIDDEN), "down.weight": (HIDDEN, INNER),
}  # fmt: skip


def weights(names: list[str]) -> list[torch.Tensor]:
    last = [".".join(name.split(".")[-2:]) if "." in name else name for name in names]
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(SHAPES.get(name, (HIDDEN,)), generator=generator).mul(0.2).half() for name in last]


def model_torch(backend: str = "atb-sim", **changes: Any) -> ModelTorch:
    model = ModelTorch("core_DecoderModel", backend=backend)
    model.set_param({**PARAMETERS, **changes})
    model.set_weight(weights(model.weight_names))
    caches = [model.backend.allocate((1, 16, KV_HEADS, HEAD), torch.float16) for _ in range(4)]
    model.set_kv_cache(caches[:2], caches[2:])
    return model


def prefill_inputs(lengths: tuple[int, ...] = (2, 3)) -> dict[str, torch.Tensor]:
    count = sum(lengths)
    angles = torch.arange(8.0)[:, None] * torch.logspace(0, -2, HEAD // 2).repeat(2)
    return {
        "input_ids": torch.arange(count), "position_ids": torch.cat([torch.arange(n) for n in lengths]),
        "cosine_table": angles.cos().half(), "sine_table": angles.sin().half(),
        "attention_mask": torch.full((128, 128), -torch.inf, dtype=torch.float16).triu(1),
        "slots_mapping": torch.arange(count, dtype=torch.int32), "seq_len": torch.tensor(lengths, dtype=torch.int32),
        "lm_head_indices": torch.arange(count),
    }  # fmt: skip


def execute(model: ModelTorch, inputs: dict[str, torch.Tensor], param: str = "{}") -> torch.Tensor:
    return model.execute([inputs.get(name) for name in model.input_names], param)[0]
