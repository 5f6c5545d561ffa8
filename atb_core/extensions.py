# SPDX-License-Identifier: Apache-2.0
"""Extension points, through which a layer uses objects of higher layers without importing them.

A layer declares an extension point in the file that uses it, with a check of contributed items:

    OPS: Extensions[OpContribution] = Extensions("atb_ops", OpContribution, op_problem)

The plugin system fills the extension point when it is first read. For a single object, a layer declares a port:

    families: Port[Families] = Port("families")

`atb_core/__init__.py` connects every port to the name of its implementation, which is imported on first use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from atb_core.errors import AtbError, GraphError, PluginError
from atb_core.names import BROUGHT, command, pip_install

T = TypeVar("T")
E = TypeVar("E", bound=AtbError)
_connections: dict[str, object] = {}


def connect(port: str, implementation: object) -> None:
    """Connects a port, by name, to an object or to `"module"` or `"module:attribute"`, imported on first use."""
    _connections[port] = implementation


class Port(Generic[T]):
    """Declares one object that a layer needs from a higher layer; calling the port returns it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> T:
        """Returns the implementation and imports it if necessary."""
        implementation = _connections[self.name]
        if isinstance(implementation, str):
            module, _, attribute = implementation.partition(":")
            imported = importlib.import_module(module)
            implementation = _connections[self.name] = getattr(imported, attribute) if attribute else imported
        return cast(T, implementation)


@dataclass(frozen=True)
class Owner:
    """Names the plugin that contributed an item.

    Attributes:
        distribution: name of the distribution.
        version: version of the distribution.
        path: directory of the distribution's metadata.
        target: entry point of the module that contributed the item, for load records.
        module: the module that contributed the item.
    """

    distribution: str
    version: str = ""
    path: Path = Path()
    target: str = ""
    module: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class Contribution(Generic[T]):
    """Pairs a contributed value with its owner."""

    owner: Owner
    value: T


class Provider(Protocol):
    """Interface of the plugin system, which fills extension points."""

    def contributions(self, point: Extensions[Any]) -> list[Contribution[Any]]:
        """Returns the items that were contributed to `point` so far and passed its check."""

    def failed(self, owner: Owner, what: str, error: BaseException) -> None:
        """Records that `what` of `owner` is left out because of `error`; raises PluginError in strict mode."""

    def failures(self) -> str:
        """Returns a sentence that names the owners that failed, with a leading space; empty if none did."""

    def owner_of(self, module: str) -> Owner | None:
        """Returns the installed plugin that a module belongs to, `None` if it belongs to none."""


provider: Port[Provider] = Port("plugins")


