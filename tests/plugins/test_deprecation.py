# SPDX-License-Identifier: Apache-2.0
"""What goes away warns at the plugin's line with what to write instead, and is gone when core gets there."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pluggy
import pytest

import atb_core
from atb_core.plugins import deprecation
from atb_core.plugins.deprecation import (
    ApiDeprecationWarning,
    Deprecation,
    declared,
    deprecated_arguments,
    deprecated_hook,
    moved,
    renamed_parameter,
)

VERSIONS = {"since": "1.2", "removed_in": "2.0"}
CORE_S_OWN = deprecation._declared


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is gone after it."""
    monkeypatch.setattr(deprecation, "_declared", {})
    monkeypatch.setattr(deprecation, "_told", set())


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Writes a module of a plugin, to be imported by name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def attention() -> Callable[..., tuple[int, int]]:
    """A function of core whose parameter was called otherwise."""

    @renamed_parameter("num_heads", "heads", **VERSIONS)
    def attention(x: int, heads: int = 1) -> tuple[int, int]:
        return x, heads

    return attention


Attention = Callable[..., tuple[int, int]]


def test_a_renamed_parameter_works_under_both_names_and_warns_for_the_old(attention: Attention) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attention(1, heads=4) == attention(1, 4) == (1, 4)
    with pytest.warns(ApiDeprecationWarning) as told:
        assert attention(1, num_heads=4) == (1, 4)
    (warning,) = told
    assert str(warning.message) == (
        f"the parameter 'num_heads' of {attention.__module__}.{attention.__qualname__} is deprecated since "
        "atb-core 1.2 and goes in 2.0: use 'heads'"
    )
    assert warning.filename == __file__


def test_both_names_at_once_are_an_error(attention: Attention) -> None:
    with pytest.raises(TypeError, match="got 'heads' and its old name 'num_heads'"):
        attention(1, heads=1, num_heads=2)


def test_a_line_is_told_once_whatever_the_filters(attention: Attention) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            attention(1, num_heads=4)
        attention(1, num_heads=4)
    assert len(told) == 2
    assert told[0].lineno + 1 == told[1].lineno


@pytest.mark.parametrize("package", [False, True])
@pytest.mark.parametrize("statement", ["from old_home import thing", "import old_home; thing = old_home.thing"])
def test_a_name_that_moved_is_found_and_warns_at_the_importing_line(
    plugin: object, monkeypatch: pytest.MonkeyPatch, statement: str, package: bool
) -> None:
    old = ModuleType("old_home")
    old.__getattr__ = moved("old_home", {"thing": "json:dumps"}, **VERSIONS)  # type: ignore[method-assign]
    if package:
        old.__path__ = []
    monkeypatch.setitem(sys.modules, "old_home", old)
    path = plugin("atb_importer", f"\n\n{statement}\n")  # type: ignore[operator]
    with pytest.warns(ApiDeprecationWarning, match=r"the name old_home\.thing .* use json\.dumps") as told:
        module = importlib.import_module("atb_importer")
    assert module.thing is importlib.import_module("json").dumps
    assert [(one.filename, one.lineno) for one in told] == [(str(path), 3)]
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        old.other  # noqa: B018


def test_a_deprecated_hook_and_argument_warn_at_the_implementation(plugin: object) -> None:
    class Specs:
        hookspec = pluggy.HookspecMarker("atb_core")

        @hookspec(historic=True, **deprecated_hook("atb_passes", "atb_fusion_passes", **VERSIONS))
        def atb_passes(self) -> None: ...

        @hookspec(historic=True, **deprecated_arguments("atb_ops", {"device": "nothing"}, **VERSIONS))
        def atb_ops(self, device: str) -> None: ...

    path = plugin(  # type: ignore[operator]
        "atb_old_hooks",
        """
        from atb_core.plugins import hookimpl

        @hookimpl
        def atb_passes(): ...

        @hookimpl
        def atb_ops(device): ...
        """,
    )
    manager = pluggy.PluginManager("atb_core")
    manager.add_hookspecs(Specs)
    with pytest.warns(ApiDeprecationWarning) as told:
        manager.register(importlib.import_module("atb_old_hooks"))
    assert {(one.filename, str(one.message).split(" is deprecated")[0]) for one in told} == {
        (str(path), "the hook atb_passes"),
        (str(path), "the hook argument 'device' of atb_ops"),
    }


def test_what_is_declared_is_overdue_from_the_version_of_its_removal_on() -> None:
    one = Deprecation("name", "a.b", "c.d", "1.2", "2.0")
    assert not one.overdue("1.9.3")
    assert not one.overdue("2.0.dev1")
    assert one.overdue("2.0")
    assert one.overdue("2.1")


def test_declaring_registers() -> None:
    renamed_parameter("old", "new", **VERSIONS)(lambda new: new)
    moved("somewhere", {"thing": "json:dumps"}, **VERSIONS)
    deprecated_hook("atb_passes", "atb_fusion_passes", **VERSIONS)
    deprecated_arguments("atb_ops", {"device": "nothing"}, **VERSIONS)
    assert [one.kind for one in declared()] == ["parameter", "name", "hook", "hook argument"]
    assert all((one.since, one.removed_in) == ("1.2", "2.0") for one in declared())


def test_nothing_in_core_is_past_the_version_of_its_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when core's version reaches a removal: delete the old form then."""
    monkeypatch.setattr(deprecation, "_declared", CORE_S_OWN)
    for module in pkgutil.walk_packages(atb_core.__path__, "atb_core."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert [str(one) for one in declared() if one.overdue(atb_core.__version__)] == []
