# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is compared with the model before anything is read, and read tensor by tensor."""

from __future__ import annotations

import pytest
import torch
from small_model import MemoryLoader, SmallForCausalLM, random_tensors, small_config

from atb_core.errors import WeightsError
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.weight_loading import collect_parameters, plan_loading, stream_weights

Decorated = torch_to_mindie_graph()(SmallForCausalLM)


def test_missing_misshapen_mistyped_and_unexpected_tensors_are_all_named_in_one_message() -> None:
    model = Decorated(small_config(), None, backend="reference")
    tensors = random_tensors(model)
    del tensors["model.norm.weight"], tensors["model.layers.1.self_attn.k_proj.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(48, 31)
    tensors["model.layers.1.input_layernorm.weight"] = torch.ones(32, dtype=torch.int32)
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
    tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(48, 32)
    loader = MemoryLoader(tensors)
    with pytest.raises(WeightsError) as error:
        model.load_weights(loader)
    text = str(error.value)
    assert "2 missing: model.layers.1.self_attn.k_proj.weight [16, 32], model.norm.weight [32]" in text
    assert "1 of the wrong shape: model.layers.0.mlp.up_proj.weight is [48, 31], needed [48, 32]" in text
    assert "1 not of a floating-point type: model.layers.1.input_layernorm.weight is int32" in text
    assert "2 unexpected: model.layers.0.self_attn.q_proj.bias, model.layers.2.mlp.up_proj.weight" in text
    assert loader.reads == []


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq", "h.0.attn.masked_bias"]
)
def test_buffers_that_can_be_computed_are_left_out(name: str) -> None:
    model = Decorated(small_config(), None, backend="reference")
    loader = MemoryLoader({**random_tensors(model), name: torch.zeros(4)})
    model.load_weights(loader)
    assert name not in loader.reads


def test_every_tensor_is_read_once_and_arrives_in_the_models_type() -> None:
    model = Decorated(small_config(torch_dtype="bfloat16"), None, backend="reference")
    tensors = random_tensors(model)
    loader = MemoryLoader(tensors)
    arrived: dict[str, torch.Tensor] = {}
    parameters = collect_parameters([model])
    stream_weights(plan_loading(parameters, loader), loader, lambda name, t: arrived.update({name: t}))
    assert sorted(loader.reads) == sorted(tensors)
    assert {t.dtype for t in arrived.values()} == {torch.bfloat16}
    packed = arrived["model.layers.0.self_attn.q_proj_k_proj_v_proj.weight"]
    parts = [tensors[f"model.layers.0.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert torch.equal(packed, torch.cat(parts).bfloat16())


def test_a_quantised_checkpoint_is_refused_by_its_method() -> None:
    model = Decorated(small_config(quantization_config={"quant_method": "gptq", "bits": 4}), None, backend="reference")
    with pytest.raises(WeightsError, match=r"quantised \(gptq\)"):
        model.load_weights(MemoryLoader({}))


def test_progress_counts_the_bytes_of_the_checkpoint() -> None:
    class Counting:
        total, done, finished = 0, 0, False

        def start(self, what: str, total: int | None) -> None:
            self.total = total or 0

        def advance(self, nbytes: int) -> None:
            self.done += nbytes

        def finish(self) -> None:
            self.finished = True

    model = Decorated(small_config(tie_word_embeddings=True), None, backend="reference")
    tensors = random_tensors(model)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    progress = Counting()
    model.load_weights(MemoryLoader(tensors), progress)
    assert progress.done == progress.total == sum(t.numel() * 4 for t in tensors.values())
    assert progress.finished


def test_a_tied_head_is_one_parameter_and_one_weight_of_the_network() -> None:
    model = Decorated(small_config(tie_word_embeddings=True), None, backend="reference")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert [p.name for p in collect_parameters([model])].count("model.embed_tokens.weight") == 1
    network = model.runtime.network("decode")
    assert "lm_head.weight" not in network.weights_keys
    users = [node.op.name for node in network.nodes if network.input("model.embed_tokens.weight") in node.inputs]
    assert users == ["Gather", "Linear"]


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_a_tied_weight_may_be_stored_under_either_name(name: str) -> None:
    model = Decorated(small_config(tie_word_embeddings=True), None, backend="reference")
    tensors = random_tensors(model)
    tensors[name] = tensors.pop("model.embed_tokens.weight")
    model.load_weights(MemoryLoader(tensors))


def test_a_tied_weight_stored_twice_must_be_the_same_twice() -> None:
    model = Decorated(small_config(tie_word_embeddings=True), None, backend="reference")
    tensors = random_tensors(model)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    model.load_weights(MemoryLoader(tensors))
    tensors["lm_head.weight"][0, 0] += 1
    with pytest.raises(WeightsError, match=r"lm_head\.weight and model\.embed_tokens\.weight are one weight, but"):
        model.load_weights(MemoryLoader(tensors))
