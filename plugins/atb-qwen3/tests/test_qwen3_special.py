# SPDX-License-Identifier: Apache-2.0
"""Tests the specialties of Qwen3: a norm of every head, layers with and without experts, and a switch for thinking."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from atb_core import ModelRunner
from atb_core.errors import ConfigError, RequestError
from atb_core.models.runtime.weight_loading import collect_parameters
from atb_qwen3.config import Qwen3Config, Qwen3MoeConfig
from atb_testing import open_model, tiny_checkpoint

pytest.importorskip("transformers")

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# What Qwen3's templates do with thoughts, in the fewest words.
TEMPLATE = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
CHAT = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\n2"},
    {"role": "user", "content": "sure?"},
]


def parameter_names(directory: Path, suffix: str) -> set[str]:
    return {p.name for p in collect_parameters([open_model(directory)]) if p.name.endswith(suffix)}


def with_tokenizer(directory: Path, template: str = TEMPLATE) -> Path:
    """Puts a byte-level tokenizer with a chat template beside a checkpoint."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def test_every_head_of_queries_and_keys_is_normed(tmp_path: Path) -> None:
    model = open_model(tiny_checkpoint(tmp_path, "qwen3", num_hidden_layers=1, head_dim=32))
    norms = {p.name: p.declared_shape for p in collect_parameters([model]) if "_norm." in p.name}
    prefix = "model.layers.0.self_attn"
    assert norms == {f"{prefix}.q_norm.weight": (32,), f"{prefix}.k_norm.weight": (32,)}


@pytest.mark.parametrize("bias", [False, True])
def test_all_four_matrices_of_attention_have_a_bias_or_none(tmp_path: Path, bias: bool) -> None:
    tiny_checkpoint(tmp_path, "qwen3", num_hidden_layers=1, head_dim=16, attention_bias=bias)
    expected = {"model.layers.0.self_attn.q_proj_k_proj_v_proj.bias", "model.layers.0.self_attn.o_proj.bias"}
    assert parameter_names(tmp_path, ".bias") == (expected if bias else set())


def test_layers_with_experts_and_dense_ones(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen3_moe", **EXPERTS, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[1])
    assert parameter_names(tmp_path, ".experts.gate_up_proj") == {"model.layers.3.mlp.experts.gate_up_proj"}
    dense = {f"model.layers.{layer}.mlp.gate_proj_up_proj.weight" for layer in (0, 1, 2)}
    assert parameter_names(tmp_path, ".gate_proj_up_proj.weight") == dense


def test_the_size_of_a_head_where_the_configuration_is_silent() -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert Qwen3Config.from_dict(sizes).head_dim == 128
    assert Qwen3MoeConfig.from_dict(sizes).head_dim == 16


def test_the_layers_that_have_a_window() -> None:
    values = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "num_hidden_layers": 2}
    assert [Qwen3Config.from_dict(values).window_of(layer) for layer in (0, 1)] == [None, 8]
    # With experts a window is every layer's, whatever max_window_layers says.
    assert [Qwen3MoeConfig.from_dict(values).window_of(layer) for layer in (0, 1)] == [8, 8]
    for config_cls in (Qwen3Config, Qwen3MoeConfig):
        assert config_cls.from_dict({**values, "use_sliding_window": False}).window_of(1) is None


def test_more_experts_for_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_experts_per_tok = 9 is more than num_experts = 8"):
        Qwen3MoeConfig.from_dict({"num_experts": 8, "num_experts_per_tok": 9})


def test_thinking_is_switched_as_transformers_switches_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    with_tokenizer(tiny_checkpoint(tmp_path, "qwen3", head_dim=16, vocab_size=300))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    runner = ModelRunner(tmp_path, backend="reference")
    for variables in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        expected = theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True, **variables)
        assert runner.encode(CHAT, chat_template_kwargs=variables).text == expected
        # Of the thoughts of earlier turns nothing is left; the empty ones are those that the switch puts in.
        assert "hm" not in expected
        assert expected.count("<think>") == (1 if variables.get("enable_thinking") is False else 0)


def test_a_template_without_the_switch_refuses_it(tmp_path: Path) -> None:
    with_tokenizer(tiny_checkpoint(tmp_path, "qwen3", head_dim=16, vocab_size=300), "{{ messages[0].content }}")
    runner = ModelRunner(tmp_path, backend="reference")
    with pytest.raises(RequestError, match="knows no variable 'enable_thinking'"):
        runner.generate([CHAT], chat_template_kwargs={"enable_thinking": False})


def test_the_command_line_knows_the_switch(tmp_path: Path) -> None:
    with_tokenizer(tiny_checkpoint(tmp_path, "qwen3", head_dim=16, vocab_size=300))
    command = [sys.executable, "-m", "atb_cli", "run", str(tmp_path), "hi", "--json", "--max-tokens", "1"]
    result = subprocess.run([*command, "--no-thinking"], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout)["prompt"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
