# SPDX-License-Identifier: Apache-2.0
"""Ops from outside of core: whose they are, and which backends run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atb_core.errors import GraphError
from atb_core.graph.op import Op
from atb_core.plugins import hooks

if TYPE_CHECKING:
    from atb_core.graph.network import Network
    from atb_core.plugins.contributions import OpContribution


def contribution(op: type[Op]) -> OpContribution | None:
    """What the plugin that brings `op` says of it; `None` for an op of core or one that no plugin announces.

    PluginError if several plugins announce the op.
    """
    if not op.namespace:
        return None
    offer = hooks.only([o for o in hooks.ops() if o.value.op is op], f"the op {op.op_name()!r}")
    return None if offer is None else offer.value


def package_of(op: type[Op]) -> str | None:
    """The plugin that announces `op`, with its version; `None` if none does."""
    found = (str(offer.owner) for offer in hooks.ops() if offer.value.op is op)
    return next(found, None)


def owner(op: type[Op]) -> str:
    """Who brings `op`, for messages: a plugin with its version, or the module of the class."""
    package = package_of(op)
    return f"the module {op.__module__}" if package is None else f"the plugin {package}"


def supports(op: type[Op], backend: str) -> bool:
    """Whether the backend has a kernel for `op`, its own or one that came with the op."""
    if backend in op.backends:
        return True
    found = contribution(op)
    return found is not None and backend in found.kernels


def check_runnable(network: Network, backend: str) -> None:
    """GraphError, naming op, place and owner, for the first node that the backend cannot run."""
    for node in network.nodes:
        kind = type(node.op)
        if kind.namespace and not supports(kind, backend):
            announced = contribution(kind) is not None
            missing = "brings neither a kernel for it nor an expand" if announced else "announces it in no atb_ops hook"
            raise GraphError(
                f"the backend {backend!r} cannot run {node.op.name} in {node.place}: {owner(kind)} {missing}",
                hint=f'Run it with backend="reference", or ask its author for a kernel for {backend!r}.',
            )
