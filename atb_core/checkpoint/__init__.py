# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: where they come from, in which format they are, and their tensors."""

from atb_core.checkpoint.base import Checkpoint, GgufRules, TokenizerParts, WeightLoader
from atb_core.checkpoint.opening import open_checkpoint, open_weights, stored_models
from atb_core.checkpoint.progress import BarProgress, Progress, SilentProgress, default_progress, job
from atb_core.checkpoint.sources.base import Source, StoredModel

__all__ = [
    "BarProgress",
    "Checkpoint",
    "GgufRules",
    "Progress",
    "SilentProgress",
    "Source",
    "StoredModel",
    "TokenizerParts",
    "WeightLoader",
    "default_progress",
    "job",
    "open_checkpoint",
    "open_weights",
    "stored_models",
]
