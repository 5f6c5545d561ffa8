# SPDX-License-Identifier: Apache-2.0
"""Building blocks in the style of torch whose `forward` records operations instead of computing them."""

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor
from atb_core.nn import functional, modules
from atb_core.nn.module import Module, ModuleDict, ModuleList
from atb_core.nn.parameter import Parameter

__all__ = ["DataType", "Module", "ModuleDict", "ModuleList", "Parameter", "Tensor", "functional", "modules"]
