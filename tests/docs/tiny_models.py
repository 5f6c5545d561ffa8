# SPDX-License-Identifier: Apache-2.0
"""Tiny random models in the place of those that a page names: everything runs, and the answers are noise."""

from __future__ import annotations

import json
from pathlib import Path

from runner.tiny_tokenizers import byte_level

from atb_testing import tiny_checkpoint

_TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


def write_model(folder: Path, model_type: str) -> None:
    """Writes a model of `model_type` with a tokenizer of bytes and a chat template with tools and thinking."""
    tokenizer = byte_level()
    tiny_checkpoint(folder, model_type, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=1024)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"chat_template": _TEMPLATE, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
