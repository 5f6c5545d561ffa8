# SPDX-License-Identifier: Apache-2.0
"""Partition of a network into segments: decoder layers, or the author's explicit `cut()` calls."""

from __future__ import annotations

from atb_core.graph import Network
from atb_core.graph.network import Node


def segments(network: Network) -> list[list[Node]]:
    """Splits the nodes into runs, each of which a backend may build as one graph.

    If the network contains explicit cuts, these are the only boundaries. Otherwise a segment ends where the module path
    enters another entry of a module list (`model.layers.3`): each decoder layer is a segment, and so are the nodes
    before and after the layers.
    """
    explicit = any(node.cut_after for node in network.nodes)
    result: list[list[Node]] = []
    previous: str | None = None
    for node in network.nodes:
        border = layer_of(node.module_path)
        if not result or (result[-1][-1].cut_after if explicit else border != previous):
            result.append([])
        result[-1].append(node)
        previous = border
    return result


def layer_of(path: str) -> str:
    """Returns a module path up to its first number, e.g. `model.layers.3` for `model.layers.3.mlp.down`."""
    parts = path.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ""
