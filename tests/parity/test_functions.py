# SPDX-License-Identifier: Apache-2.0
"""Every function of ATB-Models' `nn` is called with its names, keywords and types, and computes what torch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional as golden

from atb_core import nn
from atb_core.engine import BACKENDS
from atb_core.errors import AtbError
from atb_core.graph import DataType, Network, Tensor
from atb_core.graph.arrays import data_type
from atb_core.nn import functional as F
from atb_core.nn import quantized as Q

LOCAL = [backend for backend in BACKENDS if backend in ("cpu", "reference")]
Given = dict[str, torch.Tensor]
HEADS, KV_HEADS, SIZE, BLOCK = 4, 2, 8, 16
SCALE, CACHED, LENGTHS = 0.5, (20, 3, 32), (5, 1)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def ints(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def flags(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int8)


def run(call: Callable[..., Any], given: Given, backend: str) -> list[torch.Tensor]:
    """The results of what `call` records, or what it writes in place."""
    inputs = {name: value.clone() for name, value in given.items()}
    with Network() as network:
        tensors = {n: Tensor(n, tuple(value.shape), data_type(value.dtype)) for n, value in inputs.items()}
        found = call(**tensors)
        found = found if isinstance(found, tuple) else () if found is None else (found,)
        for number, tensor in enumerate(found):
            network.mark_output(tensor, f"result_{number}")
    outputs = network.build_engine(backend=backend).forward(inputs)
    written = [value for name, value in inputs.items() if not torch.equal(value, given[name])]
    return [outputs[f"result_{number}"] for number in range(len(found))] or written


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Attention `[n, heads, size]` of one sequence; `mask` is added to the scaled scores."""
    k, v = (each.repeat_interleave(HEADS // KV_HEADS, 1).transpose(0, 1) for each in (k, v))
    return ((q.transpose(0, 1) @ k.mT * SCALE + mask).softmax(-1) @ v).transpose(0, 1)


def triangle(rows: int, columns: int) -> torch.Tensor:
    return torch.full((rows, columns), float("-inf")).triu(columns - rows + 1)


TOKENS = sum(LENGTHS)
PROMPTS: Given = {
    "q": randn(TOKENS, HEADS, SIZE), "k": randn(TOKENS, KV_HEADS, SIZE), "v": randn(TOKENS, KV_HEADS, SIZE) + 1,
    "kv_lens": ints(*LENGTHS),
}  # fmt: skip
PAGED: Given = {
    "q": randn(3, HEADS, SIZE), "k_cache": randn(6, BLOCK, KV_HEADS, SIZE), "v_cache": randn(6, BLOCK, KV_HEADS, SIZE),
    "block_table": ints(3, 1, 5, 0, 2, 4).view(3, 2), "kv_lens": ints(*CACHED),
}  # fmt: skip
OPTIONS: dict[str, Any] = {"head_num": HEADS, "kv_head_num": KV_HEADS, "q_scale": 1.0, "qk_scale": SCALE}


def prompts(mask: torch.Tensor | None, **options: Any) -> tuple[Callable[..., Any], Given]:
    return (
        lambda **given: F.paged_attention(**given, **OPTIONS, **options),
        PROMPTS if mask is None else {**PROMPTS, "mask": mask},
    )


def of_prompts(mask: Callable[[int, int], torch.Tensor | float]) -> list[torch.Tensor]:
    """Attention of each prompt, with the mask of its number and length."""
    parts = [list(PROMPTS[name].split(LENGTHS)) for name in ("q", "k", "v")]
    return [torch.cat([attended(*qkv, mask(i, len(qkv[0]))) for i, qkv in enumerate(zip(*parts, strict=True))])]


def cached(sequence: int, name: str) -> torch.Tensor:
    blocks = PAGED[name][PAGED["block_table"][sequence].long()]
    return blocks.flatten(0, 1)[: CACHED[sequence]]


def of_tokens(mask: Callable[[int], torch.Tensor | float], news: tuple[int, ...] = (1, 1, 1)) -> list[torch.Tensor]:
    """Attention of the new tokens of each sequence to the cache, with the mask of its number."""
    queries = randn(sum(news), HEADS, SIZE).split(news)
    return [
        torch.cat([attended(q, cached(i, "k_cache"), cached(i, "v_cache"), mask(i)) for i, q in enumerate(queries)])
    ]


def tokens(mask: torch.Tensor | None, **options: Any) -> tuple[Callable[..., Any], Given]:
    return (
        lambda **given: F.paged_attention(**given, **OPTIONS, high_precision=False, **options),
        PAGED if mask is None else {**PAGED, "mask": mask},
    )


ALIBI = randn(HEADS, 6, 6) + triangle(6, 6)
EACH_ALIBI = randn(3, HEADS, 1, 32)
EACH_NORM = randn(3, 1, 32)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    heads = x.unflatten(1, (-1, cos.shape[1]))
    first, second = heads.chunk(2, -1)
    return (heads * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]).flatten(1)


def unrouted(rows: torch.Tensor, places: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    return (rows[places.long()].unflatten(0, probs.shape) * probs[..., None]).sum(1)


X, INT8X = randn(6, 8), (randn(6, 32) * 50).round().clamp(-128, 127).char()
CHOICES = torch.tensor([[0, 2], [1, 2], [2, 0]], dtype=torch.int32)
#: What a call computes: the call with the original's names, its inputs, and what torch computes.
Row = tuple[Callable[..., Any], Given, Callable[[], list[torch.Tensor]]]
ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "RELU": torch.relu,
    "GELU": lambda x: golden.gelu(x, approximate="tanh"),
    "FAST_GELU": lambda x: x * (0.851 * (x - x.abs())).exp() / (1 + (-1.702 * x.abs()).exp()),
    "SWISH": golden.silu,
    "LOG": torch.log,
    "SWIGLU": lambda x: golden.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
    "SIGMOID": torch.sigmoid,
}
CALLS: dict[str, Row] = {
    "linear": (
        lambda **t: F.linear(**t, transpose_a=False, transpose_b=True),
        {"input_": X, "weight": randn(4, 8), "bias": randn(4)},
        lambda: [X @ randn(4, 8).T + randn(4)],
    ),
    "grouped_matmul": (
        lambda **t: F.grouped_matmul(**t, bias=None, transpose_b=False),
        {"input_": X, "weight": randn(2, 8, 4), "group_list": torch.tensor([2, 6])},
        lambda: [torch.cat([X[:2] @ randn(2, 8, 4)[0], X[2:] @ randn(2, 8, 4)[1]])],
    ),
    "rms_norm": (
        lambda **t: F.rms_norm(**t, eps=1e-6),
        {"input_": X, "weight": randn(8)},
        lambda: [golden.rms_norm(X, (8,), randn(8), 1e-6)],
    ),
    "rope": (
        lambda **t: F.rope(**t, rotary_coeff=2),
        {"q": randn(6, 32), "k": randn(6, 16), "cos_table": X, "sin_table": X + 1, "seqlen": ints(6)},
        lambda: [rotated(randn(6, 32), X, X + 1), rotated(randn(6, 16), X, X + 1)],
    ),
    "paged_attention of prompts": (
        *prompts(None, mask_type=F.MaskType.UNDEFINED), lambda: of_prompts(lambda i, n: 0.0),
    ),
    "paged_attention NORM with is_triu_mask": (
        *prompts(triangle(128, 128), mask_type=F.MaskType.NORM, is_triu_mask=True),
        lambda: of_prompts(lambda i, n: triangle(n, n)),
    ),
    "paged_attention NORM_COMPRESS": (
        *prompts(triangle(128, 128), mask_type=F.MaskType.NORM_COMPRESS, is_triu_mask=True),
        lambda: of_prompts(lambda i, n: triangle(n, n)),
    ),
    "paged_attention ALIBI": (
        *prompts(ALIBI, mask_type=F.MaskType.ALIBI), lambda: of_prompts(lambda i, n: ALIBI[:, :n, :n]),
    ),
    "paged_attention of tokens": (*tokens(None), lambda: of_tokens(lambda i: 0.0)),
    "paged_attention of tokens NORM": (
        *tokens(EACH_NORM, mask_type=F.MaskType.NORM), lambda: of_tokens(lambda i: EACH_NORM[i, :, : CACHED[i]]),
    ),
    "paged_attention of tokens ALIBI": (
        *tokens(EACH_ALIBI, mask_type=F.MaskType.ALIBI), lambda: of_tokens(lambda i: EACH_ALIBI[i, :, :, : CACHED[i]]),
    ),
    "paged_attention SPEC": (
        lambda **t: F.paged_attention(**t, **OPTIONS, mask_type=F.MaskType.SPEC),
        {**PAGED, "kv_lens": ints(20, 3, 32), "q": randn(8, HEADS, SIZE), "q_lens": ints(4, 1, 3),
         "mask": randn(8, 32)},
        lambda: of_tokens(
            lambda i: randn(8, 32).split((4, 1, 3))[i][:, : CACHED[i]] + triangle((4, 1, 3)[i], CACHED[i]), (4, 1, 3)
        ),
    ),
    **{
        f"activation {kind}": (
            lambda kind=kind, **t: F.activation(
                **t, act_type=F.ActType[kind], scale=1.0, dim=-1, gelu_mode=F.GeluMode.TANH
            ),
            {"input_": X.abs() + 0.1 if kind == "LOG" else X},
            lambda kind=kind: [ACTIVATIONS[kind](X.abs() + 0.1 if kind == "LOG" else X)],
        )
        for kind in ACTIVATIONS
    },
    "softmax": (lambda **t: F.softmax(**t, dims=[-1]), {"input_tensor": X}, lambda: [X.softmax(-1)]),
    "gather": (
        lambda **t: F.gather(**t, dim=0, batch_dims=0), {"input_": X, "index": torch.tensor([5, 0, 5])},
        lambda: [X[[5, 0, 5]]],
    ),
    "sort": (lambda **t: F.sort(**t, num=2), {"input_": X}, lambda: [X.topk(2).values, X.topk(2).indices.int()]),
    "argsort": (lambda **t: F.argsort(**t), {"input_": X}, lambda: [X.argsort(stable=True).int()]),
    "split into parts": (
        lambda **t: F.split(**t, split_size_or_sections=2, dim=-1), {"tensor": X}, lambda: list(X.split(4, -1)),
    ),
    "split by sizes": (
        lambda **t: F.split(**t, split_size_or_sections=[3, 5], dim=1), {"tensor": X}, lambda: list(X.split([3, 5], 1)),
    ),
    "cat": (lambda a, b: F.cat(tensors=[a, b], dim=0), {"a": X, "b": X + 1}, lambda: [torch.cat([X, X + 1])]),
    **{
        name: (lambda name=name, **t: getattr(F, name)(**t), {"input_": X}, lambda name=name: [getattr(torch, name)(X)])
        for name in ("cos", "sin", "neg")
    },
    "logical_not": (lambda **t: F.logical_not(**t), {"input_": flags(0, 1)}, lambda: [flags(1, 0)]),
    **{
        name: (
            lambda name=name, **t: getattr(F, name)(**t),
            {"input_": flags(0, 0, 1, 1), "other": flags(0, 1, 0, 1)},
            lambda name=name: [getattr(torch, name)(flags(0, 0, 1, 1), flags(0, 1, 0, 1)).char()],
        )
        for name in ("logical_or", "logical_and")
    },
    "equal": (
        lambda **t: F.equal(**t), {"input_": X, "other": X.clamp(0)}, lambda: [X.eq(X.clamp(0)).char()],
    ),
    **{
        name: (
            lambda name=name, **t: getattr(F, name)(**t, dims=[1]), {"input_": X},
            lambda name=name: [getattr(X, name.rstrip("_"))(1)],
        )
        for name in ("amax", "amin", "sum_")
    },
    "std": (lambda **t: F.std(**t), {"input_": X}, lambda: [X.std(-1, correction=0, keepdim=True)]),
    "norm": (lambda **t: F.norm(**t), {"input_": X}, lambda: [X.abs().sum(-1, keepdim=True)]),
    "moe_topk_softmax": (
        lambda **t: F.moe_topk_softmax(**t, k=2), {"input_": X},
        lambda: [*(X.softmax(-1).topk(2).values, X.topk(2).indices.int()), torch.arange(12).view(2, 6).T.int()],
    ),
    "moe_init_routing": (
        lambda **t: F.moe_init_routing(**t, topk_num=2, expert_num=3),
        {"input_": X[:3], "expert_idx": CHOICES},
        lambda: [X[[0, 2, 1, 0, 1, 2]], ints(0, 3, 2, 4, 5, 1), torch.tensor([2, 3, 6])],
    ),
    "moe_token_unpermute": (
        lambda **t: F.moe_token_unpermute(**t),
        {"permuted_tokens": X, "sorted_indices": ints(0, 4, 2, 5, 3, 1), "experts_weights": randn(3, 2)},
        lambda: [unrouted(X, ints(0, 4, 2, 5, 3, 1), randn(3, 2))],
    ),
    "gating": (
        lambda **t: F.gating(**t, topk_expert_num=2, cum_sum_num=3, cum_sum_int64=False, device_expert=None),
        {"topk": ints(0, 2, 1, 2), "idx_arr": ints(0, 1, 2, 3)},
        lambda: [ints(0, 1, 0, 1), ints(1, 2, 4), ints(0, 2, 1, 3)],
    ),
    "group_topk": (
        lambda **t: F.group_topk(**t, group_num=4, k=2, group_multi_flag=0, n=1),
        {"input_": torch.arange(16.0).view(2, 8), "idx_arr": ints(*range(4))},
        lambda: [torch.arange(16.0).view(2, 8) * (torch.arange(8) >= 4)],
    ),
    "quantize_per_token": (
        lambda **t: Q.quantize_per_token(**t), {"input_": X},
        lambda: [(X / (X.abs().amax(1, True) / 127)).round().char(), X.abs().amax(1) / 127],
    ),
    "quantize_per_channel": (
        lambda **t: Q.quantize_per_channel(**t),
        {"input_": X, "scales": torch.tensor([0.25]), "zero_points": flags(3)},
        lambda: [(X / 0.25 + 3).round().clamp(-128, 127).char()],
    ),
    "linear of int8": (
        lambda **t: F.linear(**t, transpose_a=False, transpose_b=True), {"input_": INT8X, "weight": INT8X[:4]},
        lambda: [(INT8X.int() @ INT8X[:4].int().T)],
    ),
    "dequantize": (
        lambda **t: Q.dequantize(**t, output_dtype=DataType.FLOAT),
        {"input_": ints(7, -9).view(1, 2), "weight_scale": torch.tensor([0.5, 2.0]),
         "activation_scale": torch.tensor([3.0]), "bias": ints(1, 1)},
        lambda: [torch.tensor([[12.0, -48.0]])],
    ),
    "Tensor + - > <": (
        lambda a, b: (a + b, a - b, a > b, a < b), {"a": X, "b": X.flip(0)},
        lambda: [X + X.flip(0), X - X.flip(0), X.gt(X.flip(0)).char(), X.lt(X.flip(0)).char()],
    ),
    "Tensor * /": (
        lambda a, b: (a * b, a / b, a * 2, a / 4), {"a": X, "b": X.flip(0)},
        lambda: [X * X.flip(0), X / X.flip(0), X * 2, X / 4],
    ),
    "Tensor ~": (lambda a: ~a, {"a": flags(0, 1)}, lambda: [flags(1, 0)]),
    "Tensor []": (lambda a: a[1:3, 0:4], {"a": X}, lambda: [X[1:3, :4]]),
    "Tensor.to": (lambda a: a.to(DataType.ACL_FLOAT16), {"a": X}, lambda: [X.half()]),
    "Tensor.permute": (lambda a: a.permute(dims=[1, 0]), {"a": X}, lambda: [X.T]),
    "Tensor.repeat": (lambda a: a.repeat(repeats=[2, 1]), {"a": X}, lambda: [X.repeat(2, 1)]),
    "Tensor.reshape": (
        lambda a: a.reshape(reshape_func=lambda shape: [shape[0] * shape[1]]) * 1.0, {"a": X}, lambda: [X.flatten()],
    ),
}  # fmt: skip
#: What the original has and this project refuses, with a part of the message.
REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a bias of one row": (lambda t: F.linear(t(6, 8), t(8, 4), t(1, 4), False, False), r"bias must be \[4\]"),
    "both keys and caches": (
        lambda t: F.paged_attention(t(1, 4, 8), t(1, 2, 8), t(1, 2, 8), t(4, 16, 2, 8), t(4, 16, 2, 8), kv_lens=t(1)),
        "either k and v",
    ),
    "neither keys nor caches": (lambda t: F.paged_attention(q=t(6, 4, 8), kv_lens=t(2), head_num=4), "either k and v"),
    "paged_attention slopes": (
        lambda t: F.paged_attention(t(6, 4, 8), t(6, 4, 8), t(6, 4, 8), kv_lens=t(2), slopes=t(4)), "slopes",
    ),
    "paged_attention mla_v_head_size": (
        lambda t: F.paged_attention(t(6, 4, 8), t(6, 4, 8), t(6, 4, 8), kv_lens=t(2), mla_v_head_size=4), "mla_v_head",
    ),
    **{
        f"paged_attention {kind}": (
            lambda t, kind=kind: F.paged_attention(
                t(6, 4, 8), t(6, 4, 8), t(6, 4, 8), mask=t(256, 256), mask_type=F.MaskType[kind], kv_lens=t(2),
                head_num=4,
            ),
            f"not MASK_TYPE_{kind}",
        )
        for kind in ("ALIBI_COMPRESS", "ALIBI_COMPRESS_SQRT", "ALIBI_COMPRESS_LEFT_ALIGN")
    },
}  # fmt: skip


