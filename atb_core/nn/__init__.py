# SPDX-License-Identifier: Apache-2.0
"""Building blocks in the style of torch whose `forward` records operations instead of computing them."""

import sys

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.nn import functional, modules
from atb_core.nn.module import Module, ModuleDict, ModuleList
from atb_core.nn.parameter import Parameter

__all__ = ["DataType", "Module", "ModuleDict", "ModuleList", "Parameter", "Tensor", "functional", "modules"]

#: Module paths of ATB-Models that lead to what stands elsewhere here, by the module that has it.
OTHER_PATHS = {
    "functional.block_copy": functional,
    "functional.index": functional,
    "functional.math": functional,
    "functional.position_embedding": functional,
    "functional.tensor_manipulation": functional,
    "functional.attention.paged_attention": functional,
    "quantized": functional,
    "modules.linear": modules,
    "modules.module": modules,
}
quantized = functional
sys.modules.update({f"{__name__}.{path}": module for path, module in OTHER_PATHS.items()})
