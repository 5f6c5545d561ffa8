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
_PARTS = ["activation", "block_copy", "index", "math", "position_embedding", "tensor_manipulation"]
_PARTS += ["attention.multi_latent_attention", "attention.paged_attention"]
OTHER_PATHS = {
    **dict.fromkeys([*(f"functional.{part}" for part in _PARTS), "quantized", "quantized.quantization"], functional),
    **dict.fromkeys(("modules.linear", "modules.linear.linear", "modules.module", "modules.normalization"), modules),
}
quantized = functional
sys.modules.update({f"{__name__}.{path}": module for path, module in OTHER_PATHS.items()})
