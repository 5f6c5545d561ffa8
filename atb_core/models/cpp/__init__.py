# SPDX-License-Identifier: Apache-2.0
"""Models whose graph C++ builds, run by `ModelTorch`, as in ATB-Models, or by the runner with `graph="cpp"`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from atb_core.models.cpp.registration import DECODER_WEIGHTS, CppModel

if TYPE_CHECKING:
    from atb_core.models.cpp.libraries import load_native_library
    from atb_core.models.cpp.model_torch import ModelTorch, model_names

__all__ = ["DECODER_WEIGHTS", "CppModel", "ModelTorch", "load_native_library", "model_names"]


def __getattr__(name: str) -> Any:
    # Families import this package to register a model; that must not import torch and the engine.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "libraries" if name == "load_native_library" else "model_torch"
    return getattr(import_module(f"atb_core.models.cpp.{home}"), name)
