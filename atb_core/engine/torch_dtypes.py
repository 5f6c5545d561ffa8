# SPDX-License-Identifier: Apache-2.0
"""The dtype conversions under the name that engine authors look for."""

from atb_core.graph.torch_dtypes import dtype_from_torch, dtype_to_torch

__all__ = ["dtype_from_torch", "dtype_to_torch"]
