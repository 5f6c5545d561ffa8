# SPDX-License-Identifier: Apache-2.0
"""Where this process stands among those that serve one model."""

from __future__ import annotations

from dataclasses import dataclass

from atb_core.errors import RequestError


@dataclass(frozen=True)
class Mapping:
    """`rank` of `world_size` processes. Only one process is supported so far.

    Raises:
        RequestError: `world_size` is not 1, or `rank` is not 0.
    """

    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.world_size != 1:
            raise RequestError(
                f"world_size = {self.world_size}: tensor parallel is not available yet",
                hint="Run with world_size=1, one process for the whole model.",
            )
        if self.rank != 0:
            raise RequestError(f"rank = {self.rank} does not exist: with world_size = 1 the only rank is 0")
