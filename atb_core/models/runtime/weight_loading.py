# SPDX-License-Identifier: Apache-2.0
"""Loads a checkpoint into an engine: checks everything from metadata first, then reads tensor by tensor."""

from __future__ import annotations

import logging
import math
import mmap
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from atb_core.checkpoint.progress import Progress, job
from atb_core.errors import WeightsError
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.dim import shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.quantized import quantizable_weights
from atb_core.nn.module import Module
from atb_core.nn.parameter import Parameter, WeightSource

if TYPE_CHECKING:
    from atb_core.checkpoint.base import WeightLoader
    from atb_core.graph.network import Network
    from atb_core.graph.quantized import QuantizedRows

_log = logging.getLogger(__name__)
# Buffers in old checkpoints that the model computes itself.
_HARMLESS = re.compile(
    r"\.(rotary_emb\.(inv_freq|cos_cached|sin_cached)|(self_)?attn\.(bias|masked_bias|rotary_emb\.inv_freq))$"
)
_BODY = "model."
Sink = Callable[[str, HostArray], None]
#: Takes a part of a weight from an index of dimension 0 on, as `Engine.set_weight_part`.
PartSink = Callable[[str, int, HostArray], None]


@dataclass(frozen=True)
class LoadPlan:
    """The tensors that fill each parameter.

    `sources` has the stored tensors of each parameter by its name; `duplicates` are pairs of a further stored name of
    a shared weight and its parameter.
    """

    parameters: Sequence[Parameter]
    sources: dict[str, Sequence[WeightSource]]
    duplicates: Sequence[tuple[str, str]]
    total_bytes: int


def collect_parameters(modules: Iterable[Module]) -> list[Parameter]:
    """Returns every parameter under `modules` once, in order; WeightsError for two shapes under one name."""
    by_name: dict[str, Parameter] = {}
    for parameter in (each for module in modules for each in module.parameters()):
        if isinstance(parameter, Parameter):
            first = by_name.setdefault(parameter.name, parameter)
            if first.declared_shape != parameter.declared_shape:
                raise WeightsError(f"two parameters of different shapes are both called {parameter.name!r}")
    return list(by_name.values())


def plan_loading(parameters: Sequence[Parameter], loader: WeightLoader, unread: Sequence[str] = ()) -> LoadPlan:
    """Compares the model's parameters with the checkpoint's tensors, reading none; names may begin with `unread`.

    Raises:
        WeightsError: names every missing, misshapen, mistyped and unexpected tensor.
    """
    available = set(loader.names())
    # A model that was saved without its head has the names of its body alone.
    headless = not any(name.startswith(_BODY) for name in available)
    stored = {_BODY + name: name for name in available} if headless else {}
    missing, misshapen, mistyped = [], [], []
    sources: dict[str, Sequence[WeightSource]] = {}
    duplicates: list[tuple[str, str]] = []
    used: set[str] = set()
    for parameter in parameters:
        sources[parameter.name] = [
            replace(source, name=stored.get(source.name, source.name))
            for source in _stored_sources(parameter, available | stored.keys())
        ]
        parts = sources[parameter.name]
        packed = len(parts) > 1 and parameter.aliases and not any(part.name in available for part in parts)
        whole = f" or {parameter.aliases[0]}" if packed else ""
        for source in parts:
            if source.name not in available:
                missing.append(f"{source.name} {shape_text(source.shape)}{whole}")
                continue
            used.add(source.name)
            shape = tuple(loader.shape(source.name))
            if shape != source.shape:
                misshapen.append(f"{source.name} is {shape_text(shape)}, needed {shape_text(source.shape)}")
            floats = parameter.declared_dtype is None or parameter.declared_dtype.is_float
            if floats and not loader.dtype(source.name).is_float:
                mistyped.append(f"{source.name} is {loader.dtype(source.name).short}")
        duplicates += [(alias, parameter.name) for alias in parameter.aliases if alias in available - used]
    used |= {name for name, _ in duplicates}
    others = sorted(available - used - loader.unlisted())
    unexpected = [name for name in others if not (name.startswith((*unread,)) or _HARMLESS.search(name))]
    kinds = ("missing", "of the wrong shape", "not of a floating-point type", "unexpected")
    problems = [*zip(kinds, (missing, misshapen, mistyped, unexpected), strict=True)]
    if found := [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in problems if names]:
        raise WeightsError(
            f"the tensors of {loader.source} do not fit the model; {'; '.join(found)}",
            hint="Check that config.json and the weights belong together and that every shard is there.",
        )
    return LoadPlan(parameters, sources, duplicates, sum(loader.nbytes(name) for name in used))


def matrices_to_quantize(parameters: Sequence[Parameter], network: Network, quantization: str = "") -> set[str]:
    """Returns the weights that `quantization` is for, by name; a warning tells of other matrices: experts."""
    names = quantizable_weights(network) - {p.name for p in parameters if not p.quantizable}
    shapes = {p.name: p.declared_shape or () for p in parameters if p.quantizable}
    left = [name for name, shape in shapes.items() if len(shape) > 1 and name not in names]
    if quantization and left:
        share = sum(math.prod(shapes[name]) for name in left) / sum(map(math.prod, shapes.values()))
        shown = ", ".join(left[:2]) + ", ..." * (len(left) > 2)
        text = "quantization=%r leaves experts as they are: %d matrices with %.0f %% of the model's numbers: %s"
        _log.warning(text, quantization, len(left), 100 * share, shown)
    return names


def _stored_sources(parameter: Parameter, available: set[str]) -> Sequence[WeightSource]:
    """Returns the checkpoint's tensors for `parameter`: its parts, or the whole under one of its names."""
    if any(source.name in available for source in parameter.sources) or parameter.declared_shape is None:
        return parameter.sources
    names = (parameter.name, *parameter.aliases)
    return [WeightSource(n, parameter.declared_shape) for n in names if n in available][:1] or parameter.sources


