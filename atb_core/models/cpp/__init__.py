# SPDX-License-Identifier: Apache-2.0
"""Models whose graph C++ builds, driven as ATB-Models' `ModelTorch` is."""

from atb_core.models.cpp.model_torch import ModelTorch, load_native_library

__all__ = ["ModelTorch", "load_native_library"]
