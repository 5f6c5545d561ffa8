# SPDX-License-Identifier: Apache-2.0
"""Functions on symbolic tensors, each of which records one node; names and arguments are those of ATB-Models."""

from typing import NoReturn

import atb_core.nn.functional.attention as _attention
import atb_core.nn.functional.elewise as _elewise
import atb_core.nn.functional.linear as _linear
import atb_core.nn.functional.moe as _moe
import atb_core.nn.functional.movement as _movement
from atb_core.errors import GraphError
from atb_core.graph.ops.activation import GeluMode
from atb_core.graph.ops.attention import MaskType
from atb_core.nn.functional.attention import *
from atb_core.nn.functional.elewise import *
from atb_core.nn.functional.linear import *
from atb_core.nn.functional.moe import *
from atb_core.nn.functional.movement import *

__all__ = ["GeluMode", "MaskType"]
__all__ += _attention.__all__
__all__ += _elewise.__all__
__all__ += _linear.__all__
__all__ += _moe.__all__
__all__ += _movement.__all__

_ABSENT = ("std", "norm", "copy_blocks", "gating", "group_topk", "multi_latent_attention")


def __getattr__(name: str) -> NoReturn:
    if name in _ABSENT:
        raise GraphError(
            f"nn.functional.{name} of ATB-Models is not in this version",
            hint='The page "Bring your model" lists what is different; a plugin can add an op of its own.',
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
