# SPDX-License-Identifier: Apache-2.0
"""Functions on symbolic tensors, each of which records one node; names and arguments are those of ATB-Models."""

from collections.abc import Callable
from typing import Any

import atb_core.nn.functional.attention as _attention
import atb_core.nn.functional.elewise as _elewise
import atb_core.nn.functional.linear as _linear
import atb_core.nn.functional.moe as _moe
import atb_core.nn.functional.movement as _movement
from atb_core.errors import GraphError
from atb_core.extensions import Extensions
from atb_core.graph.ops.activation import GeluMode
from atb_core.graph.ops.attention import MaskType
from atb_core.nn.functional.attention import *
from atb_core.nn.functional.elewise import *
from atb_core.nn.functional.linear import *
from atb_core.nn.functional.moe import *
from atb_core.nn.functional.movement import *

__all__ = ["GeluMode", "MaskType"]
__all__ += _attention.__all__
__all__ += _elewise.__all__
__all__ += _linear.__all__
__all__ += _moe.__all__
__all__ += _movement.__all__


def function_problem(item: object) -> str | None:
    """Returns a sentence that names the fault of a contributed function, `None` if it has none."""
    name = getattr(item, "__name__", None)
    if not isinstance(name, str):
        return f"{item!r} is not a function with a name"
    return f"the core has a function {name}" if name in __all__ else None


FUNCTIONS: Extensions[Callable[..., Any]] = Extensions("atb_functions", Callable, function_problem)  # type: ignore[arg-type]


def __getattr__(name: str) -> Callable[..., Any]:
    """Returns the function of that name from a plugin; called for names that this module does not have.

    Raises:
        GraphError: the function is one of ATB-Models, and its plugin is not installed.
        PluginError: several plugins have a function of that name.
    """
    if not name.startswith("_"):
        found = FUNCTIONS.only(lambda each: each.__name__ == name, f"the function {name!r}")
        if found is not None:
            return found.value
    if missing := FUNCTIONS.missing(name, f"nn.functional.{name} of ATB-Models needs the package", GraphError):
        raise missing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
