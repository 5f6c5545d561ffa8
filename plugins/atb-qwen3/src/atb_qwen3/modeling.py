# SPDX-License-Identifier: Apache-2.0
"""Qwen3's decoders: the common ones. The configuration turns on the norm of every head."""

from __future__ import annotations

from atb_core.models.base.modeling_python import DecoderModel, MoeDecoderModel


class Qwen3Model(DecoderModel):
    """Dense layers; all four matrices of attention have a bias if `attention_bias`."""


class Qwen3MoeModel(MoeDecoderModel):
    """Layers with experts, and dense ones according to `mlp_only_layers` and `decoder_sparse_step`."""
