# SPDX-License-Identifier: Apache-2.0
"""A mistake in an argument is a `RequestError` that names the argument, and what to write where that is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runner.templates import CHATML
from runner.tiny_tokenizers import byte_level

from atb_core import ModelRunner
from atb_core.checkpoint import TokenizerParts
from atb_core.errors import RequestError, TokenizerError
from atb_core.features.step import Step
from atb_core.runner.arguments import check_call
from atb_core.runner.model_loading import open_tokenizer
from atb_core.runner.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name_or_path": None}, "model_name_or_path must be a name or a path, not None"),
        ({"model_name_or_path": 7.5}, "model_name_or_path must be a name or a path, not 7.5"),
        ({"model_name_or_path": b"models"}, "model_name_or_path must be a name or a path"),
        ({"model_name_or_path": " "}, "model_name_or_path is empty"),
        ({"device_map": "auto"}, "ModelRunner has no argument 'device_map'. backend='cpu'"),
        ({"num_thread": 2}, "no argument 'num_thread'. Did you mean num_threads?"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be a positive integer"),
        ({"tensor_parallel_size": None}, "tensor_parallel_size must be a positive integer, not None"),
        ({"max_loras": None}, "max_loras must be a positive integer, not None"),
        ({"colour": 2}, "no argument 'colour'. help(ModelRunner)"),
        ({"tokenizer": 3}, "tokenizer must be a path"),
        ({"chat_template": ["x"]}, "chat_template must be a path"),
        ({"generation_config": None}, "generation_config must be a name or a path"),
        ({"load_tokenizer": "no"}, "load_tokenizer must be True or False"),
        ({"features": None}, "features must be a list of names"),
        ({"features": b"lora"}, "features must be a list of names"),
        ({"features": [1]}, "features must be a list of names"),
        ({"world_size": "two"}, "world_size must be an integer"),
        ({"progress": print}, "progress must have start, advance and finish"),
        ({"num_threads": 2**31}, "num_threads must be at most"),
        ({"num_blocks": 10**30}, "num_blocks must be at most"),
        ({"kv_cache_memory_bytes": 2**63}, "kv_cache_memory_bytes must be at most"),
        ({"block_size": True}, "block_size must be a positive integer, not True"),
        ({"max_num_seqs": 2.0}, "max_num_seqs must be a positive integer, not 2.0"),
    ],
    ids=str,
)
def test_opening_a_model_with_a_wrong_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        ModelRunner(**{"model_name_or_path": "missing", **arguments})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_tokens", "chat has no argument 'max_tokens'. Pass sampling_params=SamplingParams(max_tokens=...)."),
        ("max_new_tokens", "SamplingParams(max_tokens=...)"),
        ("colour", "help(ModelRunner.chat) lists all."),
    ],
)
def test_a_keyword_of_the_parameters_is_shown_where_it_goes(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        check_call("chat", {name: 1})
    with pytest.raises(RequestError, match="stream must be True or False, not 1"):
        check_call("chat", {}, stream=1)  # type: ignore[arg-type]


def good_step() -> dict[str, Any]:
    """The fields of the prefill of three tokens in one block."""
    return {
        "input_ids": torch.tensor([4, 5, 6]),
        "position_ids": torch.arange(3),
        "is_prefill": True,
        "kv_cache": [(torch.zeros(1, 4, 1, 2), torch.zeros(1, 4, 1, 2))],
        "block_tables": torch.zeros(1, 1, dtype=torch.int32),
        "slots": torch.arange(3, dtype=torch.int32),
        "input_lengths": torch.tensor([3], dtype=torch.int32),
        "max_seq_len": 3,
        "lm_head_indices": torch.tensor([2]),
        "adapter_ids": [None],
    }


def test_a_step_of_the_right_kinds_is_accepted() -> None:
    Step(**good_step()).checked()


_NO_TENSORS = (7, "x", [1, 2], np.zeros(3), torch.tensor(1.5), torch.tensor(1), torch.zeros(3, dtype=torch.bool))
_WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("slots", "input_lengths", "block_tables", "lm_head_indices"), _NO_TENSORS),
    **dict.fromkeys(("input_ids", "position_ids"), (None, *_NO_TENSORS, torch.zeros(3, device="meta").long())),
    "is_prefill": (None, 1, torch.tensor(True)),
    "max_seq_len": ("3", 3.0, torch.tensor(3)),
    "adapter_ids": ("lora", 3, torch.zeros(1)),
}


@pytest.mark.parametrize("name", _WRONG)
def test_a_step_with_an_argument_of_a_wrong_kind_names_it(name: str) -> None:
    for value in _WRONG[name]:
        with pytest.raises(RequestError, match=rf"^{name} (must|has) "):
            Step(**{**good_step(), name: value}).checked()


def test_a_template_of_ones_own_must_be_a_file(tmp_path: Path) -> None:
    class Router:
        tokenizer = Tokenizer(TokenizerParts(byte_level(), chat_templates={"default": CHATML}))
        input_builder = None

    template = tmp_path / "own.jinja"
    template.write_text("{% for m in messages %}<{{ m.content }}>{% endfor %}\r\n", encoding="utf-8")
    own = open_tokenizer(Router, None, None, template)  # type: ignore[arg-type]
    assert own.apply_chat_template([{"role": "user", "content": "hi"}]) == "<hi>"
    assert Router.tokenizer.chat_templates != own.chat_templates
    with pytest.raises(TokenizerError, match=r"chat_template: there is no file .*missing"):
        open_tokenizer(Router, None, None, tmp_path / "missing")  # type: ignore[arg-type]
