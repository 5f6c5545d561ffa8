# SPDX-License-Identifier: Apache-2.0
"""Routers: everything lazy, everything overridable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_model import SMALL

from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.errors import ConfigError, RequestError, TokenizerError, UnknownModelError
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.router import BaseRouter, router_of
from atb_core.nn.distributed.mapping import Mapping


@dataclass
class Router(BaseRouter):
    def get_config(self) -> BaseConfig:
        config = BaseConfig.from_dict(self.config_dict)
        self.check_config(config)
        return config


def test_nothing_is_made_before_it_is_asked_for_and_then_kept() -> None:
    router = Router("somewhere", {"hidden_size": -1})
    with pytest.raises(ConfigError, match="hidden_size = -1"):
        _ = router.config
    good = Router("somewhere", {**SMALL, "model_type": "small"})
    assert good.config is good.config
    assert good.model_type == "small"


def test_a_type_that_no_package_serves_is_reported_when_its_class_is_needed() -> None:
    router = BaseRouter("somewhere", {**SMALL, "model_type": "nobody_serves_this"})
    with pytest.raises(UnknownModelError, match="nobody_serves_this"):
        _ = router.model_cls
    with pytest.raises(UnknownModelError, match="nobody_serves_this"):
        _ = router.config


@pytest.mark.parametrize("config_dict", [{}, {"model_type": None}, {"model_type": 5}, {"model_type": ""}])
def test_a_configuration_without_a_model_type_is_refused(config_dict: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="names no model_type"):
        _ = BaseRouter("somewhere", config_dict).model_type


def test_generation_settings_come_from_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = DirectoryCheckpoint(tmp_path)
    assert Router().generation_config == {}
    assert Router(checkpoint=checkpoint).generation_config == {}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert Router(checkpoint=checkpoint).generation_config == {"eos_token_id": [1, 2]}


class HuggingFaceTokenizer:
    """The methods of a transformers tokenizer that have the names of ours."""

    def encode(self) -> None: ...

    def decode(self) -> None: ...

    def apply_chat_template(self) -> None: ...


def test_a_tokenizer_that_the_runner_cannot_use_is_refused_with_what_it_lacks() -> None:
    class TransformersRouter(Router):
        def get_tokenizer(self) -> object:
            return HuggingFaceTokenizer()

    assert Router().tokenizer is None
    with pytest.raises(TokenizerError) as error:
        _ = TransformersRouter().tokenizer
    assert "TransformersRouter.get_tokenizer returns a HuggingFaceTokenizer" in str(error.value)
    assert "has no text_decoder, check_chat_template_kwargs, eos_token_ids" in str(error.value)
    assert "Do not override get_tokenizer" in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_damaged_generation_settings_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"generation_config\.json"):
        _ = Router(checkpoint=DirectoryCheckpoint(tmp_path)).generation_config


def test_more_than_one_process_is_refused_for_now() -> None:
    assert Mapping().world_size == 1
    with pytest.raises(RequestError, match="world_size = 2: a process group is no argument here"):
        Mapping(world_size=2)
    with pytest.raises(RequestError, match="rank = 1 does not exist"):
        Mapping(rank=1)


@pytest.mark.parametrize(
    ("named", "stored", "expected"),
    [
        ({}, torch.bfloat16, "bfloat16"),
        ({"torch_dtype": None}, torch.float16, "float16"),
        ({"torch_dtype": "float32"}, torch.bfloat16, "float32"),
        ({"dtype": "float16", "torch_dtype": "bfloat16"}, torch.bfloat16, "float16"),
        ({}, None, "float32"),
    ],
)
def test_the_element_type_is_the_one_that_is_named_else_that_of_the_weights(
    tmp_path: Path, named: dict[str, object], stored: torch.dtype | None, expected: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "model_type": "llama", **named}))
    if stored is not None:
        # A norm of another type is not the commonest.
        tensors = {"a": torch.ones(2, 2, dtype=stored), "b": torch.ones(2, dtype=stored), "norm": torch.ones(2)}
        save_file(tensors, tmp_path / "model.safetensors")
    assert router_of(DirectoryCheckpoint(tmp_path)).config.torch_dtype == expected
