# SPDX-License-Identifier: Apache-2.0
"""A command that a package of the project brings names the package where it cannot be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atb_cli import main, plugin_commands
from atb_cli.plugin_commands import KNOWN_COMMANDS
from atb_core.names import pip_install
from atb_core.plugins.scan import Installed


@pytest.fixture(autouse=True)
def _no_command_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_commands, "plugin_command", lambda name, core: None)


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str, requires: tuple[str, ...] = ()) -> None:
    """Makes `packages` the only plugins that are installed."""
    plugins = tuple(Installed(name, "0.1.0", "", Path(), (), requires) for name in packages)
    monkeypatch.setattr(plugin_commands, "installed", lambda: plugins)


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Returns the message on stderr for arguments that `atb` refuses."""
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return str(err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu", "m"], "No such command 'rnu'. Did you mean run?"),
        (["shwo"], "Did you mean show?"),
        (["verfy"], "Did you mean verify?"),
        (["help"], "Did you mean atb --help?"),
        (["ls"], "Did you mean atb models?"),
        (["srve"], "Did you mean serve?"),
        (["plugins", "doctro"], "Did you mean doctor?"),
        (["bench", "latnecy"], "Did you mean latency?"),
        (["bench", "model.gguf"], "There are: latency, throughput, serve."),
    ],
    ids=str,
)
def test_a_command_that_does_not_exist_is_answered_with_one_that_does(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("command", "requirement"), KNOWN_COMMANDS.items())
def test_without_the_package_the_next_step_is_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, requirement: str
) -> None:
    installed(monkeypatch, "atb-other")
    package = requirement.partition("[")[0]
    message = f"error: `atb {command}` comes with {package}, which is not installed\n"
    message += f"next: {pip_install(requirement)}\n"
    assert error(capsys, *command.split(), "model") == message


def test_a_package_that_is_left_out_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, "atb-testing")
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-testing")
    assert "comes with atb-testing, which is disabled by ATB_NO_PLUGINS" in error(capsys, "verify", "model")


def test_a_package_without_its_dependency_names_the_dependency(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, "atb-testing", requires=("no-such-library>=1",))
    message = error(capsys, "verify", "model")
    assert "comes with atb-testing, which requires no-such-library>=1, which is not installed" in message
    assert "pip install 'no-such-library>=1'" in message


def test_a_package_that_offers_nothing_sends_to_the_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, "atb-testing")
    message = error(capsys, "verify", "model")
    assert "comes with atb-testing, which is installed but has no such command" in message
    assert "atb plugins doctor" in message


def test_completion_of_an_argument_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    context: Any = SimpleNamespace(resilient_parsing=True)
    assert plugin_commands.CommandGroup(modules={}).get_command(context, "verify") is None
