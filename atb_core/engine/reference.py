# SPDX-License-Identifier: Apache-2.0
"""Engine that defines the results of the others: it computes each op with its reference in torch."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from atb_core.engine.base import Backend, Engine, RunTimes
from atb_core.engine.checks import (
    check_call,
    check_kind,
    check_names,
    check_part,
    check_some,
    check_tensor,
    check_weights_set,
    check_written,
)
from atb_core.errors import EngineError
from atb_core.graph.arrays import Array, dtype_of, is_tensor, to_numpy, to_torch
from atb_core.graph.dim import evaluate_shape
from atb_core.graph.network import Network, Node
from atb_core.graph.ops.view import Reshape
from atb_core.graph.quantized import quantized_values
from atb_core.graph.specialize import bind_dims, specialize
from atb_core.graph.tensor import Tensor
from atb_core.names import QUANTIZATIONS


class ReferenceBackend(Backend):
    """Slow, simple backend for any device of torch, with float32 inside every op."""

    name = "reference"
    quantizations = frozenset(QUANTIZATIONS)

    def __init__(self, num_threads: int | None = None) -> None:
        # Accepted so that backends are exchangeable; torch's threads belong to the process.
        self.num_threads = num_threads

    def new_store(self) -> dict[str, torch.Tensor]:
        return {}

    def build(self, network: Network, store: dict[str, torch.Tensor] | None = None) -> ReferenceEngine:
        return ReferenceEngine(network, self.new_store() if store is None else store)


class ReferenceEngine(Engine):
    """Interprets one network."""

    records_nodes = True

    def __init__(self, network: Network, store: dict[str, torch.Tensor]) -> None:
        check_kind("the network of an engine", network, Network)
        check_kind("store", store, dict)
        self.network = network
        self.store = store
        self._step_inputs = [t.name for t in network.inputs if t.name and t.name not in network.weights_keys]
        self._bound: dict[str, torch.Tensor] = {}
        self._recording = False
        self._runs: deque[RunTimes] = deque(maxlen=256)
        # Weights that are set in parts: number of rows set, and memory for all rows.
        self._partial: dict[str, tuple[int, torch.Tensor]] = {}

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        check_some("weight", self.network, weights, self.network.weights_keys)
        self.store.update(_tensors(weights))

    def quantize_weight(self, name: str, value: Array, quantization: str) -> None:
        self.set_weights({name: quantized_values(to_torch(value), quantization)})

    def set_weight_part(self, name: str, begin: int, value: Array) -> None:
        shape = check_part(self.network, name, begin, value)
        value = to_torch(value)
        if begin == 0:
            self.store.pop(name, None)
            self._partial[name] = (0, value.new_empty(shape))
        filled, whole = self._partial.get(name, (0, None))
        if whole is None or begin != filled:
            raise EngineError(f"a part of weight {name!r} begins at {begin}, but the next one has to begin at {filled}")
        filled += len(value)
        whole[begin:filled] = value
        self._partial[name] = (filled, whole)
        if filled == len(whole):
            self.store[name] = self._partial.pop(name)[1]

    def set_kv_caches(self, caches: Mapping[str, Array]) -> None:
        check_some("KV cache", self.network, caches, self._step_inputs)
        self._bound.update(_tensors(caches))

    def set_constants(self, inputs: Mapping[str, Array]) -> None:
        check_some("input", self.network, inputs, self._step_inputs)
        self._bound.update(_tensors(inputs))

    @torch.no_grad()
    def forward(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None,
        runtime_params: Mapping[str, Array] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        inputs, outputs, _ = check_call(inputs, outputs, runtime_params)
        values = self._bind(inputs)
        names = {t.name for t in self.network.outputs if t.name}
        check_names("outputs", outputs, names, optional=True)
        network, binding = self._resolved(values)
        environment = {tensor: values[tensor.name or ""] for tensor in network.inputs}
        results: dict[str, Any] = dict(outputs)
        for tensor in network.outputs:
            if tensor.name in results and tensor.shape is not None:
                declared = Tensor(tensor.name, evaluate_shape(tensor.shape, binding), tensor.dtype)
                check_tensor("output", declared, results[tensor.name])
                check_written(f"output {tensor.name!r}", results[tensor.name])
        times, begin = array("q"), time.perf_counter_ns()
        for node in network.nodes:
            times.append(time.perf_counter_ns())
            self._run(node, environment, binding)
            times.append(time.perf_counter_ns())
        if self._recording:
            self._runs.append(RunTimes(network, begin, time.perf_counter_ns(), range(len(network.nodes)), [times]))
        for tensor in network.outputs:
            assert tensor.name is not None
            given = results.get(tensor.name)
            if given is not None:
                to_torch(given).copy_(environment[tensor])
            elif any(map(is_tensor, inputs.values())):
                results[tensor.name] = environment[tensor]
            else:
                results[tensor.name] = to_numpy(environment[tensor].contiguous())
        return results

    def set_recording(self, on: bool) -> None:
        self._recording = bool(on)
        self._runs.clear()

    def take_runs(self) -> list[RunTimes]:
        return [self._runs.popleft() for _ in range(len(self._runs))]

    def _bind(self, inputs: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        names = [name for name in self._step_inputs if name not in self._bound]
        check_names("inputs", inputs, names)
        check_some("input", self.network, inputs, names)
        check_weights_set(self.network, self.store)
        weights = {name: self.store[name] for name in self.network.weights_keys}
        return {**weights, **self._bound, **_tensors(inputs)}

    def _resolved(self, values: Mapping[str, torch.Tensor]) -> tuple[Network, dict[str, int]]:
        """Returns the network with known shapes, inferred again if some were not, and the values of its dimensions."""
        if any(t.shape is None for node in self.network.nodes for t in (*node.inputs, *node.outputs)):
            specs = {name: (tuple(t.shape), dtype_of(t)) for name, t in values.items()}
            return specialize(self.network, specs), {}
        return self.network, bind_dims(self.network, {name: t.shape for name, t in values.items()})

    def _run(self, node: Node, environment: dict[Tensor, torch.Tensor], binding: Mapping[str, int]) -> None:
        op = node.op
        if isinstance(op, Reshape) and not callable(op.shape):
            op = Reshape(evaluate_shape(op.shape, binding))
        try:
            results = op.reference(*(environment[t] for t in node.inputs))
        except (ValueError, IndexError, RuntimeError) as error:
            raise EngineError(f"{op.name} in {node.place}: {error}") from error
        environment.update(zip(node.outputs, results, strict=True))


def _tensors(values: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    return {name: to_torch(value) for name, value in values.items()}
