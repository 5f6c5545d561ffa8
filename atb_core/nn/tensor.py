# SPDX-License-Identifier: Apache-2.0
"""Re-exports the symbolic tensor under the import path of ATB-Models."""

from atb_core.graph.dtype import DataType
from atb_core.graph.tensor import Tensor

__all__ = ["DataType", "Tensor"]
