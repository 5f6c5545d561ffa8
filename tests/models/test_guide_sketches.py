# SPDX-License-Identifier: Apache-2.0
"""The sketches of the migration guide run as they are written there, once their dots are filled in.

Only the import root is changed. Where the guide leaves dots, the least is put that works.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from atb_core import nn
from atb_core.checkpoint import SilentProgress, open_weights
from atb_core.layers.attention.attention import Attention
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import ColumnParallelLinear, MergedColumnParallelLinear, RowParallelLinear
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.modeling_python import BaseLayer, BaseModel
from atb_core.models.base.router import BaseRouter
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.functional import gather
from atb_testing import PagedDriver, available_backends, compare_logits, load_reference, tiny_checkpoint
from atb_testing.conformance import hugging_face_logits

if TYPE_CHECKING:
    from atb_core.checkpoint.base import WeightLoader as SafetensorFileLoader
    from atb_core.models.base.mindie_llm_config import ConfigMetadata, InferenceParameter

pytest.importorskip("transformers")


class YourModelAttention(Attention):
    def __init__(
        self,
        config: BaseConfig,
        file_loader: SafetensorFileLoader,
        prefix: str,
        config_metadata: ConfigMetadata,
        infer_param: InferenceParameter,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, file_loader, prefix, config_metadata, infer_param, **kwargs)
        self.qkv = MergedColumnParallelLinear(config, file_loader, [f"{prefix}.{p}_proj" for p in "qkv"], bias=True)
        self.dense = RowParallelLinear(config, file_loader, f"{prefix}.o_proj")

    def forward(
        self, inputs, cos_emb, sin_emb, k_cache, v_cache, slots, mask, seq_len, block_table, is_prefill, **kwargs
    ) -> Any:  # type: ignore[no-untyped-def]
        heads, kv_heads, size = self.num_heads, self.num_kv_heads, self.head_dim
        q, k, v = self.qkv(inputs)
        q_out, k_out = nn.functional.rope(q, k, cos_emb, sin_emb, seq_len)
        q3 = q_out.reshape(lambda s: [s[0], heads, size])
        k3, v3 = (t.reshape(lambda s: [s[0], kv_heads, size]) for t in (k_out, v))
        nn.functional.reshape_and_cache(k3, v3, k_cache, v_cache, slots)
        scale = size**-0.5
        if is_prefill:
            atten_score = nn.functional.paged_attention(
                q3, k3, v3, mask=mask, mask_type=nn.functional.MaskType.NORM, head_num=heads, kv_head_num=kv_heads,
                kv_lens=seq_len, qk_scale=scale, is_triu_mask=True,
            )  # fmt: skip
        else:
            atten_score = nn.functional.paged_attention(
                q3, k_cache=k_cache, v_cache=v_cache, block_table=block_table, head_num=heads, kv_head_num=kv_heads,
                kv_lens=seq_len, qk_scale=scale,
            )  # fmt: skip
        atten_out = self.dense(atten_score.reshape(lambda s: [s[0], heads * size]))
        return atten_out


class YourModelMlp(Mlp):
    def __init__(
        self,
        config: BaseConfig,
        file_loader: SafetensorFileLoader,
        prefix: str,
        config_metadata: ConfigMetadata,
        infer_param: InferenceParameter,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, file_loader, prefix, config_metadata, infer_param, **kwargs)
        self.gate_up = ColumnParallelLinear(config, file_loader, [f"{prefix}.gate_proj", f"{prefix}.up_proj"])
        self.down = RowParallelLinear(config, file_loader, f"{prefix}.down_proj")

    def forward(self, x) -> Any:  # type: ignore[no-untyped-def]
        gate_up_out = self.gate_up(x)
        act_out = nn.functional.activation(gate_up_out, nn.functional.ActType.SWIGLU)
        down_out = self.down(act_out)
        return down_out


class YourModelLayer(BaseLayer):
    def __init__(self, config: BaseConfig, file_loader: SafetensorFileLoader, prefix: str, layer_idx, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(config, file_loader, prefix, layer_idx, **kwargs)
        known = (self.config_metadata, self.infer_param)
        self.self_attn = YourModelAttention(config, file_loader, f"{self.prefix}.self_attn", *known)
        self.mlp = YourModelMlp(config, file_loader, f"{self.prefix}.mlp", *known)
        # Under this name the guide creates it, and calls it as self.input_layernorm.
        self.input_layer_norm = RmsNorm(config, file_loader, f"{self.prefix}.input_layernorm")
        self.post_attention_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_attention_layernorm")

    def forward(self, inputs, *args, is_prefill) -> Any:  # type: ignore[no-untyped-def]
        norm_out = self.input_layernorm(inputs)
        attn_out = self.self_attn(norm_out, *args, is_prefill=is_prefill)
        res_add = attn_out + inputs
        post_norm_out = self.post_attention_layernorm(res_add)
        mlp_out = self.mlp(post_norm_out)
        out = mlp_out + res_add
        return out


class YourModelModel(BaseModel):
    def __init__(self, config: BaseConfig, file_loader: SafetensorFileLoader, prefix: str, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(config, file_loader, prefix, **kwargs)
        self.embed_tokens = ParallelEmbedding(config, file_loader, f"{prefix}.embed_tokens")
        self.layers = nn.ModuleList(
            [YourModelLayer(config, file_loader, prefix, layer_idx) for layer_idx in range(config.num_hidden_layers)]
        )
        self.norm = RmsNorm(config, file_loader, f"{prefix}.norm")

    def forward(
        self, input_ids, position_ids, cosine_table, sine_table, k_caches, v_caches, slots_mapping, attention_mask,
        seq_len, block_table, is_prefill, **kwargs,
    ) -> Any:  # type: ignore[no-untyped-def]  # fmt: skip
        hidden_states = self.embed_tokens(input_ids)
        cos_emb = nn.functional.gather(cosine_table, 0, position_ids)
        sin_emb = nn.functional.gather(sine_table, 0, position_ids)
        for i in range(self.config.num_hidden_layers):
            hidden_states = self.layers[i](
                hidden_states, cos_emb, sin_emb, k_caches[i], v_caches[i], slots_mapping, attention_mask, seq_len,
                block_table, is_prefill=is_prefill,
            )  # fmt: skip
        hidden_states = self.norm(hidden_states)

        return hidden_states


@torch_to_mindie_graph()
class FlashYourModelForCausalLMV3(FlashCausalLMV3):
    def __init__(self, mindie_llm_config: MindIELLMConfig, weight_loader: SafetensorFileLoader, **kwargs: Any) -> None:
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        self.model = YourModelModel(
            config=mindie_llm_config.hf_config,
            file_loader=weight_loader,
            mapping=mindie_llm_config.mapping,
            prefix="model",
            config_metadata=self.model_status,
            **kwargs,
        )
        self.lm_head = ColumnParallelLinear(mindie_llm_config.hf_config, weight_loader, "lm_head")

    def forward(self, **kwargs: Any) -> Any:
        is_prefill = kwargs.get("is_prefill", True)

        if is_prefill:
            lm_head_indices = kwargs.get("lm_head_indices")
            hidden_states = self.model(**kwargs)
            hidden_states_ = gather(hidden_states, 0, lm_head_indices)
            lm_head_out = self.lm_head(hidden_states_)
        else:
            hidden_states = self.model(**kwargs)
            lm_head_out = self.lm_head(hidden_states)
        if self.mindie_llm_config.mapping.world_size > 1:
            logits = dist.all_gather(lm_head_out)
            logits = logits.permute([1, 0, 2])
            return {"model_out": logits}
        return {"model_out": lm_head_out}


@dataclass
class YourModelConfig(BaseConfig):
    model_type = "your_model"
    vocab_size = 151936
    hidden_size = 4096
    num_hidden_layers = 32


@dataclass
class YourModelRouter(BaseRouter):
    def get_config(self):  # type: ignore[no-untyped-def]
        config = YourModelConfig.from_dict(self.config_dict)
        super().check_config(config)
        return config


@pytest.mark.parametrize("backend", available_backends())
def test_the_guides_sketches_make_a_model_that_answers_like_hugging_faces(tmp_path: Path, backend: str) -> None:
    tiny_checkpoint(tmp_path, "qwen2", num_hidden_layers=2)
    router = YourModelRouter(str(tmp_path), json.loads((tmp_path / "config.json").read_text()))
    with open_weights(tmp_path) as weight_loader:
        model = FlashYourModelForCausalLMV3(MindIELLMConfig(router.config), weight_loader, backend=backend)
        model.load_weights(weight_loader, SilentProgress())
    sequences = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1]]
    ours = torch.cat(PagedDriver(model, 2).run(sequences, [7, 2]))
    truth = hugging_face_logits(load_reference(tmp_path), sequences)
    assert compare_logits(ours, truth, truth).within()


def test_nodes_of_the_sketch_carry_the_guides_module_names() -> None:
    tiny = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = YourModelConfig.from_dict({**tiny, "num_attention_heads": 2})

    class Shapes:
        def shape(self, name: str) -> tuple[int, ...]:
            if "gate" in name or "up_proj" in name:
                return (32, 16)
            return {"down_proj": (16, 32), "lm_head": (50, 16)}.get(name.split(".")[-2], (16, 16))

    model = FlashYourModelForCausalLMV3(MindIELLMConfig(config), Shapes(), backend="reference")
    paths = {node.module_path for node in model.variants.network(frozenset({"decode"})).nodes}
    assert {"model", "model.layers.0.self_attn.qkv", "model.layers.0.mlp.down", "model.norm", "lm_head"} <= paths
