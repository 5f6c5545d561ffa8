# SPDX-License-Identifier: Apache-2.0
"""Router: the runner's entry point into the family."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.models.base.router import BaseRouter


@dataclass
class Glm4Router(BaseRouter):
    """Routes `model_type` glm4."""
