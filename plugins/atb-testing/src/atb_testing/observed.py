# SPDX-License-Identifier: Apache-2.0
"""Runs models whose networks also give values between their nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from atb_core.engine.base import Engine
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor
from atb_testing.driver import PagedDriver

#: Called after each step with the values by label, which are valid until the next step.
Keep = Callable[[dict[str, torch.Tensor]], None]


def mark(network: Network, values: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Makes tensors outputs of a network; returns the name of the output by label."""
    names = {tensor: tensor.name for tensor in network.outputs if tensor.name}
    labels = {}
    for label, tensor in values:
        if tensor not in names:
            names[tensor] = f"probe_{len(names)}"
            network.mark_output(tensor, names[tensor])
        labels[label] = names[tensor]
    return labels


class _Listener:
    """Wraps an engine and hands on the marked values of its network."""

    def __init__(self, inner: Engine, labels: Mapping[str, str], keep: Keep) -> None:
        self.inner, self.labels, self.keep = inner, labels, keep

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        results = self.inner.forward(*args, **kwargs)
        self.keep({label: results[name] for label, name in self.labels.items()})
        return results


def listen(model: Any, base: str, network: Network, labels: Mapping[str, str], keep: Keep) -> None:
    """Makes a loaded model run `network`, with outputs that `mark` made, as its variant `base`.

    The model cannot be used for anything else afterwards.
    """
    key = frozenset({base})
    variant = model.variants.build(key, network)
    variant.engine = _Listener(variant.engine, labels, keep)
    model.variants.variants[key] = variant


def run_tokens(model: Any, tokens: Sequence[int], decoded: int, runner: Any = None) -> None:
    """Runs a sequence: all tokens but the last `decoded` in a prefill, and these one by one.

    A `runner` of the model gives its cache, which other processes of the model have, too.
    """
    own = {} if runner is None else {"kv_cache": runner.kv_cache, "block_size": runner.block_size}
    driver = PagedDriver(model, 1, len(tokens), **own)
    driver.prefill([tokens[: len(tokens) - decoded]])
    for token in tokens[len(tokens) - decoded :]:
        driver.decode([token])
