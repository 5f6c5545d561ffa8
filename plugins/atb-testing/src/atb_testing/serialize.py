# SPDX-License-Identifier: Apache-2.0
"""Saved networks (`.atbnet`): JSON with the version of the op set, to inspect, compare and run elsewhere.

A file is untrusted: every field is checked for its type and range before it is used.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atb_cli.output import write_whole
from atb_core.errors import GraphError
from atb_core.files import read_json
from atb_core.graph.custom_ops import find_op, package_of
from atb_core.graph.dim import Atom, Dim, DimLike
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network, Node
from atb_core.graph.op import Op
from atb_core.graph.tensor import Tensor
from atb_core.graph.verify import verify

#: Incremented when the meaning, the attributes or the inputs of an op change.
OP_SET_VERSION = 1
_FORMAT = "atbnet"
_MAX_BYTES = 64 << 20
_MAX_NODES = 100_000
_MAX_TEXT = 4096
# Terms of a symbolic size, and names in a term.
_MAX_TERMS = 16


def save_network(network: Network, path: str | Path) -> None:
    """Writes the network to `path` atomically.

    Raises:
        GraphError: an op has a Python function as an attribute.
    """
    write_whole(Path(path), json.dumps(_network_data(network), indent=1))


def load_network(path: str | Path) -> Network:
    """Reads and verifies the network saved at `path`.

    Raises:
        GraphError: the file cannot be read, is damaged, breaks a rule of the graph, or was written for another op set.
            The message names the file, the node or tensor in it, and the cause.
    """
    source = Path(path)
    data = read_json(source, GraphError, _MAX_BYTES)
    if data is None:
        raise GraphError(f"{source} cannot be read: it does not exist")
    with _within(str(source)):
        if data.get("format") != _FORMAT:
            raise GraphError("it is not a saved network")
        if data.get("op_set") != OP_SET_VERSION:
            raise GraphError(
                f"it was written for op set {_shown(data.get('op_set'))}, this is op set {OP_SET_VERSION}",
                hint="Record and save the network again.",
            )
        network = _read_network(data)
        verify(network)
    return network


def _network_data(network: Network) -> dict[str, Any]:
    tensors = (*network.inputs, *(t for node in network.nodes for t in node.outputs))
    ids = {tensor: index for index, tensor in enumerate(tensors)}
    # The plugins of custom ops are saved so that an error can name what to install.
    custom = {type(node.op) for node in network.nodes if type(node.op).namespace}
    packages = {op.op_name(): package for op in custom if (package := package_of(op))}
    return {
        "format": _FORMAT,
        "op_set": OP_SET_VERSION,
        "name": network.name,
        "tensors": [_tensor_data(tensor) for tensor in ids],
        "inputs": len(network.inputs),
        "weights": sorted(network.weights_keys),
        "nodes": [_node_data(node, ids) for node in network.nodes],
        **({"packages": dict(sorted(packages.items()))} if packages else {}),
        "outputs": [ids[tensor] for tensor in network.outputs],
    }


def _tensor_data(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else [_size_data(size) for size in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": tensor.dtype.short if tensor.dtype else None}


def _size_data(size: DimLike) -> Any:
    if not isinstance(size, Dim):
        return size
    return [[factor, [_atom_data(atom) for atom in monomial]] for monomial, factor in size.terms]


def _atom_data(atom: Atom) -> Any:
    return atom if isinstance(atom, str) else [_size_data(atom.numerator), atom.divisor]


def _node_data(node: Node, ids: Mapping[Tensor, int]) -> dict[str, Any]:
    return {
        "op": node.op.name,
        "attributes": {key: _attribute_data(node, key, value) for key, value in node.op.attributes().items()},
        "inputs": [ids[t] for t in node.inputs],
        "outputs": [ids[t] for t in node.outputs],
        "versions": list(node.versions),
        "module_path": node.module_path,
        "source": node.source,
        "cut_after": node.cut_after,
    }


def _attribute_data(node: Node, key: str, value: Any) -> Any:
    if callable(value):
        raise GraphError(
            f"{node} has a function as {key!r}, which cannot be saved",
            hint="Declare the shapes of the inputs, so that the function is evaluated while recording.",
        )
    if isinstance(value, tuple):
        return [_size_data(item) for item in value]
    return value


@contextmanager
def _within(place: str) -> Iterator[None]:
    """Puts the place in front of the message of a GraphError."""
    try:
        yield
    except GraphError as error:
        raise GraphError(f"{place}: {error.message}", hint=error.hint) from error.__cause__


def _get(data: Any, key: str, kind: type[Any], most: int = _MAX_NODES) -> Any:
    """Returns the field `key` of an object in the file, of this type and not longer or larger than `most`."""
    if not isinstance(data, dict):
        raise GraphError(f"{_shown(data)} is not an object")
    if key not in data:
        raise GraphError(f"it has no {key}")
    value: Any = data[key]
    if type(value) is not kind:
        raise GraphError(f"{key} is {_shown(value)}, which is not of the type {kind.__name__}")
    if kind is not bool and not 0 <= (value if kind is int else len(value)) <= most:
        raise GraphError(f"{key} is {_shown(value)}, beyond the limit of {most}")
    return value


def _text(data: Any, key: str) -> str:
    text: str = _get(data, key, str, _MAX_TEXT)
    if not text.isprintable():
        raise GraphError(f"{key} is {_shown(text)}, which contains control characters")
    return text


def _indices(data: Any, key: str, most: int) -> list[int]:
    """Returns a list of indices, none of them above `most`."""
    indices: list[int] = _get(data, key, list)
    for index in indices:
        if type(index) is not int or not 0 <= index <= most:
            raise GraphError(f"{key} contains {_shown(index)}, which is not an index of 0 to {most}")
    return indices


def _shown(value: object) -> str:
    text = repr(value) if not isinstance(value, (dict, list)) or len(value) < 100 else f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."


def _read_network(data: Mapping[str, Any]) -> Network:
    network = Network(_text(data, "name"))
    tensors: list[Tensor] = []
    for index, entry in enumerate(_get(data, "tensors", list)):
        with _within(f"tensor {index}"):
            tensors.append(_read_tensor(entry))
    for index, tensor in enumerate(tensors[: _get(data, "inputs", int)]):
        with _within(f"tensor {index}"):
            network.add_input(tensor)
    network.weights_keys = {_text({"weight": name}, "weight") for name in _get(data, "weights", list)}
    packages = _get({"packages": {}, **data}, "packages", dict)
    for index, entry in enumerate(_get(data, "nodes", list)):
        with _within(f"node {index}"):
            network.add_copy(_read_node(entry, tensors, packages))
    network.outputs = [tensors[index] for index in _indices(data, "outputs", len(tensors) - 1)]
    return network


def _read_tensor(entry: Any) -> Tensor:
    name = None if isinstance(entry, dict) and entry.get("name", "") is None else _text(entry, "name")
    shape = None if entry.get("shape", "") is None else tuple(map(_read_size, _get(entry, "shape", list, 32)))
    dtype = None if entry.get("dtype", "") is None else _read_dtype(_text(entry, "dtype"))
    return Tensor(name, shape, dtype)


def _read_dtype(name: str) -> DataType:
    try:
        return DataType.from_short(name)
    except ValueError as error:
        raise GraphError(str(error)) from None


def _read_size(data: Any) -> DimLike:
    if type(data) is int:
        return data
    total: DimLike = 0
    for term in _list(data):
        factor, atoms = _list(term, 2)
        product: DimLike = _integer(factor)
        for atom in _list(atoms):
            product = product * _read_atom(atom)
        total = total + product
    return total


def _read_atom(data: Any) -> DimLike:
    try:
        if isinstance(data, str):
            return Dim(data)
        numerator, divisor = _list(data, 2)
        return _read_size(numerator) // _integer(divisor)
    except (ValueError, ZeroDivisionError) as error:
        raise GraphError(str(error)) from None


def _integer(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 63:
        raise GraphError(f"{_shown(value)} is not an integer of 64 bits")
    return value


def _list(value: Any, length: int | None = None) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > _MAX_TERMS or length not in (None, len(value)):
        raise GraphError(f"{_shown(value)} is not part of a symbolic size")
    return value


def _read_node(entry: Any, tensors: Sequence[Tensor], packages: Mapping[str, Any]) -> Node:
    name = _text(entry, "op")
    with _within(name):
        op = _read_op(name, _get(entry, "attributes", dict), packages.get(name))
        inputs = [tensors[index] for index in _indices(entry, "inputs", len(tensors) - 1)]
        outputs = [tensors[index] for index in _indices(entry, "outputs", len(tensors) - 1)]
        versions = _indices(entry, "versions", _MAX_NODES)
        # Outputs first: what an op says of its inputs may be as long as its number of outputs.
        if len(outputs) != op.num_outputs or not len(inputs) == len(versions) == op.num_inputs:
            counts = f"{len(inputs)} inputs, {len(versions)} versions and {len(outputs)} outputs"
            raise GraphError(f"it has {counts}, which its attributes contradict")
        path, source = _text(entry, "module_path"), _text(entry, "source")
        return Node(op, tuple(inputs), tuple(outputs), path, source, tuple(versions), _get(entry, "cut_after", bool))


def _read_op(name: str, attributes: Mapping[str, Any], package: Any) -> Op:
    kind = _op_class(name, package)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(attributes) - set(fields))
    if unknown:
        raise GraphError(f"it has no attribute {_shown(unknown)}")
    values = {key: _read_attribute(fields[key], value) for key, value in attributes.items()}
    try:
        return kind(**values)
    except GraphError:
        raise
    # A plugin's op may check its attributes in any way.
    except Exception as error:
        raise GraphError(f"its attributes are wrong: {error}") from error


def _op_class(name: str, package: Any) -> type[Op]:
    try:
        return find_op(name)
    except GraphError as error:
        # The hint contains a command to run, so text from the file must be a name and a version, nothing else.
        match = re.fullmatch(r"([\w.-]{1,80}) [\w.+!-]{1,40}", package, re.ASCII) if isinstance(package, str) else None
        if match is None:
            raise
        raise GraphError(
            f"the op {name!r} comes from {match[0]}, which is not installed or has no such op",
            hint=f"Run: pip install {match[1]}",
        ) from error


def _read_attribute(field: dataclasses.Field[Any], value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read_size(item) for item in value)
    # Annotations are strings because of the __future__ import; they may be `DataType | None`.
    return _read_dtype(value) if isinstance(value, str) and "DataType" in str(field.type) else value
