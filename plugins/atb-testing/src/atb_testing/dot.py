# SPDX-License-Identifier: Apache-2.0
"""Rendering of networks in Graphviz's DOT language."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from atb_ascend.segments import layer_of
from atb_core.graph.dim import shape_text
from atb_core.graph.network import Network, Node
from atb_core.graph.printing import tensor_names, value_text
from atb_core.graph.tensor import Tensor

_FONT = 'fontname="Helvetica,Arial,sans-serif"'
#: Shape and colour of each kind of node.
_STYLES = {
    "op": 'shape=box, style="rounded,filled", fillcolor="#ffffff"',
    "input": 'shape=ellipse, style=filled, fillcolor="#c9ecc9"',
    "weight": 'shape=note, style=filled, fillcolor="#fbe7b2"',
    "cache": 'shape=cylinder, style=filled, fillcolor="#e3d3f4"',
    "output": 'shape=ellipse, style="filled,bold", fillcolor="#bfdcf7"',
    "left out": 'shape=box, style="rounded,filled,dashed", fillcolor="#e8e8e8"',
}


def to_dot(network: Network, nodes: Iterable[Node] | None = None) -> str:
    """Returns DOT text: ops with their attributes, grouped by module, and edges with dtype and shape.

    Args:
        network: the network to draw.
        nodes: the nodes to draw, all of the network's by default; one node stands for those between them that are
            left out.
    """
    return _Picture(network, network.nodes if nodes is None else nodes).text()


class _Picture:
    """Statements of one picture, made in the order of the network."""

    def __init__(self, network: Network, nodes: Iterable[Node]) -> None:
        self.network = network
        self.names = tensor_names(network)
        chosen = set(nodes)
        self.caches = {node.inputs[i] for node in network.nodes for i in node.writes}
        # The vertex of each node, and the edges by their ends, in the order in which they are drawn.
        self.vertices: dict[Node, str] = {}
        self.edges: dict[tuple[str, str], str] = {}
        self.lines: list[str] = []
        for shown, run in groupby(network.nodes, chosen.__contains__):
            members = list(run)
            if shown:
                self._add_modules(members)
            else:
                self._add_gap(members)

    def text(self) -> str:
        """Returns the whole picture."""
        outside: dict[Tensor, str] = {}
        for node, vertex in self.vertices.items():
            for tensor in node.inputs:
                producer = self.network.producer(tensor)
                if producer is not None:
                    self._join(self.vertices[producer], vertex, _type(tensor))
                elif not vertex.startswith("gap"):
                    if tensor not in outside:
                        outside[tensor] = f"in{len(outside)}"
                        title = _relative(self.names[tensor], node.module_path)
                        self.lines.append(self._vertex(outside[tensor], self._kind(tensor), title, [_type(tensor)]))
                    self._join(outside[tensor], vertex, "")
        for index, tensor in enumerate(self.network.outputs):
            producer = self.network.producer(tensor)
            assert producer is not None
            self.lines.append(self._vertex(f"out{index}", "output", self.names[tensor], [_type(tensor)]))
            self._join(self.vertices[producer], f"out{index}", "")
        head = [
            f"digraph {_quoted(self.network.name)} {{",
            f"  graph [{_FONT}, fontsize=14, labelloc=t, label=<{_legend()}>, ranksep=0.4];",
            f"  node [{_FONT}, fontsize=13];",
            f'  edge [{_FONT}, fontsize=11, color="#606060"];',
        ]
        edges = [f"  {a} -> {b} [label={_quoted(label)}];" for (a, b), label in self.edges.items()]
        return "\n".join([*head, *self.lines, *edges, "}", ""])

    def _add_modules(self, nodes: Sequence[Node]) -> None:
        for path, run in groupby(nodes, lambda node: node.module_path):
            self.lines += [f"  subgraph cluster_{len(self.lines)} {{", f"    label={_quoted(path or '(no module)')};"]
            self.lines.append(
                '    labeljust=l; style="rounded,filled"; color="#b0b0b0"; fillcolor="#f6f6f6"; fontsize=13;'
            )
            for node in run:
                self.vertices[node] = vertex = f"n{len(self.vertices)}"
                self.lines.append("  " + self._vertex(vertex, "op", node.op.name, _attributes(node)))
            self.lines.append("  }")

    def _add_gap(self, nodes: Sequence[Node]) -> None:
        layers = len({layer_of(node.module_path) for node in nodes} - {""})
        more = f"{layers} more layer{'s' * (layers > 1)}" if layers else f"{len(nodes)} more nodes"
        vertex = f"gap{len(self.lines)}"
        self.vertices.update(dict.fromkeys(nodes, vertex))
        self.lines.append(self._vertex(vertex, "left out", more, [f"{len(nodes)} nodes"]))

    def _kind(self, tensor: Tensor) -> str:
        if tensor in self.caches:
            return "cache"
        return "weight" if tensor.name in self.network.weights_keys else "input"

    def _vertex(self, name: str, kind: str, title: str, details: Sequence[str]) -> str:
        small = "".join(f'<br/><font point-size="11">{escape(line)}</font>' for line in details)
        return f"  {name} [label=<<b>{escape(title)}</b>{small}>, {_STYLES[kind]}];"

    def _join(self, start: str, end: str, label: str) -> None:
        if start != end:
            self.edges.setdefault((start, end), label)


def _attributes(node: Node) -> list[str]:
    """Returns the attributes that differ from their defaults, one on a line."""
    fields = {field.name: field.default for field in dataclasses.fields(node.op)}  # type: ignore[arg-type]
    plain = node.op.attributes()
    return [f"{name}={value_text(plain[name])}" for name, value in fields.items() if getattr(node.op, name) != value]


def _relative(name: str, path: str) -> str:
    """Returns a name without the beginning that it shares with the module that reads it, which the cluster shows."""
    parts = name.split(".")
    for module in path.split("."):
        if parts[0] != module or len(parts) == 1:
            break
        del parts[0]
    return ".".join(parts)


def _legend() -> str:
    colours = {kind: style[-8:-1] for kind, style in _STYLES.items() if kind != "op"}
    return "  ".join(f'<font color="{colour}">&#9632;</font> {kind}' for kind, colour in colours.items())


def _type(tensor: Tensor) -> str:
    return f"{tensor.dtype.short if tensor.dtype else '?'}{shape_text(tensor.shape)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
