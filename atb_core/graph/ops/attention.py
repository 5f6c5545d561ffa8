# SPDX-License-Identifier: Apache-2.0
"""Attention over packed sequences and over the paged KV cache."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

from atb_core.errors import GraphError
from atb_core.graph.dim import DimLike, Shape, shape_text
from atb_core.graph.dtype import AttributeEnum, DataType
from atb_core.graph.op import Op, RealTensor, require, same_size
from atb_core.graph.ops.quant import DynamicQuant


class MaskType(AttributeEnum):
    """Types of attention masks, with ATB's names as values; attention refuses the compressed ones of ALiBi."""

    UNDEFINED = "MASK_TYPE_UNDEFINED"
    NORM = "MASK_TYPE_NORM"
    ALIBI = "MASK_TYPE_ALIBI"
    SPEC = "MASK_TYPE_SPEC"
    NORM_COMPRESS = "MASK_TYPE_NORM_COMPRESS"
    ALIBI_COMPRESS = "MASK_TYPE_ALIBI_COMPRESS"
    ALIBI_COMPRESS_SQRT = "MASK_TYPE_ALIBI_COMPRESS_SQRT"
    ALIBI_COMPRESS_LEFT_ALIGN = "MASK_TYPE_ALIBI_COMPRESS_LEFT_ALIGN"


class CalcType(AttributeEnum):
    """Forms of the lengths: PA_ENCODER for packed prefill, SPEC for several new tokens of each sequence."""

    UNDEFINED = "CALC_TYPE_UNDEFINED"
    SPEC = "CALC_TYPE_SPEC"
    PA_ENCODER = "PA_ENCODER"


@dataclass(frozen=True)
class _Attention(Op, abstract=True):
    """Base of the attention ops: grouped-query attention with scaled scores and an optional additive mask.

    With a positive `logits_soft_cap` c, a scaled score s becomes `c * tanh(s / c)` before the mask is added.
    """

    head_num: int
    kv_head_num: int
    q_scale: float = 1.0
    qk_scale: float = 1.0
    mask_type: MaskType = MaskType.UNDEFINED
    logits_soft_cap: float = field(default=0.0, kw_only=True)
    int8_kv: bool = field(default=False, kw_only=True)

    def check_attributes(self) -> None:
        if self.logits_soft_cap < 0:
            raise GraphError(f"logits_soft_cap is {self.logits_soft_cap}", hint="It has to be positive, or 0 for none.")
        if self.kv_head_num < 1 or self.head_num % self.kv_head_num:
            raise GraphError(f"{self.head_num} heads cannot share {self.kv_head_num} key/value heads evenly")
        if self.mask_type not in self.masks:
            raise GraphError(
                f"{self.name} with these attributes takes {', '.join(self.masks)}, not {self.mask_type}",
                hint="Of ALiBi give the whole bias of each head: nothing says what values ATB's compressed masks hold.",
            )

    @property
    @abstractmethod
    def masks(self) -> tuple[MaskType, ...]:
        """Returns the types of masks that the instance takes."""

    @property
    def operands(self) -> tuple[str, ...]:
        return tuple(name for name in self.input_names if name != "mask" or self.mask_type is not MaskType.UNDEFINED)

    def _check_query(self, q: Shape) -> None:
        require(len(q) == 3, f"q must be [tokens, heads, head_dim], not {shape_text(q)}")
        same_size(q[1], self.head_num, f"heads of q {shape_text(q)} and head_num")

    def _check_mask(self, mask: Shape, sequences: Shape) -> None:
        planes = (*sequences, *((self.head_num,) if self.mask_type is MaskType.ALIBI else ()))
        fits = mask[:-2] in (planes, planes[1:])
        require(fits, f"mask {shape_text(mask)} must be [rows, columns] behind {shape_text(planes)}")

    def _plane(self, mask: RealTensor, sequence: int) -> RealTensor:
        """Returns the mask of a sequence, float32 `[rows, columns]`, with the type ALIBI `[heads, rows, columns]`."""
        shared_dims = 3 if self.mask_type is MaskType.ALIBI else 2
        return (mask[sequence] if mask.dim() > shared_dims else mask).float()

    def _attend(self, q: RealTensor, k: RealTensor, v: RealTensor, mask: RealTensor) -> RealTensor:
        """Returns the attention of one sequence, float32 `[n, heads, head_dim]`; the mask is added to the scores."""
        groups = self.head_num // self.kv_head_num
        keys = k.float().repeat_interleave(groups, dim=1)
        values = v.float().repeat_interleave(groups, dim=1)
        scores = (q.float() * self.q_scale).transpose(0, 1) @ keys.permute(1, 2, 0) * self.qk_scale
        if self.logits_soft_cap:
            scores = (scores / self.logits_soft_cap).tanh() * self.logits_soft_cap
        return ((scores + mask).softmax(dim=-1) @ values.transpose(0, 1)).transpose(0, 1)


