# SPDX-License-Identifier: Apache-2.0
"""GLM-4 compared with Hugging Face's implementation on tiny random checkpoints, by the tests of the kit."""

from __future__ import annotations

from atb_testing import Capability, FamilyTests


class TestGlm4(FamilyTests):
    model_type = "glm4"
    cases = {
        "no biases": {"attention_bias": False},
        "a quarter rotated": {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
        },
    }
    capabilities = frozenset(
        {Capability.TIED_EMBEDDINGS, Capability.GROUPED_QUERY, Capability.HEAD_DIM, Capability.FLOAT16}
    )
