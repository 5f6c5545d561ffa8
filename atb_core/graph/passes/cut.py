# SPDX-License-Identifier: Apache-2.0
"""Cutting a network into segments: one decoder layer each, or where the author said `cut()`."""

from __future__ import annotations

from atb_core.graph.network import Network, Node


def segments(network: Network) -> list[list[Node]]:
    """The nodes in runs that a backend may build as one graph each.

    If the author cut anywhere, exactly there; otherwise where the path enters another entry of a module
    list ("model.layers.3"), so that a segment is a decoder layer and the nodes before and after the layers
    are segments of their own.
    """
    explicit = any(node.cut_after for node in network.nodes)
    result: list[list[Node]] = []
    previous: str | None = None
    for node in network.nodes:
        border = layer_of(node.module_path)
        new = not result or (result[-1][-1].cut_after if explicit else border != previous)
        if new:
            result.append([])
        result[-1].append(node)
        previous = border
    return result


def layer_of(path: str) -> str:
    """The part of a module path up to its first number: "model.layers.3" of "model.layers.3.mlp.down"."""
    parts = path.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ""
