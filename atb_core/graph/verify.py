# SPDX-License-Identifier: Apache-2.0
"""Verification of the rules that every network obeys; it runs after each pass."""

from __future__ import annotations

from atb_core.errors import GraphError, VerifyError
from atb_core.graph.network import Network, Node, infer
from atb_core.graph.op import registered_ops
from atb_core.graph.tensor import Tensor


def verify(network: Network, after: str = "") -> None:
    """Checks that the network obeys the rules of the graph.

    * Ops are registered and have the number of inputs that they declare.
    * Every value is produced once, before it is read.
    * Shapes and dtypes are those that the ops infer.
    * A read of memory that is written in place sees the same writes as when it was recorded.
    * Outputs are produced by nodes, and names are unique.

    Args:
        network: the network to check.
        after: the step that produced the network, for messages.

    Raises:
        VerifyError: a rule is broken; the message names the node and its place.
    """
    try:
        _check_nodes(network)
        _check_ends(network)
    except VerifyError as error:
        stage = f" after pass {after!r}" if after else ""
        raise VerifyError(f"network {network.name!r} is illegal{stage}: {error.message}") from None


def _check_nodes(network: Network) -> None:
    known: set[Tensor] = set(network.inputs)
    writes: dict[Tensor, int] = {}
    ops = registered_ops()
    for node in network.nodes:
        for index, tensor in enumerate(node.inputs):
            if tensor not in known:
                raise VerifyError(f"{node} reads input {index} before it is produced")
            if writes.get(tensor, 0) != node.versions[index]:
                raise VerifyError(
                    f"{node} reads {tensor.name!r} after {writes.get(tensor, 0)} in-place writes; "
                    f"it was recorded after {node.versions[index]}"
                )
        if ops.get(node.op.name) is not type(node.op):
            raise VerifyError(f"{node} is not a registered op")
        _check_rules(network, node)
        for index in node.op.writes:
            writes[node.inputs[index]] = writes.get(node.inputs[index], 0) + 1
        for tensor in node.outputs:
            if tensor in known:
                raise VerifyError(f"{node} produces a value that already exists")
            known.add(tensor)


def _check_rules(network: Network, node: Node) -> None:
    try:
        inferred = infer(node.op, node.inputs, network.rules)
    except GraphError as error:
        raise VerifyError(f"{node}: {error.message}") from None
    if len(inferred.types) != len(node.outputs):
        raise VerifyError(f"{node} has {len(node.outputs)} outputs, but its op infers {len(inferred.types)}")
    for rule, tensor in zip(inferred.types, node.outputs, strict=True):
        if rule != (tensor.shape, tensor.dtype):
            raise VerifyError(f"{node} infers {Tensor(None, *rule)}, but its output is {tensor}")


def _check_ends(network: Network) -> None:
    names = [tensor.name for tensor in (*network.inputs, *network.outputs)]
    repeated = sorted({str(name) for name in names if names.count(name) > 1}) if len(names) > len(set(names)) else []
    if repeated:
        raise VerifyError(f"several inputs or outputs are called {', '.join(repeated)}")
    for tensor in network.outputs:
        if tensor.name is None:
            raise VerifyError("an output has no name")
        if network.producer(tensor) is None:
            raise VerifyError(f"output {tensor.name!r} is not produced")
    unread = sorted(network.weights_keys - {tensor.name for tensor in network.inputs if tensor.name})
    if unread:
        raise VerifyError(f"weights are declared that no node reads: {', '.join(unread)}")
