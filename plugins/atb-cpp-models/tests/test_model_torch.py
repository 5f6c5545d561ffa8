# SPDX-License-Identifier: Apache-2.0
"""The decoder that C++ builds gives the bits of the recorded one, and refuses what it cannot do by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from atb_core import ModelTorch, load_native_library
from atb_core.errors import EngineError
from atb_core.features.step import Step
from atb_core.graph.arrays import HostArray, to_torch
from atb_core.layers.attention.long_form import MODEL_NAMES
from atb_testing import open_model, tiny_checkpoint
from atb_testing.driver import PagedDriver

pytest.importorskip("transformers")

PROMPTS = [[5, 9, 11, 3], [7, 8], [1, 2, 3, 4, 5, 6, 7]]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
}


def parameters(config: Any, **changes: Any) -> dict[str, Any]:
    layers = config.num_hidden_layers
    biases = {"llama": [True] * 4, "qwen2": [True, False, False, False]}.get(config.model_type, [False] * 4)
    return {
        "isPrefill": True,
        "torchDtype": config.torch_dtype,
        "float32Logits": True,
        "normEps": config.rms_norm_eps,
        "numHiddenLayers": layers,
        "numAttentionHeadsPerRank": config.num_attention_heads,
        "numKeyValueHeadsPerRank": config.num_key_value_heads,
        "hiddenSizePerAttentionHead": config.head_dim,
        "useQKNorm": config.use_qk_norm,
        "linearHasBias": [biases] * layers,
        **changes,
    }


def opened(directory: Path, dtype: torch.dtype, family: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The recorded model of a tiny checkpoint and its weights in the order of the C++ one."""
    from atb_core.engine.native import NativeStore

    kept: dict[str, torch.Tensor] = {}
    original = NativeStore.set

    def remember(self: NativeStore, name: str, value: HostArray) -> None:
        kept[name] = to_torch(value.copy())
        original(self, name, value)

    monkeypatch.setattr(NativeStore, "set", remember)
    tiny_checkpoint(directory, family, dtype, **FAMILIES[family])
    model = open_model(directory, "cpu")
    monkeypatch.setattr(NativeStore, "set", original)
    return model, kept


