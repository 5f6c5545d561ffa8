# SPDX-License-Identifier: Apache-2.0
"""Networks: recorded from models, rewritten by passes and run by engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from atb_core.errors import GraphError, ShapeError
from atb_core.extensions import Port, connect
from atb_core.graph.dim import Shape, shape_text
from atb_core.graph.dtype import DataType
from atb_core.graph.op import Op
from atb_core.graph.source import author_line, current_module_path
from atb_core.graph.tensor import Tensor

if TYPE_CHECKING:
    from atb_core.engine.base import Engine


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """Application of an op to tensors.

    Attributes:
        op: the op with its attributes.
        inputs: tensors that the op reads, or writes in place.
        outputs: tensors that the node produces.
        module_path: dotted path of the module that recorded the node.
        source: `file:line` of the code that recorded the node.
        versions: for each input, the number of in-place writes to it before this node was recorded.
        cut_after: ends a segment of the network after this node.
    """

    op: Op
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    module_path: str = ""
    source: str = ""
    versions: tuple[int, ...] = ()
    cut_after: bool = False

    @property
    def writes(self) -> tuple[int, ...]:
        """Returns the indices of the inputs that are written in place."""
        return self.op.writes

    def __str__(self) -> str:
        return f"{self.op.name} in {self.place}"

    @property
    def place(self) -> str:
        """Returns module path and source line, for messages."""
        return " at ".join(part for part in (self.module_path, self.source) if part) or "(no module)"


class Network:
    """Recorded computation: inputs, nodes in execution order, outputs.

    As a context manager, a network becomes the one that ops are recorded into, for the current thread or task. Its
    inputs are the named tensors that nodes read and no node produces; tensors of the same name are one input.

    Attributes:
        name: name of the network, for messages.
        nodes: the nodes in execution order.
        inputs: input tensors in the order of first use.
        outputs: output tensors in the order in which they were marked.
        weights_keys: names of the inputs that are weights.
        built: `True` once an engine has been built from the network.
        when_specialized: passes to run when real tensors have brought the shapes that are not known here.
        rules: what the rules of ops gave for inputs of these types. Layers are alike and every pass is verified, so
            nearly all nodes are found here; a network that a pass makes shares it.
    """

    def __init__(self, name: str = "network") -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.weights_keys: set[str] = set()
        self.built = False
        self.when_specialized: Callable[[Network], Network] | None = None
        self.rules: dict[tuple[Op, Types], Inferred] = {}
        self._inputs_by_name: dict[str, Tensor] = {}
        self._producers: dict[Tensor, Node] = {}
        self._writes: dict[Tensor, int] = {}
        self._tokens: list[Token[Network | None]] = []

    def __enter__(self) -> Network:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, *exc: object) -> None:
        _current.reset(self._tokens.pop())

    def __str__(self) -> str:
        return _network_text()(self)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def producer(self, tensor: Tensor) -> Node | None:
        """Returns the node that produces `tensor`, or `None` for an input."""
        return self._producers.get(tensor)

    def input(self, name: str) -> Tensor:
        """Returns the input called `name`.

        Raises:
            GraphError: there is no such input; the hint lists the known ones.
        """
        if name in self._inputs_by_name:
            return self._inputs_by_name[name]
        known = ", ".join(self._inputs_by_name) or "none"
        raise GraphError(f"network {self.name!r} has no input {name!r}", hint=f"Known inputs: {known}.")

    def is_input(self, tensor: Tensor) -> bool:
        """Returns `True` if `tensor` is an input of this network."""
        return tensor.name is not None and self._inputs_by_name.get(tensor.name) is tensor

    def add_input(self, tensor: Tensor) -> Tensor:
        """Registers `tensor` as an input and returns the tensor that represents its name.

        Raises:
            GraphError: the tensor has no name, or shape or dtype contradict those of the input of the same name.
        """
        if tensor.name is None:
            raise GraphError(
                "a tensor without a name is used that no node of this network produces",
                hint="Give inputs a name, e.g. Tensor('x'); values of another network cannot be used here.",
            )
        known = self._inputs_by_name.get(tensor.name)
        if known is None:
            self._inputs_by_name[tensor.name] = known = tensor
            self.inputs.append(tensor)
        _merge_input(known, tensor)
        return known

    def append(self, op: Op, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Records `op` applied to `inputs` and returns the new outputs.

        Raises:
            GraphError: the op does not accept these inputs; the message names the module and the source line.
        """
        source, path = author_line(), current_module_path()
        for value in inputs:
            if not isinstance(value, Tensor):
                raise GraphError(f"{type(op).__name__} takes tensors, not a {type(value).__name__}, at {source}")
        try:
            resolved = tuple(t if t in self._producers else self.add_input(t) for t in inputs)
            inferred = infer(op, resolved, self.rules)
        except GraphError as error:
            raise located(error, op, inputs, path, source) from None
        outputs = inferred.tensors()
        self.add_node(inferred.op or op, resolved, outputs, path, source)
        return outputs

    def add_node(self, op: Op, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], path: str, source: str) -> Node:
        """Adds a node with existing output tensors; input versions are those of the current state."""
        versions = tuple(self._writes.get(t, 0) for t in inputs)
        return self.add_copy(Node(op, inputs, outputs, path, source, versions))

    def add_copy(self, node: Node) -> Node:
        """Adds a node unchanged, including the input versions it was recorded with, which `verify` checks."""
        for tensor in node.inputs:
            if tensor not in self._producers:
                self.add_input(tensor)
        for tensor in (node.inputs[index] for index in node.op.writes):
            self._writes[tensor] = self._writes.get(tensor, 0) + 1
        self._producers.update(dict.fromkeys(node.outputs, node))
        self.nodes.append(node)
        return node

    def mark_output(self, tensor: Tensor, name: str | None = None) -> None:
        """Makes `tensor` an output called `name`, by default by its own name.

        A value that `write_inplace` has put into the input of this name is there already and makes no output.

        Raises:
            GraphError: no node produces the tensor, it is an output already, it has no name, or the name is taken.
        """
        if not isinstance(tensor, Tensor):
            raise GraphError(f"an output is a tensor, not a {type(tensor).__name__}")
        name = tensor.name if name is None else name
        if name is None:
            raise GraphError("an output needs a name", hint="mark_output(tensor, 'out')")
        if self._is_written(tensor, name):
            return
        if tensor not in self._producers:
            marked = f"{tensor.name or 'a tensor'} is marked as output {name!r}"
            raise GraphError(f"{marked}, but no node of the network produces it")
        if any(output.name == name for output in self.outputs) or name in self._inputs_by_name:
            raise GraphError(f"network {self.name!r} already has an input or output called {name!r}")
        if tensor in self.outputs:
            raise GraphError(f"output {tensor.name!r} cannot also be called {name!r}")
        tensor.name = name
        self.outputs.append(tensor)

    def _is_written(self, tensor: Tensor, name: str) -> bool:
        """Returns `True` if input `name` holds `tensor` at the end, by `write_inplace`: it needs no output then."""
        target = self._inputs_by_name.get(name)
        written = [(node, i) for node in self.nodes for i in node.writes if node.inputs[i] is target]
        return bool(written) and (tensor.name == name or (tensor, target) == written[-1][0].inputs)

    def cut(self) -> None:
        """Ends a segment after the last recorded node; does nothing in an empty network."""
        if self.nodes:
            self.nodes[-1] = node = replace(self.nodes[-1], cut_after=True)
            self._producers.update(dict.fromkeys(node.outputs, node))

    def users(self) -> dict[Tensor, list[Node]]:
        """Returns the nodes that read each tensor."""
        users: dict[Tensor, list[Node]] = {}
        for node in self.nodes:
            for tensor in dict.fromkeys(node.inputs):
                users.setdefault(tensor, []).append(node)
        return users

    def build_engine(
        self, del_fpass_keys: Sequence[str] | None = None, *, backend: str = "cpu", **options: Any
    ) -> Engine:
        """Runs the passes and returns an engine of this network: `atb_core.engine.build_engine`."""
        return _engine_builder()(self, del_fpass_keys, backend=backend, **options)


