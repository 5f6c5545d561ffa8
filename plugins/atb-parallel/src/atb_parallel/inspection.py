# SPDX-License-Identifier: Apache-2.0
"""Compares what the processes of a group must have in common: the installed plugins, and the checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atb_core import __version__
from atb_core.errors import EngineError
from atb_core.plugins.scan import installed

if TYPE_CHECKING:
    from atb_core.checkpoint import WeightLoader
    from atb_core.models.base.config import BaseConfig


def findings(config: BaseConfig, loader: WeightLoader) -> dict[str, Any]:
    """Returns the versions of core and plugins, and a digest of the configuration and the tensors' shapes."""
    tensors = sorted((name, tuple(loader.shape(name)), loader.dtype(name).short) for name in loader.names())
    fields = {name: str(value) for name, value in vars(config).items()}
    text = json.dumps([fields, tensors], sort_keys=True)
    versions = {"atb-core": __version__} | {each.distribution: each.version for each in installed()}
    return {"versions": versions, "checkpoint": hashlib.sha256(text.encode()).hexdigest()}


def check_same(own: Mapping[str, Any], others: Mapping[str, Any], rank: int) -> None:
    """Raises EngineError, naming what differs, if process `rank` found something else than process 0."""
    here, there = own["versions"], others["versions"]
    differing = [
        f"{name} is {here.get(name, 'not installed')} on rank 0 and {there.get(name, 'not installed')} on rank {rank}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]
    if differing:
        raise EngineError(
            f"the processes have different packages: {'; '.join(differing)}", hint="Install the same on all of them."
        )
    if own["checkpoint"] != others["checkpoint"]:
        raise EngineError(
            f"rank {rank} has another checkpoint than rank 0: configuration or tensors differ",
            hint="Give all processes the same files.",
        )
