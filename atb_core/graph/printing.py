# SPDX-License-Identifier: Apache-2.0
"""Networks as readable text with stable names, suitable for diffs."""

from __future__ import annotations

from collections.abc import Iterable

from atb_core.graph.dim import shape_text
from atb_core.graph.network import Network, Node
from atb_core.graph.tensor import Tensor


def tensor_names(network: Network) -> dict[Tensor, str]:
    """Assigns a name to every tensor: its own, or `%0`, `%1`, ... in the order of the nodes."""
    names = {tensor: tensor.name or "?" for tensor in network.inputs}
    count = 0
    for node in network.nodes:
        for tensor in node.outputs:
            if tensor.name:
                names[tensor] = tensor.name
            else:
                names[tensor] = f"%{count}"
                count += 1
    return names


def network_text(network: Network, nodes: Iterable[Node] | None = None) -> str:
    """Formats a network, or some of its nodes, with one line for each node, grouped by module."""
    names = tensor_names(network)
    lines = [f"network {network.name}"]
    if nodes is None:
        plain = [t for t in network.inputs if t.name not in network.weights_keys]
        lines += ["  inputs:", *(f"    {t}" for t in plain)]
        weights = [t for t in network.inputs if t.name in network.weights_keys]
        if weights:
            lines += ["  weights:", *(f"    {t}" for t in weights)]
    lines.append("  nodes:")
    path: str | None = None
    for node in network.nodes if nodes is None else nodes:
        if node.module_path != path:
            path = node.module_path
            lines.append(f"    # {path or '(no module)'}")
        lines.append(f"    {node_text(node, names)}")
        if node.cut_after:
            lines.append("    ---- cut ----")
    if nodes is None:
        lines += ["  outputs:", *(f"    {t}" for t in network.outputs)]
    return "\n".join(lines)


def node_text(node: Node, names: dict[Tensor, str]) -> str:
    """Formats one node, e.g. `%2: bfloat16[T, 64] = Linear(%1, w, transpose_b=True)`.

    Inputs that are written in place are marked with `!`.
    """
    results = ", ".join(f"{names[t]}: {t.dtype.short if t.dtype else '?'}{shape_text(t.shape)}" for t in node.outputs)
    operands = [f"{names[t]}{'!' if i in node.writes else ''}" for i, t in enumerate(node.inputs)]
    attributes = [f"{key}={value_text(value)}" for key, value in node.op.attributes().items()]
    call = f"{node.op.name}({', '.join(operands + attributes)})"
    return f"{results} = {call}" if results else call


def value_text(value: object) -> str:
    """Formats the plain value of an attribute."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if callable(value):
        return f"<{getattr(value, '__name__', 'function')}>"
    return f"[{', '.join(str(item) for item in value)}]" if isinstance(value, tuple) else str(value)
