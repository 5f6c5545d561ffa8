# SPDX-License-Identifier: Apache-2.0
"""Rendering of networks in Graphviz's DOT language."""

from __future__ import annotations

from collections.abc import Iterable

from atb_core.graph.dim import shape_text
from atb_core.graph.network import Network, Node
from atb_core.graph.printing import tensor_names
from atb_core.graph.tensor import Tensor


def to_dot(network: Network, nodes: Iterable[Node] | None = None) -> str:
    """Returns DOT text in which nodes are boxes grouped by module and edges are labelled with dtype and shape.

    Args:
        network: the network to draw.
        nodes: the nodes to draw; all of the network's by default.
    """
    chosen = list(network.nodes if nodes is None else nodes)
    names = tensor_names(network)
    ids = {node: f"n{index}" for index, node in enumerate(chosen)}
    lines = [f"digraph {_quoted(network.name)} {{", '  node [shape=box, fontname="Helvetica", fontsize=10];']
    lines += ['  edge [fontname="Helvetica", fontsize=8];']
    modules: dict[str, list[Node]] = {}
    for node in chosen:
        modules.setdefault(node.module_path, []).append(node)
    for index, (path, members) in enumerate(modules.items()):
        lines += [f"  subgraph cluster_{index} {{", f"    label={_quoted(path or '(no module)')};"]
        lines += [f"    {ids[node]} [label={_quoted(node.op.name)}];" for node in members]
        lines.append("  }")
    outside: dict[Tensor, str] = {}
    for node in chosen:
        for tensor in node.inputs:
            producer = network.producer(tensor)
            start = ids[producer] if producer in ids else outside.setdefault(tensor, f"t{len(outside)}")
            lines.append(f"  {start} -> {ids[node]} [label={_quoted(_edge(tensor))}];")
    for tensor, name in outside.items():
        lines.append(f"  {name} [label={_quoted(names[tensor])}, shape=ellipse];")
    for tensor in network.outputs:
        producer = network.producer(tensor)
        if producer in ids:
            lines += [f"  {_quoted(names[tensor])} [shape=ellipse, style=bold];"]
            lines += [f"  {ids[producer]} -> {_quoted(names[tensor])} [label={_quoted(_edge(tensor))}];"]
    return "\n".join([*lines, "}", ""])


def _edge(tensor: Tensor) -> str:
    return f"{tensor.dtype.short if tensor.dtype else '?'}{shape_text(tensor.shape)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
