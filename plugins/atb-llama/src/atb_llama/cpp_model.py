# SPDX-License-Identifier: Apache-2.0
"""Registers Llama's decoder built in C++, for `ModelTorch("llama_DecoderModel")` and `ModelRunner(graph="cpp")`."""

from __future__ import annotations

from atb_cpp_models import DECODER_WEIGHTS, CppModel

#: Models with biases set `linearHasBias`; the runner always sets it from the checkpoint.
DECODER = CppModel(
    defaults={"normEps": 1e-5, "linearHasBias": [[False, False, False, False]]},
    weights=DECODER_WEIGHTS,
    model_types=("llama",),
)

#: The same model under the name of ATB-Models.
UPSTREAM = CppModel(DECODER.defaults, DECODER.weights)
