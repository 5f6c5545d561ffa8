# SPDX-License-Identifier: Apache-2.0
"""OLMo-2 compared with Hugging Face's implementation on tiny random checkpoints, by the tests of the kit."""

from __future__ import annotations

from atb_testing import Capability, FamilyTests


class TestOlmo2(FamilyTests):
    model_type = "olmo2"
    cases = {"biases": {"attention_bias": True}}
    capabilities = frozenset(
        {
            Capability.TIED_EMBEDDINGS,
            Capability.GROUPED_QUERY,
            Capability.HEAD_DIM,
            Capability.ROPE_SCALING,
            Capability.FLOAT16,
        }
    )
