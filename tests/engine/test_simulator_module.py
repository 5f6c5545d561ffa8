# SPDX-License-Identifier: Apache-2.0
"""The simulator's module comes from the distribution atb-sim, and has to be built for this version of atb_core."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

import atb_ascend.backend as atb
from atb_ascend.backend import check_interface
from atb_core.engine import MAKERS, get_backend
from atb_core.engine.native import INTERFACE_VERSION
from atb_core.errors import BackendUnavailableError
from atb_core.names import pip_install

INTERFACE_HEADER = Path(__file__).parents[2] / "csrc" / "bindings" / "interface.h"


def test_without_atb_sim_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atb_sim", None)
    monkeypatch.delitem(sys.modules, "atb_sim._atb_sim", raising=False)
    with pytest.raises(
        BackendUnavailableError, match="needs the distribution atb-sim, which is not installed"
    ) as error:
        get_backend("atb-sim")
    assert error.value.hint is not None
    assert pip_install("atb-sim") in error.value.hint


@pytest.mark.parametrize("version", [None, INTERFACE_VERSION + 1])
def test_a_module_that_is_built_for_another_interface_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: int | None
) -> None:
    package, module = types.ModuleType("atb_sim"), types.ModuleType("atb_sim._atb_sim")
    if version is not None:
        module.INTERFACE_VERSION = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "atb_sim", package)
    monkeypatch.setitem(sys.modules, "atb_sim._atb_sim", module)
    expected = f"atb_sim._atb_sim is built for another version of atb_core: it has interface {version}, and"
    with pytest.raises(BackendUnavailableError, match=re.escape(expected)):
        atb.load_simulator()


def test_a_module_of_this_interface_is_accepted() -> None:
    check_interface(types.SimpleNamespace(__name__="module", INTERFACE_VERSION=INTERFACE_VERSION), "")


def test_the_sources_of_the_modules_have_the_same_number() -> None:
    match = re.search(r"kInterfaceVersion = (\d+);", INTERFACE_HEADER.read_text(encoding="utf-8"))
    assert match is not None
    assert int(match[1]) == INTERFACE_VERSION


def test_without_atb_ascend_the_backend_for_a_card_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MAKERS, "all", list)
    with pytest.raises(BackendUnavailableError, match="needs the package atb-ascend, which is not installed") as caught:
        get_backend("atb")
    assert caught.value.hint == f"{pip_install('atb-ascend')}; `atb plugins list` says what is left out."
