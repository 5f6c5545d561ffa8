# SPDX-License-Identifier: Apache-2.0
"""Counts what an op has to do at least: floating-point operations, and bytes between memory and processor.

One table for all ops of the core. An op of another package declares its own with a method

    def cost(self, inputs: Sequence[Operand], outputs: Sequence[Operand]) -> tuple[int, int]

which returns operations and bytes, like the functions of the table.

Bytes are those of a perfect cache: every input is read once and every output written once, of a table only the rows
that are used, of a KV cache only the tokens that are seen. Operations are additions, multiplications and comparisons; a
function such as `exp` counts as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from atb_core.graph import Network, Node, Tensor
from atb_core.graph.dim import Dim

#: Sizes of the named dimensions of a network.
Sizes: TypeAlias = Mapping[str, int]


#: Operations of the softmax for a score: scale, maximum, difference, `exp`, sum.
_OF_A_SCORE = 5
#: No bytes of weights.
NOTHING: Mapping[str, int] = MappingProxyType({})


class UnknownSizeError(Exception):
    """Reports that a size or value that a cost depends on is not known."""


class Cost(NamedTuple):
    """Counts what an op has to do.

    Attributes:
        flops: floating-point operations.
        bytes: bytes read and written.
    """

    flops: int
    bytes: int


class Operand:
    """A tensor of a node in one run.

    Args:
        tensor: the symbolic tensor.
        sizes: values of the named dimensions.
        values: values of the network's small integer inputs, by name.
        stored: bytes that an engine holds of a weight, by name, where they may differ: quantized weights.
    """

    def __init__(
        self, tensor: Tensor, sizes: Sizes, values: Mapping[str, Sequence[int]], stored: Mapping[str, int] = NOTHING
    ) -> None:
        self._tensor, self._sizes, self._values, self._stored = tensor, sizes, values, stored

    def size(self, axis: int) -> int:
        """Returns the size of one axis; raises UnknownSizeError if a named dimension has no value."""
        if self._tensor.shape is None:
            raise UnknownSizeError("a tensor without a shape")
        size = self._tensor.shape[axis]
        try:
            return size.evaluate(self._sizes) if isinstance(size, Dim) else size
        except KeyError as error:
            raise UnknownSizeError(f"the size {error}") from None

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns all sizes."""
        if self._tensor.shape is None:
            raise UnknownSizeError("a tensor without a shape")
        return tuple(map(self.size, range(len(self._tensor.shape))))

    @property
    def numel(self) -> int:
        """Returns the number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Returns the bytes of an element."""
        if self._tensor.dtype is None:
            raise UnknownSizeError("a tensor without a dtype")
        return self._tensor.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Returns the bytes of all elements, as the engine stores them."""
        known = self._stored.get(self._tensor.name or "")
        return self.numel * self.itemsize if known is None else known

    @property
    def values(self) -> Sequence[int]:
        """Returns the elements of an integer input of the network, such as lengths of sequences."""
        name = self._tensor.name
        if name is None or name not in self._values:
            raise UnknownSizeError(f"the values of {name or 'a tensor'}")
        return self._values[name]


Operands: TypeAlias = Sequence[Operand]
Rule: TypeAlias = Callable[[Any, Operands, Operands], "tuple[int, int]"]


def cost_of(
    node: Node, sizes: Sizes, values: Mapping[str, Sequence[int]], stored: Mapping[str, int] = NOTHING
) -> Cost | None:
    """Returns the cost of a node; `None` if the op declares none, or a size that it depends on is not known.

    Args:
        node: the node.
        sizes: values of the named dimensions of its network, `graph.specialize.bind_dims`.
        values: values of integer inputs by name: lengths of sequences.
        stored: bytes that the engine holds of each weight; by default those of the weight's dtype.
    """
    inputs = [Operand(tensor, sizes, values, stored) for tensor in node.inputs]
    outputs = [Operand(tensor, sizes, values) for tensor in node.outputs]
    rule = getattr(type(node.op), "cost", None) or _RULES.get(node.op.name)
    if rule is None:
        return None
    try:
        return Cost(*rule(node.op, inputs, outputs))
    except UnknownSizeError:
        return None


def network_costs(
    network: Network, sizes: Sizes, values: Mapping[str, Sequence[int]], stored: Mapping[str, int] = NOTHING
) -> list[Cost | None]:
    """Returns `cost_of` for each node of a network; layers are alike, so most nodes are counted once."""
    known: dict[object, Cost | None] = {}
    costs = []
    for node in network.nodes:
        named = tuple(t.name for t in node.inputs if t.name in values)
        held = tuple(stored.get(t.name or "") for t in node.inputs)
        key = (node.op, *((t.shape, t.dtype) for t in (*node.inputs, *node.outputs)), named, held)
        if key not in known:
            known[key] = cost_of(node, sizes, values, stored)
        costs.append(known[key])
    return costs


def _touched(*operands: Operand) -> int:
    return sum(operand.nbytes for operand in operands)


def _elements(flops: int) -> Rule:
    """Returns the rule of an op that reads and writes everything and has `flops` for an element of its largest part."""

    def rule(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
        return flops * max(each.numel for each in (*inputs, *outputs)), _touched(*inputs, *outputs)

    return rule


def _product(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    columns = sum(output.size(-1) for output in outputs)
    rows = outputs[0].numel // outputs[0].size(-1) if outputs[0].size(-1) else 0
    inner = inputs[0].size(-2 if getattr(op, "transpose_a", False) else -1)
    bias = rows * columns if getattr(op, "has_bias", False) else 0
    return 2 * rows * columns * inner + bias, _touched(*inputs, *outputs)


def _gated_product(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    flops, touched = _product(op, inputs, outputs)
    return 2 * flops + 4 * outputs[0].numel, touched  # two matrices, and what a SwiGLU has


def _grouped(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    x, weight, output = inputs[0], inputs[1], outputs[0]
    experts = weight.size(0)
    # No expert is read twice; with few rows at most one for each.
    read = weight.nbytes // experts * min(experts, x.size(0)) if experts else 0
    return 2 * output.numel * x.size(-1), _touched(x, output, *inputs[2:]) + read


def _lora(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    # At most: every row has an adapter, no two the same one, of the largest rank in every part.
    y, x, a, b, bias = inputs[:5]
    slots = a.size(0)
    read = sum(each.nbytes for each in (a, b, bias)) // slots * min(slots, x.size(0)) if slots else 0
    flops = 2 * x.size(0) * (a.size(1) * a.size(2) + b.size(1) * b.size(2)) + 2 * y.numel
    return flops, _touched(y, x, *inputs[5:], *outputs) + read


def _self_attention(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    q, k, v = inputs[:3]
    lengths = inputs[-1].values
    pairs = sum(n * (n + 1) // 2 if op.is_triu_mask else n * n for n in lengths)
    return _attention(op.head_num, q.size(-1), v.size(-1), pairs), _touched(q, k, v, *outputs)


def _paged_attention(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    q, k_cache, v_cache, _, lens = inputs[:5]
    totals = lens.values
    news = inputs[-1].values if len(op.operands) > 5 else [1] * len(totals)
    # New token j of n sees all but the n - 1 - j that follow it.
    pairs = sum(new * total - new * (new - 1) // 2 for new, total in zip(news, totals, strict=True))
    row = k_cache.size(2) * (k_cache.size(3) * k_cache.itemsize + v_cache.size(3) * v_cache.itemsize)
    return _attention(op.head_num, q.size(-1), q.size(-1), pairs), _touched(q, *outputs) + row * sum(totals)


def _attention(heads: int, key_size: int, value_size: int, pairs: int) -> int:
    """Counts two products and a softmax over `pairs` scores of each head."""
    return heads * pairs * (2 * key_size + 2 * value_size + _OF_A_SCORE)


def softmax_share(node: Node) -> float:
    """Returns the part of the operations of a node with attention that the softmax has; the others are products."""
    # The rows of a cache may have more than the elements of a head.
    values = node.inputs[2 if node.op.name == "SelfAttention" else 0]
    sizes = [tensor.shape[-1] for tensor in (node.inputs[0], values) if tensor.shape is not None]
    products = sum(2 * size for size in sizes if isinstance(size, int))
    return _OF_A_SCORE / (products + _OF_A_SCORE)


def _store_rows(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    k, v, k_cache, v_cache, slots = inputs
    written = sum(cache.itemsize * cache.size(2) * cache.size(3) for cache in (k_cache, v_cache))
    return 0, _touched(k, v, slots) + slots.numel * written


def _gather(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    return 0, _touched(inputs[1]) + 2 * _touched(*outputs)


def _move(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    return 0, 2 * _touched(*outputs)


def _nothing(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    return 0, 0


def _sort(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    x = inputs[0]
    return x.numel * max(1, math.ceil(math.log2(max(2, x.size(-1))))), _touched(*inputs, *outputs)


def _rotate(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    q, k, cos, sin = inputs[:4]
    return 3 * (q.numel + k.numel), _touched(q, k, cos, sin, *outputs)


def _assign(op: Any, inputs: Operands, outputs: Operands) -> tuple[int, int]:
    return 0, 2 * inputs[0].nbytes


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("Linear", "MergedLinear", "SplitLinear", "LinearParallel", "BatchMatmul", "QuantLinear"), _product
    ),
    **dict.fromkeys(("LinearSwiglu", "QuantLinearSwiglu"), _gated_product),
    "GroupedMatmul": _grouped,
    "Lora": _lora,
    "SelfAttention": _self_attention,
    "PagedAttention": _paged_attention,
    "ReshapeAndCache": _store_rows,
    "Rope": _rotate,
    "Gather": _gather,
    **dict.fromkeys(("Split", "Concat", "Slice", "Transpose", "Repeat", "MoeInitRouting", "AllGather"), _move),
    "Cast": _elements(0),
    "Elewise": _elements(1),
    "Reduce": _elements(1),
    "AllReduce": _elements(1),
    # A sigmoid (negate, exp, add, divide) and the product with its input; of SwiGLU, half the elements have them.
    "Activation": _elements(4),
    # Divide, add, round and clamp; of each row also the largest magnitude.
    "QuantPerChannel": _elements(4),
    "DynamicQuant": _elements(5),
    # Square, sum, and the products with the root and the weight.
    "RmsNorm": _elements(4),
    "AddRmsNorm": _elements(5),
    "LayerNorm": _elements(7),
    "Softmax": _elements(5),
    "MoeTopkSoftmax": _elements(5),
    "MoeTokenUnpermute": _elements(2),
    "Sort": _sort,
    "Argsort": _sort,
    "Reshape": _nothing,
    "Assign": _assign,
}


#: Names of the ops that multiply matrices.
PRODUCTS = frozenset(name for name, rule in _RULES.items() if rule in (_product, _gated_product, _grouped))


def ops_with_costs() -> frozenset[str]:
    """Returns the names of the core's ops that the table has."""
    return frozenset(_RULES)
