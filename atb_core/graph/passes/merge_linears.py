# SPDX-License-Identifier: Apache-2.0
"""Fusion of linears that share an input: the input is prepared once, and threads synchronize once."""

from __future__ import annotations

from atb_core.graph.network import Network, Node
from atb_core.graph.ops.linear import Linear, MergedLinear
from atb_core.graph.passes.rewrite import Rewriter
from atb_core.graph.tensor import Tensor


def merge_linears(network: Network) -> Network:
    """Merges `Linear` nodes with the same input and constant weights into a `MergedLinear` in place of the first one.

    This is no `Fusion` because the number of linears varies.
    """
    groups: dict[tuple[Tensor, Linear, tuple[int, ...]], list[Node]] = {}
    for node in network.nodes:
        if isinstance(node.op, Linear) and _constant_weights(network, node):
            groups.setdefault((node.inputs[0], node.op, node.versions), []).append(node)
    merged = {id(node): group for group in groups.values() if len(group) > 1 for node in group}
    rewriter = Rewriter(network)
    for node in network.nodes:
        group = merged.get(id(node))
        if group is None:
            rewriter.keep(node)
        elif node is group[0]:
            assert isinstance(node.op, Linear)
            operands = [node.inputs[0], *(member.inputs[1] for member in group)]
            operands += [member.inputs[2] for member in group] if node.op.has_bias else []
            op = MergedLinear(len(group), node.op.has_bias)
            rewriter.emit(op, node, operands, [member.outputs[0] for member in group])
    return rewriter.finish()


def _constant_weights(network: Network, node: Node) -> bool:
    op = node.op
    if not isinstance(op, Linear) or op != Linear(has_bias=op.has_bias) or node.cut_after:
        return False
    return all(tensor.name in network.weights_keys for tensor in node.inputs[1:])
