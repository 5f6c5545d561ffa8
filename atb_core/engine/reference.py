# SPDX-License-Identifier: Apache-2.0
"""The engine that defines the others: interprets a network with each op's torch reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from atb_core.engine.base import Backend, Engine, check_names, check_part, check_tensor
from atb_core.errors import EngineError
from atb_core.graph.dim import evaluate_shape
from atb_core.graph.network import Network, Node
from atb_core.graph.ops.view import Reshape
from atb_core.graph.specialize import bind_dims, specialize
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_from_torch

#: Called with every node and its outputs after it has run.
Observer = Callable[[Node, tuple[torch.Tensor, ...]], None]


class ReferenceBackend(Backend):
    """Slow and obvious; runs on any device torch has, float32 inside every op."""

    name = "reference"

    def __init__(self, num_threads: int | None = None) -> None:
        # torch's pool is the process's own: the argument is accepted so that backends are exchangeable.
        self.num_threads = num_threads

    def new_store(self) -> dict[str, torch.Tensor]:
        return {}

    def build(self, network: Network, store: dict[str, torch.Tensor] | None = None) -> ReferenceEngine:
        return ReferenceEngine(network, self.new_store() if store is None else store)


class ReferenceEngine(Engine):
    """Interprets one network."""

    def __init__(self, network: Network, store: dict[str, torch.Tensor]) -> None:
        self.network = network
        self.store = store
        self.observer: Observer | None = None
        self._bound: dict[str, torch.Tensor] = {}
        # Weights that come in parts: the rows that are there, and the memory for all.
        self._partial: dict[str, tuple[int, torch.Tensor]] = {}

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        check_names("weights", weights, self.network.weights_keys, optional=True)
        for name, value in weights.items():
            check_tensor("weight", self.network.input(name), value)
            self.store[name] = value

    def set_weight_part(self, name: str, begin: int, value: torch.Tensor) -> None:
        shape = check_part(self.network, name, begin, value)
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

    def set_kv_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        self._bind_all("KV caches", caches)

    def set_constants(self, inputs: Mapping[str, torch.Tensor]) -> None:
        self._bind_all("inputs", inputs)

    def _bind_all(self, what: str, values: Mapping[str, torch.Tensor]) -> None:
        wanted = {t.name for t in self.network.inputs if t.name} - self.network.weights_keys
        check_names(what, values, wanted, optional=True)
        for name, value in values.items():
            check_tensor(what[:-1], self.network.input(name), value)
        self._bound.update(values)

    @torch.no_grad()
    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor] | None = None,
        runtime_params: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        values = self._bind(inputs)
        names = {t.name for t in self.network.outputs if t.name}
        check_names("outputs", outputs or {}, names, optional=True)
        network, binding = self._resolved(values)
        environment = {tensor: values[tensor.name or ""] for tensor in network.inputs}
        results = self._targets(network, binding, outputs or {})
        for node in network.nodes:
            self._run(node, environment, binding)
        for tensor in network.outputs:
            assert tensor.name is not None
            given = results.get(tensor.name)
            results[tensor.name] = environment[tensor] if given is None else given.copy_(environment[tensor])
        return results

    def _bind(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        bound = self.network.weights_keys | set(self._bound)
        wanted = [t.name for t in self.network.inputs if t.name and t.name not in bound]
        check_names("inputs", inputs, wanted)
        for name, value in inputs.items():
            check_tensor("input", self.network.input(name), value)
        missing = sorted(self.network.weights_keys - set(self.store))
        if missing:
            raise EngineError(f"weights are missing: {', '.join(missing)}", hint="call set_weights() first")
        weights = {name: self.store[name] for name in self.network.weights_keys}
        return {**weights, **self._bound, **inputs}

    def _resolved(self, values: Mapping[str, torch.Tensor]) -> tuple[Network, dict[str, int]]:
        """The network with known shapes: as recorded if they all are, else inferred for these inputs."""
        if any(t.shape is None for node in self.network.nodes for t in (*node.inputs, *node.outputs)):
            specs = {name: (tuple(t.shape), dtype_from_torch(t.dtype)) for name, t in values.items()}
            return specialize(self.network, specs), {}
        return self.network, bind_dims(self.network, {name: t.shape for name, t in values.items()})

    def _targets(
        self, network: Network, binding: Mapping[str, int], outputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        for tensor in network.outputs:
            given = outputs.get(tensor.name or "")
            if given is not None and tensor.shape is not None:
                check_tensor("output", Tensor(tensor.name, evaluate_shape(tensor.shape, binding), tensor.dtype), given)
        return dict(outputs)

    def _run(self, node: Node, environment: dict[Tensor, torch.Tensor], binding: Mapping[str, int]) -> None:
        op = node.op
        if isinstance(op, Reshape) and not callable(op.shape):
            op = Reshape(evaluate_shape(op.shape, binding))
        try:
            results = op.reference(*(environment[t] for t in node.inputs))
        except (ValueError, IndexError, RuntimeError) as error:
            raise EngineError(f"{op.name} in {node.place}: {error}") from error
        environment.update(zip(node.outputs, results, strict=True))
        if self.observer is not None:
            self.observer(node, results)
