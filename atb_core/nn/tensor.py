# SPDX-License-Identifier: Apache-2.0
"""The symbolic tensor under the import path that models written for ATB-Models use."""

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor

__all__ = ["DataType", "Tensor"]
