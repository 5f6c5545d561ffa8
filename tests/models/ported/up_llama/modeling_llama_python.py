# SPDX-License-Identifier: Apache-2.0
"""The base classes' `forward` methods, called in the long form and by position."""

# mypy: ignore-errors

from atb_core.layers.attention.attention import Attention
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel


class LlamaAttention(Attention):
    """Hands the long form on by position to the base class."""

    def forward(self, inputs, *args, **kwargs):
        return super().forward(inputs, *args, **kwargs)


class LlamaLayer(DecoderLayer):
    attention_cls = LlamaAttention


class LlamaModel(DecoderModel):
    layer_cls = LlamaLayer

    def forward(
        self, input_ids, position_ids, cosine_table, sine_table, k_caches, v_caches, slots_mapping, attention_mask,
        seq_len, block_table, token_offset=None, kv_cache_idx=None, is_prefill=True, **kwargs,
    ):  # fmt: skip
        return super().forward(
            input_ids, position_ids, cosine_table, sine_table, k_caches, v_caches, slots_mapping, attention_mask,
            seq_len, block_table, token_offset, kv_cache_idx, is_prefill, **kwargs,
        )  # fmt: skip
