# SPDX-License-Identifier: Apache-2.0
"""Llama's decoder: the common one."""

from __future__ import annotations

from atb_core.models.base.modeling_python import DecoderModel


class LlamaModel(DecoderModel):
    """Biases as the configuration says: `attention_bias` for attention, `mlp_bias` for the feed-forward layers."""
