# SPDX-License-Identifier: Apache-2.0
"""Binding of symbolic dimensions to real sizes, and re-inference of a network for given inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from atb_core.errors import EngineError, GraphError
from atb_core.graph.dim import Dim, Shape, shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network, infer, located
from atb_core.graph.tensor import Tensor


def _match_shape(name: str, declared: Shape, real: Sequence[int], binding: dict[str, int]) -> None:
    if len(declared) != len(real):
        raise EngineError(
            f"input {name!r} is declared as {shape_text(declared)} but a tensor of shape {list(real)} was given"
        )
    for size, value in zip(declared, real, strict=True):
        # Text is a normal form: only a plain named dimension prints as an identifier.
        if isinstance(size, Dim) and str(size).isidentifier():
            other = binding.setdefault(str(size), value)
            if other != value:
                differing = f"its dimension {size} is {value}, but another input has {size} = {other}"
                raise EngineError(f"input {name!r} has shape {list(real)}: {differing}")
        elif not isinstance(size, Dim) and size != value:
            raise EngineError(f"input {name!r} must have shape {shape_text(declared)}, not {list(real)}")


def specialize(network: Network, specs: Mapping[str, tuple[Sequence[int], DataType]]) -> Network:
    """Returns the same network with shapes and dtypes inferred again from those in `specs`, and then fused.

    Networks whose inputs were declared without shapes need this before they run.

    Args:
        network: the network; it is not changed.
        specs: shape and dtype of inputs by name; inputs that are missing keep their declaration.

    Raises:
        GraphError: an op does not accept its inputs; the message names the place of the node.
    """
    result = Network(network.name)
    result.weights_keys = set(network.weights_keys)
    image: dict[Tensor, Tensor] = {}
    for tensor in network.inputs:
        shape, dtype = specs.get(tensor.name or "", (tensor.shape, tensor.dtype))
        image[tensor] = result.add_input(Tensor(tensor.name, None if shape is None else tuple(shape), dtype))
    for node in network.nodes:
        inputs = tuple(image[t] for t in node.inputs)
        try:
            inferred = infer(node.op, inputs, result.rules)
        except GraphError as error:
            raise located(error, node.op, inputs, node.module_path, node.source) from None
        outputs = inferred.tensors()
        image.update(zip(node.outputs, outputs, strict=True))
        result.add_copy(replace(node, op=inferred.op or node.op, inputs=inputs, outputs=outputs))
    for tensor in network.outputs:
        assert tensor.name is not None
        result.mark_output(image[tensor], tensor.name)
    return result if network.when_specialized is None else network.when_specialized(result)


def bind_dims(network: Network, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Returns the values of the named dimensions, derived from the real shapes of the inputs that declare them.

    Raises:
        EngineError: a real shape contradicts its declaration or another input's shape.
    """
    binding: dict[str, int] = {}
    for name, shape in shapes.items():
        declared = network.input(name).shape
        if declared is not None:
            _match_shape(name, declared, shape, binding)
    return binding