@pytest.mark.parametrize("backend", LOCAL)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_with_the_originals_keywords_computes_what_torch_does(name: str, backend: str) -> None:
    call, given, expected = CALLS[name]
    results = run(call, given, backend)
    for result, wanted in zip(results, expected(), strict=True):
        if wanted.dtype is torch.int8 and name.startswith("quantize"):
            assert (result.int() - wanted.int()).abs().max() <= 1  # a tie of an inexact quotient
        else:
            torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    call, message = REFUSED[name]
    counter = iter(range(99))
    with Network(), pytest.raises((AtbError, ValueError), match=message):
        call(lambda *shape: Tensor(f"t{next(counter)}", shape, DataType.INT32 if len(shape) == 1 else DataType.FLOAT))


@pytest.mark.parametrize("backend", LOCAL)
def test_caches_are_written_in_place(backend: str) -> None:
    given = {"k": randn(2, 2, 8), "v": randn(2, 2, 8) + 1, "k_cache": randn(3, 4, 2, 8), "v_cache": randn(3, 4, 2, 8)}
    caches = run(lambda **t: F.reshape_and_cache(**t), {**given, "slot_mapping": ints(9, -1)}, backend)
    for cache, name in zip(caches, ("k", "v"), strict=True):
        expected = given[f"{name}_cache"].clone()
        expected[2, 1] = given[name][0]
        assert torch.equal(cache, expected)
    lists = {"src_block_indices": ints(1), "dst_block_indices": ints(2), "cum_sum": ints(1)}
    named = {"key_cache": given["k_cache"], "value_cache": given["v_cache"]}
    caches = run(lambda **t: F.copy_blocks(**t), named | lists, backend)
    assert all(torch.equal(cache[2], cache[1]) for cache in caches) and len(caches) == 2


