# SPDX-License-Identifier: Apache-2.0
"""Passes on the key/value caches of a model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from atb_core.errors import GraphError
from atb_core.graph.network import Network
from atb_core.graph.ops.attention import PagedAttention, ReshapeAndCache, SelfAttention
from atb_core.graph.passes.rewrite import Rewriter


def round_prefill(network: Network) -> Network:
    """Makes prefill attend to keys and values as an int8 cache has them, so that chunks of a prompt change no bit."""
    stored = {node.inputs[:2]: node.op.int8_kv for node in network.nodes if isinstance(node.op, ReshapeAndCache)}
    rewriter = Rewriter(network)
    for node in network.nodes:
        op = node.op
        if isinstance(op, SelfAttention):
            # Keys that are stored by another op or in another shape count as int8: most models have no other cache.
            op = replace(op, int8_kv=stored.get(node.inputs[1:3], True))
        rewriter.keep(replace(node, op=op))
    return rewriter.finish()


def pack_caches(network: Network, names: Collection[str]) -> Network:
    """Lets an engine keep the caches of these names in the order in which its attention reads them.

    Raises:
        GraphError: another op reads or writes one of them.
    """
    rewriter = Rewriter(network)
    caches = {tensor: tensor.name for tensor in network.inputs if tensor.name in names}
    for node in network.nodes:
        touched = [caches[tensor] for tensor in node.inputs if tensor in caches]
        if not touched:
            rewriter.keep(node)
        elif isinstance(node.op, (PagedAttention, ReshapeAndCache)):
            # Keys have another order than values, so a tensor that is both has none.
            packed = len({*touched}) == 2 and not node.op.int8_kv
            rewriter.keep(replace(node, op=replace(node.op, packed_kv=packed)))
        else:
            raise GraphError(
                f"{node} uses {touched[0]!r}, whose elements this engine keeps in an order of its own",
                hint="Set packed_kv_cache = False on the class of the model.",
            )
    return rewriter.finish()
