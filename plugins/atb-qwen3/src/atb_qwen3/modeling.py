# SPDX-License-Identifier: Apache-2.0
"""Qwen3's decoders: the common ones. What sets them apart, the norm of every head, is in their configuration."""

from __future__ import annotations

from atb_core.models.base.modeling_moe import MoeDecoderModel
from atb_core.models.base.modeling_python import DecoderModel


class Qwen3Model(DecoderModel):
    """Dense layers; all four matrices of attention have a bias if `attention_bias`."""


class Qwen3MoeModel(MoeDecoderModel):
    """Layers with experts, and dense ones where `mlp_only_layers` or `decoder_sparse_step` say so."""