class Extensions(Generic[T]):
    """Declares one extension point.

    Args:
        hook: name of the hook that fills it.
        kind: class of the contributed items; with `subclasses`, base of the classes that are contributed.
        problem: returns a sentence that names a further fault of an item, `None` if it has none.
        name: attribute with the name of an item, by which `named` finds it; "" if items have none.
    """

    def __init__(
        self,
        hook: str,
        kind: type,
        problem: Callable[[Any], str | None] | None = None,
        *,
        subclasses: bool = False,
        name: str = "",
    ) -> None:
        self.hook = hook
        #: The hook's result, for messages.
        self.expected = f"a list of {'subclasses of ' if subclasses else ''}{kind.__name__}"
        self._kind, self._problem, self._subclasses, self._name = kind, problem, subclasses, name

    def problem(self, item: object) -> str | None:
        """Returns a sentence that names the fault of a contributed item, `None` if it has none."""
        if fault := (class_problem if self._subclasses else _item_problem)(item, self._kind):
            return fault
        # Without a call of the item: a property is no name.
        name = inspect.getattr_static(item, self._name, None) if self._name else "not needed"
        if not isinstance(name, str) or not name:
            return f"{getattr(item, '__name__', item)!s:.200} has no {self._name}"
        return self._problem(item) if self._problem else None

    def all(self) -> list[Contribution[T]]:
        """Returns the contributions so far; raises PluginError in strict mode if any plugin failed."""
        return provider().contributions(self)

    def only(self, matches: Callable[[T], bool], what: str) -> Contribution[T] | None:
        """Returns the one contribution that matches, `None` if there is none.

        Args:
            matches: returns `True` for the value of such a contribution.
            what: the thing that is contributed, for the message, e.g. `"the feature 'lora'"`.

        Raises:
            PluginError: several contributions match; the message names their owners.
        """
        claims = [item for item in self.all() if matches(item.value)]
        if len(claims) > 1:
            raise PluginError(
                f"{what} comes from several plugins: {' and '.join(str(item.owner) for item in claims)}",
                hint=f"Uninstall all but one, or leave one out: ATB_NO_PLUGINS={claims[-1].owner.distribution}.",
            )
        return claims[0] if claims else None

    def named(self, name: object, what: str) -> Contribution[T] | None:
        """Returns the one contribution of that name; see `only`."""
        return self.only(lambda item: getattr(item, self._name) == name, what)

    def required(
        self, name: object, what: str, kind: type[AtbError], own: Collection[str] = (), instead: str = ""
    ) -> Contribution[T]:
        """Returns the one contribution of that name; see `only`.

        Args:
            name: the name.
            what: the thing that is contributed, for messages.
            kind: class of the error if there is none; it says which package has it, or else what there is.
            own: names of the core, for the message.
            instead: a sentence with another way out, with a leading space.
        """
        if found := self.named(name, what):
            return found
        if missing := self.missing(name, f"{what} needs the package", kind, instead):
            raise missing
        others = [each for each in self.offered() if each.partition(" ")[0] not in own]
        known = ", ".join((*own, *others)) or "none"
        raise kind(f"no installed plugin offers {what}", f"Known: {known}.{self.failures()}{instead}")

    def missing(self, name: object, needs: str, kind: type[E], instead: str = "") -> E | None:
        """Returns the error for a name that a package of this project brings; `None` for all others.

        `needs` begins the message: `"graph='cpp' needs the package"`.
        """
        brought = BROUGHT.get(self.hook, {}).items()
        package = next((package for pattern, package in brought if re.fullmatch(pattern, str(name))), None)
        if package is None:
            return None
        hint = f"{pip_install(package)}; {command('plugins list')} says what is left out.{self.failures()}{instead}"
        return kind(f"{needs} {package}, which is not installed, or left out", hint)

    def offered(self) -> list[str]:
        """Returns the name of each contribution with its owner, for messages: `ngram (atb-foo 1.0)`."""
        return [f"{getattr(each.value, self._name)} ({each.owner})" for each in self.all()]

    @contextlib.contextmanager
    def left_out_if_failing(self, owner: Owner, what: str) -> Iterator[None]:
        """Ends the body at an error of the plugin's code in it, SystemExit too, and records it as `failed` does."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.failed(owner, what, error)

    def failed(self, owner: Owner, what: str, error: BaseException) -> None:
        """Records that `what` of `owner` is left out because of `error`; raises PluginError in strict mode."""
        provider().failed(owner, what, error)

    def failures(self) -> str:
        """Returns a sentence, with a leading space, that names the plugins that failed; empty if none did."""
        return provider().failures()


def _item_problem(item: object, kind: type) -> str | None:
    if not isinstance(item, kind):
        return f"{item!r:.200} is no {kind.__name__}"
    for field in dataclasses.fields(item) if dataclasses.is_dataclass(item) else ():
        value, wanted = getattr(item, field.name), str(field.type)
        is_callable = value is None or callable(value) or not wanted.startswith("Callable")
        if not is_callable or (wanted == "str | None" and not isinstance(value, (str, type(None)))):
            called = f"the {kind.__name__} {item.name!r}" if hasattr(item, "name") else f"{item!r:.100}"
            return (
                f"{field.name} of {called} is {value!r:.200}, which is {'no text' if is_callable else 'not a function'}"
            )
    return None


def refuse_uncalled(cls: type, instead: Mapping[str, str]) -> None:
    """Raises GraphError if `cls` has a method that nothing calls, a key of `instead`."""
    for name in instead.keys() & vars(cls).keys():
        raise GraphError(f"{cls.__name__}.{name} would never be called", hint=f"In its place is {instead[name]}.")


def class_problem(item: object, base: type) -> str | None:
    """Returns a sentence that says why `item` is no complete subclass of `base`, `None` if it is one."""
    if not (isinstance(item, type) and issubclass(item, base)):
        return f"{item!r:.200} is no subclass of {base.__name__}"
    missing = ", ".join(sorted(getattr(item, "__abstractmethods__", ())))
    return f"{item.__name__} is abstract; it lacks {missing}" if inspect.isabstract(item) else None
