# SPDX-License-Identifier: Apache-2.0
"""Attention and feed-forward are written out, and called with fourteen positional arguments."""

# mypy: ignore-errors

import math

from atb_core import nn
from atb_core.layers import InferenceMode
from atb_core.layers.attention.attention import Attention
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import MergedColumnParallelLinear, RowParallelLinear
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.mindie_llm_config import ModelStatus
from atb_core.models.base.modeling_python import BaseLayer, BaseModel
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.functional import gather, reshape_and_cache, split
from atb_core.utils.loader.safetensor_file_loader import SafetensorFileLoader
from atb_core.utils.mapping import Mapping


class Qwen2Attention(Attention):
    def __init__(
        self,
        config: BaseConfig,
        file_loader: SafetensorFileLoader,
        prefix: str,
        config_metadata: ModelStatus,
        **kwargs,
    ) -> None:
        super().__init__(config, file_loader, prefix, config_metadata, **kwargs)
        prefixes = [f"{prefix}.{name}" for name in ("q_proj", "k_proj", "v_proj")]
        self.qkv = MergedColumnParallelLinear(config, file_loader, prefixes, bias=True, **kwargs)
        self.dense = RowParallelLinear(config, file_loader, f"{prefix}.o_proj", bias=False, **kwargs)
        self.q_norm = self.k_norm = None

    def forward(
        self, inputs, cos_table, sin_table, k_cache, v_cache, slot_mapping=None, mask=None, seq_lens=None,
        block_table=None, token_offset=None, layer_ids=None, is_prefill: bool = True, **kwargs,
    ):  # fmt: skip
        assert token_offset is None and layer_ids is None
        mode = InferenceMode.PREFILL if is_prefill else InferenceMode.DECODE
        heads, kv_heads = self.num_heads_per_rank, self.num_key_value_heads_per_rank
        if len(self.qkv) == 1:
            sizes = [self.head_size * heads, self.head_size * kv_heads, self.head_size * kv_heads]
            packed = self.qkv(inputs, inference_mode=mode, **kwargs)[0]
            q, k, v = split(packed, dim=1, split_size_or_sections=sizes)
        else:
            q, k, v = self.qkv(inputs, inference_mode=mode, **kwargs)
        q, k = nn.functional.rope(q, k, cos_table, sin_table, seq_lens)
        q = q.reshape(reshape_func=lambda shape: [shape[0], heads, self.head_size])
        k = k.reshape(lambda shape: [shape[0], kv_heads, self.head_size])
        v = v.reshape(lambda shape: [shape[0], kv_heads, self.head_size])
        reshape_and_cache(k, v, k_cache, v_cache, slot_mapping)
        common = {"head_num": heads, "kv_head_num": kv_heads, "kv_lens": seq_lens}
        common["qk_scale"] = 1.0 / math.sqrt(self.head_size)
        if is_prefill:
            masked = {"mask": mask, "mask_type": nn.functional.MaskType.NORM, "is_triu_mask": True}
            score = nn.functional.paged_attention(q=q, k=k, v=v, **masked, **common)
        else:
            cache = {"k_cache": k_cache, "v_cache": v_cache, "block_table": block_table}
            score = nn.functional.paged_attention(q=q, **cache, **common)
        score = score.reshape(lambda shape: [shape[0], shape[1] * shape[2]])
        out = self.dense(score, inference_mode=mode, **kwargs)
        return dist.all_reduce(out, process_group=self.mapping.attn_tp.process_group)


class Qwen2Mlp(Mlp):
    def forward(self, inputs, is_prefill: bool = True, **kwargs):
        mode = InferenceMode.PREFILL if is_prefill else InferenceMode.DECODE
        outputs = self.gate_up(inputs, inference_mode=mode, **kwargs)
        packed = outputs[0] if len(self.gate_up) == 1 else nn.functional.cat(outputs, dim=-1)
        inner = nn.functional.activation(packed, nn.functional.ActType.SWIGLU)
        out = self.down(input_tensor=inner, inference_mode=mode, **kwargs)
        return dist.all_reduce(send_tensor=out, process_group=self.mapping.mlp_tp.process_group)


class Qwen2Layer(BaseLayer):
    def __init__(self, config, file_loader, prefix, layer_idx, config_metadata, **kwargs):
        super().__init__(config, file_loader, prefix, layer_idx, config_metadata=config_metadata, **kwargs)
        self.self_attn = Qwen2Attention(config, file_loader, f"{self.prefix}.self_attn", config_metadata, **kwargs)
        self.mlp = Qwen2Mlp(config, file_loader, f"{self.prefix}.mlp", config_metadata=config_metadata, **kwargs)
        self.input_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.input_layernorm")
        self.post_attention_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_attention_layernorm")

    def forward(
        self, inputs, cos_emb, sin_emb, k_cache, v_cache, slots, attention_mask, seq_len, block_table, token_offset,
        layer_ids, is_prefill, **kwargs,
    ):  # fmt: skip
        attended = self.self_attn(
            self.input_layernorm(inputs), cos_emb, sin_emb, k_cache, v_cache, slots, attention_mask, seq_len,
            block_table, token_offset, layer_ids, is_prefill, **kwargs,
        )  # fmt: skip
        residual = attended + inputs
        return self.mlp(self.post_attention_layernorm(residual), **kwargs) + residual


class Qwen2Model(BaseModel):
    def __init__(self, config, file_loader, mapping: Mapping, prefix, config_metadata, **kwargs):
        super().__init__(config, file_loader, prefix, config_metadata=config_metadata, mapping=mapping, **kwargs)
        self.embed_tokens = ParallelEmbedding(config, file_loader, f"{prefix}.embed_tokens")
        self.layers = nn.ModuleList(
            [Qwen2Layer(config, file_loader, prefix, i, config_metadata) for i in range(config.num_hidden_layers)]
        )
        self.norm = RmsNorm(config, file_loader, f"{prefix}.norm")

    def forward(
        self, input_ids, position_ids, cosine_table, sine_table, k_caches, v_caches, slots_mapping, attention_mask,
        seq_len, block_table, token_offset, kv_cache_idx, is_prefill, **kwargs,
    ):  # fmt: skip
        hidden = self.embed_tokens(input_ids)
        cos_emb = gather(cosine_table, 0, position_ids)
        sin_emb = gather(sine_table, 0, position_ids)
        for i in range(self.config.num_hidden_layers):
            hidden = self.layers[i](
                hidden, cos_emb, sin_emb, k_caches[i], v_caches[i], slots_mapping, attention_mask, seq_len,
                block_table, token_offset, kv_cache_idx, is_prefill, **kwargs,
            )  # fmt: skip
        return self.norm(hidden)
