# SPDX-License-Identifier: Apache-2.0
"""With 200 plugins installed, 20 of them broken in different ways, the others work and the broken ones are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from synthetic import Flaw, Synthetic, install

COMMAND = "import sys; from atb_cli import main; status = main(sys.argv[1:]); "


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Synthetic], dict[str, str]]:
    """Returns the plugins, and an environment in which they are installed and no setting of the machine counts."""
    folder = tmp_path_factory.mktemp("crowd")
    plugins, path = install(folder / "site", 200)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ATB_")}
    return plugins, {**plain, "PYTHONPATH": os.pathsep.join(map(str, path)), "XDG_CONFIG_HOME": str(folder / "config")}


def python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def working(plugins: list[Synthetic]) -> list[Synthetic]:
    return [plugin for plugin in plugins if plugin.flaw is None or not plugin.flaw.broken]


def test_there_are_enough_of_both_kinds(crowd: tuple[list[Synthetic], dict[str, str]]) -> None:
    plugins, _ = crowd
    assert len(plugins) == 200
    assert len(plugins) - len(working(plugins)) >= 20


def test_every_working_family_is_found_and_imported(crowd: tuple[list[Synthetic], dict[str, str]]) -> None:
    plugins, environment = crowd
    types = [plugin.model_type for plugin in working(plugins)]
    code = (
        "import sys; from atb_core.plugins.registry import ROUTERS, load\n"
        "for model_type in sys.argv[1:]: print(load(ROUTERS, model_type).__module__)"
    )
    done = python(environment, "-c", code, *types)
    assert done.returncode == 0, done.stderr
    owners = [name.partition(".")[0] for name in done.stdout.split()]
    assert owners == [plugin.module for plugin in working(plugins)]


@pytest.mark.parametrize("arguments", [["list"], ["plugins", "list"], ["--help"]], ids=" ".join)
def test_listing_imports_neither_plugins_nor_torch(
    crowd: tuple[list[Synthetic], dict[str, str]], arguments: list[str]
) -> None:
    plugins, environment = crowd
    report = "print('IMPORTED', *[n for n in sys.modules if n.startswith('atb_synthetic') or n == 'torch'])"
    done = python(environment, "-c", COMMAND + report, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "IMPORTED"
    if arguments != ["--help"]:
        assert all(plugin.distribution in done.stdout for plugin in working(plugins))


@pytest.mark.timeout(600)
def test_doctor_names_every_broken_plugin_and_why(crowd: tuple[list[Synthetic], dict[str, str]]) -> None:
    plugins, environment = crowd
    flawed = [(one, one.flaw) for one in plugins if one.flaw is not None and one.flaw.name != "torch at import"]
    # Each import takes a process. Of the 200 that are reported, the flawed and ten that work are imported.
    imported = ",".join(plugin.distribution for plugin in (*working(plugins)[:10], *(plugin for plugin, _ in flawed)))
    # Several imports never end, so the limit is short; one that brings torch may take longer and has a test of its own.
    status, report = doctor({**environment, "ATB_PLUGINS": imported}, "--timeout", "10")
    assert status == 1
    assert all(_of(report, plugin) for plugin in plugins)
    for plugin, flaw in flawed:
        check_report(report, plugin, flaw)


def test_doctor_tells_of_a_plugin_that_imports_torch(crowd: tuple[list[Synthetic], dict[str, str]]) -> None:
    plugins, environment = crowd
    (flawed,) = [(one, one.flaw) for one in plugins if one.flaw is not None and one.flaw.name == "torch at import"]
    status, report = doctor(environment, "--timeout", "200", flawed[0].distribution)
    assert status == 0
    check_report(report, *flawed)


def doctor(environment: dict[str, str], *arguments: str) -> tuple[int, object]:
    """Returns the exit status and the report of `atb plugins doctor`."""
    done = python(environment, "-c", COMMAND + "sys.exit(status)", "plugins", "doctor", "--json", *arguments)
    return done.returncode, json.loads(done.stdout)


def check_report(report: object, plugin: Synthetic, flaw: Flaw) -> None:
    text = json.dumps(_of(report, plugin), ensure_ascii=False)
    for words in flaw.says:
        assert words in text, (flaw.name, text)


def _of(report: object, plugin: Synthetic) -> list[object]:
    """Returns the entries of a report that name a plugin."""
    rows = report["plugins"] if isinstance(report, dict) else report
    assert isinstance(rows, list)
    return [row for row in rows if plugin.distribution in json.dumps(row)]


def test_damaged_metadata_does_not_keep_torch_from_being_imported(
    crowd: tuple[list[Synthetic], dict[str, str]],
) -> None:
    plugins, environment = crowd
    code = "import sys; from atb_core.plugins.registry import MODELS, load; load(MODELS, sys.argv[1]); "
    code += "import torch; print('torch' in sys.modules)"
    done = python(environment, "-c", code, working(plugins)[0].model_type)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0 is set" in done.stderr
    alone = python(environment, "-c", "import torch")
    assert alone.returncode != 0, "torch reads damaged metadata by now: protect_torch_import is not needed any more"
