# SPDX-License-Identifier: Apache-2.0
"""Passes over linears that are no `Fusion`, because the number of inputs, results or their dtype varies."""

from __future__ import annotations

from dataclasses import replace

from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network, Node
from atb_core.graph.ops.linear import Linear, MergedLinear, SplitLinear
from atb_core.graph.ops.movement import Split
from atb_core.graph.passes.rewrite import Rewriter
from atb_core.graph.tensor import Tensor


def merge_linears(network: Network) -> Network:
    """Merges `Linear` nodes with the same input and constant weights into a `MergedLinear` in place of the first one.

    The input is then prepared once, and threads synchronize once.
    """
    groups: dict[tuple[Tensor, Linear, tuple[int, ...]], list[Node]] = {}
    for node in network.nodes:
        weights = all(tensor.name in network.weights_keys for tensor in node.inputs[1:])
        if isinstance(node.op, Linear) and _is_plain(node.op) and weights and not node.cut_after:
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


def fuse_split_linear(network: Network) -> Network:
    """Replaces `Linear` and `Split` over the last dimension by `SplitLinear` if nothing else reads the linear's result.

    The new node writes the parts directly.
    """
    users, finals = network.users(), set(network.outputs)
    splits: dict[int, tuple[Node, Linear]] = {}
    for node in network.nodes:
        if not isinstance(node.op, Linear) or not _is_plain(node.op) or node.outputs[0] in finals:
            continue
        readers, shape = users.get(node.outputs[0], []), node.outputs[0].shape
        split = readers[0].op if len(readers) == 1 else None
        if isinstance(split, Split) and shape is not None and split.split_dim == len(shape) - 1:
            splits[id(readers[0])] = node, node.op
    fused = {id(linear) for linear, _ in splits.values()}
    rewriter = Rewriter(network)
    for node in network.nodes:
        if id(node) in splits:
            linear, op = splits[id(node)]
            assert isinstance(node.op, Split)
            rewriter.emit(SplitLinear(node.op.split_sizes, op.has_bias), linear, linear.inputs, node.outputs)
        elif id(node) not in fused:
            rewriter.keep(node)
    return rewriter.finish()


def widen_outputs(network: Network) -> Network:
    """Makes `Linear` nodes that an output of the network is made of, alone or through ops of one float, return float32.

    In bfloat16, logits near 20 are 0.125 apart, so greedy decoding would break ties by token id. The pass changes the
    dtype of outputs, so it is not part of the standard pipeline.
    """
    rewriter = Rewriter(network)
    users, outputs = network.users(), set(network.outputs)
    widened = {id(node) for output in network.outputs for node in _from_linear(network, output, users, outputs)}
    for node in network.nodes:
        if id(node) in widened:
            narrow = node.outputs[0]
            wide = Tensor(narrow.name, narrow.shape, DataType.FLOAT)
            op = replace(node.op, out_dtype=DataType.FLOAT) if isinstance(node.op, Linear) else node.op
            rewriter.emit(op, node, node.inputs, (wide,))
            rewriter.image[narrow] = wide
        else:
            rewriter.keep(node)
    return rewriter.finish()


def _from_linear(network: Network, output: Tensor, users: dict[Tensor, list[Node]], outputs: set[Tensor]) -> list[Node]:
    """Returns the `Linear` that an output comes from and the nodes of one float after it; nothing for other outputs."""
    nodes, tensor = list[Node](), output
    while (node := network.producer(tensor)) is not None:
        nodes.append(node)
        if isinstance(node.op, Linear):
            return nodes
        tensor = node.inputs[0] if len(node.inputs) == 1 else output
        if tensor in outputs or len(users[tensor]) > 1 or node.op.infer_dtypes(DataType.FLOAT) != (DataType.FLOAT,):
            break
    return []


def _is_plain(op: Linear) -> bool:
    return op == Linear(has_bias=op.has_bias)
