# SPDX-License-Identifier: Apache-2.0
"""Pass that lets a network's results keep the float32 of their accumulation."""

from __future__ import annotations

from dataclasses import replace

from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.ops.linear import Linear
from atb_core.graph.passes.rewrite import Rewriter
from atb_core.graph.tensor import Tensor


def widen_outputs(network: Network) -> Network:
    """Makes `Linear` nodes that produce an output of the network return float32.

    In bfloat16, logits near 20 are 0.125 apart, so greedy decoding would break ties by token id. The pass changes the
    dtype of outputs, so it is not part of the standard pipeline.
    """
    rewriter = Rewriter(network)
    outputs = set(network.outputs)
    for node in network.nodes:
        tensor = node.outputs[0] if node.outputs else None
        if isinstance(node.op, Linear) and tensor in outputs and tensor is not None:
            wide = Tensor(tensor.name, tensor.shape, DataType.FLOAT)
            rewriter.emit(replace(node.op, out_dtype=DataType.FLOAT), node, node.inputs, (wide,))
            rewriter.image[tensor] = wide
        else:
            rewriter.keep(node)
    return rewriter.finish()
