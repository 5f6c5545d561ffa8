# SPDX-License-Identifier: Apache-2.0
"""Gemma 2 compared with Hugging Face's implementation on tiny random checkpoints, by the tests of the kit."""

from __future__ import annotations

from atb_testing import Capability, FamilyTests


class TestGemma2(FamilyTests):
    model_type = "gemma2"
    # Small caps, as the scores and logits of a tiny model are small.
    config = {"sliding_window": 5, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}
    cases = {
        "no caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "scale": {"query_pre_attn_scalar": 100},
    }
    capabilities = frozenset(
        {Capability.TIED_EMBEDDINGS, Capability.GROUPED_QUERY, Capability.HEAD_DIM, Capability.FLOAT16}
    )
