# SPDX-License-Identifier: Apache-2.0
"""Graph layer: symbolic tensors, ops, networks and the passes that rewrite them."""

from atb_core.graph.dim import Dim, DimLike, Shape
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network, Node, get_default_net, record
from atb_core.graph.op import Op, registered_ops
from atb_core.graph.tensor import Tensor

__all__ = [
    "DataType", "Dim", "DimLike", "Network", "Node", "Op", "Shape", "Tensor", "get_default_net", "record",
    "registered_ops",
]  # fmt: skip
