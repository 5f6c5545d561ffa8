# SPDX-License-Identifier: Apache-2.0
"""Saved networks (`.atbnet`): JSON with the version of the op set, to inspect, compare and run elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atb_core.errors import GraphError
from atb_core.graph.custom_ops import find_op, package_of
from atb_core.graph.dim import Atom, Dim, DimLike, Shape
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network, Node
from atb_core.graph.op import Op
from atb_core.graph.tensor import Tensor
from atb_core.graph.verify import verify

#: Incremented when the meaning, the attributes or the inputs of an op change.
OP_SET_VERSION = 1
_FORMAT = "atbnet"
_MAX_BYTES = 256 << 20


def save_network(network: Network, path: str | Path) -> None:
    """Writes the network to `path` atomically.

    Raises:
        GraphError: an op has a Python function as an attribute.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(_network_data(network), indent=1), encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_network(path: str | Path) -> Network:
    """Reads and verifies the network saved at `path`.

    Raises:
        GraphError: the file cannot be read, is damaged, or was written for another op set.
        VerifyError: the network breaks a rule of the graph.
    """
    source = Path(path)
    try:
        if source.stat().st_size > _MAX_BYTES:
            raise GraphError(f"{source} is larger than {_MAX_BYTES >> 20} MiB, the limit for saved networks")
        data = json.loads(source.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise GraphError(f"{source} is not a saved network")
        if data.get("op_set") != OP_SET_VERSION:
            raise GraphError(
                f"{source} was written for op set {data.get('op_set')}, this is op set {OP_SET_VERSION}",
                hint="Record and save the network again.",
            )
        network = _read_network(data)
    except OSError as error:
        raise GraphError(f"{source} cannot be read: {error.strerror}") from None
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise GraphError(f"{source} is damaged: {type(error).__name__} {error}") from None
    verify(network, after=f"loading {source.name}")
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


def _read_network(data: Mapping[str, Any]) -> Network:
    network = Network(str(data["name"]))
    tensors = [_read_tensor(entry) for entry in data["tensors"]]
    for tensor in tensors[: int(data["inputs"])]:
        network.add_input(tensor)
    network.weights_keys = {str(name) for name in data["weights"]}
    packages = data.get("packages", {})

    def at(indices: list[Any]) -> tuple[Tensor, ...]:
        if any(not isinstance(index, int) or index < 0 for index in indices):
            raise ValueError(f"{indices!r} are not indices of tensors")
        return tuple(tensors[index] for index in indices)

    for entry in data["nodes"]:
        network.add_copy(
            Node(
                _read_op(entry["op"], entry["attributes"], packages.get(entry["op"])),
                at(entry["inputs"]),
                at(entry["outputs"]),
                str(entry["module_path"]),
                str(entry["source"]),
                tuple(int(version) for version in entry["versions"]),
                bool(entry["cut_after"]),
            )
        )
    network.outputs = list(at(data["outputs"]))
    return network


def _read_tensor(entry: Mapping[str, Any]) -> Tensor:
    shape: Shape | None = None if entry["shape"] is None else tuple(_read_size(size) for size in entry["shape"])
    dtype = None if entry["dtype"] is None else DataType.from_short(entry["dtype"])
    return Tensor(entry["name"], shape, dtype)


def _read_size(data: Any) -> DimLike:
    if isinstance(data, int):
        return data
    total: DimLike = 0
    for factor, atoms in data:
        product: DimLike = int(factor)
        for atom in atoms:
            product = product * (Dim(atom) if isinstance(atom, str) else _read_size(atom[0]) // int(atom[1]))
        total = total + product
    return total


def _read_op(name: str, attributes: Mapping[str, Any], package: Any) -> Op:
    kind = _op_class(name, package)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(attributes) - set(fields))
    if unknown:
        raise GraphError(f"op {name} has no attribute {', '.join(unknown)}")
    return kind(**{key: _read_attribute(fields[key], value) for key, value in attributes.items()})


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
    return DataType.from_short(value) if isinstance(value, str) and "DataType" in str(field.type) else value
