# SPDX-License-Identifier: Apache-2.0
"""Families in the style of ATB-Models run with their imports renamed.

Both are written here in the forms that such code has: fourteen positional arguments from model to layer to attention,
`forward` methods that are written out, the names of sizes and groups, constructors with `**kwargs`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from atb_core import nn
from atb_core.checkpoint import SilentProgress, open_weights
from atb_core.errors import GraphError
from atb_core.features.step import Step
from atb_core.layers import InferenceMode
from atb_core.layers.attention.attention import Attention
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.layers.linear.linear import ColumnParallelLinear, MergedColumnParallelLinear, RowParallelLinear
from atb_core.layers.mlp.mlp import Mlp
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.feature_decorator.v3.base_decorator import FeatureDecorator
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig, ModelStatus
from atb_core.models.base.modeling_python import BaseLayer, BaseModel, DecoderLayer, DecoderModel
from atb_core.models.base.router import BaseRouter
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.functional import gather, reshape_and_cache, split
from atb_core.nn.network import Network
from atb_testing import PagedDriver, available_backends, compare_logits, load_reference, tiny_checkpoint
from atb_testing.conformance import hugging_face_logits

pytest.importorskip("transformers")
# mypy: ignore-errors


# --- qwen2: attention and feed-forward written out -------------------------------------------------------------------


class Qwen2Attention(Attention):
    def __init__(self, config, file_loader, prefix, config_metadata, **kwargs):
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
    def __init__(self, config, file_loader, mapping, prefix, config_metadata, **kwargs):
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


class Qwen2ModelStatus(ModelStatus):
    enable_intra_layer_add_norm: bool = False

    @classmethod
    def from_config(cls, mindie_llm_config):
        status = super().from_config(mindie_llm_config)
        status.enable_intra_layer_add_norm = True
        return status


class Doubled(FeatureDecorator):
    """Doubles the logits of the steps that ask for it."""

    @property
    def feature_name(self):
        return "doubled"

    @property
    def is_enabled(self):
        return True

    def is_activated(self, input_metadata):
        return bool(input_metadata.get("doubled")) and input_metadata["input_ids"] is not None

    def variant_arguments(self):
        return {"factor": 2.0}


@torch_to_mindie_graph(Doubled)
class FlashQwen2ForCausalLMV3(FlashCausalLMV3):
    model_status_cls = Qwen2ModelStatus

    def __init__(self, mindie_llm_config, weight_loader, **kwargs):
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        self.model = Qwen2Model(
            config=mindie_llm_config.hf_config,
            file_loader=weight_loader,
            mapping=mindie_llm_config.mapping,
            prefix="model",
            config_metadata=self.model_status,
            **kwargs,
        )
        self.lm_head = ColumnParallelLinear(
            mindie_llm_config.hf_config, weight_loader, ["lm_head"], llm_config=mindie_llm_config.llm_config
        )

    def forward(self, **kwargs):
        factor = kwargs.pop("factor", 1.0)
        hidden = self.model(**kwargs)
        if kwargs.get("is_prefill", True):
            hidden = gather(hidden, 0, kwargs.get("lm_head_indices"))
        return {"model_out": self.lm_head(hidden) * factor}


@dataclass
class Qwen2Config(BaseConfig):
    model_type: str = "qwen2"
    attention_dropout: float = 0.0
    attention_bias: bool = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


@dataclass
class Qwen2Router(BaseRouter):
    def __post_init__(self):
        super().__post_init__()

    def get_config(self):
        config = Qwen2Config.from_dict(self.config_dict)
        super().check_config(config)
        return config


# --- llama: the base classes' forward methods, called in the long form -----------------------------------------------


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


@torch_to_mindie_graph()
class FlashLlamaForCausalLMV3(FlashCausalLMV3):
    def __init__(self, mindie_llm_config, weight_loader, **kwargs):
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        config = mindie_llm_config.hf_config
        self.model = LlamaModel(config, weight_loader, prefix="model", config_metadata=self.model_status)
        self.lm_head = ColumnParallelLinear(config, weight_loader, ["lm_head"])

    def forward(self, **kwargs):
        hidden = self.model(**kwargs)
        if kwargs["is_prefill"]:
            hidden = gather(hidden, 0, kwargs["lm_head_indices"])
        return {"model_out": self.lm_head(hidden)}


@dataclass
class LlamaRouter(BaseRouter):
    def get_config(self):
        return BaseConfig.from_dict(self.config_dict)


FAMILIES = {"qwen2": (Qwen2Router, FlashQwen2ForCausalLMV3), "llama": (LlamaRouter, FlashLlamaForCausalLMV3)}


def opened(directory: Path, family: str, backend: str = "reference") -> Any:
    tiny_checkpoint(directory, family, num_hidden_layers=2)
    router_cls, model_cls = FAMILIES[family]
    router = router_cls(str(directory), json.loads((directory / "config.json").read_text()))
    with open_weights(directory) as loader:
        model = model_cls(MindIELLMConfig(router.config), loader, backend=backend)
        model.load_weights(loader, SilentProgress())
    return model


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_the_style_of_atb_models_answers_like_hugging_faces(
    tmp_path: Path, family: str, backend: str
) -> None:
    model = opened(tmp_path, family, backend)
    sequences = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1]]
    ours = torch.cat(PagedDriver(model, 2).run(sequences, [7, 2]))
    truth = hugging_face_logits(load_reference(tmp_path), sequences)
    assert compare_logits(ours, truth, truth).within()


def test_a_models_status_and_a_features_name_may_be_what_they_are_there(tmp_path: Path) -> None:
    model = opened(tmp_path, "qwen2")
    status = model.model_status
    assert status.enable_intra_layer_add_norm
    assert (status.num_hidden_layers, status.num_attention_heads) == (status.num_layers, status.num_heads)
    assert status.num_key_value_heads == status.num_kv_heads
    heads = (status.num_kv_heads, status.head_dim)
    step = {
        "input_ids": torch.tensor([1, 2]), "position_ids": torch.arange(2), "is_prefill": True,
        "kv_cache": [(torch.zeros(1, 4, *heads), torch.zeros(1, 4, *heads)) for _ in range(2)],
        "slots": torch.arange(2, dtype=torch.int32), "input_lengths": torch.tensor([2], dtype=torch.int32),
    }  # fmt: skip
    plain = model.forward(**step).clone()
    assert torch.equal(model.forward(**step, doubled=True), plain * 2)
    assert Doubled.feature_name == "doubled"


def test_a_step_is_a_mapping_of_its_arguments() -> None:
    step = Step(torch.tensor([1]), torch.tensor([0]), True, [], extras={"doubled": True})
    assert step["is_prefill"] is step.is_prefill is True
    assert step.get("adapter_ids") is None and step.get("doubled") is True and "tripled" not in step
    assert len(dict(step)) == len(step) == 11
    with pytest.raises(KeyError, match="tripled"):
        step["tripled"]


def test_a_linear_layer_refuses_lora_by_name() -> None:
    layer = ColumnParallelLinear(BaseConfig(), None, "x", in_features=4, out_features=4)
    with Network(), pytest.raises(GraphError, match="enable_lora"):
        layer(nn.Tensor("x"), inference_mode=InferenceMode.ANY, enable_lora=True)


def test_a_feature_whose_name_depends_on_the_object_is_refused() -> None:
    with pytest.raises(GraphError, match="feature_name of Odd"):

        class Odd(FeatureDecorator):
            @property
            def feature_name(self):
                return self.model.name


@pytest.mark.parametrize("name", ["ALIBI", "NORM_COMPRESS", "SPEC"])
def test_a_mask_that_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(GraphError, match=name):
        getattr(nn.functional.MaskType, name)
    assert not hasattr(nn.functional.MaskType, "no_mask")


def test_one_output_may_be_marked_by_its_own_name_and_lists_are_no_tensors() -> None:
    with Network() as network:
        out = nn.functional.neg(input_=nn.Tensor("x"))
        with pytest.raises(GraphError, match="needs a name"):
            network.mark_output(out)
        out.name = "y"
        network.mark_output(out)
        with pytest.raises(GraphError, match="Activation takes tensors, not a list"):
            nn.functional.activation([out], nn.functional.ActType.SWIGLU)
    assert network.outputs[0].name == "y"
    assert nn.DataType.ACL_BF16 is nn.DataType.BF16