def causal_mask(new: int, total: int) -> RealTensor:
    """Returns the causal mask of the last `new` of `total` tokens: float32 `[new, total]`, 0 if visible, else -inf."""
    import torch

    return torch.full((new, total), float("-inf")).triu(total - new + 1)


def cache_width(head_dim: Any, dtype: DataType | None) -> Any:
    """Returns the last size of a cache of this dtype for heads of `head_dim`; int8 has float32 scales, too."""
    return head_dim + 4 if dtype is DataType.INT8 else head_dim


def _int8_parts(cache: RealTensor) -> tuple[RealTensor, RealTensor]:
    """Returns the rows `[blocks, block_size, heads, head_dim]` of an int8 cache, and the bytes of scales `[..., 4]`."""
    blocks, size, heads, width = cache.shape
    flat, split = cache.view(blocks, -1), size * heads * (width - 4)
    return flat[:, :split].view(blocks, size, heads, -1), flat[:, split:].view(blocks, size, heads, 4)


def _values(cache: RealTensor) -> RealTensor:
    """Returns what blocks of a cache hold, `[blocks * block_size, heads, head_dim]`."""
    if not cache.is_floating_point():
        rows, scales = (part.contiguous() for part in _int8_parts(cache))
        cache = rows * scales.view(rows.float().dtype)
    return cache.flatten(0, 1)


def _check_cache(cache: Shape, int8: bool, heads: DimLike, head_dim: DimLike) -> None:
    wanted = (*cache[:2], heads, cache_width(head_dim, DataType.INT8 if int8 else None))
    require(cache == wanted, f"a cache must be {shape_text(wanted)}, not {shape_text(cache)}")


def _check_pair(key: str, k: Shape, value: str, v: Shape, rank: int, form: str) -> None:
    require(k == v and len(k) == rank, f"{key} {shape_text(k)} and {value} {shape_text(v)} must be equal, {form}")


