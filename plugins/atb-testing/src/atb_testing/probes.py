# SPDX-License-Identifier: Apache-2.0
"""Finds the first module whose values differ from Hugging Face's, in the order of computation.

Our network is recorded with the values between modules as outputs, without fusions; Hugging Face's modules of the same
names are hooked. The first value whose error is too large names the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from atb_core.graph.network import Network, Node
from atb_core.graph.passes import run_passes
from atb_core.graph.tensor import Tensor
from atb_core.models.runtime.weight_loading import collect_parameters
from atb_testing.observed import listen, mark, run_tokens

#: Tokens of the sequence: those of the prefill at least, and those that come one by one.
PROMPT, STEPS = 37, 3
# Error of sums in another order, relative to the mean magnitude; the mean over all elements is far below it.
_TOLERANCE = 2e-5


@dataclass(frozen=True)
class Place:
    """A value that both models compute: the input or output (`kind`) of Hugging Face's `modules`, concatenated."""

    modules: tuple[str, ...]
    kind: str
    producer: Node

    @property
    def label(self) -> str:
        """Returns the name in messages, the same in every variant."""
        return f"the {self.kind} of {' + '.join(self.modules)}"


@dataclass(frozen=True)
class Difference:
    """The first value whose error is more than twice torch's; errors are means, relative to the mean magnitude."""

    place: Place
    ours: float
    torch: float
    last_agreeing: str | None
    row: int
    prompt: int = PROMPT

    @property
    def module(self) -> str:
        """Returns the module whose op produced the value."""
        return self.place.producer.module_path or self.place.modules[0]

    def __str__(self) -> str:
        agreed = f"the last value that agrees is {self.last_agreeing}" if self.last_agreeing else "no value agrees"
        node = self.place.producer
        step = "prefill" if self.row < self.prompt else "decode"
        return (
            f"{self.module} is the first to differ: {self.place.label}, which its {node.op.name} at {node.source} "
            f"produces, is off by {self.ours:.2g} of the mean magnitude where torch is off by {self.torch:.2g} "
            f"(first in {step}); {agreed}"
        )


def places(network: Network, model: Any, theirs: Mapping[str, Any]) -> list[tuple[Tensor, Place]]:
    """Returns the values of `network` that belong to modules in `theirs`, in order; inner modules before outer ones."""
    sources = {p.name: [s.name.rpartition(".")[0] for s in p.sources] for p in collect_parameters([model])}
    probes: list[tuple[int, int, Tensor, Place]] = []

    def add(tensor: Tensor, modules: Sequence[str], kind: str) -> None:
        producer = network.producer(tensor)
        if producer is not None and modules and all(module in theirs for module in modules):
            depth = -max(module.count(".") for module in modules)
            probes.append((order[producer], depth, tensor, Place(tuple(modules), kind, producer)))

    order = {node: index for index, node in enumerate(network.nodes)}
    for node in network.nodes:
        weights = [t.name for t in node.inputs if t.name in sources]
        if len(node.outputs) == 1 and weights:
            modules = [node.module_path] if node.module_path in theirs else list(dict.fromkeys(sources[weights[0]]))
            values = [t for t in node.inputs if t.name not in sources and t.dtype is not None and t.dtype.is_float]
            for value in values[:1]:
                add(value, modules[:1], "input")
            # What leaves a module that both have is added below: an op may follow within the module.
            if node.module_path not in theirs:
                add(node.outputs[0], modules, "output")
    for tensor, path in leaving(network):
        add(tensor, [path], "output")
    return [(tensor, place) for _, _, tensor, place in sorted(probes, key=lambda entry: entry[:2])]


def leaving(network: Network) -> Iterator[tuple[Tensor, str]]:
    """Yields each module that exactly one value leaves, with the value."""
    users = network.users()
    found: dict[str, list[Tensor]] = {}
    for node in network.nodes:
        parts = node.module_path.split(".") if node.module_path else []
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            for tensor in node.outputs:
                outside = [u for u in users.get(tensor, []) if not f"{u.module_path}.".startswith(f"{path}.")]
                if outside or tensor in network.outputs:
                    found.setdefault(path, []).append(tensor)
    for path, tensors in found.items():
        if len(tensors) == 1:
            yield tensors[0], path


@dataclass
class Recording:
    """Values `[tokens, n]` float32 by label, and their places in order."""

    places: list[Place] = field(default_factory=list)
    values: dict[str, torch.Tensor] = field(default_factory=dict)


