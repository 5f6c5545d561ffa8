# SPDX-License-Identifier: Apache-2.0
"""What hooks return, where core has no class for it already; see `hookspecs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_core.checkpoint.base import WeightLoader
    from atb_core.graph.op import Op


@dataclass(frozen=True)
class OpContribution:
    """An op from outside of core and what runs it. The reference engine runs every op by its `reference`.

    Attributes:
        op: the class, declared with a namespace: `class Scale(Op, namespace="atb_foo")`.
        kernels: by backend, what that backend takes as a kernel.
        expand: writes the op in the functions that models use, for backends without a kernel:
            `expand(op, *inputs)` gets the op with its attributes and symbolic inputs, and returns its outputs.
    """

    op: type[Op]
    kernels: Mapping[str, object] = field(default_factory=dict)
    expand: Callable[..., Any] | None = None


@dataclass(frozen=True)
class WeightFormat:
    """A checkpoint format that core does not know. Core's own formats are always tried first.

    Attributes:
        name: for messages: `"Foo archive"`.
        matches: whether a file, or a directory without safetensors, is of this format; cheap, by suffix or magic.
        open: opens a path for which `matches` holds; WeightsError for a damaged one.
        config: what stands for the `config.json` of such a path; `None`: a `config.json` beside the file, or in
            the directory.
    """

    name: str
    matches: Callable[[Path], bool]
    open: Callable[[Path], WeightLoader]
    config: Callable[[Path], dict[str, Any]] | None = None
