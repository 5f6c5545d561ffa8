# SPDX-License-Identifier: Apache-2.0
"""Models whose graph C++ builds, run by `ModelTorch`, as in ATB-Models, or by `ModelRunner(graph="cpp")`.

Families import what stands here to register their models; the modules that import the engine are loaded on use.
"""

from atb_cpp_models.registration import DECODER_WEIGHTS, CppModel

__all__ = ["DECODER_WEIGHTS", "CppModel", "model_names"]


def model_names() -> list[str]:
    """Returns the C++ models of this process and the names that packages register; imports no package."""
    from atb_core.engine.extension import load_extension
    from atb_cpp_models.registered import registered_names

    return sorted({*load_extension().model_names(), *registered_names()})
