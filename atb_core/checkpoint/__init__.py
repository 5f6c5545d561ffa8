# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: where they come from, in which format they are, and their tensors."""

from atb_core.checkpoint.base import Checkpoint, FormatRules, TokenizerParts, WeightLoader
from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.checkpoint.opening import open_checkpoint, open_weights, stored_models
from atb_core.checkpoint.progress import BarProgress, Progress, SilentProgress, default_progress, interruptible, job
from atb_core.checkpoint.sources.base import Source, StoredModel
from atb_core.checkpoint.tokenizer_json import library_errors

__all__ = [
    "BarProgress", "Checkpoint", "DirectoryCheckpoint", "FormatRules", "Progress", "SilentProgress", "Source",
    "StoredModel", "TokenizerParts", "WeightLoader", "default_progress", "interruptible", "job", "library_errors",
    "open_checkpoint", "open_weights", "stored_models",
]  # fmt: skip
