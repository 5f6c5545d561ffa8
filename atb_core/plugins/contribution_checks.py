# SPDX-License-Identifier: Apache-2.0
"""What each hook must return: a sentence of what is wrong with an item, or nothing.

The classes are imported here, when there is something to check, so that this module stays light.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

from atb_core.errors import AtbError


class Check(NamedTuple):
    """What a hook's list holds, in words, and the function that says what is wrong with an item (`None`: nothing)."""

    expected: str
    problem: Callable[[object], str | None]


def _pass(item: object) -> str | None:
    from atb_core.graph.passes import Pass

    if not isinstance(item, Pass):
        return f"{item!r} is no Pass"
    if not isinstance(item.name, str) or not item.name:
        return f"{item!r} has no name"
    if not callable(item.run):
        return f"the pass {item.name!r} runs {item.run!r}, which is no function of a network"
    if item.makes is not None and not isinstance(item.makes, str):
        return f"the pass {item.name!r} makes {item.makes!r}, which is not the name of an op"
    return None


def _op(item: object) -> str | None:
    from atb_core.graph.op import Op
    from atb_core.plugins.contributions import OpContribution

    if not isinstance(item, OpContribution):
        return f"{item!r} is no OpContribution"
    op = item.op
    if not (isinstance(op, type) and issubclass(op, Op)):
        return f"{op!r} is no subclass of Op"
    if not op.namespace:
        return f"the op {op.__name__} belongs to core"
    if not isinstance(item.kernels, Mapping):
        return f"the kernels of {op.op_name()} are {item.kernels!r}, not a dict of kernels by backend"
    return _expand_problem(item) or _kernel_problem(item)


def _expand_problem(item: object) -> str | None:
    from atb_core.plugins.contributions import OpContribution

    assert isinstance(item, OpContribution)
    if item.expand is None:
        return None
    if not callable(item.expand):
        return f"the expand of {item.op.op_name()} is {item.expand!r}, which is no function"
    if item.op.writes:
        return f"{item.op.op_name()} writes in place, and such an op cannot be expanded"
    return None


def _kernel_problem(item: object) -> str | None:
    from atb_core.engine import kernel_types
    from atb_core.plugins.contributions import OpContribution

    assert isinstance(item, OpContribution)
    types = kernel_types()
    for backend, kernel in item.kernels.items():
        name = item.op.op_name()
        kind = types.get(backend)
        if kind is None:
            takers = ", ".join(sorted(types)) or "none of this version"
            return f"{name} has a kernel for {backend!r}; backends that take kernels: {takers}"
        if not isinstance(kernel, kind):
            return f"the kernel of {name} for {backend!r} is {kernel!r}, not a {kind.__name__}"
    return None


def _feature(item: object) -> str | None:
    from atb_core.features import check_stacking

    try:
        check_stacking([item])  # type: ignore[list-item] # it says what else than a feature it was given
    except AtbError as error:
        return str(error)
    return None


def _command(item: object) -> str | None:
    import click

    if not isinstance(item, click.Command):
        return f"{item!r} is no click.Command"
    return None if item.name else f"{item!r} has no name"


def _format(item: object) -> str | None:
    from atb_core.plugins.contributions import WeightFormat

    if not isinstance(item, WeightFormat):
        return f"{item!r} is no WeightFormat"
    if not isinstance(item.name, str) or not item.name:
        return f"{item!r} has no name"
    if not (callable(item.matches) and callable(item.open) and (item.config is None or callable(item.config))):
        return f"matches, open and config of the format {item.name!r} must be functions of a path"
    return None


def _parser(item: object) -> str | None:
    from atb_core.plugins.tool_parsers import ToolParser

    if not (isinstance(item, type) and issubclass(item, ToolParser)):
        return f"{item!r} is no subclass of ToolParser"
    if inspect.isabstract(item):
        return f"{item.__name__} lacks {', '.join(sorted(item.__abstractmethods__))}"
    name = getattr(item, "name", None)
    return None if isinstance(name, str) and name else f"{item.__name__} has no name"


CHECKS = {
    "atb_fusion_passes": Check("a list of atb_core.graph.passes.Pass", _pass),
    "atb_ops": Check("a list of atb_core.plugins.OpContribution", _op),
    "atb_features": Check("a list of subclasses of atb_core.FeatureDecorator", _feature),
    "atb_cli_commands": Check("a list of click.Command", _command),
    "atb_weight_formats": Check("a list of atb_core.plugins.WeightFormat", _format),
    "atb_tool_parsers": Check("a list of subclasses of atb_core.plugins.ToolParser", _parser),
}
