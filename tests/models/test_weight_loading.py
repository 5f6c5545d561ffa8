# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is compared with the model before anything is read, and read tensor by tensor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_model import SMALL, MemoryLoader, SmallForCausalLM, random_tensors, small_config

from atb_core.errors import WeightsError
from atb_core.graph.arrays import HostArray, to_torch
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.modeling_python import MoeDecoderModel
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.runtime.weight_loading import collect_parameters, plan_loading, stream_weights

Decorated = torch_to_mindie_graph()(SmallForCausalLM)
EXPERTS = "model.layers.0.mlp.experts"


class SmallMoeForCausalLM(SmallForCausalLM):
    model_cls = MoeDecoderModel


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


def test_names_without_the_bodys_prefix_are_those_of_the_body() -> None:
    model = Decorated(small_config(), None, backend="reference")
    tensors = {name.removeprefix("model."): tensor for name, tensor in random_tensors(model).items()}
    loader = MemoryLoader(tensors)
    model.load_weights(loader)
    assert sorted(loader.reads) == sorted(tensors)
    del tensors["norm.weight"]
    with pytest.raises(WeightsError, match=r"1 missing: model\.norm\.weight"):
        model.load_weights(MemoryLoader(tensors))


def test_a_tensor_that_an_index_leaves_out_may_be_unknown_to_the_model() -> None:
    class Loader(MemoryLoader):
        def unlisted(self) -> frozenset[str]:
            return frozenset({"extra"})

    model = Decorated(small_config(), None, backend="reference")
    tensors = {**random_tensors(model), "extra": torch.zeros(4)}
    model.load_weights(Loader(tensors))
    with pytest.raises(WeightsError, match="1 unexpected: other"):
        model.load_weights(Loader({**tensors, "other": torch.zeros(4)}))


def test_every_tensor_is_read_once_and_arrives_in_the_models_type() -> None:
    model = Decorated(small_config(torch_dtype="bfloat16"), None, backend="reference")
    tensors = random_tensors(model)
    loader = MemoryLoader(tensors)
    arrived: dict[str, torch.Tensor] = {}
    parameters = collect_parameters([model])
    stream_weights(plan_loading(parameters, loader), loader, lambda name, t: arrived.update({name: to_torch(t)}))
    assert sorted(loader.reads) == sorted(tensors)
    assert {t.dtype for t in arrived.values()} == {torch.bfloat16}
    packed = arrived["model.layers.0.self_attn.q_proj_k_proj_v_proj.weight"]
    parts = [tensors[f"model.layers.0.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert torch.equal(packed, torch.cat(parts).bfloat16())


def test_a_quantized_checkpoint_is_refused_by_its_method() -> None:
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
    network = model.variants.network(frozenset({"decode"}))
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


def moe_checkpoint(**changes: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model whose first layer has three experts, and a checkpoint that holds these one by one."""
    sizes = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [1]}
    config = MindIELLMConfig(MoeConfig.from_dict({**SMALL, **sizes, **changes}))
    model = torch_to_mindie_graph()(SmallMoeForCausalLM)(config, None, backend="reference")
    return model, random_tensors(model)


def arrived(model: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the values that an engine gets from a checkpoint, by parameter."""
    loader, given = MemoryLoader(tensors), {}
    plan = plan_loading(collect_parameters([model]), loader)
    stream_weights(plan, loader, lambda name, tensor: given.update({name: to_torch(tensor)}))
    assert sorted(loader.reads) == sorted(tensors)
    return given


def test_experts_one_by_one_and_fused_become_the_same_weight() -> None:
    model, tensors = moe_checkpoint(torch_dtype="bfloat16")
    given = arrived(model, tensors)
    gate_up, down = given[f"{EXPERTS}.gate_up_proj"], given[f"{EXPERTS}.down_proj"]
    for e in range(3):
        gate, up = tensors[f"{EXPERTS}.{e}.gate_proj.weight"], tensors[f"{EXPERTS}.{e}.up_proj.weight"]
        assert torch.equal(gate_up[e], torch.cat((gate, up)).bfloat16())
        assert torch.equal(down[e], tensors[f"{EXPERTS}.{e}.down_proj.weight"].bfloat16())
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(EXPERTS)}
    fused = arrived(model, {**rest, f"{EXPERTS}.gate_up_proj": gate_up, f"{EXPERTS}.down_proj": down})
    assert given.keys() == fused.keys()
    assert all(torch.equal(fused[name], tensor) for name, tensor in given.items())


def test_experts_stored_one_by_one_reach_the_engine_one_by_one() -> None:
    model, tensors = moe_checkpoint(torch_dtype="bfloat16")
    expected = arrived(model, tensors)
    whole: dict[str, torch.Tensor] = {}
    parts: dict[str, list[torch.Tensor]] = {}

    def take_part(name: str, begin: int, part: HostArray) -> None:
        assert begin == len(parts.setdefault(name, [])) and len(part) == 1
        parts[name].append(to_torch(part))

    loader = MemoryLoader(tensors)
    plan = plan_loading(collect_parameters([model]), loader)
    stream_weights(plan, loader, lambda name, tensor: whole.update({name: to_torch(tensor)}), part_sink=take_part)
    assert sorted(loader.reads) == sorted(tensors)
    assert sorted(parts) == [f"{EXPERTS}.down_proj", f"{EXPERTS}.gate_up_proj"]
    given = {**whole, **{name: torch.cat(rows) for name, rows in parts.items()}}
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[name], tensor) for name, tensor in expected.items())


def test_a_missing_and_a_surplus_expert_are_named() -> None:
    model, tensors = moe_checkpoint()
    del tensors[f"{EXPERTS}.1.up_proj.weight"]
    tensors[f"{EXPERTS}.3.up_proj.weight"] = torch.zeros(24, 32)
    tensors[f"{EXPERTS}.2.down_proj.weight"] = torch.zeros(24, 32)
    with pytest.raises(WeightsError) as error:
        plan_loading(collect_parameters([model]), MemoryLoader(tensors))
    text = str(error.value)
    assert f"1 missing: {EXPERTS}.1.up_proj.weight [24, 32]" in text
    assert f"1 of the wrong shape: {EXPERTS}.2.down_proj.weight is [24, 32], needed [32, 24]" in text
    assert f"1 unexpected: {EXPERTS}.3.up_proj.weight" in text


def test_tensors_that_a_family_leaves_out_are_not_unexpected() -> None:
    model, tensors = moe_checkpoint()
    tensors["model.layers.7.eh_proj.weight"] = torch.zeros(24, 32)
    plan = plan_loading(collect_parameters([model]), MemoryLoader(tensors), ["model.layers.7."])
    assert plan.total_bytes == sum(t.nbytes for t in tensors.values()) - 4 * 24 * 32


def test_half_of_either_form_of_the_experts_is_no_checkpoint() -> None:
    model, tensors = moe_checkpoint()
    tensors[f"{EXPERTS}.gate_up_proj"] = torch.zeros(3, 48, 32)
    del tensors[f"{EXPERTS}.0.gate_proj.weight"]
    with pytest.raises(WeightsError) as error:
        plan_loading(collect_parameters([model]), MemoryLoader(tensors))
    assert f"1 missing: {EXPERTS}.0.gate_proj.weight" in str(error.value)
    assert f"1 unexpected: {EXPERTS}.gate_up_proj" in str(error.value)
