# SPDX-License-Identifier: Apache-2.0
"""Which layers have experts, and which configurations of experts are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.base.window_config import WindowConfig


def sparse(**changes: Any) -> list[int]:
    """The layers with experts among the first six."""
    config = MoeConfig.from_dict({"num_hidden_layers": 6, **changes})
    return [layer for layer in range(6) if config.is_sparse(layer)]


def test_every_layer_has_experts_unless_the_configuration_says_otherwise() -> None:
    assert sparse() == [0, 1, 2, 3, 4, 5]
    assert sparse(mlp_only_layers=None) == [0, 1, 2, 3, 4, 5]
    assert sparse(decoder_sparse_step=2) == [1, 3, 5]
    assert sparse(decoder_sparse_step=2, mlp_only_layers=[0, 3, 99]) == [1, 5]
    assert sparse(decoder_sparse_step=7) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 0}, "num_experts = 0 must be an integer from 1 to 4096"),
        ({"num_experts": 10**9}, "num_experts = 1000000000 must be an integer"),
        ({"num_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok = 5 is more than num_experts = 4"),
        ({"num_experts": 4096, "num_hidden_layers": 1024}, "num_experts = 4096 in num_hidden_layers = 1024"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok = 0"),
        ({"moe_intermediate_size": 2**40}, "moe_intermediate_size = 1099511627776"),
        ({"shared_expert_intermediate_size": -1}, "shared_expert_intermediate_size = -1"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step = 0 must be an integer from 1"),
        ({"norm_topk_prob": "yes"}, "norm_topk_prob = 'yes' must be true or false"),
        ({"mlp_only_layers": 3}, "mlp_only_layers = 3 must be a list of layer numbers"),
        ({"mlp_only_layers": [1, -1]}, r"mlp_only_layers = \[1, -1\]"),
        ({"mlp_only_layers": [True]}, "mlp_only_layers"),
        ({"vocab_size": 0}, "vocab_size = 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MoeConfig.from_dict(changes)


def test_the_number_of_experts_has_two_names() -> None:
    assert MoeConfig.from_dict({"num_local_experts": 5}).num_experts == 5


def test_a_family_puts_its_dense_configuration_before_the_brick() -> None:
    @dataclass
    class Dense(WindowConfig):
        vocab_size: int = 77

    @dataclass
    class Sparse(Dense, MoeConfig):
        num_experts: int = 3

    config = Sparse.from_dict({"num_local_experts": 9})
    assert (config.vocab_size, config.num_experts, config.moe_intermediate_size) == (77, 9, 1024)
    # Limits and flags of every base hold.
    for changes in ({"head_dim": -1}, {"decoder_sparse_step": -1}, {"tie_word_embeddings": 0}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            Sparse.from_dict(changes)


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, [8, 8, 8]),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, [None, 8, None]),
        ({"layer_types": ["full_attention"] * 3}, [None] * 3),
        ({"sliding_window": None}, [None] * 3),
        ({"sliding_window": 0}, [None] * 3),
        ({"sliding_window": 2048}, [None] * 3),
    ],
)
def test_the_layers_that_have_the_window(changes: dict[str, Any], windows: list[int | None]) -> None:
    config = WindowConfig.from_dict({"num_hidden_layers": 3, "sliding_window": 8, **changes})
    assert [config.window_of(layer) for layer in range(3)] == windows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": 5}, "layer_types = 5 must be a list"),
        ({"layer_types": ["full_attention"]}, "with an entry for each layer"),
        ({"layer_types": ["chunked_attention"] * 3}, "'chunked_attention', which is not supported"),
        ({"sliding_window": -1}, "sliding_window = -1"),
        ({"sliding_window": "wide"}, "sliding_window = 'wide'"),
    ],
)
def test_an_impossible_window_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WindowConfig.from_dict({"num_hidden_layers": 3, "sliding_window": 8, **changes})


def test_dense_decoders_have_no_fields_of_experts() -> None:
    assert not hasattr(BaseConfig(), "num_experts")
