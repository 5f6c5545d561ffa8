# SPDX-License-Identifier: Apache-2.0
"""A GGUF file's metadata as a `config.json`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint.checkpoints import write
from gguf_bytes import TINY, gguf_bytes, tiny_gguf

from atb_core.checkpoint import FormatRules, open_checkpoint
from atb_core.errors import WeightsError
from atb_gguf.config import llama3_factors, read_gguf_config


def config_of(tmp_path: Path, tensors: dict[str, np.ndarray] | None = None, **metadata: Any) -> dict[str, Any]:
    """The configuration of the tiny model with some metadata changed; `__` stands for a dot, None removes."""
    changed = {key.replace("__", "."): value for key, value in metadata.items()}
    path = write(tmp_path / "x.gguf", tiny_gguf(metadata=changed, tensors=tensors)[0])
    return read_gguf_config(path)


def test_the_configuration_of_a_plain_model(tmp_path: Path) -> None:
    assert config_of(tmp_path) == {
        "model_type": "tiny",
        "torch_dtype": "float32",
        "num_hidden_layers": 1,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "rms_norm_eps": pytest.approx(1e-5),
        "vocab_size": 40,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
    }


def test_what_a_file_may_add(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        tiny__attention__key_length=32,
        tiny__attention__value_length=32,
        tiny__attention__sliding_window=7,
        tokenizer__ggml__bos_token_id=1,
        tokenizer__ggml__eos_token_id=2,
        tokenizer__ggml__padding_token_id=0,
        # Blocks that predict further tokens are counted among the others.
        tiny__block_count=3,
        tiny__nextn_predict_layers=2,
        # The epsilon of norms with means has a name of its own.
        tiny__attention__layer_norm_rms_epsilon=None,
        tiny__attention__layer_norm_epsilon=0.5,
        tensors={"blk.0.ffn_up.bias": np.zeros(96, np.float32)},
    )
    assert config["head_dim"] == 32
    assert (config["rms_norm_eps"], config["mlp_bias"]) == (0.5, True)
    assert (config["num_hidden_layers"], config["num_nextn_predict_layers"]) == (1, 2)
    assert config["sliding_window"] == 7
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 0)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"tiny__rope__scaling__type": "none"}, None),
        (
            {"tiny__rope__scaling__type": "linear", "tiny__rope__scaling__factor": 4.0},
            {"rope_type": "linear", "factor": 4.0},
        ),
        ({"tiny__rope__scale_linear": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"tiny__rope__scaling__factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        (
            {
                "tiny__rope__scaling__type": "yarn",
                "tiny__rope__scaling__factor": 4.0,
                "tiny__rope__scaling__original_context_length": 32,
            },
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
        ),
    ],
)
def test_rope_scaling(metadata: dict[str, Any], expected: dict[str, Any] | None, tmp_path: Path) -> None:
    assert config_of(tmp_path, **metadata)["rope_scaling"] == expected


@pytest.mark.parametrize(("factor", "original"), [(8.0, 8192), (32.0, 8192), (4.0, 4096)])
def test_frequency_factors_are_recognised_as_llama3_scaling(factor: float, original: int, tmp_path: Path) -> None:
    factors = np.array(llama3_factors(128, 500000.0, factor, 1.0, 4.0, original), dtype=np.float32)
    config = config_of(
        tmp_path,
        {"rope_freqs.weight": factors},
        tiny__attention__key_length=128,
        tiny__attention__value_length=128,
        tiny__rope__freq_base=500000.0,
        tiny__context_length=131072,
    )
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": pytest.approx(factor),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }


def test_the_llama3_rule_is_that_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    config = transformers.LlamaConfig(
        hidden_size=256, num_attention_heads=2, rope_theta=500000.0, rope_scaling={"rope_type": "llama3", **scaling}
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** (-np.arange(0, 128, 2) / 128)
    assert np.allclose(plain / scaled.numpy(), llama3_factors(128, 500000.0, 8.0, 1.0, 4.0, 8192), rtol=1e-5)


@pytest.mark.parametrize(
    ("tensor", "cause"),
    [
        (np.linspace(1, 8, 8, dtype=np.float32), "does not follow"),
        (np.ones(7, dtype=np.float32), "8 positive numbers"),
        (np.full(8, np.nan, dtype=np.float32), "8 positive numbers"),
        (np.ones((2, 4), dtype=np.float32), "short vector"),
    ],
)
def test_frequency_factors_of_another_rule_are_refused(tensor: np.ndarray, cause: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=cause):
        config_of(tmp_path, {"rope_freqs.weight": tensor})


@pytest.mark.parametrize(
    ("metadata", "cause"),
    [
        ({"tiny__block_count": 0}, "block_count.*positive size"),
        ({"tiny__block_count": "many"}, "block_count"),
        ({"tiny__block_count": 1.5}, "block_count"),
        ({"tiny__attention__head_count_kv": [2, 3]}, "layer to layer"),
        ({"tiny__attention__head_count": 5}, "not a multiple"),
        ({"tiny__attention__value_length": 8}, "differs"),
        ({"tiny__attention__layer_norm_rms_epsilon": float("nan")}, "positive number"),
        ({"tiny__rope__freq_base": 0.0}, "positive number"),
        ({"tiny__rope__freq_base": "high"}, "positive number"),
        ({"tiny__rope__scaling__type": "longrope"}, "'longrope' is not supported"),
        ({"tokenizer__ggml__eos_token_id": 40}, "below the vocabulary's 40"),
        ({"general__architecture": ""}, "general.architecture"),
        ({"general__architecture": 7}, "general.architecture"),
        ({"split__count": 3}, "number 0 of 3 by its metadata, but number 0 of 1 by its name"),
    ],
)
def test_impossible_metadata_is_refused(metadata: dict[str, Any], cause: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=cause):
        config_of(tmp_path, **metadata)


def test_sizes_are_checked_against_the_tensors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="claims 2000000000 layers"):
        config_of(tmp_path, tiny__block_count=2_000_000_000)
    with pytest.raises(WeightsError, match=r"token_embd\.weight has the shape \[40, 64\]"):
        config_of(tmp_path, tiny__embedding_length=2_000_000_000)
    with pytest.raises(WeightsError, match=r"no token_embd\.weight"):
        read_gguf_config(write(tmp_path / "x.gguf", gguf_bytes(TINY)))


@pytest.mark.parametrize(
    "key",
    ["general.architecture", "tiny.block_count", "tiny.context_length", "tiny.attention.layer_norm_rms_epsilon"],
)
def test_missing_metadata_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{key!r} is missing"):
        config_of(tmp_path, **{key.replace(".", "__"): None})


def test_a_value_given_per_layer_may_be_the_same_for_all(tmp_path: Path) -> None:
    assert config_of(tmp_path, tiny__attention__head_count_kv=[2, 2])["num_key_value_heads"] == 2


@pytest.mark.parametrize("absent", [2**32 - 1, struct.pack("<Ii", 5, -1)])
def test_a_token_that_is_said_to_be_absent_is_none(absent: Any, tmp_path: Path) -> None:
    config = config_of(tmp_path, tokenizer__ggml__padding_token_id=absent, tokenizer__ggml__bos_token_id=3)
    assert (config["pad_token_id"], config["bos_token_id"]) == (None, 3)


@pytest.mark.parametrize(
    "metadata",
    [
        {"tiny.attn_logit_softcapping": 30.0},
        {"tiny.embedding_scale": 12.0},
        {"tiny.rope.dimension_sections": [8, 12, 12, 0]},
        {"tiny.attention.causal": False},
        {"tiny.attention.scale": 1.0},
        {"tiny.pooling_type": 1},
        {"tiny.expert_gating_func": 2},
    ],
)
def test_metadata_that_change_the_model_are_refused_unless_its_family_names_them(
    metadata: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "x.gguf", tiny_gguf(metadata=metadata)[0]))
    assert checkpoint.model_type([]) == "tiny"
    name = next(iter(metadata)).removeprefix("tiny.")
    with pytest.raises(WeightsError, match=f"metadata of unknown meaning for its model: {name} = "):
        checkpoint.config()
    checkpoint.set_rules({"GGUF": FormatRules(metadata={name: "of_the_family"})})
    assert checkpoint.config()["of_the_family"] == pytest.approx(metadata[f"tiny.{name}"])


def test_metadata_that_say_nothing_new_are_accepted(tmp_path: Path) -> None:
    nothing = {"tiny.vocab_size": 40, "tiny.logit_scale": 1.0, "tiny.attention.causal": True, "tiny.expert_count": 0}
    content, _ = tiny_gguf(metadata={**nothing, "other.attention.scale": 7.0})
    assert open_checkpoint(write(tmp_path / "x.gguf", content)).config()["hidden_size"] == 64


def test_a_part_of_a_head_that_is_rotated_is_a_factor_that_the_family_has_to_read(tmp_path: Path) -> None:
    assert config_of(tmp_path, tiny__rope__dimension_count=8)["partial_rotary_factor"] == 0.5
    assert "partial_rotary_factor" not in config_of(tmp_path, tiny__rope__dimension_count=16)