# An op beyond this comes from a damaged file; the parts of one weight are a few.
_MAX_OUTPUTS = 4096
_engine_builder: Port[Callable[..., Engine]] = Port("engine builder")
_network_text: Port[Callable[[Network], str]] = Port("network text")

_current: ContextVar[Network | None] = ContextVar("atb_network", default=None)


def get_default_net() -> Network:
    """Returns the network that ops are recorded into: that of the innermost `with Network(...)`, else the default one.

    A new default network is created once the previous one has been built, so that recording can continue.
    """
    network = _current.get()
    if network is None or (network.built and not network._tokens):
        network = Network("default_network")
        _current.set(network)
    return network


def record(op: Op, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Records `op` into the current network and returns its outputs."""
    return get_default_net().append(op, inputs)


connect("recorder", record)


#: Shape and dtype of each of several tensors; `None` where unknown.
Types: TypeAlias = "tuple[tuple[Shape | None, DataType | None], ...]"


class Inferred(NamedTuple):
    """The result of an op's rules: types of the outputs, and the op with resolved attributes if it differs."""

    types: Types
    op: Op | None

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns new tensors of these types, without names."""
        return tuple(Tensor(None, shape, dtype) for shape, dtype in self.types)


def infer(op: Op, inputs: tuple[Tensor, ...], rules: dict[tuple[Op, Types], Inferred]) -> Inferred:
    """Infers the outputs of `op` on `inputs` and resolves the attributes that depend on shapes.

    Shapes are inferred only if those of all inputs are known.

    Args:
        op: the op.
        inputs: its inputs, of which shapes and dtypes matter.
        rules: earlier results, `Network.rules`; the result is added.

    Raises:
        GraphError: the number of inputs is wrong, or the op's shape or dtype rule refuses them or fails.
    """
    try:
        key = (op, tuple((t.shape, t.dtype) for t in inputs))
        known = rules.get(key)
        if known is None:
            known = rules[key] = _apply_rules(op, key[1])
        return known
    except GraphError:
        raise
    # Sizes can make any arithmetic fail, and a plugin's op or a function as a shape is code of others.
    except Exception as error:
        raise GraphError(f"its rules failed with {type(error).__name__}: {str(error)[:200]}") from error


def _apply_rules(op: Op, inputs: Types) -> Inferred:
    if op.num_outputs > _MAX_OUTPUTS:
        raise GraphError(f"{op.name} has {op.num_outputs} outputs with these attributes; the limit is {_MAX_OUTPUTS}")
    if len(inputs) != op.num_inputs:
        raise GraphError(f"{op.name} takes {op.num_inputs} inputs with these attributes, not {len(inputs)}")
    dtypes = [dtype for _, dtype in inputs]
    op.check_dtypes(*dtypes)
    shapes: tuple[Shape | None, ...] = (None,) * op.num_outputs
    known = [shape for shape, _ in inputs if shape is not None]
    resolved = op
    if len(known) == len(inputs):
        resolved = op.resolve(*known)
        shapes = resolved.infer_shapes(*known)
    outputs = (Tensor(None, s, d) for s, d in zip(shapes, resolved.infer_dtypes(*dtypes), strict=True))
    return Inferred(tuple((t.shape, t.dtype) for t in outputs), None if resolved == op else resolved)


def located(error: GraphError, op: Op, inputs: Sequence[Tensor], path: str, source: str) -> GraphError:
    """Returns a copy of `error` whose message also names the op, its inputs, the module path and the source line."""
    described = ", ".join(str(t) for t in inputs)
    where = f" in {path}" if path else ""
    kind = ShapeError if isinstance(error, ShapeError) else GraphError
    return kind(f"{op.name}({described}){where}, recorded at {source}: {error.message}", hint=error.hint)


def _merge_input(known: Tensor, other: Tensor) -> None:
    """Completes the declaration of an input from a tensor of its name; GraphError if both declare and they differ."""
    if known.shape is not None and other.shape is not None and known.shape != other.shape:
        raise ShapeError(
            f"input {known.name!r} is declared with shapes {shape_text(known.shape)} and {shape_text(other.shape)}"
        )
    if known.dtype is not None and other.dtype is not None and known.dtype != other.dtype:
        raise GraphError(f"input {known.name!r} is declared as {known.dtype.short} and {other.dtype.short}")
    known.shape = other.shape if known.shape is None else known.shape
    known.dtype = known.dtype or other.dtype
