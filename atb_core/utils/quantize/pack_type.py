# SPDX-License-Identifier: Apache-2.0
"""Element types under the import path that models written for ATB-Models use."""

from atb_core.graph import DataType

__all__ = ["DataType"]