class _Memory:
    """Memory for weights; the same for all if it is `reused`, as fresh pages take longer than reading into them."""

    def __init__(self, reused: bool) -> None:
        self._reused = reused
        self._bytes = np.empty(0, np.uint8)

    def array(self, shape: Sequence[int], dtype: DataType) -> HostArray:
        """Returns an array whose elements are not set; with `reused`, the last one's content is lost."""
        nbytes = math.prod(shape) * dtype.itemsize
        if not self._reused:
            return np.empty(shape, numpy_dtype(dtype))
        if self._bytes.size < nbytes:
            # numpy asks for huge pages, which take several times as long to get and are not worth it here.
            self._bytes = np.frombuffer(mmap.mmap(-1, nbytes), np.uint8)
        return self._bytes[:nbytes].view(numpy_dtype(dtype)).reshape(shape)


@dataclass(frozen=True)
class BlockSink:
    """Takes matrices in blocks of a quantised format, as the checkpoint has them.

    Attributes:
        names: the weights that it takes.
        formats: the formats that it takes.
        set: called with a weight's name and its pieces.
    """

    names: Collection[str]
    formats: Collection[str]
    set: Callable[[str, Sequence[QuantizedRows]], None]


def stream_weights(
    plan: LoadPlan, loader: WeightLoader, sink: Sink, progress: Progress | None = None,
    part_sink: PartSink | None = None, block_sink: BlockSink | None = None, copied: bool = False,
) -> None:  # fmt: skip
    """Reads each tensor once, converts it to the model's dtype and gives it to `sink(name, array)`.

    With `part_sink`, a weight that the checkpoint holds expert by expert is read expert by expert, so that only the
    engine ever has it whole. With `block_sink`, quantised matrices stay as they are. If arrays are `copied` by the
    sinks, all have the same memory.
    """
    shared, memory = {name for _, name in plan.duplicates}, _Memory(copied)
    with job(progress, "Loading weights", plan.total_bytes) as bar:
        for parameter in plan.parameters:
            if block_sink and parameter.name not in shared and (blocks := _blocks(parameter, plan, loader, block_sink)):
                block_sink.set(parameter.name, blocks)
                bar.advance(sum(loader.nbytes(source.name) for source in plan.sources[parameter.name]))
                continue
            experts = _experts(parameter, plan) if part_sink and parameter.name not in shared else None
            if part_sink is not None and experts is not None:
                for expert, parts in enumerate(experts):
                    part_sink(parameter.name, expert, _joined(parameter, parts, loader, bar, memory, 1))
                continue
            sources = plan.sources[parameter.name]
            if len(sources) == 1:
                name = sources[0].name
                tensor = memory.array(loader.shape(name), loader.dtype(name))
                loader.read_into(name, tensor)
                bar.advance(loader.nbytes(name))
            else:
                tensor = _joined(parameter, sources, loader, bar, memory)
            tensor = parameter.process(tensor)
            for alias in (alias for alias, name in plan.duplicates if name == parameter.name):
                _check_duplicate(alias, parameter, tensor, loader)
                bar.advance(loader.nbytes(alias))
            sink(parameter.name, tensor)


def _blocks(parameter: Parameter, plan: LoadPlan, loader: WeightLoader, sink: BlockSink) -> list[QuantizedRows] | None:
    """Returns the pieces of a quantised matrix; `None` if it is to be loaded as floats."""
    if parameter.name not in sink.names or parameter.has_processors:
        return None
    pieces = []
    for source in plan.sources[parameter.name]:
        piece = None if source.place is not None else loader.blocks(source.name, sink.formats)
        if piece is None:
            return None
        pieces.append(piece)
    return pieces


def _experts(parameter: Parameter, plan: LoadPlan) -> list[list[WeightSource]] | None:
    """Returns the tensors of each index of dimension 0; `None` if the weight is stored otherwise or is processed."""
    if parameter.declared_shape is None or parameter.has_processors:
        return None
    groups: list[list[WeightSource]] = [[] for _ in range(parameter.declared_shape[0])]
    for source in plan.sources[parameter.name]:
        index = source.place[0] if source.place else None
        if not isinstance(index, int):
            return None
        groups[index].append(replace(source, place=(0, *(source.place or ())[1:])))
    return groups if all(groups) else None


def _joined(
    parameter: Parameter, sources: Sequence[WeightSource], loader: WeightLoader, bar: Progress, memory: _Memory,
    rows: int | None = None,
) -> HostArray:  # fmt: skip
    """Returns a weight, or `rows` of its indices of dimension 0, filled from several stored tensors."""
    assert parameter.declared_shape is not None and parameter.declared_dtype is not None
    shape = parameter.declared_shape if rows is None else (rows, *parameter.declared_shape[1:])
    joined = memory.array(shape, parameter.declared_dtype)
    start = 0
    for source in sources:
        place = (slice(start, start + source.shape[0]),) if source.place is None else source.place
        loader.read_into(source.name, joined[place])
        start += source.shape[0]
        bar.advance(loader.nbytes(source.name))
    return joined


def _check_duplicate(alias: str, parameter: Parameter, tensor: HostArray, loader: WeightLoader) -> None:
    """Raises WeightsError if a further stored copy of a shared weight differs."""
    if tuple(loader.shape(alias)) != tensor.shape or not np.array_equal(parameter.process(loader.get(alias)), tensor):
        raise WeightsError(
            f"{loader.source}: {alias} and {parameter.name} are one weight, but the two stored tensors differ",
            hint="Set tie_word_embeddings to false in config.json if both are meant." if "head" in alias else None,
        )
