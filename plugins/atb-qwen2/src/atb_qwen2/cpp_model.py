# SPDX-License-Identifier: Apache-2.0
"""Registers Qwen's decoder built in C++, for `ModelTorch("qwen_DecoderModel")` and `ModelRunner(graph="cpp")`."""

from __future__ import annotations

from atb_cpp_models import DECODER_WEIGHTS, CppModel

#: The defaults are Qwen2's, with a bias on queries, keys and values; a Qwen3 sets `linearHasBias` and `useQKNorm`.
#: Both packages register the name, so the two must agree.
DECODER = CppModel(
    defaults={"normEps": 1e-6, "linearHasBias": [[True, False, False, False]]},
    weights=DECODER_WEIGHTS,
    model_types=("qwen2",),
)

#: The same model under the present and the older name of ATB-Models.
UPSTREAM = CppModel(DECODER.defaults, DECODER.weights)