@dataclass(frozen=True)
class SelfAttention(_Attention):
    """Computes the attention of packed sequences to themselves (prefill).

    q `[T, heads, head_dim]`, k and v `[T, kv_heads, head_dim]`, mask (optional), seq_len int32 `[B]` -> `[T, heads,
    head_dim]`. The sequences follow one another in T. With `is_triu_mask` the attention is causal, and a mask of the
    types NORM and NORM_COMPRESS (ATB's is `[128, 128]`) is not read; else NORM `[longest, longest]` or `[B, longest,
    longest]` is added to the scores. ALIBI, `[heads, longest, longest]` or `[B, heads, longest, longest]`, always is.
    With `int8_kv`, k and v count as a cache of int8 has them, see `ReshapeAndCache`.
    """

    is_triu_mask: bool = False
    calc_type: CalcType = CalcType.PA_ENCODER

    enums = (("mask_type", MaskType), ("calc_type", CalcType))
    input_names = ("q", "k", "v", "mask", "seq_len")
    input_dtypes = ("float", "q", "q", "float", "int32")

    def check_attributes(self) -> None:
        super().check_attributes()
        if self.calc_type is not CalcType.PA_ENCODER:
            raise GraphError(f"SelfAttention runs with calc_type PA_ENCODER only, not {self.calc_type}")

    @property
    def masks(self) -> tuple[MaskType, ...]:
        compressed = (MaskType.NORM_COMPRESS,) if self.is_triu_mask else ()
        return MaskType.UNDEFINED, MaskType.NORM, MaskType.ALIBI, *compressed

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        q, k, v, seq_len = shapes[0], shapes[1], shapes[2], shapes[-1]
        self._check_query(q)
        _check_pair("k", k, "v", v, 3, "[tokens, heads, head_dim]")
        same_size(k[1], self.kv_head_num, f"heads of k {shape_text(k)} and kv_head_num")
        require(k[::2] == q[::2], f"q {shape_text(q)} and k {shape_text(k)} differ in tokens or head_dim")
        require(len(seq_len) == 1, f"seq_len must have one dimension, not {shape_text(seq_len)}")
        if self.mask_type is not MaskType.UNDEFINED:
            self._check_mask(shapes[3], seq_len)
        return (q,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        q, k, v, lengths = inputs[0], inputs[1], inputs[2], inputs[-1].tolist()
        if min(lengths, default=0) < 0 or sum(lengths) != q.shape[0]:
            raise ValueError(f"seq_len {lengths} does not add up to the {q.shape[0]} tokens given")
        out, start = q.new_empty(q.shape), 0
        if self.int8_kv:
            k, v = (rows * scales.unsqueeze(-1) for rows, scales in map(DynamicQuant().reference, (k, v)))
        for sequence, length in enumerate(lengths):
            mask = causal_mask(length, length) if self.is_triu_mask else q.new_zeros(())
            if self.mask_type is MaskType.ALIBI or (self.mask_type is MaskType.NORM and not self.is_triu_mask):
                mask = mask + self._plane(inputs[3], sequence)[..., :length, :length]
            rows = slice(start, start + length)
            out[rows] = self._attend(q[rows], k[rows], v[rows], mask).to(q.dtype)
            start += length
        return (out,)


@dataclass(frozen=True)
class PagedAttention(_Attention):
    """Computes the attention of new tokens to the paged KV cache (decode), which already holds their keys and values.

    q `[T, heads, head_dim]`, k_cache and v_cache `[num_blocks, block_size, kv_heads, head_dim]`, block_tables int32
    `[B, max_blocks]`, context_lens int32 `[B]`, mask (optional), q_lens int32 `[B]` (SPEC only) -> `[T, heads,
    head_dim]`. Without SPEC, each sequence has one new token, and a mask is added to its scores: NORM `[B, 1, longest]`
    or ALIBI `[B, heads, 1, longest]`. With SPEC, new token j of n sees the positions up to `context_len - n + j`. ATB
    reads this rule from a mask: MASK_TYPE_NORM `[longest, longest]` only repeats it and is not read elsewhere;
    MASK_TYPE_SPEC `[T, longest]`, added to the scores, may also hide more. `longest` is at least the longest context. A
    context_len of 0 gives zeros. With `int8_kv` or `packed_kv`, caches are as `ReshapeAndCache` writes them.
    """

    calc_type: CalcType = CalcType.UNDEFINED
    packed_kv: bool = field(default=False, kw_only=True)

    enums = (("mask_type", MaskType), ("calc_type", CalcType))
    input_names = ("q", "k_cache", "v_cache", "block_tables", "context_lens", "mask", "q_lens")

    @property
    def input_dtypes(self) -> tuple[str, ...]:  # type: ignore[override]
        cache = "int8" if self.int8_kv else "q"
        return ("float", cache, cache, "int32", "int32", "float", "int32")

    @property
    def masks(self) -> tuple[MaskType, ...]:
        other = MaskType.SPEC if self.calc_type is CalcType.SPEC else MaskType.ALIBI
        return MaskType.UNDEFINED, MaskType.NORM, other

    @property
    def operands(self) -> tuple[str, ...]:
        return super().operands if self.calc_type is CalcType.SPEC else super().operands[:-1]

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        q, k_cache, v_cache, tables, lens = shapes[:5]
        self._check_query(q)
        _check_pair("k_cache", k_cache, "v_cache", v_cache, 4, "of four dimensions")
        _check_cache(k_cache, self.int8_kv, self.kv_head_num, q[2])
        require(
            len(tables) == 2 and lens == tables[:1],
            f"block_tables {shape_text(tables)} and context_lens {shape_text(lens)} must be [B, blocks] and [B]",
        )
        if self.calc_type is not CalcType.SPEC:
            same_size(q[0], tables[0], "tokens of q and rows of block_tables (one token for each sequence)")
            if self.mask_type is not MaskType.UNDEFINED:
                require(len(shapes[5]) > 2 and shapes[5][-2] == 1, f"mask {shape_text(shapes[5])} must have rows of 1")
                self._check_mask(shapes[5], lens)
        if self.mask_type is MaskType.SPEC:
            mask = shapes[5]
            require(len(mask) == 2 and mask[0] == q[0], f"mask {shape_text(mask)} must have a row for each token of q")
        return (q,)

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        q, k_cache, v_cache, tables, lens = inputs[:5]
        news = inputs[-1].tolist() if self.calc_type is CalcType.SPEC else [1] * len(lens)
        if sum(news) != q.shape[0]:
            raise ValueError(f"q_lens {news} does not add up to the {q.shape[0]} tokens given")
        out, start, size = q.new_zeros(q.shape), 0, k_cache.shape[1]
        for sequence, (table, total, new) in enumerate(zip(tables, lens.tolist(), news, strict=True)):
            rows = slice(start, start + new)
            start += new
            if total == 0:
                continue
            if not new <= total <= size * len(table):
                raise ValueError(f"context_len {total} does not fit {new} new tokens and {len(table)} blocks")
            blocks = table[: -(-total // size)].long()
            keys, values = _values(k_cache[blocks])[:total], _values(v_cache[blocks])[:total]
            mask = causal_mask(new, total)
            if self.mask_type is MaskType.SPEC:
                mask = mask + inputs[5][rows, :total].float()
            elif self.mask_type is not MaskType.UNDEFINED and self.calc_type is not CalcType.SPEC:
                mask = mask + self._plane(inputs[5], sequence)[..., :total]
            out[rows] = self._attend(q[rows], keys, values, mask).to(q.dtype)
        return (out,)


@dataclass(frozen=True)
class ReshapeAndCache(Op):
    """Stores keys and values of new tokens in the paged cache.

    k and v `[T, kv_heads, head_dim]`, k_cache and v_cache `[num_blocks, block_size, kv_heads, head_dim]` (written in
    place), slots int32 `[T]`: the slot `block * block_size + offset` of each token; a negative slot skips the token.
    The op has no outputs. With `int8_kv`, caches are int8 `[num_blocks, block_size, kv_heads, head_dim + 4]`, and each
    head of a token becomes `DynamicQuant` of it: a block has rows `[block_size, kv_heads, head_dim]`, then the bytes of
    their float32 scales `[block_size, kv_heads]`. With `packed_kv`, nothing but `PagedAttention` of the same engine
    reads the caches, so that an engine may keep their elements in an order of its own.
    """

    int8_kv: bool = False
    packed_kv: bool = False

    input_names = ("k", "v", "k_cache", "v_cache", "slots")
    writes = (2, 3)
    num_outputs = 0

    @property
    def input_dtypes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("float", "k", "int8", "int8", "int32") if self.int8_kv else ("any", "k", "k", "k", "int32")

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        k, v, k_cache, v_cache, slots = shapes
        _check_pair("k", k, "v", v, 3, "[tokens, heads, head_dim]")
        _check_pair("k_cache", k_cache, "v_cache", v_cache, 4, "of four dimensions")
        _check_cache(k_cache, self.int8_kv, *k[1:])
        require(slots == k[:1], f"slots must be {shape_text(k[:1])}, not {shape_text(slots)}")
        return ()

    def reference(self, *inputs: RealTensor) -> tuple[RealTensor, ...]:
        k, v, k_cache, v_cache, slots = inputs
        wanted = slots >= 0
        total, size = k_cache.shape[0] * k_cache.shape[1], k_cache.shape[1]
        if slots.numel() and int(slots.max()) >= total:
            raise IndexError(f"slot {int(slots.max())} is outside of a cache of {total} slots")
        where = slots[wanted].long()
        places = where // size, where % size
        for cache, new in ((k_cache, k[wanted]), (v_cache, v[wanted])):
            if self.int8_kv:
                new, scales = DynamicQuant().reference(new)
                cache, bytes_of_scales = _int8_parts(cache)
                bytes_of_scales[places] = scales.unsqueeze(-1).view(cache.dtype)
            cache[places] = new
        return ()
