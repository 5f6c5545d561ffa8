# SPDX-License-Identifier: Apache-2.0
"""Every field of a `config.json` is read, is without meaning, is off, or is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.window_config import LateWindowConfig, WindowConfig
from atb_core.models.families import CONFIGS, families

SMALL: dict[str, Any] = {
    "model_type": "small", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 256,
}  # fmt: skip
COMMON = {"attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "use_cache": True}
LLAMA = {
    **COMMON, "architectures": ["LlamaForCausalLM"], "attention_bias": False, "model_type": "llama",
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.0.dev0", "vocab_size": 128256,
}  # fmt: skip
LLAMA_3_SCALING = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip
SMOLLM2 = {
    **LLAMA, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 576, "intermediate_size": 1536,
    "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 9,
    "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2, "rope_interleaved": False,
    "rope_theta": 100000, "tie_word_embeddings": True, "vocab_size": 49152,
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
}  # fmt: skip
QWEN = {
    **COMMON, "bos_token_id": 151643, "eos_token_id": 151645, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_sliding_window": False,
}  # fmt: skip
QWEN_2 = {
    **QWEN, "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944,
    "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": 131072, "tie_word_embeddings": False,
    "use_mrope": False, "vocab_size": 152064,
}  # fmt: skip
QWEN_3 = {
    **QWEN, "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "head_dim": 128, "hidden_size": 1024,
    "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rope_scaling": None,
    "sliding_window": None, "tie_word_embeddings": True, "vocab_size": 151936,
}  # fmt: skip
#: The fields of published files, by model.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 2": {
        **LLAMA, "_name_or_path": "meta-llama/Llama-2-7b-hf", "bos_token_id": 1, "eos_token_id": 2,
        "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "torch_dtype": "float16", "vocab_size": 32000,
    },
    "Llama 3": {
        **LLAMA, "bos_token_id": 128000, "eos_token_id": 128001, "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rope_theta": 500000.0,
    },
    "Llama 3.1": {
        **LLAMA, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_size": 4096,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "rope_scaling": LLAMA_3_SCALING, "rope_theta": 500000.0,
    },
    "Llama 3.2": {
        **LLAMA, "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "rope_scaling": {**LLAMA_3_SCALING, "factor": 32.0},
        "rope_theta": 500000.0, "tie_word_embeddings": True,
    },
    "SmolLM2": SMOLLM2,
    "Qwen2": {**QWEN_2, "eos_token_id": 151643},
    "Qwen2.5": QWEN_2,
    "Qwen2.5 with YaRN": {
        **QWEN_2, "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
    },
    "Qwen1.5 with experts": {
        **QWEN_2, "architectures": ["Qwen2MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_size": 2048,
        "intermediate_size": 5632, "max_window_layers": 21, "model_type": "qwen2_moe", "moe_intermediate_size": 1408,
        "norm_topk_prob": False, "num_attention_heads": 16, "num_experts": 60, "num_experts_per_tok": 4,
        "num_hidden_layers": 24, "num_key_value_heads": 16, "output_router_logits": False, "qkv_bias": True,
        "router_aux_loss_coef": 0.001, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
    },
    "Qwen3": QWEN_3,
    "Qwen3 as transformers 5 writes it": {
        **{name: value for name, value in QWEN_3.items() if name not in ("torch_dtype", "rope_theta", "rope_scaling")},
        "dtype": "bfloat16", "layer_types": ["full_attention"] * 28, "return_dict": True,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
    },
    "Qwen3 with experts": {
        **QWEN_3, "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_size": 2048,
        "intermediate_size": 6144, "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe",
        "moe_intermediate_size": 768, "norm_topk_prob": True, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": False,
        "router_aux_loss_coef": 0.001, "tie_word_embeddings": False,
    },
    "Qwen3-Coder": {
        **QWEN_3, "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "norm_topk_prob": True, "num_experts": 128, "num_experts_per_tok": 8,
        "qkv_bias": False, "shared_expert_intermediate_size": 0, "use_qk_norm": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_load(name: str) -> None:
    values = PUBLISHED[name]
    config = families().load(CONFIGS, values["model_type"]).from_dict(values)
    assert config.hidden_size == values["hidden_size"]
    assert {config.window_of(layer) for layer in range(config.num_hidden_layers)} == {None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sliding_window", 128),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("partial_rotary_factor", 0.5),
        ("logit_scale", 0.0625),
        ("embedding_multiplier", 12.0),
        ("residual_multiplier", 0.22),
        ("attention_multiplier", 0.015625),
        ("logits_scaling", 8.0),
        ("query_pre_attn_scalar", 256),
        ("attention_chunk_size", 128),
        ("layer_types", ["sliding_attention", "full_attention", "full_attention"]),
        ("no_rope_layers", [1, 1, 0]),
        ("num_local_experts", 8),
        ("hidden_activation", "gelu_pytorch_tanh"),
        ("parallel_residual", True),
        ("is_causal", False),
        ("use_rope", False),
        ("text_config", {"hidden_size": 8}),
        ("quantization", {"bits": 4, "group_size": 64}),
        ("a_field_of_tomorrow", 3),
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "small"])
def test_a_field_that_changes_the_model_is_refused_by_name(model_type: str, field: str, value: Any) -> None:
    config_cls = BaseConfig if model_type == "small" else families().load(CONFIGS, model_type)
    with pytest.raises(ConfigError) as error:
        config_cls.from_dict({**SMALL, "model_type": model_type, field: value})
    text = str(error.value)
    assert f"{field} = {value!r}" in text
    assert f"the family of '{model_type}'" in text
    assert f"declares the field in {config_cls.__name__}" in text


@pytest.mark.parametrize(
    "off",
    [
        {"attn_logit_softcapping": None, "final_logit_softcapping": 0.0},
        {"sliding_window": 256},
        {"sliding_window": 8, "use_sliding_window": False},
        {"max_window_layers": 2, "use_sliding_window": True},
        {"embedding_multiplier": 1, "residual_multiplier": 1.0, "logits_scaling": 1.0, "partial_rotary_factor": 1.0},
        {"attention_multiplier": 0.25, "query_pre_attn_scalar": 16},
        {"layer_types": ["full_attention"] * 3, "no_rope_layers": [1, 1, 1]},
        {"is_causal": True, "use_rope": True, "scale_attn_weights": True},
        {"a_switch_of_tomorrow": False, "a_list_of_tomorrow": [], "a_text_of_tomorrow": ""},
        {"attention_dropout": 0.1, "resid_pdrop": 0.1, "temperature": 0.6, "unk_token_id": 0},
        {"embedding_dropout": 0.0, "hidden_dropout_prob": 0.1, "encoder_layerdrop": 0.0, "drop_path_rate": 0.1},
    ],
    ids=lambda off: ", ".join(off),
)
def test_a_field_that_is_off_or_without_meaning_is_left_out(off: dict[str, Any]) -> None:
    assert BaseConfig.from_dict({**SMALL, **off}) == BaseConfig.from_dict(SMALL)


def test_a_neutral_value_depends_on_the_sizes() -> None:
    for field, value in (("attention_multiplier", 1.0), ("query_pre_attn_scalar", 64), ("sliding_window", 255)):
        with pytest.raises(ConfigError, match=f"{field} = {value}"):
            BaseConfig.from_dict({**SMALL, field: value})


def test_settings_of_rotation_for_each_kind_of_layer_need_the_field() -> None:
    kinds = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(ConfigError, match="rope_parameters = "):
        BaseConfig.from_dict({**SMALL, "rope_parameters": kinds})

    @dataclass
    class ByLayer(WindowConfig):
        rope_parameters: dict[str, Any] | None = None

        def rope_of(self, layer_idx: int) -> Any:
            assert self.rope_parameters is not None
            assert self.layer_types is not None
            return self.rope(self.rope_parameters[self.layer_types[layer_idx]])

    types = ["sliding_attention", "full_attention", "sliding_attention"]
    made = ByLayer.from_dict({**SMALL, "rope_parameters": kinds, "layer_types": types, "sliding_window": 8})
    assert [made.rope_of(layer).theta for layer in range(3)] == [1e4, 1e6, 1e4]
    assert [made.window_of(layer) for layer in range(3)] == [8, None, 8]
    assert made.context_length == 256
    scaled = {**kinds, "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}}
    made = ByLayer.from_dict({**SMALL, "rope_parameters": scaled, "layer_types": types, "sliding_window": 8})
    assert made.context_length == 1024


@pytest.mark.parametrize(
    ("config_cls", "window"),
    [
        (WindowConfig, {}),
        (WindowConfig, {"sliding_window": 0}),
        (LateWindowConfig, {"use_sliding_window": True}),
        (LateWindowConfig, {"sliding_window": 8}),
        (LateWindowConfig, {"sliding_window": 8, "use_sliding_window": False}),
    ],
)
def test_layers_with_a_window_need_one(config_cls: type[WindowConfig], window: dict[str, Any]) -> None:
    types = ["full_attention", "sliding_attention", "full_attention"]
    with pytest.raises(ConfigError, match="layer_types has 'sliding_attention', but sliding_window is not set"):
        config_cls.from_dict({**SMALL, **window, "layer_types": types})
    made = config_cls.from_dict({**SMALL, "layer_types": types, "sliding_window": 8, "use_sliding_window": True})
    assert [made.window_of(layer) for layer in range(3)] == [None, 8, None]


def test_a_family_that_has_the_field_gets_it() -> None:
    @dataclass
    class Scaled(BaseConfig):
        embedding_multiplier: float = 1.0
        partial_rotary_factor: float = 0.5

    made = Scaled.from_dict({**SMALL, "embedding_multiplier": 12.0})
    assert (made.embedding_multiplier, made.rope().size) == (12.0, 8)
    # In the spelling of transformers 5 it is beside theta.
    inside = {**SMALL, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}
    assert Scaled.from_dict(inside).rope().size == 4
    with pytest.raises(ConfigError, match=r"partial_rotary_factor = 0\.2 rotates 3 elements"):
        Scaled.from_dict({**SMALL, "partial_rotary_factor": 0.2}).rope()


def test_two_spellings_of_a_field_must_agree() -> None:
    assert BaseConfig.from_dict({**SMALL, "max_sequence_length": 256}).max_position_embeddings == 256
    with pytest.raises(ConfigError, match="max_sequence_length = 512 and max_position_embeddings = 256 contradict"):
        BaseConfig.from_dict({**SMALL, "max_sequence_length": 512})


def test_messages_are_bounded_and_hold_no_control_characters() -> None:
    for values in ({"x" * 10**6: 1}, {"text_config": {"a": "b" * 10**6}}, {"model_type": "\x1b[2J" * 10**5, "new": 1}):
        with pytest.raises(ConfigError) as error:
            BaseConfig.from_dict({**SMALL, **values})
        assert len(str(error.value)) < 1000
        assert "\x1b" not in str(error.value)
    many = {f"field_{i}": i + 2 for i in range(1000)}
    with pytest.raises(ConfigError, match="and 992 more"):
        BaseConfig.from_dict({**SMALL, **many})


@pytest.mark.parametrize("pattern", ["sliding_window_pattern", "_sliding_window_pattern"])
def test_a_pattern_of_windows_is_refused_where_it_would_choose_the_layers(pattern: str) -> None:
    fields = {**SMALL, "sliding_window": 8, pattern: 4}
    with pytest.raises(ConfigError, match=f"does not implement {pattern} = 4"):
        WindowConfig.from_dict(fields)
    for off in ({"sliding_window": None}, {"sliding_window": 4096}, {"layer_types": ["full_attention"] * 3}):
        WindowConfig.from_dict({**fields, **off})
    LateWindowConfig.from_dict(fields)
    with pytest.raises(ConfigError, match=f"does not implement {pattern} = 4"):
        LateWindowConfig.from_dict({**fields, "use_sliding_window": True})
