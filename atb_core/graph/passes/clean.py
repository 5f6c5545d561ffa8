# SPDX-License-Identifier: Apache-2.0
"""Clean-up passes: they remove dead code, repeated computations and chains of views."""

from __future__ import annotations

from dataclasses import replace

from atb_core.graph.network import Network, Node
from atb_core.graph.op import Op
from atb_core.graph.ops.view import Reshape
from atb_core.graph.passes.rewrite import Rewriter
from atb_core.graph.tensor import Tensor


def remove_dead_code(network: Network) -> Network:
    """Removes nodes whose results are not used; nodes that write in place stay."""
    needed: set[Tensor] = set(network.outputs)
    kept: list[Node] = []
    for node in reversed(network.nodes):
        if node.writes or any(tensor in needed for tensor in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    rewriter = Rewriter(network)
    for node in reversed(kept):
        rewriter.keep(node)
    return rewriter.finish()


def share_common(network: Network) -> Network:
    """Merges nodes that apply the same op to the same values, with no in-place write in between."""
    rewriter = Rewriter(network)
    outputs = set(network.outputs)
    seen: dict[tuple[Op, tuple[Tensor, ...], tuple[int, ...]], Node] = {}
    for node in network.nodes:
        key = (node.op, tuple(rewriter.value(t) for t in node.inputs), node.versions)
        twin = seen.get(key)
        if twin is None or node.writes or outputs.intersection(node.outputs):
            seen.setdefault(key, node)
            rewriter.keep(node)
        else:
            rewriter.image.update(zip(node.outputs, twin.outputs, strict=True))
    return rewriter.finish()


def fold_views(network: Network) -> Network:
    """Merges a view of a view into one view and removes views that do not change the shape."""
    rewriter = Rewriter(network)
    outputs = set(network.outputs)
    for node in network.nodes:
        if not isinstance(node.op, Reshape) or node.outputs[0].shape is None:
            rewriter.keep(node)
            continue
        source = rewriter.value(node.inputs[0])
        producer = rewriter.new.producer(source)
        if producer is not None and isinstance(producer.op, Reshape):
            source = producer.inputs[0]
        if source.shape == node.outputs[0].shape and node.outputs[0] not in outputs:
            rewriter.image[node.outputs[0]] = source
        else:
            rewriter.new.add_copy(replace(node, inputs=(source,), versions=(0,)))
    return rewriter.finish()
