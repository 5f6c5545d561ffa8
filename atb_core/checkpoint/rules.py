# SPDX-License-Identifier: Apache-2.0
"""Rules by which a family's files are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GgufRules"]


@dataclass(frozen=True)
class GgufRules:
    """Holds the differences between a family's GGUF files and its Hugging Face checkpoints.

    Attributes:
        permuted_qk: the rows of the q and k projections are stored for rotation of neighbouring pairs, and are put
            back for rotation of halves.
        names: further tensor names, GGUF to Hugging Face; `{}` stands for the layer's number on both sides, and a
            second one on the right for the number of an expert, where all experts of a layer are one tensor.
        config: entries of `config.json` that the file does not carry, for example an activation's name.
    """

    permuted_qk: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
