# SPDX-License-Identifier: Apache-2.0
"""A `ModelRunner` on the fake model."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runner.fake_model import VOCAB, FakeModel
from runner.templates import CHATML
from runner.tiny_tokenizers import byte_level

from atb_core import ModelRunner
from atb_core.checkpoint import TokenizerParts
from atb_core.engine import get_backend
from atb_core.features.step import Step
from atb_core.graph.arrays import Array, to_torch
from atb_core.graph.dtype import DataType
from atb_core.layers.attention.kv_cache_spec import KVCacheSpec
from atb_core.models.base.config import BaseConfig
from atb_core.nn.distributed.mapping import Mapping
from atb_core.runner.tokenizer import Tokenizer

TOKENIZER = Tokenizer(TokenizerParts(byte_level(), frozenset(), chat_templates={"default": CHATML}))
CONTEXT = 64
GENERATION_CONFIG: dict[str, Any] = {"max_new_tokens": 7, "repetition_penalty": 1.0}


class FamilyModel:
    """A FakeModel where the runner expects a family's."""

    dtype = DataType.FLOAT
    kv_cache_specs = (KVCacheSpec.of_heads(1, 2, DataType.FLOAT),)
    model_status = types.SimpleNamespace(num_layers=1, num_heads=2, num_kv_heads=1, head_dim=2)
    backend = get_backend("reference")
    mindie_llm_config = types.SimpleNamespace(mapping=Mapping())
    mapped_bytes = 0

    def __init__(self, mixes: bool) -> None:
        self.mixes = mixes
        self.fake = FakeModel(1, 1)

    def mixed_steps_problem(self, block_size: int) -> str | None:
        return None if self.mixes else "it is a fake without them"

    slices_steps = False

    def run_step(self, step: Step) -> Array:
        self.fake.keys, self.fake.values = map(to_torch, step.kv_cache[0])
        return self.fake.forward(step)


def fake_runners(monkeypatch: pytest.MonkeyPatch, mixes: bool = True) -> Callable[..., ModelRunner]:
    """Returns a function that opens a runner whose checkpoint and model are these."""
    config = BaseConfig(
        model_type="fake",
        vocab_size=VOCAB,
        hidden_size=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=1,
        max_position_embeddings=CONTEXT,
        eos_token_id=[VOCAB - 1],
    )
    router = types.SimpleNamespace(
        config=config, config_dict={}, generation_config=GENERATION_CONFIG, tokenizer=TOKENIZER, input_builder=None
    )
    checkpoint = types.SimpleNamespace(path=Path("fake"))
    monkeypatch.setattr("atb_core.runner.model_runner.open_checkpoint", lambda *args: checkpoint)
    monkeypatch.setattr("atb_core.runner.model_runner.router_of", lambda checkpoint: router)
    monkeypatch.setattr("atb_core.runner.model_runner.load_model", lambda *args, **kwargs: FamilyModel(mixes))

    def open_it(**options: Any) -> ModelRunner:
        return ModelRunner("fake", **{"block_size": 4, "max_num_seqs": 4, **options})

    return open_it