@pytest.mark.parametrize("backend", LOCAL)
def test_latent_attention_takes_the_keywords_and_the_names_of_its_modes(backend: str) -> None:
    given = {
        "q_nope": randn(1, 8, 16), "q_rope": randn(1, 8, 8), "ct_kv": randn(2, 16, 1, 16), "k_rope": randn(2, 16, 1, 8),
        "block_tables": ints(1).view(1, 1), "context_lens": ints(5),
    }  # fmt: skip
    modes = {"mask_type": "UNDEFINED", "calc_type": "CALC_TYPE_UNDEFINED", "cache_mode": "KROPE_CTKV"}
    options: dict[str, Any] = {"head_num": 8, "qk_scale": SCALE, "kv_head_num": 1, **modes}
    nothing = dict.fromkeys(("mask", "qseqlen", "qk_descale", "pv_descale"))
    [found] = run(lambda **t: F.multi_latent_attention(**t, **nothing, **options), given, backend)
    values = given["ct_kv"][1, :5, 0]
    keys, query = torch.cat([values, given["k_rope"][1, :5, 0]], -1), torch.cat([given["q_nope"], given["q_rope"]], -1)
    torch.testing.assert_close(found, (query @ keys.T * SCALE).softmax(-1) @ values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", LOCAL)
def test_primitive_modules_compute(backend: str) -> None:
    with Network() as network:
        x = nn.modules.RmsNorm("n", 1e-6)(Tensor("x"))
        network.mark_output(nn.modules.Linear("w", True)(x), "y")
    engine = network.build_engine(backend=backend)
    weights = {"n.weight": randn(8), "w.weight": randn(4, 8), "w.bias": randn(4)}
    engine.set_weights(weights)
    expected = golden.linear(golden.rms_norm(X, (8,), randn(8), 1e-6), randn(4, 8), randn(4))
    torch.testing.assert_close(engine.forward({"x": X})["y"], expected, rtol=1e-5, atol=1e-5)


def test_no_export_is_left_out() -> None:
    """Every function of `nn.functional` is called above, but for those that only this project has."""
    own = {"tanh", "layer_norm", "batch_matmul", "lora", "ActType", "GeluMode", "MaskType"}
    called = {name.split()[0] for name in (*CALLS, "reshape_and_cache")}
    assert set(F.__all__) - own <= called
