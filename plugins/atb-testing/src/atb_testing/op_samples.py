# SPDX-License-Identifier: Apache-2.0
"""Test cases of every op of the core: real tensors, reproducible and small, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from atb_core.graph import DataType, Op
from atb_core.graph.ops import (
    Activation,
    ActivationType,
    AddRmsNorm,
    AllGather,
    AllReduce,
    AllReduceType,
    Argsort,
    Assign,
    BatchMatmul,
    Cast,
    Concat,
    DynamicQuant,
    Elewise,
    ElewiseType,
    Gather,
    GroupedMatmul,
    LayerNorm,
    Linear,
    LinearParallel,
    LinearSwiglu,
    Lora,
    MergedLinear,
    MoeInitRouting,
    MoeTokenUnpermute,
    MoeTopkSoftmax,
    PagedAttention,
    QuantLinear,
    QuantLinearSwiglu,
    QuantPerChannel,
    Reduce,
    ReduceType,
    Repeat,
    Reshape,
    ReshapeAndCache,
    RmsNorm,
    Rope,
    SelfAttention,
    Slice,
    Softmax,
    Sort,
    Split,
    SplitLinear,
    Transpose,
)
from atb_core.graph.ops.activation import GeluMode
from atb_core.graph.ops.attention import CalcType, MaskType, causal_mask
from atb_core.graph.ops.elewise import LOGICAL, UNARY


@dataclass(frozen=True)
class Sample:
    """An op with its attributes and real inputs; the label is for the name of the test.

    `fixed` are the positions of floats that keep their dtype where others are given in several.
    """

    op: Op
    inputs: tuple[torch.Tensor, ...]
    label: str
    fixed: tuple[int, ...] = ()


def samples_of(op: type[Op]) -> Iterator[Sample]:
    """Yields the test cases of an op of the core; KeyError for one that has none."""
    yield from _SAMPLES[op]()


def randn(*shape: int) -> torch.Tensor:
    """Normally distributed float32 values that depend on the shape only."""
    generator = torch.Generator().manual_seed(1 + sum((i + 1) * size for i, size in enumerate(shape)))
    return torch.randn(*shape, generator=generator)


def integers(*values: int) -> torch.Tensor:
    """The values as an int32 vector."""
    return torch.tensor(values, dtype=torch.int32)


def cumulative(*counts: int) -> torch.Tensor:
    """The cumulative ends, int64, of groups with these numbers of rows."""
    return integers(*counts).cumsum(0)


def _activation() -> Iterator[Sample]:
    for kind in ActivationType:
        x = randn(3, 70) * 3
        yield Sample(Activation(kind), (x.abs() + 0.1 if kind is ActivationType.LOG else x,), kind.name)
    yield Sample(Activation(ActivationType.GELU, gelu_mode=GeluMode.NONE), (randn(2, 33) * 3,), "GELU with erf")
    yield Sample(Activation(ActivationType.SWISH, scale=1.7), (randn(2, 33) * 3,), "SWISH with scale")


def _self_attention() -> Iterator[Sample]:
    for heads, kv_heads, size, lengths in ((4, 2, 64, (5, 1, 70)), (3, 3, 20, (130,)), (7, 1, 32, (3, 2))):
        tokens = sum(lengths)
        keys = randn(tokens, kv_heads, size)
        qkv = randn(tokens, heads, size), keys, keys * 2
        scale = size**-0.5
        causal = SelfAttention(heads, kv_heads, 1.0, scale, MaskType.NORM, is_triu_mask=True)
        mask = causal_mask(128, 128)
        yield Sample(causal, (*qkv, mask, integers(*lengths)), f"causal, {heads}/{kv_heads} heads of {size}")
        capped = replace(causal, logits_soft_cap=0.75)
        yield Sample(capped, (*qkv, mask, integers(*lengths)), f"capped scores, {heads}/{kv_heads} heads of {size}")
        rounded = replace(causal, int8_kv=True)
        yield Sample(rounded, (*qkv, mask, integers(*lengths)), f"int8, {heads}/{kv_heads} heads of {size}")
        compressed = replace(causal, mask_type=MaskType.NORM_COMPRESS)
        yield Sample(compressed, (*qkv, mask, integers(*lengths)), f"compressed mask, {heads} heads of {size}")
        alibi, longest = replace(causal, mask_type=MaskType.ALIBI, is_triu_mask=False), max(lengths)
        biases = causal_mask(longest, longest) + randn(heads, longest, longest)
        yield Sample(alibi, (*qkv, biases, integers(*lengths)), f"masks of {heads} heads of {size}")
        biases = causal_mask(longest, longest) + randn(len(lengths), heads, longest, longest)
        yield Sample(alibi, (*qkv, biases, integers(*lengths)), f"masks of {heads} heads of {size} and of sequences")
        full = SelfAttention(heads, kv_heads, 1.0, scale)
        yield Sample(full, (*qkv, integers(*lengths)), f"no mask, {heads}/{kv_heads} heads of {size}")


def _paged_attention() -> Iterator[Sample]:
    for heads, kv_heads, size, block in ((4, 2, 64, 16), (7, 1, 32, 32), (2, 2, 20, 128)):
        caches = randn(12, block, kv_heads, size), randn(12, block, kv_heads, size) * 2
        tables = integers(3, 1, 7, 0, 2, 0, 0, 0, 5, 4, 11, 10).view(3, 4)
        lens = integers(3 * block + 5, block, 4 * block)
        op = PagedAttention(heads, kv_heads, 1.0, size**-0.5)
        yield Sample(op, (randn(3, heads, size), *caches, tables, lens), f"{heads}/{kv_heads} heads, block {block}")
        capped = replace(op, logits_soft_cap=0.75)
        yield Sample(capped, (randn(3, heads, size), *caches, tables, lens), f"capped scores, block {block}")
        int8 = _int8_cache(caches[0]), _int8_cache(caches[1])
        from_int8 = replace(op, int8_kv=True)
        yield Sample(from_int8, (randn(3, heads, size), *int8, tables, lens), f"int8, block {block}")
        for kind, planes in ((MaskType.NORM, (3,)), (MaskType.ALIBI, (3, heads))):
            added = randn(*planes, 1, 4 * block)
            label = f"{kind.name} mask of one token, block {block}"
            yield Sample(replace(op, mask_type=kind), (randn(3, heads, size), *caches, tables, lens, added), label)
        spec = PagedAttention(heads, kv_heads, 1.0, size**-0.5, calc_type=CalcType.SPEC)
        new = integers(4, 1, 9)
        yield Sample(spec, (randn(14, heads, size), *caches, tables, lens, new), f"SPEC, block {block}")
        masked = PagedAttention(heads, kv_heads, 1.0, size**-0.5, MaskType.NORM, CalcType.SPEC)
        mask = causal_mask(4 * block, 4 * block)
        inputs = (randn(14, heads, size), *caches, tables, lens, mask, new)
        yield Sample(masked, inputs, f"SPEC with a mask, block {block}")
        by_token = PagedAttention(heads, kv_heads, 1.0, size**-0.5, MaskType.SPEC, CalcType.SPEC)
        rows = [
            causal_mask(n, 4 * block).roll(int(total) - 4 * block, 1) for n, total in zip((4, 1, 9), lens, strict=True)
        ]
        mask = torch.cat(rows).index_fill(1, torch.tensor([2]), -1.5)
        inputs = (randn(14, heads, size), *caches, tables, lens, mask, new)
        yield Sample(by_token, inputs, f"SPEC with a mask of its tokens, block {block}")


def _int8_cache(cache: torch.Tensor) -> torch.Tensor:
    """The values in a cache of int8."""
    blocks, size, heads, width = cache.shape
    rows, into = cache.flatten(0, 1), torch.zeros(blocks, size, heads, width + 4, dtype=torch.int8)
    slots = torch.arange(blocks * size, dtype=torch.int32)
    ReshapeAndCache(int8_kv=True).reference(rows, rows, into, into.clone(), slots)
    return into


def _reshape_and_cache() -> Iterator[Sample]:
    for tokens, heads, size in ((5, 2, 64), (1, 3, 20)):
        slots = integers(*[17, -1, 3, 40, 4][:tokens])
        caches = randn(3, 16, heads, size), randn(3, 16, heads, size) + 1
        new = randn(tokens, heads, size), randn(tokens, heads, size) - 1
        yield Sample(ReshapeAndCache(), (*new, *caches, slots), f"{tokens} tokens, {heads} heads of {size}")
        int8 = _int8_cache(caches[0]), _int8_cache(caches[1])
        yield Sample(ReshapeAndCache(True), (*new, *int8, slots), f"int8, {tokens} tokens, {heads} heads of {size}")


def _all_reduce() -> Iterator[Sample]:
    for kind in AllReduceType:
        yield Sample(AllReduce(all_reduce_type=kind), (randn(3, 40),), f"{kind.name} of one rank")


def _all_gather() -> Iterator[Sample]:
    yield Sample(AllGather(), (randn(3, 40),), "one rank")


def _linear_parallel() -> Iterator[Sample]:
    yield Sample(LinearParallel(), (randn(3, 64), randn(48, 64)), "weight [n, k]")
    yield Sample(LinearParallel(trans_weight=False), (randn(1, 64), randn(64, 48)), "weight [k, n]")


def _elewise() -> Iterator[Sample]:
    for kind in ElewiseType:
        a, b = randn(3, 50), randn(50) + 3
        if kind in LOGICAL:
            a, b = (a > 0).char(), (b > 3).char()
        if kind is ElewiseType.EQUAL:
            b = a.clone()
            b[0, ::3] += 1
        factor = 0.37 if kind is ElewiseType.MULS else 0.0
        yield Sample(Elewise(kind, factor), (a,) if kind in UNARY else (a, b), kind.name)
    yield Sample(Elewise(ElewiseType.ADD), (randn(4, 1, 6), randn(5, 1)), "broadcast both ways")


def _linear() -> Iterator[Sample]:
    for m, k, n in ((1, 32, 16), (3, 70, 33), (17, 128, 48)):
        yield Sample(Linear(has_bias=True), (randn(m, k), randn(n, k), randn(n)), f"{m}x{k}x{n} with bias")
        yield Sample(Linear(), (randn(m, k), randn(n, k)), f"{m}x{k}x{n}")
        yield Sample(Linear(transpose_b=False), (randn(m, k), randn(k, n)), f"{m}x{k}x{n}, weight [k, n]")
    yield Sample(Linear(), (randn(2, 3, 32), randn(16, 32)), "x of three dimensions")
    yield Sample(Linear(out_dtype=DataType.FLOAT), (randn(3, 32), randn(16, 32)), "float32 result")


def _bytes(*shape: int) -> torch.Tensor:
    return (randn(*shape) * 50).round().clamp(-128, 127).char()


def _quant_per_channel() -> Iterator[Sample]:
    x = randn(3, 70) * 3
    offset = torch.tensor([7], dtype=torch.int8)
    yield Sample(QuantPerChannel(), (x, torch.tensor([0.0234375]), offset), "one scale")
    scales = (randn(70).abs() + 0.5) / 32
    yield Sample(QuantPerChannel(), (x.view(3, 1, 70), scales, _bytes(70)), "a scale for each column")


def _dynamic_quant() -> Iterator[Sample]:
    yield Sample(DynamicQuant(), (randn(3, 70) * 3,), "rows of 70")
    yield Sample(DynamicQuant(), (torch.cat([torch.zeros(1, 2, 33), randn(1, 2, 33)]),), "rows of zeros")


def _quant_linear() -> Iterator[Sample]:
    for m, k, n in ((1, 64, 32), (3, 150, 33), (17, 128, 48)):
        x, weight, scale = _bytes(m, k), _bytes(n, k), randn(n).abs() / 1000
        bits = scale.view(torch.int32).long()
        bias = (randn(n) * 3000).int()
        sizes = f"{m}x{k}x{n}"
        for out in (DataType.FLOAT, DataType.BF16):
            yield Sample(
                QuantLinear(out, has_bias=True), (x, weight, scale, bias), f"{out.short} result, {sizes}", (2,)
            )
        yield Sample(QuantLinear(DataType.FLOAT16), (x, weight, bits), f"float16 result, {sizes}")
        token = randn(m).abs() + 0.1
        by_token = QuantLinear(DataType.BF16, has_token_scale=True)
        yield Sample(by_token, (x, weight, scale, token), f"{sizes} by token", (2, 3))
        turned = weight.T.contiguous()
        yield Sample(QuantLinear(DataType.BF16, False), (x, turned, scale), f"{sizes}, weight [k, n]", (2,))
        yield Sample(QuantLinear(DataType.INT32, has_bias=True), (x, weight, bias), f"int32 result, {sizes}")
    many = torch.full((2, 3, 4000), -128, dtype=torch.int8)
    inputs = (many, many[0], torch.ones(3), torch.full((3,), -(2**31), dtype=torch.int32))
    yield Sample(QuantLinear(DataType.BF16, has_bias=True), inputs, "sums that wrap, three dimensions", (2,))


def _quant_linear_swiglu() -> Iterator[Sample]:
    for m, k, n in ((3, 150, 64), (80, 96, 448), (70, 40, 54)):
        x, weight, scale, token = _bytes(m, k), _bytes(n, k), randn(n).abs() / 1000, randn(m).abs() + 0.1
        bias = (randn(n) * 3000).int()
        by_token = QuantLinearSwiglu(DataType.BF16, has_token_scale=True)
        yield Sample(by_token, (x, weight, scale, token), f"{m}x{k}x{n} by token", (2, 3))
        turned = QuantLinearSwiglu(DataType.FLOAT, False, has_bias=True)
        yield Sample(turned, (x, weight.T.contiguous(), scale, bias), f"{m}x{k}x{n}, weight [k, n] with bias", (2,))


def _linear_swiglu() -> Iterator[Sample]:
    yield Sample(LinearSwiglu(), (randn(3, 96), randn(64, 96)), "whole pairs of blocks")
    yield Sample(LinearSwiglu(has_bias=True), (randn(2, 40, 96), randn(448, 96), randn(448)), "tasks of several pairs")
    yield Sample(LinearSwiglu(has_bias=True), (randn(2, 40), randn(54, 40), randn(54)), "odd halves with bias")


def _merged_linear() -> Iterator[Sample]:
    weights, biases = (randn(32, 64), randn(17, 64), randn(5, 64)), (randn(32), randn(17), randn(5))
    yield Sample(MergedLinear(3), (randn(4, 64), *weights), "three parts")
    yield Sample(MergedLinear(3, has_bias=True), (randn(1, 64), *weights, *biases), "three parts with bias")


def _split_linear() -> Iterator[Sample]:
    yield Sample(SplitLinear((32, 16, 16)), (randn(3, 96), randn(64, 96)), "three sizes")
    yield Sample(SplitLinear((7, 20), has_bias=True), (randn(2, 40), randn(27, 40), randn(27)), "odd sizes with bias")


def _moe_topk_softmax() -> Iterator[Sample]:
    yield Sample(MoeTopkSoftmax(4), (randn(5, 60) * 3,), "four of sixty")
    yield Sample(MoeTopkSoftmax(4, normalize=True), (randn(5, 60) * 3,), "normalized")
    yield Sample(MoeTopkSoftmax(2), ((randn(7, 9) * 2).round(),), "with ties")
    yield Sample(MoeTopkSoftmax(8), (randn(3, 8),), "all experts")
    yield Sample(MoeTopkSoftmax(1), (randn(1, 17),), "one token, one expert")


def _moe_init_routing() -> Iterator[Sample]:
    chosen = integers(3, 0, 0, 5, 3, 5, 5, 3).view(4, 2)
    yield Sample(MoeInitRouting(2, 6), (randn(4, 33), chosen), "empty experts")
    yield Sample(MoeInitRouting(2, 6), (randn(1, 16), integers(4, 1).view(1, 2)), "one token")
    yield Sample(MoeInitRouting(1, 3), (randn(9, 20), integers(*[1] * 9).view(9, 1)), "all tokens to one expert")
    yield Sample(
        MoeInitRouting(3, 3), (randn(2, 8), integers(2, 0, 1, 0, 1, 2).view(2, 3)), "every token to all experts"
    )
    yield Sample(MoeInitRouting(2, 4), (randn(3, 8), integers(1, 1, 2, 2, 1, 2).view(3, 2)), "an expert chosen twice")


def _grouped_matmul() -> Iterator[Sample]:
    ends, many = cumulative(0, 3, 0, 1, 5), cumulative(20, 0, 37, 1)
    for transpose_b in (True, False):
        layout = "[n, k]" if transpose_b else "[k, n]"
        small = randn(5, 33, 70) if transpose_b else randn(5, 70, 33)
        large = randn(4, 64, 96) if transpose_b else randn(4, 96, 64)
        yield Sample(GroupedMatmul(transpose_b), (randn(9, 70), small, ends), f"empty groups, {layout}")
        yield Sample(GroupedMatmul(transpose_b, True), (randn(9, 70), small, randn(5, 33), ends), f"bias, {layout}")
        yield Sample(GroupedMatmul(transpose_b), (randn(58, 96), large, many), f"large groups, {layout}")
    weight = randn(3, 16, 32)
    yield Sample(GroupedMatmul(True), (randn(1, 32), weight, cumulative(0, 0, 1)), "one row")
    yield Sample(GroupedMatmul(True), (randn(6, 32), weight, cumulative(0, 6, 0)), "all rows in one group")


def _lora() -> Iterator[Sample]:
    ranks = torch.tensor([[9, 3, 0, 5], [9, 0, 2, 1], [9, 4, 4, 4]], dtype=torch.int32)

    def lora(slots: torch.Tensor, sizes: tuple[int, ...], k: int, most: int = 5) -> Sample:
        n, rows = sum(sizes), max(len(slots), 4)
        weights = randn(3, len(sizes) * most, k), randn(3, most, n), randn(3, n)
        inputs = (randn(rows, n), randn(rows, k), *weights, slots, ranks)
        return Sample(Lora(sizes, 1), inputs, f"{len(slots)} slots, parts {sizes}, k {k}")

    yield lora(integers(2, -1, 0, 0, 1, -7, 2, 2), (33, 70, 20), 50)
    yield lora(integers(1, 1, 1, 1, 1), (64,), 96)
    yield lora(integers(2), (130, 40), 33)
    yield lora(integers(-1), (16, 16), 16)


def _moe_token_unpermute() -> Iterator[Sample]:
    rows = integers(4, 0, 1, 5, 2, 3)
    yield Sample(MoeTokenUnpermute(), (randn(6, 33), rows, randn(3, 2).abs()), "two rows for each token")
    yield Sample(MoeTokenUnpermute(), (randn(6, 64), rows, randn(1, 6)), "one token")
    yield Sample(MoeTokenUnpermute(), (randn(6, 20), rows, randn(6, 1)), "one row for each token")


def _gather() -> Iterator[Sample]:
    yield Sample(Gather(), (randn(10, 33), integers(3, 9, 0, 3)), "rows")
    yield Sample(Gather(), (randn(10, 4), integers(3, 9, 0, 3).view(2, 2).long()), "rows, int64 of two dimensions")
    yield Sample(Gather(axis=1), (randn(3, 7), integers(6, 0)), "columns")
    yield Sample(Gather(axis=1, batch_dims=1), (randn(2, 5, 3), integers(4, 0, 1, 1).view(2, 2)), "batched")


def _split() -> Iterator[Sample]:
    yield Sample(Split(-1, 2), (randn(3, 40),), "halves of the last dimension")
    yield Sample(Split(1, 3, (8, 3, 5)), (randn(3, 16),), "three sizes")
    yield Sample(Split(0, 2, (1, 3)), (randn(4, 5),), "rows")


def _concat() -> Iterator[Sample]:
    yield Sample(Concat(-1), (randn(3, 7), randn(3, 20)), "columns")
    yield Sample(Concat(0), (randn(3, 7), randn(2, 7)), "rows")


def _slice() -> Iterator[Sample]:
    yield Sample(Slice((1, 5), (2, -1)), (randn(4, 33),), "a box open to the right")
    yield Sample(Slice((0, 0, 2), (-1, -1, 3)), (randn(2, 3, 6),), "the last dimension")
    yield Sample(Slice((1,), (2,)), (randn(4, 5, 6),), "rows, other dimensions whole")


def _transpose() -> Iterator[Sample]:
    yield Sample(Transpose((1, 0)), (randn(5, 33),), "a matrix")
    yield Sample(Transpose((1, 2, 0)), (randn(3, 4, 5),), "three dimensions")


def _repeat() -> Iterator[Sample]:
    yield Sample(Repeat((2, 3)), (randn(2, 5),), "both dimensions")
    yield Sample(Repeat((2, 1, 1)), (randn(3, 5),), "a new dimension in front")


def _cast() -> Iterator[Sample]:
    for target in (DataType.FLOAT, DataType.BF16, DataType.FLOAT16, DataType.INT32, DataType.INT64):
        yield Sample(Cast(target), (randn(3, 40) * 5,), f"to {target.short}")
    yield Sample(Cast(DataType.FLOAT), (integers(3, -4, 5),), "int32 to float32")


def _rms_norm() -> Iterator[Sample]:
    yield Sample(RmsNorm(1e-6), (randn(3, 64), randn(64)), "rows of 64")
    yield Sample(RmsNorm(1e-5), (randn(2, 5, 37), randn(37)), "three dimensions, 37 wide")


def _layer_norm() -> Iterator[Sample]:
    yield Sample(LayerNorm(1e-6), (randn(3, 64) + 2, randn(64), randn(64) * 3), "rows of 64")
    yield Sample(LayerNorm(1e-5), (randn(2, 5, 37), randn(37), randn(37) + 1), "three dimensions, 37 wide")


def _batch_matmul() -> Iterator[Sample]:
    for batch, m, k, n in ((3, 4, 64, 32), (1, 1, 48, 7), (5, 20, 40, 18)):
        sizes = f"{batch} of {m}x{k}x{n}"
        yield Sample(BatchMatmul(), (randn(batch, m, k), randn(batch, k, n)), sizes)
        yield Sample(BatchMatmul(True), (randn(batch, m, k), randn(batch, n, k)), f"{sizes}, weights [n, k]")


def _add_rms_norm() -> Iterator[Sample]:
    yield Sample(AddRmsNorm(1e-6), (randn(3, 64), randn(3, 64) * 2, randn(64)), "rows of 64")
    yield Sample(AddRmsNorm(1e-5), (randn(1, 100), randn(1, 100) + 1, randn(100)), "one row of 100")


def _softmax() -> Iterator[Sample]:
    yield Sample(Softmax((-1,)), (randn(3, 50) * 4,), "rows")
    yield Sample(Softmax((1, 2)), (randn(2, 5, 7) * 4,), "two axes")
    yield Sample(Softmax((0,)), (randn(6, 20) * 4,), "columns")


def _reduce() -> Iterator[Sample]:
    for kind in ReduceType:
        yield Sample(Reduce(kind, (-1,)), (randn(3, 50),), f"{kind.name} of rows")
        yield Sample(Reduce(kind, (0, 2)), (randn(3, 4, 18),), f"{kind.name} over two axes")


def _sort() -> Iterator[Sample]:
    yield Sample(Sort((4,)), (randn(3, 20),), "four of twenty")
    yield Sample(Sort((3,)), ((randn(2, 9) * 2).round(),), "with ties")


def _argsort() -> Iterator[Sample]:
    yield Sample(Argsort(), (randn(3, 20),), "rows")
    yield Sample(Argsort(), ((randn(2, 9) * 2).round(),), "with ties")


def _rope() -> Iterator[Sample]:
    for coeff, tokens, heads, kv_heads, size in ((2, 5, 4, 2, 64), (16, 3, 2, 2, 16), (2, 1, 3, 1, 80)):
        q, k = randn(tokens, heads * size), randn(tokens, kv_heads * size)
        cos, sin = randn(tokens, size), randn(tokens, size) * 0.5
        yield Sample(Rope(coeff), (q, k, cos, sin, integers(tokens)), f"coeff {coeff}, head size {size}")


def _reshape() -> Iterator[Sample]:
    yield Sample(Reshape((4, 2, 16)), (randn(4, 32),), "split of a dimension")
    yield Sample(Reshape((-1, 8)), (randn(4, 32),), "one size left open")


def _assign() -> Iterator[Sample]:
    yield Sample(Assign(), (randn(3, 40), randn(3, 40) + 1), "one tensor into another")


_SAMPLES: dict[type[Op], Callable[[], Iterator[Sample]]] = {
    Activation: _activation,
    SelfAttention: _self_attention,
    PagedAttention: _paged_attention,
    ReshapeAndCache: _reshape_and_cache,
    AllReduce: _all_reduce,
    AllGather: _all_gather,
    LinearParallel: _linear_parallel,
    Elewise: _elewise,
    Linear: _linear,
    QuantPerChannel: _quant_per_channel,
    DynamicQuant: _dynamic_quant,
    QuantLinear: _quant_linear,
    QuantLinearSwiglu: _quant_linear_swiglu,
    LinearSwiglu: _linear_swiglu,
    MergedLinear: _merged_linear,
    SplitLinear: _split_linear,
    Lora: _lora,
    MoeTopkSoftmax: _moe_topk_softmax,
    MoeInitRouting: _moe_init_routing,
    GroupedMatmul: _grouped_matmul,
    MoeTokenUnpermute: _moe_token_unpermute,
    Gather: _gather,
    Split: _split,
    Concat: _concat,
    Slice: _slice,
    Transpose: _transpose,
    Repeat: _repeat,
    Cast: _cast,
    RmsNorm: _rms_norm,
    AddRmsNorm: _add_rms_norm,
    LayerNorm: _layer_norm,
    BatchMatmul: _batch_matmul,
    Softmax: _softmax,
    Reduce: _reduce,
    Sort: _sort,
    Argsort: _argsort,
    Rope: _rope,
    Reshape: _reshape,
    Assign: _assign,
}
