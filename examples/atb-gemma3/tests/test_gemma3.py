# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 compared with Hugging Face's implementation on tiny random checkpoints, by the tests of the kit."""

from __future__ import annotations

from typing import Any

import pytest
from atb_testing import Capability, FamilyTests

from atb_gemma3.config import Gemma3Config
from atb_gemma3.router import Gemma3Router


class TestGemma3(FamilyTests):
    model_type = "gemma3_text"
    config = {"sliding_window": 5, "sliding_window_pattern": 2}
    cases = {
        "windows only": {"sliding_window_pattern": 100},
        "no window": {"sliding_window_pattern": 1},
        "scale": {"query_pre_attn_scalar": 100},
        "biases": {"attention_bias": True},
    }
    capabilities = frozenset(
        {Capability.TIED_EMBEDDINGS, Capability.GROUPED_QUERY, Capability.HEAD_DIM, Capability.FLOAT16}
    )

    @pytest.mark.parametrize(
        ("sizes", "scalar"),
        [
            ({"hidden_size": 640, "num_hidden_layers": 18, "num_attention_heads": 4, "head_dim": 256}, 256),  # 270M
            ({"hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32, "head_dim": 128}, 168),  # 27B
            ({"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": 128}, 128),
        ],
    )
    def test_a_gguf_file_gets_the_scale_that_it_does_not_say(self, sizes: dict[str, Any], scalar: float) -> None:
        rules = Gemma3Router.format_rules["GGUF"]
        assert Gemma3Config.from_dict({**rules.config, **sizes}).query_pre_attn_scalar == scalar
        assert Gemma3Config.from_dict(sizes).query_pre_attn_scalar == 256
