# SPDX-License-Identifier: Apache-2.0
"""Adds adapters to the models of every family."""

from __future__ import annotations

from atb_core.features.adapters import AdapterManager
from atb_core.plugins import hookimpl
from atb_lora.manager import LoraManager


@hookimpl
def atb_adapters() -> list[type[AdapterManager]]:
    """Returns the manager of LoRA adapters."""
    return [LoraManager]
