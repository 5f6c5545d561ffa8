# SPDX-License-Identifier: Apache-2.0
"""Writes networks as one HTML page that needs nothing else: folded by module, searched, compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from atb_cli.graph_diff import Change
from atb_cli.graph_page.lifetimes import lifetimes

if TYPE_CHECKING:
    from atb_core.graph import Network, Node, Tensor

# New tokens of a step for which sizes are shown. A step of decode has a token for each sequence.
_TOKENS = {"decode": (1, 16, 64), "prefill": (64, 512, 2048), "mixed": (64, 512, 2048)}
# Of what the other dimensions depend on: a sequence's context, and the tokens of a cache block.
_CONTEXT, _BLOCK = 2048, 128


def page(
    title: str,
    variant: str,
    networks: Mapping[str, Network],
    changes: Sequence[Change],
    passes: Sequence[tuple[str, Mapping[str, int]]] = (),
) -> str:
    """Returns the page.

    Args:
        title: what is shown.
        variant: kind of step: `decode`, `prefill` or `mixed`.
        networks: one or two networks by what they are called.
        changes: what leads from the first to the second, `graph_diff.changes`.
        passes: what each pass did: its name, and how many nodes of which op it added or (negative) removed.
    """
    data = {
        "title": title,
        "variant": variant,
        "tokens": _TOKENS[variant],
        "context": _CONTEXT,
        "stages": [{"name": name, **_stage(network, variant)} for name, network in networks.items()],
        "changes": [[change.kind, change.before, change.after, list(change.what)] for change in changes],
        "passes": [{"name": name, "counts": dict(counts)} for name, counts in passes],
    }
    # Text of a page must not end the element that holds it.
    text = json.dumps(data).replace("<", "\\u003c")
    template = files("atb_cli.graph_page").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("$DATA", text)


def _stage(network: Network, variant: str) -> dict[str, Any]:
    from atb_ascend.segments import segments
    from atb_core.graph.printing import tensor_names

    names = tensor_names(network)
    runs = segments(network)
    weights = network.weights_keys
    return {
        "nodes": [
            {**_node(node, names), "segment": number, "ends": node is run[-1]}
            for number, run in enumerate(runs, 1)
            for node in run
        ],
        "segments": len(runs),
        "inputs": [_operand(t, names) for t in network.inputs if t.name not in weights],
        "weights": [_operand(t, names) for t in network.inputs if t.name in weights],
        "outputs": [_operand(t, names) for t in network.outputs],
        "values": [
            {"name": names[value.tensor], "first": value.first, "last": value.last, "bytes": value.bytes}
            for value in lifetimes(network, [_sizes(variant, tokens) for tokens in _TOKENS[variant]])
        ],
    }


def _node(node: Node, names: Mapping[Tensor, str]) -> dict[str, Any]:
    from atb_core.graph.printing import value_text

    return {
        "op": node.op.name,
        "path": node.module_path,
        "source": node.source,
        "attributes": {key: value_text(value) for key, value in node.op.attributes().items()},
        "inputs": [_operand(t, names) for t in node.inputs],
        "outputs": [_operand(t, names) for t in node.outputs],
        "writes": list(node.writes),
    }


def _operand(tensor: Tensor, names: Mapping[Tensor, str]) -> list[str]:
    from atb_core.graph.dim import shape_text

    return [names[tensor], f"{tensor.dtype.short if tensor.dtype else '?'}{shape_text(tensor.shape)}"]


def _sizes(variant: str, tokens: int) -> dict[str, int]:
    batch = tokens if variant == "decode" else 1
    blocks = -(-max(_CONTEXT, tokens) // _BLOCK)
    return {
        "tokens": tokens, "batch": batch, "rows": batch, "positions": max(_CONTEXT, tokens), "max_blocks": blocks,
        "blocks": batch * blocks, "block_size": _BLOCK,
    }  # fmt: skip
