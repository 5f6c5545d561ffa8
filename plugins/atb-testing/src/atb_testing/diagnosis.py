# SPDX-License-Identifier: Apache-2.0
"""Finds the cause of logits that differ from Hugging Face's: the model's code or an engine, and the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from atb_testing.checkpoints import load_reference
from atb_testing.conformance import prompt_lengths, read_dtype, torch_threads
from atb_testing.driver import open_model
from atb_testing.probes import PROMPT, STEPS, Difference, first_difference, record_hugging_face, record_ours


def explain_difference(directory: Path, backend: str, longest: int = 512) -> str:
    """Returns one paragraph that names the finest module that first differs from Hugging Face's.

    The reference engine in float32 comes first: it shows a mistake in the model most clearly. Then the reference
    engine in the checkpoint's own type, then `backend`.
    """
    dtype = str(read_dtype(directory)).removeprefix("torch.")
    with torch_threads(1):
        truth_model = load_reference(directory)
        stages = dict.fromkeys([("reference", "float32"), ("reference", dtype), (backend, dtype)])
        for engine, kind in stages:
            first = difference(directory, engine, kind, truth_model, longest)
            if first is not None:
                return f"backend {engine!r} in {kind}: {first}"
    return (
        "no module's own values are further off than torch's: either what comes behind the last module differs, such "
        "as a factor of the logits, or the errors of many modules add up"
    )


def difference(directory: Path, backend: str, dtype: str, truth_model: Any, longest: int = 512) -> Difference | None:
    """Returns the first difference between `backend` in `dtype` and Hugging Face's model in float32, if any."""
    generator = torch.Generator().manual_seed(5)
    length = max(PROMPT, *prompt_lengths(directory, longest)[0]) + STEPS
    tokens = torch.randint(truth_model.config.vocab_size, (length,), generator=generator).tolist()
    modules = dict(truth_model.named_modules())
    recording = record_ours(open_model(directory, backend, torch_dtype=dtype), tokens, modules)
    truth = record_hugging_face(truth_model, tokens, recording.places)
    narrow = dtype != "float32"
    peer_model = load_reference(directory, getattr(torch, dtype)) if narrow else truth_model
    return first_difference(recording, truth, record_hugging_face(peer_model, tokens, recording.places))
