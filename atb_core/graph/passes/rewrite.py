# SPDX-License-Identifier: Apache-2.0
"""Construction of rewritten networks: nodes are copied with their inputs replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from atb_core.graph.network import Network, Node
from atb_core.graph.op import Op
from atb_core.graph.tensor import Tensor


class Rewriter:
    """Builds the successor of a network.

    Attributes:
        old: the network that is rewritten; it is not changed.
        new: the network under construction.
        image: new value for each old value that was replaced.
    """

    def __init__(self, network: Network) -> None:
        self.old = network
        self.new = Network(network.name)
        self.new.rules = network.rules
        self.image: dict[Tensor, Tensor] = {}

    def value(self, tensor: Tensor) -> Tensor:
        """Returns the value of `tensor` in the new network: its replacement, or itself."""
        return self.image.get(tensor, tensor)

    def keep(self, node: Node) -> None:
        """Takes over a node, as a copy if inputs of it are replaced."""
        inputs = tuple(map(self.value, node.inputs))
        self.new.add_copy(node if inputs == node.inputs else replace(node, inputs=inputs))

    def emit(self, op: Op, like: Node, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Adds a node, at the place of `like`, that produces the old values `outputs`."""
        new_inputs = tuple(self.value(t) for t in inputs)
        self.new.add_node(op, new_inputs, tuple(outputs), like.module_path, like.source)

    def finish(self) -> Network:
        """Returns the new network with the old one's outputs; inputs that are not read any more are dropped."""
        for tensor in self.old.outputs:
            assert tensor.name is not None
            value = self.value(tensor)
            value.name = tensor.name
            self.new.outputs.append(value)
        names = {tensor.name for tensor in self.new.inputs}
        self.new.weights_keys = {key for key in self.old.weights_keys if key in names}
        return self.new
