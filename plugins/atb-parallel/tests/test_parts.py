# SPDX-License-Identifier: Apache-2.0
"""The parts of all processes together are the checkpoint, and what processes must share is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb_core.checkpoint import Checkpoint, WeightLoader, open_checkpoint
from atb_core.errors import ConfigError, EngineError, WeightsError
from atb_core.graph.arrays import to_numpy
from atb_core.layers.linear import ColumnParallelLinear, ParallelLMHead
from atb_core.models.base.config import BaseConfig, LayerHeads
from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.modeling_python import DecoderModel
from atb_core.models.base.router import router_of
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.distributed.mapping import Mapping
from atb_parallel.inspection import check_same
from atb_parallel.leader import Leader
from atb_parallel.shards import Cut, PartLoader, part_of
from atb_testing import tiny_checkpoint


class Member:
    """A process of two, as far as what it has goes."""

    def __init__(self, rank: int) -> None:
        self.rank, self.world_size = rank, 2


def parts_of(checkpoint: Checkpoint, loader: WeightLoader) -> list[PartLoader]:
    """Returns what each of two processes has."""
    router = router_of(checkpoint)
    members: list[Any] = [Member(0), Member(1)]
    return [part_of(each, router.model_cls, router.config, loader).loader for each in members]


SUFFIXES = [("gate_proj.weight", 0), ("down_proj.weight", 1), ("o_proj.weight", 1), ("lm_head.weight", 0),
            ("embed_tokens.weight", 1)]  # fmt: skip


@pytest.mark.parametrize(("suffix", "dim"), SUFFIXES)
def test_parts_join_to_the_whole(suffix: str, dim: int, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "qwen3", num_hidden_layers=1, vocab_size=40))
    with checkpoint.weights() as loader:
        (name,) = [each for each in loader.names() if each.endswith(suffix)]
        parts = parts_of(checkpoint, loader)
        joined = np.concatenate([to_numpy(part.get(name)) for part in parts], axis=dim)
        np.testing.assert_array_equal(joined, to_numpy(loader.get(name)))
        for part in parts:
            assert part.nbytes(name) * 2 == loader.nbytes(name)
            out = np.empty(part.shape(name), np.float32)
            part.read_into(name, out)
            np.testing.assert_array_equal(out, to_numpy(part.get(name)))


@pytest.mark.parametrize("vocab_size", [40, 41])
def test_a_tied_matrix_is_divided_once_by_columns_and_once_by_rows(vocab_size: int, tmp_path: Path) -> None:
    sizes = {"num_hidden_layers": 1, "tie_word_embeddings": True, "vocab_size": vocab_size}
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "qwen2", **sizes))
    with checkpoint.weights() as loader:
        assert "lm_head.weight" not in loader.names()
        table = to_numpy(loader.get("model.embed_tokens.weight"))
        for rank, part in enumerate(parts_of(checkpoint, loader)):
            columns = to_numpy(part.get("model.embed_tokens.weight"))
            if vocab_size == 41:
                np.testing.assert_array_equal(columns, table)
                assert "lm_head.weight" not in part.names()
                continue
            np.testing.assert_array_equal(columns, np.split(table, 2, axis=1)[rank])
            np.testing.assert_array_equal(to_numpy(part.get("lm_head.weight")), np.split(table, 2)[rank])
            assert part.nbytes("lm_head.weight") * 2 == loader.nbytes("model.embed_tokens.weight")


def test_a_tied_matrix_of_another_layer_stays_whole(tmp_path: Path) -> None:
    @torch_to_mindie_graph()
    class Own(FlashCausalLMV3):
        """A model with a layer that is not divided by the vocabulary."""

        def __init__(self, mindie_llm_config: MindIELLMConfig, weight_loader: Any, **kwargs: Any) -> None:
            super().__init__(mindie_llm_config, weight_loader, **kwargs)
            config = mindie_llm_config.hf_config
            self.model = DecoderModel(config, weight_loader, "model")
            sizes = {"in_features": config.hidden_size, "out_features": config.vocab_size}
            table = self.model.embed_tokens.weight
            self.lm_head = ColumnParallelLinear(config, weight_loader, "lm_head", tied_to=table, **sizes)

    sizes = {"num_hidden_layers": 1, "tie_word_embeddings": True, "vocab_size": 40}
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "llama", **sizes))
    member: Any = Member(1)
    with checkpoint.weights() as loader:
        part = part_of(member, Own, router_of(checkpoint).config, loader).loader  # type: ignore[arg-type]
        table = to_numpy(loader.get("model.embed_tokens.weight"))
        np.testing.assert_array_equal(to_numpy(part.get("model.embed_tokens.weight")), np.split(table, 2, axis=1)[1])
        np.testing.assert_array_equal(to_numpy(part.get("lm_head.weight")), table)


def test_a_model_that_gathers_whole_logits_is_refused(tmp_path: Path) -> None:
    """Models of ATB-Models gather what their `lm_head` gives, and here it has all logits."""

    @torch_to_mindie_graph()
    class Gathers(FlashCausalLMV3):
        def __init__(self, mindie_llm_config: MindIELLMConfig, weight_loader: Any, **kwargs: Any) -> None:
            super().__init__(mindie_llm_config, weight_loader, **kwargs)
            self.model = DecoderModel(mindie_llm_config.hf_config, weight_loader, "model")
            self.lm_head = ParallelLMHead(mindie_llm_config.hf_config, weight_loader, "lm_head")

        def forward(self, **kwargs: Any) -> Any:
            return {"model_out": dist.all_gather(self.lm_head(self.model(**kwargs))).permute([1, 0, 2])}

    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "llama", num_hidden_layers=1, vocab_size=40))
    leader = Leader((), 2, None)
    with checkpoint.weights() as loader:
        part = part_of(leader, Gathers, router_of(checkpoint).config, loader)
        model = Gathers(MindIELLMConfig(part.config, mapping=Mapping(2, 0, group=leader)), part.loader, backend="cpu")
    with pytest.raises(ConfigError, match=r"model_out of Gathers is .*2, 40.* not a row .* without all_gather"):
        leader.lead(model, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (lambda config: LayerHeads(config.num_attention_heads, config.num_key_value_heads, 32), None),
        (
            lambda config: LayerHeads(4, 2, 32),
            "layer 1 has 4 heads of queries and 2 of keys, which are 4 and 2 in each",
        ),
        # Queries 0 and 1 share keys 0 in the whole model, and each would have keys of its own in a part.
        (lambda config: LayerHeads(config.num_attention_heads, 2, 32), "which are 2 and 2 in each of 2 processes"),
        (lambda config: LayerHeads(config.num_attention_heads, 1, 32), None),
    ],
)
def test_the_heads_of_a_layer_are_divided_or_refused(own: Any, problem: str | None, tmp_path: Path) -> None:
    class Heads(BaseConfig):
        def heads_of(self, layer_idx: int) -> LayerHeads | None:
            return own(self) if layer_idx == 1 else None  # type: ignore[no-any-return]

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "llama", vocab_size=40, **sizes))
    config = Heads.from_dict(checkpoint.config())
    model_cls: Any = torch_to_mindie_graph()(DecoderCausalLM)
    member: Any = Member(1)
    with checkpoint.weights() as loader:
        if problem is not None:
            with pytest.raises(ConfigError, match=problem):
                part_of(member, model_cls, config, loader)
            return
        part = part_of(member, model_cls, config, loader)
        model = model_cls(MindIELLMConfig(part.config), part.loader, backend="cpu")
    assert [tensor.head_dim for spec in model.kv_cache_specs for tensor in spec.tensors] == [16, 16, 32, 32]
    assert {tensor.num_heads for spec in model.kv_cache_specs for tensor in spec.tensors} == {1}


def test_a_tied_matrix_that_is_stored_twice_must_be_the_same(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    sizes = {"num_hidden_layers": 1, "tie_word_embeddings": True, "vocab_size": 40}
    path = tiny_checkpoint(tmp_path, "qwen2", **sizes)
    tensors = load_file(path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["lm_head.weight"][30, 3] += 1
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(path)
    with checkpoint.weights() as loader:
        parts = parts_of(checkpoint, loader)
        np.testing.assert_array_equal(to_numpy(parts[0].get("lm_head.weight")), tensors["lm_head.weight"][:20])
        with pytest.raises(WeightsError, match=r"lm_head.weight and model.embed_tokens.weight are one weight, but"):
            parts[1].get("lm_head.weight")


def test_a_tensor_that_holds_gate_and_up_is_cut_twice(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from atb_core.checkpoint import open_weights

    whole = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)
    save_file({"gate_up_proj.weight": whole}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader:
        cut = Cut((8, 3), 0, ((2, 4), (6, 8)))
        part = PartLoader(loader, {"gate_up_proj.weight": cut}, ())
        np.testing.assert_array_equal(to_numpy(part.get("gate_up_proj.weight")), whole[[2, 3, 6, 7]])
        assert part.shape("gate_up_proj.weight") == (4, 3)


def test_the_bias_of_a_sum_is_added_once(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "llama", num_hidden_layers=1, attention_bias=True))
    with checkpoint.weights() as loader:
        (name,) = [each for each in loader.names() if each.endswith("o_proj.bias")]
        values = [to_numpy(part.get(name)) for part in parts_of(checkpoint, loader)]
        np.testing.assert_array_equal(values[0], to_numpy(loader.get(name)))
        assert values[0].any()
        assert not values[1].any()


def test_different_packages_are_named() -> None:
    own = {"versions": {"atb-core": "1", "atb-qwen2": "1", "atb-gguf": "1"}, "checkpoint": "a"}
    check_same(own, own, 1)
    other = {"versions": {"atb-core": "1", "atb-qwen2": "2"}, "checkpoint": "a"}
    with pytest.raises(EngineError, match="atb-gguf is 1 on rank 0 and not installed on rank 3; atb-qwen2 is 1 on"):
        check_same(own, other, 3)
    with pytest.raises(EngineError, match="rank 1 has another checkpoint"):
        check_same(own, {**own, "checkpoint": "b"}, 1)
