# SPDX-License-Identifier: Apache-2.0
"""Fusion of a packed projection and the split of its columns into a node that writes the parts."""

from __future__ import annotations

from atb_core.graph.network import Network, Node
from atb_core.graph.ops.linear import Linear, SplitLinear
from atb_core.graph.ops.movement import Split
from atb_core.graph.passes.rewrite import Rewriter


def fuse_split_linear(network: Network) -> Network:
    """Replaces `Linear` and `Split` over the last dimension by `SplitLinear` if nothing else reads the linear's result.

    This is no `Fusion` because the number of results varies.
    """
    users, finals = network.users(), set(network.outputs)
    splits: dict[int, Node] = {}
    for node in network.nodes:
        readers = users.get(node.outputs[0], []) if node.outputs else []
        if _is_packed(node) and len(readers) == 1 and node.outputs[0] not in finals:
            split = readers[0]
            shape = node.outputs[0].shape
            if isinstance(split.op, Split) and shape is not None and split.op.split_dim == len(shape) - 1:
                splits[id(split)] = node
    fused = {id(linear) for linear in splits.values()}
    rewriter = Rewriter(network)
    for node in network.nodes:
        if id(node) in splits:
            linear = splits[id(node)]
            assert isinstance(node.op, Split) and isinstance(linear.op, Linear)
            op = SplitLinear(node.op.split_sizes, linear.op.has_bias)
            rewriter.emit(op, linear, linear.inputs, node.outputs)
        elif id(node) not in fused:
            rewriter.keep(node)
    return rewriter.finish()


def _is_packed(node: Node) -> bool:
    op = node.op
    return isinstance(op, Linear) and op == Linear(has_bias=op.has_bias)
