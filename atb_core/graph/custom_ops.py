# SPDX-License-Identifier: Apache-2.0
"""Custom ops: the ops of plugins, their owners, and the backends that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from atb_core.errors import GraphError
from atb_core.extensions import Extensions
from atb_core.graph.network import Network
from atb_core.graph.op import Op, registered_ops


class CustomKernel:
    """Base class of kernels of custom ops; each backend has its own subclass, e.g. `CpuKernel`."""

    #: The backend that runs kernels of this class.
    backend: ClassVar[str]


@dataclass(frozen=True)
class OpContribution:
    """Custom op with the kernels that run it; the reference engine runs every op with its `reference`.

    Attributes:
        op: the class, declared with a namespace: `class Scale(Op, namespace="atb_foo")`.
        kernels: a kernel for each backend, of the backend's kernel class: `{"cpu": CpuKernel(...)}`.
        expand: expresses the op with the functions that models use, for backends without a kernel.
            `expand(op, *inputs)` takes the op with its attributes and symbolic inputs, and returns its outputs.
    """

    op: type[Op]
    kernels: Mapping[str, object] = field(default_factory=dict)
    expand: Callable[..., Any] | None = None


def op_problem(item: OpContribution) -> str | None:
    """Returns a sentence that names the fault of a contributed op, `None` if it has none."""
    op = item.op
    if not (isinstance(op, type) and issubclass(op, Op)):
        return f"{op!r} is not a subclass of Op"
    if not op.namespace:
        return f"the op {op.__name__} belongs to core"
    if not isinstance(item.kernels, Mapping):
        return f"the kernels of {op.op_name()} are {item.kernels!r}, not a dict of kernels by backend"
    if item.expand is not None and op.writes:
        return f"{op.op_name()} writes in place, and such an op cannot be expanded"
    for backend, kernel in item.kernels.items():
        what = f"the kernel of {op.op_name()} for {backend!r}"
        if not isinstance(kernel, CustomKernel):
            return f"{what} is {kernel!r}, not a kernel of a class that a backend takes, such as CpuKernel"
        if kernel.backend != backend:
            return f"{what} is a {type(kernel).__name__}, which the backend {kernel.backend!r} takes"
    return None


OPS: Extensions[OpContribution] = Extensions("atb_ops", OpContribution, op_problem)


def find_op(name: str) -> type[Op]:
    """Returns the op called `name`; loads the plugins' ops if necessary.

    Raises:
        GraphError: there is no such op; the hint lists the known names.
    """
    ops = registered_ops()
    if name not in ops and "." in name:
        # The classes register themselves when the hooks are called.
        OPS.all()
        ops = registered_ops()
    if name in ops:
        return ops[name]
    raise GraphError(f"there is no op called {name!r}", hint=f"Known ops: {', '.join(sorted(ops))}.")


def contribution(op: type[Op]) -> OpContribution | None:
    """Returns what a plugin contributes as `op`; `None` for an op of core or one that no plugin contributes.

    Raises:
        PluginError: several plugins contribute the op.
    """
    claim = OPS.only(lambda each: each.op is op, f"the op {op.op_name()!r}") if op.namespace else None
    return None if claim is None else claim.value


def package_of(op: type[Op]) -> str | None:
    """Returns the plugin that contributes `op`, with its version; `None` if none does."""
    return next((str(claim.owner) for claim in OPS.all() if claim.value.op is op), None)


def owner(op: type[Op]) -> str:
    """Returns the owner of `op` for messages: a plugin with its version, or the module of the class."""
    package = package_of(op)
    return f"the module {op.__module__}" if package is None else f"the plugin {package}"


def supports(op: type[Op], backend: str) -> bool:
    """Returns `True` if the backend has a kernel for `op`, its own or a contributed one."""
    if backend in op.backends:
        return True
    custom = contribution(op)
    return custom is not None and backend in custom.kernels


def check_runnable(network: Network, backend: str) -> None:
    """Raises GraphError, naming op, place and owner, for the first node that the backend cannot run."""
    for node in network.nodes:
        kind = type(node.op)
        if kind.namespace and not supports(kind, backend):
            contributed = contribution(kind) is not None
            missing = "provides neither a kernel nor an expand for it" if contributed else "has no atb_ops hook for it"
            raise GraphError(
                f"the backend {backend!r} cannot run {node}: {owner(kind)} {missing}",
                hint=f'Run it with backend="reference", or ask the author of the op for a kernel for {backend!r}.',
            )
