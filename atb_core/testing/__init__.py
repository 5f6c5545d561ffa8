# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of model families: tiny random checkpoints, a driver, comparison with Hugging Face.

Needs the extra `test` (transformers); nothing else in the package imports this.
"""

from __future__ import annotations

from atb_core.testing.cases import CASES, ROPE_CASES, SHAPE_CASES
from atb_core.testing.checkpoints import load_reference, tiny_checkpoint
from atb_core.testing.conformance import ErrorReport, assert_conforms, compare_logits
from atb_core.testing.driver import PagedDriver, available_backends, open_model

__all__ = [
    "CASES",
    "ROPE_CASES",
    "SHAPE_CASES",
    "ErrorReport",
    "PagedDriver",
    "assert_conforms",
    "available_backends",
    "compare_logits",
    "load_reference",
    "open_model",
    "tiny_checkpoint",
]
