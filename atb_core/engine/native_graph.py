# SPDX-License-Identifier: Apache-2.0
"""A network in the form in which engines in C++ take it: plain names, numbers and lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atb_core.graph.dim import Dim, DimLike
from atb_core.graph.network import Network, Node
from atb_core.graph.ops.view import Reshape
from atb_core.graph.tensor import Tensor

if TYPE_CHECKING:
    from atb_core._cpu import NodeSpec, Size, TensorSpec


@dataclass(frozen=True)
class NativeGraph:
    """What `_cpu.Program` is made of, and the numbers of the tensors that Python binds."""

    dims: list[str]
    tensors: list[TensorSpec]
    nodes: list[NodeSpec]
    ids: dict[Tensor, int]


def is_complete(network: Network) -> bool:
    """True when shape and dtype of every tensor are known, if only symbolically."""
    tensors = (t for node in network.nodes for t in (*node.inputs, *node.outputs))
    return all(t.shape is not None and t.dtype is not None for t in (*network.inputs, *tensors))


def lower(network: Network) -> NativeGraph:
    """The network for C++; `is_complete(network)` must hold."""
    values = [*network.inputs, *(t for node in network.nodes for t in node.outputs)]
    names = sorted({name for t in values for size in t.shape or () if isinstance(size, Dim) for name in size.names})
    dims = {name: index for index, name in enumerate(names)}
    ids = {tensor: index for index, tensor in enumerate(values)}
    outputs = set(network.outputs)
    tensors: list[TensorSpec] = []
    for tensor in values:
        assert tensor.shape is not None
        assert tensor.dtype is not None
        shape = [_size(size, dims) for size in tensor.shape]
        tensors.append((tensor.name or "", tensor.dtype.short, _kind(network, tensor, outputs), shape))
    nodes: list[NodeSpec] = []
    for node in network.nodes:
        inputs, results = [ids[t] for t in node.inputs], [ids[t] for t in node.outputs]
        nodes.append((node.op.name, node.module_path or node.source, _attributes(node), inputs, results))
    return NativeGraph(names, tensors, nodes, ids)


def _kind(network: Network, tensor: Tensor, outputs: set[Tensor]) -> str:
    if network.is_input(tensor):
        return "weight" if tensor.name in network.weights_keys else "input"
    return "output" if tensor in outputs else "internal"


def _attributes(node: Node) -> dict[str, Any]:
    if isinstance(node.op, Reshape):
        return {}  # the output's shape says it, and may be symbolic
    # `out_dtype` is the type of the output tensor; what is None is not given.
    given = {n: value for n, value in node.op.attributes().items() if n != "out_dtype" and value is not None}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


def _size(size: DimLike, dims: dict[str, int]) -> Size:
    return _steps(size, dims) if isinstance(size, Dim) else size


def _steps(size: Dim, dims: dict[str, int]) -> list[tuple[str, int]]:
    """The polynomial in postfix order; a plain dimension is a single step."""
    steps: list[tuple[str, int]] = []
    for position, (monomial, factor) in enumerate(size.terms):
        product: list[tuple[str, int]] = [("const", factor)] if factor != 1 or not monomial else []
        for atom in monomial:
            first = not product
            if isinstance(atom, str):
                product.append(("dim", dims[atom]))
            else:
                product += [*_steps(atom.numerator, dims), ("const", atom.divisor), ("floordiv", 0)]
            if not first:
                product.append(("mul", 0))
        steps += product if position == 0 else [*product, ("add", 0)]
    return steps
