# SPDX-License-Identifier: Apache-2.0
"""Configurations: spellings, defaults, and every impossible value refused by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig, RopeScaling

SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def config(**changes: Any) -> BaseConfig:
    return BaseConfig.from_dict({**SMALL, **changes})


def test_known_fields_are_kept_and_those_without_meaning_left_out() -> None:
    made = config(model_type="x", transformers_version="5.0", rms_norm_eps=1e-5)
    assert (made.model_type, made.hidden_size, made.rms_norm_eps) == ("x", 64, 1e-5)
    assert not hasattr(made, "transformers_version")


def test_missing_head_sizes_are_derived() -> None:
    made = config(num_key_value_heads=None, head_dim=None)
    assert (made.num_key_value_heads, made.head_dim) == (4, 16)


def test_a_given_head_dim_need_not_divide_the_hidden_size() -> None:
    assert config(head_dim=48, hidden_size=50).head_dim == 48


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16", "dtype": None}, "float16"),
        ({}, "float32"),
    ],
)
def test_both_spellings_of_the_element_type(given: dict[str, Any], expected: str) -> None:
    made = config(**given)
    assert made.torch_dtype == expected
    assert made.data_type.short == expected


def test_rope_parameters_and_rope_scaling_mean_the_same() -> None:
    new = config(rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5})
    old = config(rope_scaling={"type": "linear", "factor": 4.0}, rope_theta=5e5)
    assert new == old
    assert new.rope_scaling == RopeScaling("linear", factor=4.0)


def test_rope_scaling_beside_rope_parameters_replaces_them() -> None:
    # As in Hugging Face, whose class then takes theta from the field of that name.
    both = {
        "rope_parameters": {"rope_type": "default", "rope_theta": 7e5},
        "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128},
    }
    made = config(**both)
    assert made.rope_scaling == RopeScaling("yarn", 2.0, 128)
    assert (made.rope_theta, config(**both, rope_theta=3e4).rope_theta) == (10000.0, 3e4)
    assert config(**{**both, "rope_scaling": None}).rope_theta == 7e5


def test_default_rope_parameters_are_no_scaling() -> None:
    made = config(rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    assert made.rope_scaling is None
    assert made.rope_theta == 1e6


def test_scaling_lengthens_the_context() -> None:
    assert config().context_length == 256
    assert config(rope_scaling={"type": "linear", "factor": 2.0}).context_length == 512
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert config(rope_scaling=yarn, max_position_embeddings=1024).context_length == 1024


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("num_hidden_layers", 10**9, "from 1 to 1024"),
        ("num_hidden_layers", 0, "from 1 to 1024"),
        ("num_hidden_layers", "2", "integer"),
        ("num_hidden_layers", True, "integer"),
        ("vocab_size", 2**40, "from 1 to 4194304"),
        ("vocab_size", -5, "from 1"),
        ("hidden_size", 64.0, "integer"),
        ("hidden_size", 10**7, "from 1 to 131072"),
        ("intermediate_size", 10**9, "from 1 to 1048576"),
        ("num_attention_heads", 10**6, "from 1 to 1024"),
        ("num_attention_heads", -4, "from 1 to 1024"),
        ("num_key_value_heads", 0, "from 1 to 1024"),
        ("num_key_value_heads", 3, "num_attention_heads = 4"),
        ("head_dim", 99999, "from 2 to 1024"),
        ("head_dim", 15, "even"),
        ("max_position_embeddings", 2**60, "from 1 to"),
        ("rms_norm_eps", 0.0, "above 0"),
        ("rms_norm_eps", "tiny", "number"),
        ("rope_theta", float("nan"), "number"),
        ("tie_word_embeddings", "yes", "true or false"),
        ("torch_dtype", "int8", "float32, float16, bfloat16"),
        ("dtype", "int8", "float32, float16, bfloat16"),
        ("epsilon", 0.0, "above 0"),
        ("rope_parameters", 4, "object"),
        ("hidden_act", "gelu", "silu"),
        ("eos_token_id", "</s>", "token id"),
        ("rope_scaling", 4, "object"),
    ],
)
def test_an_impossible_value_is_refused_with_field_value_and_range(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(**{field: value})
    text = str(error.value)
    assert field in text
    assert str(value) in text
    assert allowed in text


def test_a_hidden_size_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size = 65 is not a multiple of num_attention_heads = 4"):
        config(hidden_size=65)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "ntk", "factor": 2.0}, "'ntk' is not supported"),
        ({"rope_type": "longrope", "factor": 2.0}, "lacks 'short_factor'"),
        ({"rope_type": "longrope", "short_factor": 1.0, "long_factor": [1.0]}, "short_factor = 1.0 must be a list"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": ["x"]}, "long_factor = 'x'"),
        ({"type": "default", "mrope_section": [16, 24, 24]}, "mrope_section"),
        ({"rope_type": "linear"}, "lacks 'factor'"),
        ({"type": "linear", "factor": 0.5}, "factor = 0.5"),
        ({"type": "linear", "factor": "big"}, "factor = 'big'"),
        ({"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}, "lacks 'high_freq_factor'"),
        ({"type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}, "low_freq_factor = 4.0"),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": -1}, "= -1 must be"),
        ({"type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ],
)
def test_an_impossible_rope_scaling_is_refused(scaling: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(rope_scaling=scaling)


def test_bare_class_attributes_are_fields() -> None:
    @dataclass
    class Plain(BaseConfig):
        model_type = "plain"
        vocab_size = 1000
        hidden_size = 128
        num_attention_heads = 8
        alibi_bias_max = 8.0
        layer_kinds = ["full"]  # noqa: RUF012 - the point of the test

    made = Plain.from_dict({"hidden_size": 256, "alibi_bias_max": 4.0})
    assert (made.model_type, made.vocab_size, made.hidden_size, made.head_dim) == ("plain", 1000, 256, 32)
    assert made.alibi_bias_max == 4.0
    assert Plain().layer_kinds == ["full"]
    assert Plain().layer_kinds is not Plain().layer_kinds
    with pytest.raises(ConfigError, match="vocab_size = 0"):
        Plain.from_dict({"vocab_size": 0})


def test_a_family_widens_what_is_checked() -> None:
    @dataclass
    class Windowed(BaseConfig):
        int_limits = {**BaseConfig.int_limits, "window": (1, 10)}  # noqa: RUF012 - as a family may write it
        flags = (*BaseConfig.flags, "sliding")
        window: int = 5
        sliding: bool = False

    assert Windowed.from_dict({"window": 10, "sliding": True}).window == 10
    with pytest.raises(ConfigError, match="window = 11 must be an integer from 1 to 10"):
        Windowed.from_dict({"window": 11})
    with pytest.raises(ConfigError, match="sliding = 'no'"):
        Windowed.from_dict({"sliding": "no"})


def test_replace_checks_the_copy() -> None:
    original = config()
    assert original.replace(torch_dtype="bfloat16").torch_dtype == "bfloat16"
    assert original.torch_dtype == "float32"
    with pytest.raises(ConfigError, match="torch_dtype"):
        original.replace(torch_dtype="complex64")


def test_a_configuration_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from atb_core.models.base.config import BaseConfig; BaseConfig.from_dict({}); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["hidden_act", "tie_word_embeddings", "rope_theta", "max_position_embeddings"])
def test_null_is_refused_where_the_model_needs_a_value(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = null must have a value"):
        config(**{name: None})


def test_null_turns_off_what_the_class_has_on() -> None:
    @dataclass
    class Windowed(BaseConfig):
        sliding_window: int | None = 4096

    fields = {"hidden_size": 64, "num_attention_heads": 4}
    assert Windowed.from_dict({**fields, "sliding_window": None}).sliding_window is None
    assert Windowed.from_dict(fields).sliding_window == 4096
