# SPDX-License-Identifier: Apache-2.0
"""Models whose graph C++ builds, run by `atb_core.ModelTorch`, as in ATB-Models, or with `graph="cpp"`."""

from atb_core.models.cpp.registration import DECODER_WEIGHTS, CppModel, model_names

__all__ = ["DECODER_WEIGHTS", "CppModel", "model_names"]
