# SPDX-License-Identifier: Apache-2.0
"""Conversion of networks to the names, numbers and lists that engines in C++ read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atb_core.graph.dim import Dim
from atb_core.graph.network import Network, Node
from atb_core.graph.ops.view import Reshape
from atb_core.graph.tensor import Tensor

if TYPE_CHECKING:
    from atb_core._cpu import NodeSpec, Size, TensorSpec


@dataclass(frozen=True)
class NativeGraph:
    """Arguments of `_cpu.Program`, and the numbers of its tensors."""

    dims: list[str]
    tensors: list[TensorSpec]
    nodes: list[NodeSpec]
    ids: dict[Tensor, int]


def is_complete(network: Network) -> bool:
    """Returns `True` if shape and dtype of every tensor are known; sizes may be symbolic."""
    tensors = (t for node in network.nodes for t in (*node.inputs, *node.outputs))
    return all(t.shape is not None and t.dtype is not None for t in (*network.inputs, *tensors))


def lower(network: Network) -> NativeGraph:
    """Converts a network for which `is_complete` holds."""
    values = [*network.inputs, *(t for node in network.nodes for t in node.outputs)]
    names = sorted({name for t in values for size in t.shape or () if isinstance(size, Dim) for name in size.names})
    dims = {name: index for index, name in enumerate(names)}
    ids = {tensor: index for index, tensor in enumerate(values)}
    outputs = set(network.outputs)
    tensors: list[TensorSpec] = []
    for tensor in values:
        assert tensor.shape is not None and tensor.dtype is not None
        shape: list[Size] = [_steps(size, dims) if isinstance(size, Dim) else size for size in tensor.shape]
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
        # The sizes are those of the output, and can be symbolic.
        return {}
    # `out_dtype` is the dtype of the output.
    attributes = {n: value for n, value in node.op.attributes().items() if n != "out_dtype" and value is not None}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in attributes.items()}


def _steps(size: Dim, dims: dict[str, int]) -> list[tuple[str, int]]:
    """Returns the polynomial in postfix order; a named dimension is a single step."""
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
