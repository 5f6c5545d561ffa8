# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint into an engine: everything checked from metadata first, then tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from atb_core.errors import WeightsError
from atb_core.graph.dim import shape_text
from atb_core.graph.torch_dtypes import dtype_to_torch
from atb_core.nn.parameter import Parameter, WeightSource
from atb_core.weights.progress import Progress, job

if TYPE_CHECKING:
    from atb_core.weights.base import WeightLoader

# Buffers that old checkpoints carry and that can be computed: nothing is lost when they are left out.
_HARMLESS = re.compile(
    r"\.(rotary_emb\.(inv_freq|cos_cached|sin_cached)|(self_)?attn\.(bias|masked_bias|rotary_emb\.inv_freq))$"
)
Sink = Callable[[str, torch.Tensor], None]


@dataclass(frozen=True)
class LoadPlan:
    """Which tensors go where. `duplicates` are second names of a shared weight that are stored as well."""

    parameters: Sequence[Parameter]
    stored_names: dict[str, str]
    duplicates: Sequence[tuple[str, str]]
    total_bytes: int


def collect_parameters(modules: Iterable[torch.nn.Module]) -> list[Parameter]:
    """Every parameter under `modules` once, in order; two different ones of one name are refused."""
    found: dict[str, Parameter] = {}
    for module in modules:
        for parameter in module.parameters():
            if not isinstance(parameter, Parameter):
                continue
            known = found.setdefault(parameter.name, parameter)
            if known is not parameter and known.declared_shape != parameter.declared_shape:
                raise WeightsError(f"two parameters of different shapes are both called {parameter.name!r}")
    return list(found.values())


def plan_loading(parameters: Sequence[Parameter], loader: WeightLoader) -> LoadPlan:
    """Compares what the model needs with what the checkpoint has, reading no tensor.

    Raises:
        WeightsError: names every missing, misshapen, mistyped and unexpected tensor.
    """
    available = set(loader.names())
    missing: list[str] = []
    misshapen: list[str] = []
    mistyped: list[str] = []
    stored_names: dict[str, str] = {}
    duplicates: list[tuple[str, str]] = []
    for parameter in parameters:
        for source in parameter.sources:
            stored = _stored_name(parameter, source, available)
            if stored is None:
                missing.append(f"{source.name} {shape_text(source.shape)}")
                continue
            stored_names[source.name] = stored
            shape = tuple(loader.shape(stored))
            if shape != source.shape:
                misshapen.append(f"{stored} is {shape_text(shape)}, needed {shape_text(source.shape)}")
            if not loader.dtype(stored).is_float:
                mistyped.append(f"{stored} is {loader.dtype(stored).short}")
        duplicates += [(a, parameter.name) for a in parameter.aliases if a in available - set(stored_names.values())]
    used = set(stored_names.values()) | {name for name, _ in duplicates}
    unexpected = sorted(name for name in available - used if not _HARMLESS.search(name))
    _report(loader.source, missing, misshapen, mistyped, unexpected)
    total = sum(loader.nbytes(name) for name in used)
    return LoadPlan(parameters, stored_names, duplicates, total)


def _stored_name(parameter: Parameter, source: WeightSource, available: set[str]) -> str | None:
    names = (source.name, *parameter.aliases) if len(parameter.sources) == 1 else (source.name,)
    return next((name for name in names if name in available), None)


def _report(source: str, missing: list[str], misshapen: list[str], mistyped: list[str], unexpected: list[str]) -> None:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {', '.join(missing)}")
    if misshapen:
        parts.append(f"{len(misshapen)} of the wrong shape: {', '.join(misshapen)}")
    if mistyped:
        parts.append(f"{len(mistyped)} not of a floating-point type: {', '.join(mistyped)}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected: {', '.join(unexpected)}")
    if parts:
        raise WeightsError(
            f"the tensors of {source} do not fit the model; {'; '.join(parts)}",
            hint="Check that config.json and the weights belong together and that every shard is there.",
        )


def stream_weights(plan: LoadPlan, loader: WeightLoader, sink: Sink, progress: Progress | None = None) -> None:
    """Reads each tensor once and hands it to `sink(name, tensor)` in the model's dtype; keeps none of them."""
    with job(progress, "Loading weights", plan.total_bytes) as bar:
        for parameter in plan.parameters:
            tensor = _read(parameter, plan, loader, bar)
            for alias, name in plan.duplicates:
                if name == parameter.name:
                    _check_duplicate(alias, parameter, tensor, loader)
                    bar.advance(loader.nbytes(alias))
            sink(parameter.name, tensor)


def _read(parameter: Parameter, plan: LoadPlan, loader: WeightLoader, bar: Progress) -> torch.Tensor:
    if len(parameter.sources) == 1:
        stored = plan.stored_names[parameter.sources[0].name]
        tensor = loader.get(stored)
        bar.advance(loader.nbytes(stored))
        return parameter.process(tensor)
    assert parameter.declared_shape is not None
    assert parameter.declared_dtype is not None
    packed = torch.empty(parameter.declared_shape, dtype=dtype_to_torch(parameter.declared_dtype))
    start = 0
    for source in parameter.sources:
        stored = plan.stored_names[source.name]
        packed[start : start + source.shape[0]].copy_(loader.get(stored))
        start += source.shape[0]
        bar.advance(loader.nbytes(stored))
    return parameter.process(packed)


def _check_duplicate(alias: str, parameter: Parameter, tensor: torch.Tensor, loader: WeightLoader) -> None:
    """A shared weight that is stored twice must be the same twice."""
    if tuple(loader.shape(alias)) != tuple(tensor.shape) or not torch.equal(
        parameter.process(loader.get(alias)), tensor
    ):
        raise WeightsError(
            f"{loader.source}: the configuration says that {alias} and {parameter.name} are one weight, "
            "but the two stored tensors differ",
            hint="Set tie_word_embeddings to false in config.json if both are meant.",
        )
