# SPDX-License-Identifier: Apache-2.0
"""Wraps a model's engines, those that exist and those that are built meanwhile, to keep the times of their nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atb_core.engine.base import Engine, RunTimes
from atb_core.errors import EngineError

if TYPE_CHECKING:
    from atb_core.graph import Network
    from atb_core.models.runtime.variants import VariantStore

#: Inputs whose values are kept, because the costs of attention depend on them.
_LENGTHS = ("input_lengths", "q_lens", "window_lengths")


@dataclass(frozen=True)
class Call:
    """One call of an engine's `forward`; times in nanoseconds of `time.perf_counter_ns`.

    Attributes:
        name: the variant, such as `decode`.
        begin: before the arguments were checked.
        end: when the outputs were there.
        shapes: shapes of the inputs by name.
        values: lengths of sequences by the input's name.
        runs: what the engine ran, one run each; none of an engine that cannot tell when its nodes run.
    """

    name: str
    begin: int
    end: int
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, tuple[int, ...]]
    runs: list[RunTimes] = field(default_factory=list)


class RecordedEngine:
    """An engine whose calls are handed to `keep`; everything else is that of the engine."""

    def __init__(self, inner: Engine, name: str, keep: Callable[[Call], None]) -> None:
        self.inner, self._name, self._keep = inner, name, keep
        if inner.records_nodes:
            try:
                inner.set_recording(True)
            except EngineError:
                inner.set_recording(False)
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def forward(self, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the engine and keeps when."""
        begin = time.perf_counter_ns()
        results = self.inner.forward(inputs, *args, **kwargs)
        end = time.perf_counter_ns()
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        values = {name: tuple(inputs[name].tolist()) for name in _LENGTHS if name in inputs}
        runs = self.inner.take_runs() if self.inner.records_nodes else []
        self._keep(Call(self._name, begin, end, shapes, values, runs))
        return results

    def release(self) -> Engine:
        """Ends the recording and returns the engine."""
        if self.inner.records_nodes:
            self.inner.set_recording(False)
        return self.inner


class _RecordingBackend:
    """A backend whose new engines are recorded."""

    def __init__(self, inner: Any, keep: Callable[[Call], None]) -> None:
        self._inner, self._keep = inner, keep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def build(self, network: Network, store: Any = None) -> Any:
        return RecordedEngine(self._inner.build(network, store), network.name, self._keep)


def stored_bytes(store: Any) -> dict[str, int]:
    """Returns the bytes that a weight store holds of each weight; none of the reference, which has torch's tensors."""
    handle = getattr(store, "handle", None)
    return {} if handle is None else {name: int(handle.info(name)["bytes"]) for name in handle.names()}


def attach(store: VariantStore, keep: Callable[[Call], None]) -> Callable[[], None]:
    """Records all engines of a model from now on; returns a function that ends it.

    Raises:
        EngineError: another profile records them.
    """
    backend: Any = store.backend
    if isinstance(backend, _RecordingBackend):
        raise EngineError("another profile records this model", hint="Leave that one first.")
    wrapped: dict[frozenset[str], RecordedEngine] = {}
    try:
        for key, variant in store.variants.items():
            wrapped[key] = RecordedEngine(variant.engine, "_".join(sorted(key)), keep)
    except EngineError:
        for engine in wrapped.values():
            engine.release()
        raise
    for key, engine in wrapped.items():
        store.variants[key].engine = engine  # type: ignore[assignment]
    store.backend = _RecordingBackend(backend, keep)  # type: ignore[assignment]

    def detach() -> None:
        store.backend = backend
        for variant in store.variants.values():
            if isinstance(variant.engine, RecordedEngine):
                variant.engine = variant.engine.release()

    return detach
