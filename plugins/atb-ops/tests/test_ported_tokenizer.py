# SPDX-License-Identifier: Apache-2.0
"""Tokenizers that a router written for ATB-Models loads run within the limits of others, and so do templates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from runner.templates import CHATML
from runner.tiny_tokenizers import byte_level
from transformers import PreTrainedTokenizerFast

from atb_core.checkpoint.guarded_tokenizer import GuardedTokenizer
from atb_core.errors import RequestError, TokenizerError
from atb_ops.input_builder import InputBuilder
from atb_ops.ported_tokenizer import PortedTokenizer
from atb_ops.tokenizers import safe_get_tokenizer_from_pretrained

CHAT: list[dict[str, Any]] = [{"role": "user", "content": "hi <|im_end|>"}]
ENDLESS = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"


def fast(template: str | None, backend: tokenizers.Tokenizer | None = None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend or byte_level(), chat_template=template)


def directory(path: Path, tokenizer: tokenizers.Tokenizer, **config: Any) -> Path:
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return path


def unusual() -> tokenizers.Tokenizer:
    """A tokenizer with an expression that is not known to take time in proportion to a text."""
    tokenizer = byte_level()
    tokenizer.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex("q(?=z)"), "k")
    return tokenizer


class Asking(InputBuilder):
    """An input builder that passes further arguments on, as those of ATB-Models do."""

    further: dict[str, Any]

    def _apply_chat_template(self, conversation: Any, tools_msg: Any = None, **kwargs: Any) -> Any:
        kwargs.pop("chat_template_kwargs")
        return self.tokenizer.apply_chat_template(conversation, **kwargs, **self.further)


def asking(**further: Any) -> PortedTokenizer:
    tokenizer = fast(CHATML)
    builder = Asking(tokenizer)
    builder.further = further
    return PortedTokenizer(tokenizer, builder)


def test_with_an_input_builder_it_can_render_chats() -> None:
    assert not PortedTokenizer(fast(None), None).has_chat_template
    assert PortedTokenizer(fast(None), InputBuilder(fast(None))).has_chat_template


@pytest.mark.parametrize(
    "further", [{}, {"return_dict": False}, {"truncation": True, "max_length": None}, {"chat_template": CHATML + "x"}]
)
def test_an_input_builder_gets_the_tokens_of_transformers(further: dict[str, Any]) -> None:
    expected = fast(CHATML).apply_chat_template(CHAT, add_generation_prompt=True, **{**further, "return_dict": False})
    assert asking(**further).encode_chat(CHAT) == (None, expected)


@pytest.mark.parametrize("name", ["max_length", "padding", "continue_final_message"])
def test_what_would_change_the_prompt_otherwise_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=name):
        asking(**{name: 7}).encode_chat(CHAT)


@pytest.mark.parametrize("with_builder", [False, True])
def test_a_template_without_end_is_ended(with_builder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.runner.chat_template._TIME_LIMIT", 0.05)
    tokenizer = fast(ENDLESS)
    ported = PortedTokenizer(tokenizer, InputBuilder(tokenizer) if with_builder else None)
    with pytest.raises(TokenizerError, match="takes more than"):
        ported.encode_chat(CHAT)


def test_parts_that_may_take_any_time_run_in_a_process_with_limits() -> None:
    ported = PortedTokenizer(fast(None, unusual()), None)
    assert isinstance(ported.backend, GuardedTokenizer)
    assert ported.encode("qz") == byte_level().encode("kz").ids
    assert not isinstance(PortedTokenizer(fast(None), None).backend, GuardedTokenizer)


def test_only_a_tokenizer_of_known_parts_is_loaded_for_a_router(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="any amount of time or memory"):
        safe_get_tokenizer_from_pretrained(str(directory(tmp_path, unusual())))


def test_no_other_file_takes_the_place_of_the_one_that_was_checked(tmp_path: Path) -> None:
    unusual().save(str(tmp_path / "tokenizer.4.0.0.json"))
    files = ["tokenizer.json", "tokenizer.4.0.0.json"]
    tokenizer = safe_get_tokenizer_from_pretrained(str(directory(tmp_path, byte_level(), fast_tokenizer_files=files)))
    assert tokenizer.encode("qz") == byte_level().encode("qz").ids


def test_names_of_tokens_and_options_are_kept(tmp_path: Path) -> None:
    names = {"eos_token": "<|im_end|>", "pad_token": "the", "image_token": "quick"}
    path = directory(tmp_path, byte_level(), chat_template=CHATML, extra_special_tokens={"image_token": "quick"}, **{
        name: names[name] for name in ("eos_token", "pad_token")
    })  # fmt: skip
    tokenizer = safe_get_tokenizer_from_pretrained(str(path), padding_side="left", use_fast=True, revision=None)
    assert {name: getattr(tokenizer, name) for name in names} == names
    assert (tokenizer.padding_side, tokenizer.chat_template) == ("left", CHATML)
