# SPDX-License-Identifier: Apache-2.0
"""Functions on symbolic tensors, each of which records one node; names and arguments are those of ATB-Models."""

from typing import NoReturn

from atb_core.errors import GraphError
from atb_core.graph.ops.activation import GeluMode
from atb_core.graph.ops.attention import MaskType
from atb_core.nn.functional.attention import paged_attention, reshape_and_cache, rope
from atb_core.nn.functional.elewise import (
    amax,
    amin,
    cos,
    equal,
    logical_and,
    logical_not,
    logical_or,
    neg,
    sin,
    sum_,
    tanh,
)
from atb_core.nn.functional.linear import ActType, activation, linear, rms_norm, softmax
from atb_core.nn.functional.moe import grouped_matmul, moe_init_routing, moe_token_unpermute, moe_topk_softmax
from atb_core.nn.functional.movement import argsort, cat, gather, sort, split

__all__ = [
    "ActType", "GeluMode", "MaskType", "activation", "amax", "amin", "argsort", "cat", "cos", "equal", "gather",
    "grouped_matmul", "linear", "logical_and", "logical_not", "logical_or", "moe_init_routing", "moe_token_unpermute",
    "moe_topk_softmax", "neg", "paged_attention", "reshape_and_cache", "rms_norm", "rope", "sin", "softmax", "sort",
    "split", "sum_", "tanh",
]  # fmt: skip

_ABSENT = ("std", "norm", "copy_blocks", "gating", "group_topk", "multi_latent_attention")


def __getattr__(name: str) -> NoReturn:
    if name in _ABSENT:
        raise GraphError(
            f"nn.functional.{name} of ATB-Models is not in this version",
            hint='The page "Bring your model" lists what is different; a plugin can add an op of its own.',
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
