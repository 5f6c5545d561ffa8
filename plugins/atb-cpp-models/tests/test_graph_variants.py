# SPDX-License-Identifier: Apache-2.0
"""`ModelRunner(graph="cpp")`: C++ writes the graph, everything else is the model's own, and so are the bits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import SMALL, SmallForCausalLM

from atb_core import FlashCausalLMV3, ModelRunner, ModelTorch, SamplingParams
from atb_core.engine.native import NativeStore
from atb_core.errors import BackendUnavailableError, EngineError, GraphError, RequestError, WeightsError
from atb_core.layers.mlp.mlp import Mlp
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_cpp_models import graph_variants
from atb_cpp_models.graph_variants import CppEngine, CppVariants
from atb_testing import PagedDriver, tiny_checkpoint
from atb_testing.variants import unfused

pytest.importorskip("transformers")

PROMPTS = [[5, 9, 11, 3], [7, 8], [1, 2, 3, 4, 5, 6, 7]]
GREEDY = SamplingParams(max_tokens=12, ignore_eos=True)
CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen2 with a tied embedding": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 with biases and a tied embedding": ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
}


def opened(directory: Path, graph: str | None = "cpp", **options: Any) -> ModelRunner:
    return ModelRunner(directory, graph=graph, load_tokenizer=False, num_blocks=16, **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("cpp") / "qwen2", "qwen2", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def runner(directory: Path) -> ModelRunner:
    return opened(directory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_who_writes_the_graph_changes_no_bit(tmp_path: Path, checkpoint: str, dtype: torch.dtype) -> None:
    family, config = CHECKPOINTS[checkpoint]
    tiny_checkpoint(tmp_path, family, dtype, **config)
    built, recorded = opened(tmp_path), opened(tmp_path, "python")
    tokens = [[output.token_ids for output in runner.generate(PROMPTS, GREEDY)] for runner in (built, recorded)]
    assert tokens[0] == tokens[1]
    sequences, lengths = [prompt + [13, 17, 19] for prompt in PROMPTS], [len(prompt) for prompt in PROMPTS]
    # The C++ graph is not fused: only then are the sums the same.
    theirs = PagedDriver(unfused(recorded.model), len(PROMPTS)).run(sequences, lengths)
    ours = PagedDriver(built.model, len(PROMPTS)).run(sequences, lengths)
    for left, right in zip(ours, theirs, strict=True):
        assert torch.isfinite(left).all()
        assert torch.equal(left, right)


def test_packed_caches_have_the_same_bits(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2", torch.bfloat16, hidden_size=128, num_attention_heads=4, num_key_value_heads=2)
    models = [opened(tmp_path).model, unfused(opened(tmp_path, "python").model)]
    drivers = [PagedDriver(model, len(PROMPTS), block_size=64) for model in models]
    for cache in (cache for driver in drivers for pair in driver.kv_cache for cache in pair):
        cache.zero_()
    sequences, lengths = [prompt + [13, 17] for prompt in PROMPTS], [len(prompt) for prompt in PROMPTS]
    ours, theirs = (driver.run(sequences, lengths) for driver in drivers)
    assert all(map(torch.equal, ours, theirs))
    for mine, other in zip(*(driver.kv_cache for driver in drivers), strict=True):
        assert all(map(torch.equal, mine, other))
    assert models[0].backend.packs_caches


def test_caches_of_int8_have_the_same_bits(directory: Path) -> None:
    built, recorded = (opened(directory, graph, kv_cache_dtype="int8") for graph in ("cpp", "python"))
    assert built.kv_cache[0][0].dtype is torch.int8
    sequences, lengths = [prompt + [13, 17, 19] for prompt in PROMPTS], [len(prompt) for prompt in PROMPTS]
    models = (built.model, unfused(recorded.model), opened(directory).model)
    ours, theirs, floats = (PagedDriver(model, len(PROMPTS)).run(sequences, lengths) for model in models)
    for left, right, other in zip(ours, theirs, floats, strict=True):
        assert torch.equal(left, right)
        assert not torch.equal(left, other)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("base", ["prefill", "decode"])
def test_the_graphs_are_the_same_op_by_op(tmp_path: Path, family: str, base: str) -> None:
    tiny_checkpoint(tmp_path, family)
    built = opened(tmp_path).model.variants.get(base).engine
    recorded = unfused(opened(tmp_path, "python").model).variants.get(base).engine
    assert isinstance(built, CppEngine)
    assert sorted(op for op, _ in built.model.nodes()) == sorted(node.op.name for node in recorded.network.nodes)


def test_the_runner_says_who_wrote_the_graph_and_the_engine_shows_it(runner: ModelRunner) -> None:
    assert runner.graph == "cpp"
    engine = runner.model.variants.get("prefill").engine
    assert str(engine).startswith("qwen_DecoderModel, built in C++\n  Gather  model.embed_tokens\n")
    with pytest.raises(GraphError, match=r"built in C\+\+; there is no recorded one"):
        runner.model.variants.network(frozenset({"decode"}))
    assert "built in C++" in runner.model.mixed_steps_problem()


def test_prefill_and_decode_hold_one_copy_of_the_weights(directory: Path, runner: ModelRunner) -> None:
    prefill, decode = (runner.model.variants.get(base).engine.model for base in ("prefill", "decode"))
    assert prefill.store is decode.store
    recorded = opened(directory, "python").model.variants.store
    assert prefill.store.nbytes == recorded.nbytes


def test_weights_are_streamed_and_called_as_the_checkpoints_modules(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, torch.Size]] = []
    original = NativeStore.set

    def note(self: NativeStore, name: str, value: torch.Tensor) -> None:
        seen.append((name, value.shape))
        original(self, name, value)

    monkeypatch.setattr(NativeStore, "set", note)
    model = opened(directory).model
    names = [name for name, _ in seen]
    assert names[0] == "model.embed_tokens.weight" and names.count(names[0]) == 1
    assert "model.layers.1.self_attn.q_proj_k_proj_v_proj.bias" in names
    # The output matrix is the embedding: nothing of its own.
    assert set(names) == {parameter.name for parameter in model.parameters()}
    assert "lm_head.weight" not in names


def step(runner: ModelRunner, **changes: Any) -> Any:
    known: dict[str, Any] = {
        "input_ids": torch.tensor([1, 2, 3]),
        "position_ids": torch.arange(3),
        "is_prefill": True,
        "kv_cache": runner.kv_cache,
        "block_tables": torch.zeros(1, 1, dtype=torch.int32),
        "slots": torch.arange(3, dtype=torch.int32),
        "input_lengths": torch.tensor([3], dtype=torch.int32),
        "max_seq_len": 3,
    }
    return runner.forward(**{**known, **changes})


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


DECODE = {"input_ids": torch.tensor([1]), "position_ids": torch.tensor([3]), "is_prefill": False, "slots": int32(3)}


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": torch.tensor([1, 2, 1_000_000])},
        {"input_ids": torch.tensor([1, -2, 3])},
        {"input_ids": torch.tensor([], dtype=torch.int64)},
        {"position_ids": torch.tensor([0, 1, 10**6])},
        {"slots": int32(0, 1, 10**6)},
        {"slots": None},
        {"input_lengths": int32(2)},
        {"kv_cache": []},
        {**DECODE, "input_lengths": int32(4), "block_tables": None},
        {**DECODE, "input_lengths": int32(10**6)},
        {"input_ids": torch.tensor([1, 2, 3], dtype=torch.int32)},
        {"lm_head_indices": int32(2)},
        {"slots": torch.arange(6, dtype=torch.int32)[::2]},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_a_wrong_step_is_refused_in_the_same_words(
    directory: Path, runner: ModelRunner, changes: dict[str, Any]
) -> None:
    with pytest.raises((RequestError, EngineError)) as ours:
        step(runner, **changes)
    with pytest.raises(type(ours.value)) as theirs:
        step(opened(directory, "python"), **changes)
    assert str(ours.value) == str(theirs.value)
    # Nothing has run, and the next step does.
    assert torch.isfinite(step(runner)).all()


def test_another_cache_is_bound_anew_and_longer_contexts_get_longer_tables(runner: ModelRunner) -> None:
    first = step(runner).clone()
    assert torch.equal(step(runner, kv_cache=runner.allocate_kv_cache(2)), first)
    shown = runner.model.variants.get("prefill").constants["cos_table"]
    assert shown.shape[0] >= 3
    assert torch.equal(step(runner, lm_head_indices=torch.tensor([2])), first[2:])


def test_what_has_no_cpp_graph_says_why_and_what_to_do(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_checkpoint(tmp_path, "qwen2_moe")
    with pytest.raises(
        BackendUnavailableError,
        match=r"atb-qwen2 .* has no C\+\+ graph for models of type 'qwen2_moe': a mixture of experts .*graph='python'",
    ):
        opened(tmp_path)
    with pytest.raises(BackendUnavailableError, match=r"backend='reference' interprets graphs .*graph='python'"):
        opened(directory, backend="reference")
    monkeypatch.setattr(graph_variants, "model_of_family", lambda model_type: None)
    with pytest.raises(BackendUnavailableError, match=r"has no C\+\+ graph for models of type 'qwen2'\. Use"):
        opened(directory)


def test_a_window_needs_a_recorded_graph(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0, "layer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendUnavailableError, match="its layers have a sliding window"):
        opened(tmp_path)
    assert opened(tmp_path, "python").config.window_of(0) == 8


@dataclass
class CappedScores(BaseConfig):
    attn_logit_softcapping: float | None = 0.01


class CappedLogits(SmallForCausalLM):
    logits_softcap = 0.25


class ScaledLogits(SmallForCausalLM):
    logits_scale = 0.5


@pytest.mark.parametrize(
    ("base", "config"),
    [(CappedLogits, BaseConfig), (ScaledLogits, BaseConfig), (SmallForCausalLM, CappedScores)],
)
def test_a_cap_or_a_factor_needs_a_recorded_graph(base: type[SmallForCausalLM], config: type[BaseConfig]) -> None:
    model = torch_to_mindie_graph()(base)(MindIELLMConfig(config.from_dict(SMALL)), None, backend="cpu")
    with pytest.raises(BackendUnavailableError, match="a factor or a cap of scores, embeddings or logits"):
        CppVariants(model, "core_DecoderModel")
    plain = torch_to_mindie_graph()(SmallForCausalLM)(MindIELLMConfig(BaseConfig.from_dict(SMALL)), None, backend="cpu")
    assert CppVariants(plain, "core_DecoderModel").get("prefill") is not None


class HalvedLogits(SmallForCausalLM):
    def forward(self, **kwargs: Any) -> Any:
        return {"model_out": super().forward(**kwargs)["model_out"] * 0.5}


class HalvedMlp(Mlp):
    def forward(self, inputs: Any, **kwargs: Any) -> Any:
        return super().forward(inputs, **kwargs) * 0.5


def test_a_forward_of_a_familys_own_needs_a_recorded_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    config = MindIELLMConfig(BaseConfig.from_dict(SMALL))
    model = torch_to_mindie_graph()(HalvedLogits)(config, None, backend="cpu")
    with pytest.raises(BackendUnavailableError, match="HalvedLogits has a forward of its own"):
        CppVariants(model, "core_DecoderModel")
    model = torch_to_mindie_graph()(SmallForCausalLM)(config, None, backend="cpu")
    monkeypatch.setattr(model.model.layers[1].mlp, "__class__", HalvedMlp)
    with pytest.raises(BackendUnavailableError, match="HalvedMlp has a forward of its own"):
        CppVariants(model, "core_DecoderModel")


def test_a_feature_or_an_input_of_a_models_own_needs_a_recorded_graph(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

    class Adapter:
        feature_name, is_enabled, takes_adapters = "adapter", True, False

    original = CausalLM.__init__

    def with_feature(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.features = [Adapter()]

    with monkeypatch.context() as patch:
        patch.setattr(CausalLM, "__init__", with_feature)
        with pytest.raises(BackendUnavailableError, match=r"features \(adapter\), which .* Python records"):
            opened(directory)
    own = type("Own", (), {"_update_model_inputs": lambda self, step: ({}, {}, {})})
    monkeypatch.setattr(CausalLM, "_update_model_inputs", own._update_model_inputs, raising=False)
    assert CausalLM._update_model_inputs is not FlashCausalLMV3._update_model_inputs
    with pytest.raises(BackendUnavailableError, match="adds inputs of its own"):
        opened(directory)


def test_a_checkpoint_that_does_not_fit_is_named_as_with_a_recorded_graph(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, "qwen2")
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] += 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    messages = []
    for graph in ("cpp", "python"):
        with pytest.raises(WeightsError) as error:
            opened(tmp_path, graph)
        messages.append(str(error.value))
    assert "of the wrong shape: model.layers.0.mlp.gate_proj.weight" in messages[0]
    assert messages[0] == messages[1]


def test_an_order_of_weights_that_is_not_the_graphs_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atb_cpp_models import CppModel, model_torch

    def register(order: tuple[str, ...]) -> None:
        monkeypatch.setattr(model_torch, "_registration", lambda name: CppModel(weights=order))

    plain = CppModel().weights
    register(plain[:-1])
    with pytest.raises(EngineError, match=r"takes 24 weights, but the order .* has 23: model\.embed_tokens\.weight"):
        opened(directory)
    register((*plain[-1:], *plain[1:-1], "model.norm"))
    with pytest.raises(EngineError, match="has 1 dimensions where 2 are needed"):
        opened(directory)


def test_the_settings_file_chooses_where_the_caller_does_not(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATB_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text('[engine]\ngraph = "cpp"\n')
    assert opened(directory, None).graph == "cpp"
    assert opened(directory, "python").graph == "python"
    (tmp_path / "config.toml").write_text("")
    assert opened(directory, None).graph == "python"


def test_a_second_graph_takes_weights_of_other_shapes() -> None:
    model = ModelTorch("llama_DecoderModel")
    for dim in (8, 16):
        model.set_param(
            {
                "torchDtype": "float32", "numHiddenLayers": 1, "numAttentionHeadsPerRank": 2,
                "numKeyValueHeadsPerRank": 1, "hiddenSizePerAttentionHead": dim,
            }
        )  # fmt: skip
        shapes = {"embed_tokens": (11, 16), "lm_head": (11, 16), "qkv.weight": (4 * dim, 16)}
        shapes |= {"dense.weight": (16, 2 * dim), "gate_up.weight": (48, 16), "down.weight": (16, 24)}
        last = [".".join(name.split(".")[-2:]) if "." in name else name for name in model.weight_names]
        model.set_weight([torch.randn(shapes.get(name, (16,))) for name in last])


def test_weights_that_are_announced_may_come_one_by_one_and_must_all_come() -> None:
    model = ModelTorch("qwen_DecoderModel")
    model.set_param(
        {
            "isPrefill": True, "torchDtype": "float32", "numHiddenLayers": 1, "numAttentionHeadsPerRank": 2,
            "numKeyValueHeadsPerRank": 1, "hiddenSizePerAttentionHead": 8,
        }
    )  # fmt: skip
    shapes = {"embed_tokens": (11, 16), "lm_head": (11, 16), "qkv.weight": (32, 16), "qkv.bias": (32,)}
    shapes |= {"dense.weight": (16, 16), "gate_up.weight": (48, 16), "down.weight": (16, 24)}
    last = [".".join(name.split(".")[-2:]) if "." in name else name for name in model.weight_names]
    like = [torch.empty(shapes.get(name, (16,)), device="meta") for name in last]
    with pytest.raises(EngineError, match="11 names were given for 10 weights"):
        model.declare_weight(["name"] * (len(like) + 1), like)
    with pytest.raises(EngineError, match="two weights of different shapes or types are both called 'name'"):
        model.declare_weight(["name"] * len(like), like)
    names = [f"our {name}" for name in model.weight_names]
    names[-1] = names[0]
    model.declare_weight(names, like)
    for name, weight in list(zip(names, like, strict=True))[1:-1]:
        model.store.set(name, torch.randn(weight.shape))
    inputs = {
        "input_ids": torch.tensor([1, 2]), "position_ids": torch.arange(2), "cosine_table": torch.ones(4, 8),
        "sine_table": torch.zeros(4, 8), "attention_mask": torch.zeros(128, 128), "slots_mapping": int32(0, 1),
        "seq_len": int32(2), "lm_head_indices": torch.tensor([1]),
    }  # fmt: skip
    model.set_constant({name: inputs.pop(name) for name in ("cosine_table", "sine_table")})
    given = [inputs.get(name) for name in model.input_names]
    model.set_kv_cache([torch.zeros(1, 16, 1, 8)], [torch.zeros(1, 16, 1, 8)])
    with pytest.raises(EngineError, match="our embed_tokens"):
        model.execute(given)
    with pytest.raises(EngineError, match="'our embed_tokens' is float32"):
        model.store.set(names[0], torch.randn(12, 16))
    model.store.set(names[0], torch.randn(11, 16))
    assert model.execute(given)[0].shape == (1, 11)
