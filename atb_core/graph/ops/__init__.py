# SPDX-License-Identifier: Apache-2.0
"""Core's ops, a module for each kind of op; importing this package registers all of them."""

from atb_core.graph.ops.activation import Activation, ActivationType
from atb_core.graph.ops.attention import PagedAttention, ReshapeAndCache, SelfAttention
from atb_core.graph.ops.comm import AllGather, AllReduce, AllReduceType, LinearParallel
from atb_core.graph.ops.elewise import Elewise, ElewiseType
from atb_core.graph.ops.linear import BatchMatmul, Linear, LinearSwiglu, MergedLinear, SplitLinear
from atb_core.graph.ops.lora import Lora
from atb_core.graph.ops.moe import GroupedMatmul, MoeInitRouting, MoeTokenUnpermute, MoeTopkSoftmax
from atb_core.graph.ops.movement import Cast, Concat, Gather, Repeat, Slice, Split, Transpose
from atb_core.graph.ops.norm import AddRmsNorm, LayerNorm, RmsNorm
from atb_core.graph.ops.quant import DynamicQuant, QuantLinear, QuantLinearSwiglu, QuantPerChannel
from atb_core.graph.ops.reduction import Argsort, Reduce, ReduceType, Softmax, Sort
from atb_core.graph.ops.rope import Rope
from atb_core.graph.ops.view import Assign, Reshape

__all__ = [
    "Activation", "ActivationType", "AddRmsNorm", "AllGather", "AllReduce", "AllReduceType", "Argsort", "Assign",
    "BatchMatmul", "Cast", "Concat", "DynamicQuant", "Elewise", "ElewiseType", "Gather", "GroupedMatmul", "LayerNorm",
    "Linear", "LinearParallel", "LinearSwiglu", "Lora", "MergedLinear", "MoeInitRouting", "MoeTokenUnpermute",
    "MoeTopkSoftmax", "PagedAttention", "QuantLinear", "QuantLinearSwiglu", "QuantPerChannel", "Reduce", "ReduceType",
    "Repeat", "Reshape", "ReshapeAndCache", "RmsNorm", "Rope", "SelfAttention", "Slice", "Softmax", "Sort", "Split",
    "SplitLinear", "Transpose",
]  # fmt: skip
