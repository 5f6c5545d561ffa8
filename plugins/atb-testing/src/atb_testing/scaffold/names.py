# SPDX-License-Identifier: Apache-2.0
"""Derives and checks the names of a new family: distribution, import package, model type and classes."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import InvalidName, canonicalize_name

from atb_core.errors import AtbError

#: Models that a new one may resemble, and the effect on the generated code.
LIKES: Final = {
    "llama": "dense, norms before the blocks",
    "qwen2": "llama, with a bias on queries, keys and values",
    "qwen3": "llama, with a norm of every head of queries and keys",
    "qwen2_moe": "qwen2 with a mixture of experts, one of which all tokens share",
    "qwen3_moe": "qwen3 with a mixture of experts",
}
_MODEL_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_PREFIX: Final = "atb-"


class ScaffoldError(AtbError):
    """Reports a package that cannot be written."""


@dataclass(frozen=True)
class Names:
    """The names of a family, such as `atb-olmo2`, `atb_olmo2`, `olmo2`, `Olmo2`; its classes begin with `prefix`."""

    distribution: str
    package: str
    model_type: str
    prefix: str


def derive_names(name: str, model_type: str | None = None) -> Names:
    """Returns the names of the family in the distribution `name`.

    Args:
        name: of the distribution; normalised as by package indexes, `Atb_Foo` to `atb-foo`.
        model_type: by default the part after `atb-` in the distribution's name, with underscores.

    Raises:
        ScaffoldError: no distribution, import package or family can have such a name.
    """
    try:
        distribution = str(canonicalize_name(name, validate=True))
    except InvalidName as error:
        raise ScaffoldError(
            f"{name!r} is no valid name for a distribution",
            hint="Use letters, digits and hyphens, such as atb-olmo2; --directory sets the place of the package.",
        ) from error
    package = distribution.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package) or package in sys.stdlib_module_names:
        reason = "belongs to Python itself" if package in sys.stdlib_module_names else "Python cannot import"
        raise ScaffoldError(
            f"the import package of the distribution {distribution!r} would be called {package!r}, which {reason}",
            hint=f"Choose another name; by convention it is {_PREFIX}<model type>.",
        )
    model_type = model_type or distribution.removeprefix(_PREFIX).replace("-", "_")
    if not _MODEL_TYPE.fullmatch(model_type):
        raise ScaffoldError(
            f"{model_type!r} cannot be a model type",
            hint="Give the model_type of the checkpoint's config.json with --model-type.",
        )
    parts = re.split(r"[^A-Za-z0-9]+", model_type)
    return Names(distribution, package, model_type, "".join(part[:1].upper() + part[1:] for part in parts))


def check_importable(package: str, target: Path) -> None:
    """Raises ScaffoldError if `import <package>` finds something other than the package in `target`."""
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else ())]
    others = [place for place in places if not Path(place).resolve().is_relative_to(target.resolve())]
    if others:
        raise ScaffoldError(
            f"an import package {package!r} is already installed here ({others[0]}); yours would hide it or be hidden",
            hint="Choose another name.",
        )
