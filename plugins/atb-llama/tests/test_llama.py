# SPDX-License-Identifier: Apache-2.0
"""Llama passes the conformance kit; and what is special to it."""

from __future__ import annotations

import pytest

from atb_core.errors import ConfigError
from atb_llama.config import LlamaConfig
from atb_llama.router import LlamaRouter
from atb_testing import Capability, FamilyTests


class TestLlama(FamilyTests):
    model_type = "llama"
    cases = {
        "all biases": {"attention_bias": True, "mlp_bias": True},
        "attention biases": {"attention_bias": True},
        "feed-forward biases": {"mlp_bias": True},
    }
    capabilities = frozenset(
        {
            Capability.TIED_EMBEDDINGS,
            Capability.GROUPED_QUERY,
            Capability.HEAD_DIM,
            Capability.ROPE_SCALING,
            Capability.FLOAT16,
        }
    )


def test_queries_and_keys_of_gguf_files_are_put_back_into_order() -> None:
    assert LlamaRouter.format_rules["GGUF"].permuted_qk


def test_a_sliding_window_shorter_than_the_context_is_refused() -> None:
    assert LlamaConfig.from_dict({"sliding_window": 2048}).max_position_embeddings == 2048
    with pytest.raises(ConfigError, match="sliding_window = 512"):
        LlamaConfig.from_dict({"sliding_window": 512})
