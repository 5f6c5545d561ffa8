# SPDX-License-Identifier: Apache-2.0
"""`ModelRunner(graph=)` finds who writes graphs by a hook, and says which package to install where nobody does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hook_plugins import Site, site

import atb_core
from atb_core import ModelRunner
from atb_core.errors import BackendUnavailableError, PluginError
from atb_core.models.graph_builders import GraphBuilder, graph_builder
from atb_core.names import pip_install
from atb_core.plugins import hookimpl, register_hooks

__all__ = ["site"]


class Writer:
    """Stands for a package whose graphs are written by other means."""

    @staticmethod
    @hookimpl
    def atb_graph_builders() -> list[GraphBuilder]:
        return [GraphBuilder("cpp", lambda model_type, config: lambda model: model.variants)]


def test_a_graph_that_no_plugin_writes_is_refused_before_any_file_is_opened(site: Site) -> None:
    with pytest.raises(BackendUnavailableError, match="graph='cpp' needs the package atb-cpp-models") as caught:
        ModelRunner("nowhere", graph="cpp")
    left_out = "`atb plugins list` says what is left out."
    assert caught.value.hint == f"{pip_install('atb-cpp-models')}; {left_out} Or use graph='python'."


def test_a_plugin_that_could_not_be_used_is_named(site: Site) -> None:
    site.install("atb-broken", "raise RuntimeError('broken on purpose')\n")
    with pytest.raises(BackendUnavailableError, match=r"atb-broken 1\.0"):
        graph_builder("cpp")


def test_one_plugin_at_a_time_writes_graphs_under_a_name(site: Site) -> None:
    register_hooks(Writer, "first")
    assert graph_builder("cpp").prepare("any", None)(SimpleModel()) == "recorded"  # type: ignore[arg-type]
    register_hooks(Writer, "second")
    with pytest.raises(PluginError, match="graph='cpp' comes from several plugins: first and second"):
        graph_builder("cpp")


class SimpleModel:
    variants = "recorded"


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "atb_cpp_models":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from atb_core import *

print(ModelRunner.__name__)
for line in ("from atb_core import ModelTorch", "from atb_core import load_native_library"):
    try:
        exec(line)
    except ImportError as error:
        print(error)
"""


def test_the_names_of_atb_models_say_which_package_has_them(tmp_path: Path) -> None:
    names = ("ModelTorch", "load_native_library")
    assert {getattr(atb_core, name).__module__.partition(".")[0] for name in names} == {"atb_cpp_models"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True, cwd=tmp_path)
    reason = f"is in the distribution atb-cpp-models, which is not installed: {pip_install('atb-cpp-models')}"
    assert done.stdout.splitlines() == ["ModelRunner", *(f"{name} {reason}" for name in names)]
