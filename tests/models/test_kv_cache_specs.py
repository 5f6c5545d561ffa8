# SPDX-License-Identifier: Apache-2.0
"""Layers of one model may cache different things: other heads, other types, or one latent vector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hook_plugins import Site, families, site  # noqa: F401
from latent_family import RANK, SIZE, FlashLatentForCausalLM, LatentConfig
from safetensors.torch import save_file
from small_model import SMALL, MemoryLoader, SmallForCausalLM, random_tensors

from atb_core import ModelRunner, SamplingParams
from atb_core.checkpoint import SilentProgress
from atb_core.errors import BackendUnavailableError, ConfigError, EngineError, GraphError, RequestError
from atb_core.graph import DataType, Network, Tensor
from atb_core.graph.ops import SelfAttention
from atb_core.graph.passes.caches import round_prefill
from atb_core.layers.attention.kv_cache_spec import CacheTensor, KVCacheSpec
from atb_core.models.base.config import BaseConfig, LayerHeads
from atb_core.models.base.flash_causal_lm_v3 import CausalLM, FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.nn.functional import paged_attention, reshape_and_cache
from atb_core.plugins.once import forget
from atb_core.runner.kv_cache import PagedCache
from atb_testing.driver import PagedDriver

TOKENS = [5, 17, 2, 80, 33, 9, 61, 17, 4, 12, 90, 1, 2, 44]
HEADS = (LayerHeads(4, 2, 16), LayerHeads(6, 3, 32), LayerHeads(4, 1, 16))


@dataclass
class MixedConfig(BaseConfig):
    """Three layers, each with heads of its own but the first."""

    num_hidden_layers: int = 3
    head_dim: int | None = 16

    def heads_of(self, layer_idx: int) -> LayerHeads | None:
        return HEADS[layer_idx] if layer_idx else None


def model_of(
    config: BaseConfig, backend: str = "cpu", base: type[FlashCausalLMV3] = SmallForCausalLM, **options: Any
) -> Any:
    decorated: Any = base if issubclass(base, CausalLM) else torch_to_mindie_graph()(base)
    model = decorated(MindIELLMConfig(config), None, backend=backend, **options)
    model.load_weights(MemoryLoader(random_tensors(model)), SilentProgress())
    return model


def mixed_config(**changes: Any) -> MixedConfig:
    return MixedConfig.from_dict({**SMALL, "num_hidden_layers": 3, **changes})


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Rotates `[T, heads, size]` by halves."""
    size = x.shape[-1]
    angles = torch.arange(len(x))[:, None] * 10_000.0 ** (-torch.arange(0, size, 2).double() / size)
    cos, sin = (f(torch.cat((angles, angles), -1))[:, None] for f in (torch.cos, torch.sin))
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention of `[T, heads, size]` in float64."""
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    hidden = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


def feed_forward(x: torch.Tensor, own: dict[str, torch.Tensor]) -> torch.Tensor:
    gate = torch.nn.functional.silu(x @ own["mlp.gate_proj"].T)
    return (gate * (x @ own["mlp.up_proj"].T)) @ own["mlp.down_proj"].T


def plain_logits(weights: dict[str, torch.Tensor], tokens: Sequence[int]) -> torch.Tensor:
    """The same decoder in float64, without graph and cache."""
    w = {name.removeprefix("model."): weight.double() for name, weight in weights.items()}
    x = w["embed_tokens.weight"][torch.tensor(tokens)]
    for i, (heads, kv_heads, size) in enumerate(HEADS):
        own = {name.removeprefix(f"layers.{i}.").removesuffix(".weight"): each for name, each in w.items()}
        y = norm(x, own["input_layernorm"])
        q, k, v = (
            (y @ own[f"self_attn.{name}_proj"].T).view(len(x), count, size)
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        x = x + attended(rotated(q), rotated(k), v).flatten(1) @ own["self_attn.o_proj"].T
        y = norm(x, own["post_attention_layernorm"])
        x = x + feed_forward(y, own)
    return norm(x, w["norm.weight"]) @ w["lm_head.weight"].T


@pytest.mark.parametrize("prompt", [1, 9, len(TOKENS)], ids="prompt of {}".format)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_layers_with_heads_of_their_own_compute_what_a_plain_decoder_does(backend: str, prompt: int) -> None:
    model = model_of(mixed_config(), backend)
    assert [(t.num_heads, t.head_dim) for spec in model.kv_cache_specs for t in spec.tensors[:1]] == [
        (heads.num_kv_heads, heads.head_dim) for heads in HEADS
    ]
    ours = PagedDriver(model, 1, block_size=4).run([TOKENS], [prompt])[0]
    torch.testing.assert_close(ours.double(), plain_logits(random_tensors(model), TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_chunks_and_blocks_change_no_bit(dtype: str, kv_cache_dtype: str) -> None:
    model = model_of(mixed_config(torch_dtype=dtype), kv_cache_dtype=kv_cache_dtype)
    alone = PagedDriver(model, 1, block_size=64).prefill([TOKENS])[-1]
    together = PagedDriver(model, 2, block_size=4).run([TOKENS, TOKENS[3:10]], [9, 2])
    assert torch.equal(together[0][-1], alone)
    chunks = PagedDriver(model, 1, block_size=4)
    chunks.prefill([TOKENS[:5]])
    assert torch.equal(chunks.extend([TOKENS[5:]])[-1], alone)


def test_the_ascend_backend_runs_layers_with_heads_of_their_own() -> None:
    pytest.importorskip("atb_sim")
    config = mixed_config(torch_dtype="float16")
    theirs, ours = (
        PagedDriver(model_of(config, each), 1).run([TOKENS], [9])[0].float() for each in ("reference", "atb-sim")
    )
    torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    with pytest.raises(EngineError, match="keys and values in one tensor"):
        model_of(latent_config(torch_dtype="float16"), "atb-sim", FlashLatentForCausalLM)


def test_memory_is_that_of_each_layer() -> None:
    model = model_of(mixed_config(torch_dtype="bfloat16"))
    per_block = 8 * 2 * 2 * (2 * 16 + 3 * 32 + 1 * 16)
    cache = PagedCache(
        model, 8, context_len=64, max_model_len=None, max_num_seqs=1, kv_cache_memory_bytes=9 * per_block - 1
    )
    assert sum(array.nbytes for layer in cache.caches for array in layer) == 8 * per_block
    assert [keys.shape for keys, _ in cache.caches] == [(8, 8, h.num_kv_heads, h.head_dim) for h in HEADS]


def test_impossible_heads_are_refused_with_their_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    for heads in (LayerHeads(4, 3, 16), LayerHeads(4, 0, 16), LayerHeads(0, 1, 16), LayerHeads(4, 2, 15)):
        monkeypatch.setattr(MixedConfig, "heads_of", lambda self, i, heads=heads: heads if i == 2 else None)
        with pytest.raises(ConfigError, match=f"layer 2 cannot have {heads.num_heads} heads of queries"):
            model_of(mixed_config())


def test_a_cache_of_a_wrong_layer_is_refused_by_name() -> None:
    model = model_of(mixed_config())
    driver = PagedDriver(model, 1, block_size=4)
    driver.kv_cache = [driver.kv_cache[i] for i in (1, 0, 2)]
    with pytest.raises(EngineError, match=r"layer_0_k_cache.*\[.*2, 16\]"):
        driver.prefill([TOKENS])


def test_graphs_that_cpp_builds_have_no_such_layers() -> None:
    model = torch_to_mindie_graph()(SmallForCausalLM)(MindIELLMConfig(mixed_config()), None, backend="cpu")
    variants_of = pytest.importorskip("atb_cpp_models.graph_variants").CppVariants
    with pytest.raises(BackendUnavailableError, match="layers differ in heads"):
        variants_of(model, "core_DecoderModel")


class HalfInt8(SmallForCausalLM):
    """Stores the keys and values of the first layer alone in 8 bits."""

    def kv_cache_spec(self, layer_idx: int, dtype: DataType) -> KVCacheSpec:
        return super().kv_cache_spec(layer_idx, dtype if layer_idx else DataType.INT8)


def test_layers_may_have_caches_of_different_types() -> None:
    model = model_of(mixed_config(), base=HalfInt8)
    assert [tensor.dtype for spec in model.kv_cache_specs for tensor in spec.tensors[:1]] == [
        DataType.INT8, DataType.FLOAT, DataType.FLOAT,
    ]  # fmt: skip
    whole = PagedDriver(model, 1, block_size=4).prefill([TOKENS])[-1]
    chunks = PagedDriver(model, 1, block_size=4)
    chunks.prefill([TOKENS[:5]])
    assert torch.equal(chunks.extend([TOKENS[5:]])[-1], whole)
    prefill = model.variants.get("prefill").engine.network
    assert [node.op.int8_kv for node in prefill.nodes if node.op.name == "SelfAttention"] == [True, False, False]
    theirs = PagedDriver(model_of(mixed_config(), "reference", HalfInt8), 1, block_size=4).prefill([TOKENS])[-1]
    torch.testing.assert_close(whole, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole, PagedDriver(model_of(mixed_config()), 1, block_size=4).prefill([TOKENS])[-1])


def test_keys_that_are_stored_in_another_form_count_as_int8() -> None:
    k, lens = Tensor("k", (5, 2, 8), DataType.FLOAT), Tensor("lens", (1,), DataType.INT32)
    cache, slots = Tensor("cache", (3, 4, 2, 12), DataType.INT8), Tensor("slots", (5,), DataType.INT32)
    with Network() as network:
        stored = k.reshape([5, 2, 8])
        reshape_and_cache(stored, stored, cache, cache, slots)
        network.mark_output(paged_attention(k, k=k, v=k, kv_lens=lens, head_num=2, is_triu_mask=True), "out")
    assert [node.op.int8_kv for node in round_prefill(network).nodes if isinstance(node.op, SelfAttention)] == [True]


def latent_config(**changes: Any) -> LatentConfig:
    return LatentConfig.from_dict({**SMALL, "num_hidden_layers": 1, **changes})


def plain_latent_logits(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    w = {name.removeprefix("model.").removesuffix(".weight"): weight.double() for name, weight in weights.items()}
    x = w["embed_tokens"][torch.tensor(TOKENS)]
    own = {name.removeprefix("layers.0."): weight for name, weight in w.items()}
    y = norm(x, own["input_layernorm"])
    q = (y @ own["self_attn.q_proj"].T).view(len(x), -1, SIZE)
    kv = (y @ own["self_attn.kv_proj"].T).view(len(x), 1, SIZE)
    q, kv = (torch.cat((each[..., :RANK], rotated(each[..., RANK:])), -1) for each in (q, kv))
    x = x + attended(q, kv, kv)[..., :RANK].flatten(1) @ own["self_attn.o_proj"].T
    return norm(x + feed_forward(norm(x, own["post_attention_layernorm"]), own), w["norm"]) @ w["lm_head"].T


@pytest.mark.parametrize("prompt", [1, 9, len(TOKENS)], ids="prompt of {}".format)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_family_declares_one_latent_vector_for_keys_and_values(backend: str, prompt: int) -> None:
    model = model_of(latent_config(), backend, FlashLatentForCausalLM)
    driver = PagedDriver(model, 1, block_size=4)
    assert [[tensor.shape[2:] for tensor in layer] for layer in driver.kv_cache] == [[(1, SIZE)]]
    ours = driver.run([TOKENS], [prompt])[0]
    torch.testing.assert_close(ours.double(), plain_latent_logits(random_tensors(model)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8"])
def test_a_latent_cache_has_chunks_too(kv_cache_dtype: str) -> None:
    config = latent_config(torch_dtype="bfloat16", num_hidden_layers=2)
    model = model_of(config, base=FlashLatentForCausalLM, kv_cache_dtype=kv_cache_dtype)
    # Blocks of 64 and heads of 32, which the engine would keep in an order of its own.
    whole = PagedDriver(model, 1, block_size=64).prefill([TOKENS])[-1]
    chunks = PagedDriver(model, 1, block_size=64)
    chunks.prefill([TOKENS[:5]])
    assert torch.equal(chunks.extend([TOKENS[5:12]])[-1], PagedDriver(model, 1).prefill([TOKENS[:12]])[-1])
    assert [torch.equal(chunks.decode([token])[0], whole) for token in TOKENS[12:]] == [False, True]


def test_a_runner_shares_chunks_and_prefixes_of_a_package_s_own_cache(site: Site, tmp_path: Path) -> None:  # noqa: F811
    info = site.path / "atb_latent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: atb-latent\nVersion: 1.0\n", encoding="utf-8")
    classes = {"routers": "LatentRouter", "configs": "LatentConfig", "models": "FlashLatentForCausalLM"}
    entries = [f"[atb_core.{group}]\nlatent = latent_family:{name}\n" for group, name in classes.items()]
    (info / "entry_points.txt").write_text("".join(entries) + "[atb_core.api]\n1 = latent_family\n", encoding="utf-8")
    forget()
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**SMALL, "model_type": "latent", "torch_dtype": "float32"}))
    model = FlashLatentForCausalLM(MindIELLMConfig(LatentConfig.from_dict(SMALL)), None)  # type: ignore[call-arg]
    save_file(random_tensors(model), path / "model.safetensors")
    params, answers = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True), []
    for limit in (2048, 5):
        options = {"load_tokenizer": False, "max_num_batched_tokens": limit, "block_size": 4, "max_model_len": 64}
        with ModelRunner(path, backend="cpu", **options) as runner:
            assert [[each.shape[1:] for each in layer] for layer in runner.kv_cache] == [[(4, 1, SIZE)]] * 2
            for prompt in (TOKENS, TOKENS[:9] + [3, 4]):
                (output,) = runner.generate([prompt], params)
                answers.append(output.token_ids)
            assert output.num_cached_tokens == 8
    assert answers[:2] == answers[2:]
    assert answers[0] != answers[1]


def test_half_of_a_latent_cache_is_refused() -> None:
    model = model_of(latent_config(), base=FlashLatentForCausalLM)
    driver = PagedDriver(model, 1, block_size=4)
    driver.kv_cache = [layer * 2 for layer in driver.kv_cache]
    with pytest.raises(RequestError, match="2 tensors for 1 layers"):
        driver.prefill([TOKENS])


def test_a_layer_caches_one_tensor_or_two() -> None:
    tensors = [CacheTensor(name, 1, 8, DataType.FLOAT) for name in ("a", "b", "c", "a")]
    for wrong in ([], tensors[:3], [tensors[0], tensors[3]]):
        with pytest.raises(GraphError, match="must be one tensor or two with different names"):
            KVCacheSpec(tuple(wrong))