def ordered(names: list[str], kept: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Our names of weights by the C++ model's: packed matrices are called by what is in them."""
    packed = {"self_attn.qkv": "q_proj_k_proj_v_proj", "self_attn.dense": "o_proj"}
    packed |= {"mlp.gate_up": "gate_proj_up_proj", "mlp.down": "down_proj"}
    result = []
    for name in names:
        if name == "embed_tokens":
            name = "model.embed_tokens.weight"
        elif name == "lm_head":
            name = "lm_head.weight" if "lm_head.weight" in kept else "model.embed_tokens.weight"
        elif not name.endswith((".weight", ".bias")):
            name = f"{name}.weight"
        for ours, theirs in packed.items():
            name = name.replace(f"{ours}.", f"{ours.split('.')[0]}.{theirs}.")
        result.append(kept[name])
    return result


class CppModel:
    """Prefill and decode of one C++-built model, called as a recorded one is."""

    def __init__(self, model: Any, kept: dict[str, torch.Tensor]) -> None:
        self.recorded = model
        self.model_status, self.backend = model.model_status, model.backend
        self.kv_cache_specs = model.kv_cache_specs
        self.prefill, self.decode = ModelTorch("core_DecoderModel"), ModelTorch("core_DecoderModel")
        self.prefill.set_param(json.dumps(parameters(model.config)))
        self.decode.set_param(parameters(model.config, isPrefill=False))
        self.prefill.set_weight(ordered(self.prefill.weight_names, kept))
        self.decode.share_weight(self.prefill)

    def forward(self, **arguments: Any) -> torch.Tensor:
        step = Step(**arguments)
        recorded, is_prefill = self.recorded, step.is_prefill
        torch_model = self.prefill if is_prefill else self.decode
        recorded._kv.update(step.kv_cache)
        torch_model.set_kv_cache(*zip(*step.kv_cache, strict=True))
        known = recorded._inputs(step, recorded.variants.get("prefill" if is_prefill else "decode"))
        named = {MODEL_NAMES.get(name, name): value for name, value in known.items()}
        inputs = [named.get(name) for name in torch_model.input_names]
        (logits,) = torch_model.execute(inputs, json.dumps({"seqLen": known["input_lengths"].tolist()}))
        return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_to_build_a_graph_give_the_same_bits(
    tmp_path: Path, family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atb_core.models.runtime.variants import VariantStore

    # Unfused, as the C++ graph is.
    prepared = VariantStore.prepared
    monkeypatch.setattr(VariantStore, "prepared", lambda self, key: prepared(self, key, ["All"]))
    model, kept = opened(tmp_path, dtype, family, monkeypatch)
    sequences = [prompt + [13, 17, 19] for prompt in PROMPTS]
    lengths = [len(prompt) for prompt in PROMPTS]
    recorded = PagedDriver(model, len(PROMPTS)).run(sequences, lengths)
    built = PagedDriver(CppModel(model, kept), len(PROMPTS)).run(sequences, lengths)
    for ours, theirs in zip(built, recorded, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, theirs)


MINIMAL = {
    "normEps": 1e-6,
    "numHiddenLayers": 1,
    "numAttentionHeadsPerRank": 4,
    "numKeyValueHeadsPerRank": 2,
    "hiddenSizePerAttentionHead": 16,
}


def built(**changes: Any) -> ModelTorch:
    model = ModelTorch("core_DecoderModel")
    model.set_param({**MINIMAL, **changes})
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"numHidenLayers": 1}, "unknown parameters: 'numHidenLayers'"),
        ({"numHiddenLayers": "1"}, "'numHiddenLayers' is a string where an integer is needed"),
        ({"numHiddenLayers": 0}, "'numHiddenLayers' = 0 must be from 1 to 1024"),
        ({"numKeyValueHeadsPerRank": 3}, "no multiple of 'numKeyValueHeadsPerRank' = 3"),
        ({"isPrefill": 1}, "'isPrefill' is an integer where true or false is needed"),
        ({"isFA": True}, "'isFA': an unpaged cache is not supported"),
        ({"worldSize": 2}, "'worldSize': only one process"),
        ({"linearQuantType": [[1] * 7]}, "'linearQuantType' has the value 1: only float weights"),
        ({"linearHasBias": [[True] * 3]}, "'linearHasBias' has a list of 3 where 4 are needed"),
        ({"isBF16": True, "torchDtype": "float16"}, "contradict each other"),
        ({"torchDtype": "int8"}, "parameter 'torchDtype' = 'int8' must be 'float32', 'float16' or 'bfloat16'"),
        ({"enableLora": True}, "'enableLora': not supported"),
        ({"rmsNormEps": 1e-5}, "either 'rmsNormEps' or 'normEps'"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        built(**change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: a value is expected"),
        ("[1]", "a list where an object is needed"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ('{"a": 1,}', "a key in quotes is expected"),
        ('{"a": 01}', "a value is expected"),
        ('{"a": 99999999999999999999}', "the number is too large"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "nested too deeply"),
        ('{"a": "\\x41"}', "an escape that JSON does not have"),
        ('{"normEps": NaN}', "NaN is no JSON: numbers must be finite"),
        ('{"a": "b', "a string does not end"),
        ('{"a": 1} 2', "something follows the value"),
        (" " * 200_001, "200001 characters; at most 200000"),
    ],
)
def test_parameters_that_are_no_json_say_where(text: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        ModelTorch("core_DecoderModel").set_param(text)


def weights(model: ModelTorch, inner: int = 32) -> list[torch.Tensor]:
    shapes = {"embed_tokens": (11, 24), "lm_head": (11, 24), "qkv": (128, 24), "dense": (24, 64)}
    shapes |= {"gate_up": (2 * inner, 24), "down": (24, inner)}
    parts = [name.removesuffix(".weight").split(".")[-1] for name in model.weight_names]
    return [torch.randn(shapes.get(part, (24,)), dtype=torch.float16) for part in parts]


def test_weights_that_do_not_fit_are_named_and_nothing_is_kept_of_them() -> None:
    model = built()
    given = weights(model)
    with pytest.raises(EngineError, match=f"{len(given) - 1} weights were given where {len(given)} are needed"):
        model.set_weight(given[1:])
    with pytest.raises(EngineError, match=r"weight 2, model\.layers\.0\.self_attn\.qkv\.weight.* its dimension 0 must"):
        model.set_weight([*given[:2], given[2][1:].clone(), *given[3:]])
    with pytest.raises(EngineError, match="is float32 where float16 is needed"):
        model.set_weight([weight.float() for weight in given])
    with pytest.raises(EngineError, match=r"down\.weight.* must be 32 \(inner = 32\), not 40"):
        model.set_weight([*given[:6], weights(model, inner=40)[6], *given[7:]])
    model.set_weight(given)


def test_the_order_of_calls_is_checked() -> None:
    with pytest.raises(EngineError, match="has no parameters yet"):
        ModelTorch("core_DecoderModel").set_weight([])
    model = built()
    with pytest.raises(EngineError, match="the model has no weights yet"):
        model.execute([None] * len(model.input_names))
    with pytest.raises(EngineError, match="set the weights before the caches"):
        model.set_kv_cache([], [])
    model.set_weight(weights(model))
    with pytest.raises(EngineError, match="0 key caches and 0 value caches were given where 1 are needed"):
        model.set_kv_cache([], [])
    with pytest.raises(EngineError, match="2 inputs were given where 12 are needed: input_ids, position_ids"):
        model.execute([None, None])
    with pytest.raises(EngineError, match="input 0, 'input_ids', is missing"):
        model.execute([None] * 12)


def test_the_hosts_copy_of_the_lengths_must_agree() -> None:
    model = built()
    model.set_weight(weights(model))
    inputs: list[torch.Tensor | None] = [None] * 12
    inputs[model.input_names.index("seq_len")] = torch.tensor([3, 4], dtype=torch.int32)
    with pytest.raises(EngineError, match=r"seqLen = \[3, 5\] of the step's JSON differs from seq_len = \[3, 4\]"):
        model.execute_out(inputs, [], '{"seqLen": [3, 5]}')


def test_a_decode_step_without_a_token_in_the_context_is_refused() -> None:
    lengths = torch.tensor([3, 0], dtype=torch.int32)
    for is_prefill, message in ((False, "seq_len has 0; in decode the least is 1"), (True, "'input_ids', is missing")):
        model = built(isPrefill=is_prefill)
        model.set_weight(weights(model))
        inputs = [lengths if name == "seq_len" else None for name in model.input_names]
        with pytest.raises(EngineError, match=message):
            model.execute_out(inputs, [])


def test_an_unknown_model_and_an_unusable_library_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no C\+\+ model is called 'nobody_Model'.*core_DecoderModel"):
        ModelTorch("nobody_Model")
    with pytest.raises(EngineError, match="there is no library"):
        load_native_library(tmp_path / "gone.so")
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(EngineError, match=r"cannot load .*text\.so"):
        load_native_library(tmp_path / "text.so")


@pytest.mark.parametrize("name", [7, None, "w\ud800", torch.ones(1)], ids=["int", "None", "surrogate", "tensor"])
def test_names_and_parameters_are_text(name: Any) -> None:
    model = ModelTorch("core_DecoderModel", num_threads=1)
    with pytest.raises(EngineError, match=r"the parameters of core_DecoderModel is no text in UTF-8"):
        model.set_param('{"normEps\ud800": 1}')
    model.set_param(MINIMAL)
    with pytest.raises(EngineError, match=r"the name of weight 0 (must be a str, not|is no text in UTF-8)"):
        model.declare_weight([name], [torch.ones(1)])
