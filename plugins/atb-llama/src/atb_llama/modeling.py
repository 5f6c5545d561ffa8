# SPDX-License-Identifier: Apache-2.0
"""Llama's decoder: the common one."""

from __future__ import annotations

from atb_core.models.base.modeling_python import DecoderModel


class LlamaModel(DecoderModel):
    """The common decoder; `attention_bias` gives attention biases, `mlp_bias` the feed-forward layers."""