def record_ours(model: Any, tokens: Sequence[int], theirs: Mapping[str, Any]) -> Recording:
    """Runs a loaded model over `tokens`, the last `STEPS` by decode steps, and records the value of every place.

    The model's engines are replaced, so it cannot be used for anything else.
    """
    store, recording = model.variants, Recording()
    rows: dict[str, list[torch.Tensor]] = {}

    def keep(values: dict[str, torch.Tensor]) -> None:
        for label, value in values.items():
            rows.setdefault(label, []).append(value.float().clone())

    for base in ("prefill", "decode"):
        network = store.network(frozenset({base}))
        found: dict[str, tuple[Tensor, Place]] = {}
        for tensor, place in places(network, model, theirs):
            found.setdefault(place.label, (tensor, place))
        if base == "prefill":
            recording.places = [place for _, place in found.values()]
        labels = mark(network, [(label, tensor) for label, (tensor, _) in found.items()])
        listen(model, base, run_passes(network, store.backend.name, ["All"]), labels, keep)
    run_tokens(model, tokens, STEPS)
    recording.values = {label: torch.cat([part.flatten(1) for part in parts]) for label, parts in rows.items()}
    return recording


def record_hugging_face(model: Any, tokens: Sequence[int], wanted: Sequence[Place]) -> dict[str, torch.Tensor]:
    """Returns the same values of Hugging Face's model, without those in another layout."""
    seen: dict[tuple[str, str], torch.Tensor] = {}
    with _hooks(model, {module for place in wanted for module in place.modules}, seen), torch.no_grad():
        model(torch.tensor([list(tokens)]), use_cache=False)
    values = {}
    for place in wanted:
        parts = [_rows(seen.get((place.kind, module)), len(tokens)) for module in place.modules]
        if all(part is not None for part in parts):
            values[place.label] = torch.cat([part for part in parts if part is not None], 1)
    return values


@contextmanager
def _hooks(model: Any, names: set[str], seen: dict[tuple[str, str], torch.Tensor]) -> Iterator[None]:
    def note(kind: str, name: str, value: Any) -> None:
        first = value[0] if isinstance(value, tuple) and value else value
        if isinstance(first, torch.Tensor) and first.is_floating_point():
            seen[kind, name] = first.float().clone()

    handles = []
    for name, module in model.named_modules():
        if name in names:
            handles.append(module.register_forward_hook(lambda _m, _i, out, n=name: note("output", n, out)))
            before = lambda _m, args, kwargs, n=name: note("input", n, args or kwargs.get("hidden_states"))  # noqa: E731
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(value: torch.Tensor | None, tokens: int) -> torch.Tensor | None:
    """Returns a value as `[tokens, n]`; it may have a batch of one, and heads before or after tokens."""
    if value is None:
        return None
    if value.dim() > 1 and value.shape[0] == 1 and tokens != 1:
        value = value[0]
    if value.shape[0] != tokens and value.dim() > 2 and value.shape[1] == tokens:
        value = value.transpose(0, 1)
    return value.reshape(tokens, -1) if value.shape[0] == tokens else None


def first_difference(
    recording: Recording, truth: Mapping[str, torch.Tensor], peer: Mapping[str, torch.Tensor]
) -> Difference | None:
    """Returns the first place whose mean error is more than twice torch's.

    Not one whose value is right under another label: our module may end behind a factor that Hugging Face's model
    applies between two of its modules.
    """
    found: list[Difference] = []
    right: set[Node] = set()
    last = None
    for place in recording.places:
        ours, true, other = (source.get(place.label) for source in (recording.values, truth, peer))
        if ours is None or true is None or other is None or ours.shape != true.shape:
            continue
        scale = true.abs().mean().clamp_min(1e-30)
        own, its = ((x - true).abs().mean(1) / scale for x in (ours, other))
        limit = 2 * its.mean() + _TOLERANCE
        if not own.mean() <= limit:
            far = (own > 2 * its.max() + _TOLERANCE).nonzero().flatten().tolist()
            row = far[0] if far else 0
            found.append(Difference(place, own.mean().item(), its.mean().item(), last, row, len(true) - STEPS))
        else:
            right.add(place.producer)
            last = place.label
    return next((each for each in found if each.place.producer not in right), None)
