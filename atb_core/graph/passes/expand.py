# SPDX-License-Identifier: Apache-2.0
"""Expansion of custom ops into core's ops for backends that have no kernel for them."""

from __future__ import annotations

from atb_core.errors import AtbError, PluginError
from atb_core.graph.custom_ops import contribution, owner, supports
from atb_core.graph.network import Network, Node
from atb_core.graph.passes.rewrite import Rewriter
from atb_core.graph.source import place_of
from atb_core.graph.tensor import Tensor

#: Expansions may record custom ops that are expanded in turn; the limit detects expansions that never end.
_MAX_DEPTH = 8


def expand_custom(network: Network, backend: str) -> Network:
    """Expands every custom op that `backend` has no kernel for and whose plugin provides an expansion.

    Raises:
        PluginError: an expansion fails, contradicts the op's shape or dtype rule, or does not end.
    """
    for _ in range(_MAX_DEPTH):
        expandable = [node for node in network.nodes if _expandable(node, backend)]
        if not expandable:
            return network
        network = _expand(network, {id(node) for node in expandable})
    kind = type(expandable[0].op)
    raise PluginError(f"the expand of {kind.op_name()} of {owner(kind)} leads to ops that are expanded again and again")


def _expandable(node: Node, backend: str) -> bool:
    custom = None if supports(type(node.op), backend) else contribution(type(node.op))
    return custom is not None and custom.expand is not None


def _expand(network: Network, expandable: set[int]) -> Network:
    rewriter = Rewriter(network)
    for node in network.nodes:
        if id(node) in expandable:
            rewriter.image.update(zip(node.outputs, _expansion(rewriter, node), strict=True))
            if node.cut_after:
                rewriter.new.cut()
        else:
            rewriter.keep(node)
    return rewriter.finish()


def _expansion(rewriter: Rewriter, node: Node) -> tuple[Tensor, ...]:
    custom = contribution(type(node.op))
    assert custom is not None and custom.expand is not None
    whose = f"the expand of {node.op.name} of {owner(type(node.op))}"
    inputs = [rewriter.value(tensor) for tensor in node.inputs]
    before = len(rewriter.new.nodes)
    try:
        with rewriter.new, place_of(node.module_path, node.source):
            results = custom.expand(node.op, *inputs)
    # The expansion is a plugin's code: whatever it raises, the report is the same.
    except Exception as error:
        cause = str(error) if isinstance(error, AtbError) else f"{type(error).__name__}: {error}"
        raise PluginError(f"{whose} failed for the node in {node.place}: {cause}") from error
    results = results if isinstance(results, tuple) else (results,)
    if len(results) != len(node.outputs) or not all(isinstance(result, Tensor) for result in results):
        raise PluginError(f"{whose} must return {len(node.outputs)} tensors, not {results!r}")
    computed = {tensor for each in rewriter.new.nodes[before:] for tensor in each.outputs}
    for result, declared in zip(results, node.outputs, strict=True):
        if result not in computed:
            raise PluginError(f"{whose} returns {result}, which it did not compute")
        if (result.shape, result.dtype) != (declared.shape, declared.dtype):
            raise PluginError(f"{whose} gives {result}, but the op's rules give {declared}")
    return results
