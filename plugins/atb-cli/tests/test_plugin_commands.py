# SPDX-License-Identifier: Apache-2.0
"""Commands of plugins are found when they are asked for, and never stand in for core's."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hook_plugins import Site, failures, site

from atb_cli import main

__all__ = ["site"]

COMMAND = """
    import click
    from atb_core.errors import RequestError
    from atb_core.plugins import hookimpl

    @click.command("{name}")
    @click.argument("what", default="world")
    def command(what):
        '''Greets.'''
        if what == "nobody":
            raise RequestError("there is nobody", hint="Name somebody.")
        if what == "bug":
            raise KeyError("greeting")
        click.echo(f"hello {{what}}")

    @click.group("{name}-all")
    def group():
        pass

    group.add_command(command, "greet")

    @hookimpl
    def atb_cli_commands():
        return [command, group]
"""
Atb = Callable[..., tuple[int, str, str]]


@pytest.fixture
def atb(site: Site, capsys: pytest.CaptureFixture[str]) -> Atb:
    """Runs `atb`: its status, what it printed, and what it said on stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        status = main(args)
        return (status, *capsys.readouterr())

    return run


def test_a_command_of_a_plugin_runs_with_its_arguments(site: Site, atb: Atb) -> None:
    site.install("atb-hello", COMMAND.format(name="hello"))
    assert atb("hello", "there") == (0, "hello there\n", "")
    assert atb("hello-all", "greet") == (0, "hello world\n", "")
    status, out, _ = atb("hello", "--help")
    assert status == 0 and out.startswith("Usage: atb hello") and "Greets." in out


@pytest.mark.parametrize("group", ["plugins", "bench"])
def test_a_name_that_begins_with_a_groups_joins_that_group(site: Site, atb: Atb, group: str) -> None:
    site.install("atb-hello", COMMAND.format(name=f"{group} greet"))
    site.install("atb-other", COMMAND.format(name=f"{group} other"))
    assert atb(group, "greet", "there") == (0, "hello there\n", "")
    assert atb(group, "other") == (0, "hello world\n", "")
    status, out, _ = atb(group, "greet", "--help")
    assert status == 0 and out.startswith(f"Usage: atb {group} greet")
    assert atb("greet")[0] == 2


def test_a_command_of_core_in_that_group_is_not_replaced(
    site: Site, atb: Atb, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("atb-hello", COMMAND.format(name="plugins list"))
    assert "hello" not in atb("plugins", "list")[1].replace("atb-hello", "").replace("atb_hello", "")
    assert atb("plugins", "absent")[0] == 2
    assert "`atb plugins list` is a command of atb-cli" in caplog.text


def test_commands_of_core_load_no_plugin(site: Site, atb: Atb) -> None:
    module = site.install("atb-hello", COMMAND.format(name="hello"))
    assert atb("version")[0] == 0
    assert atb("--help")[0] == 0
    assert module not in sys.modules


def test_help_ends_with_the_packages_that_may_add_commands(
    site: Site, atb: Atb, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "may add commands" not in atb("--help")[1]
    site.install("atb-hello", COMMAND.format(name="hello"), version="2.1")
    assert atb("--help")[1].endswith("\nPackages that may add commands: atb-hello 2.1.\n")
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-hello")
    assert "may add commands" not in atb("--help")[1]


def test_an_unknown_command_is_one_with_plugins_too(site: Site, atb: Atb) -> None:
    site.install("atb-hello", COMMAND.format(name="hello"))
    status, _, err = atb("hullo")
    assert status == 2
    assert "No such command 'hullo'" in err


def test_a_plugin_that_is_left_out_has_no_command(site: Site, atb: Atb, monkeypatch: pytest.MonkeyPatch) -> None:
    module = site.install("atb-hello", COMMAND.format(name="hello"))
    monkeypatch.setenv("ATB_NO_PLUGINS", "all")
    assert atb("hello")[0] == 2
    assert module not in sys.modules


def test_a_plugin_cannot_shadow_a_command_of_core(site: Site, atb: Atb, caplog: pytest.LogCaptureFixture) -> None:
    site.install("atb-greedy", COMMAND.format(name="version"))
    status, out, _ = atb("version")
    assert status == 0 and "hello" not in out
    assert atb("version-all", "greet")[:2] == (0, "hello world\n")
    (record,) = failures()
    assert record.reason.startswith("the command 'version' of the plugin atb-greedy 1.0 is left out")
    assert "`atb version` is a command of atb-cli" in caplog.text


def test_shadowing_is_an_error_in_strict_mode(site: Site, atb: Atb, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("atb-greedy", COMMAND.format(name="version"))
    monkeypatch.setenv("ATB_STRICT", "1")
    status, _, err = atb("version-all")
    assert status == 1
    assert "the command 'version' of the plugin atb-greedy 1.0" in err


def test_two_plugins_with_one_command_are_both_named(site: Site, atb: Atb) -> None:
    site.install("atb-a", COMMAND.format(name="hello"))
    site.install("atb-b", COMMAND.format(name="hello"))
    status, _, err = atb("hello")
    assert status == 1
    assert "the command 'hello' comes from several plugins: atb-a 1.0 and atb-b 1.0" in err


def test_an_error_for_people_stays_one_and_a_bug_is_the_plugins(site: Site, atb: Atb) -> None:
    site.install("atb-hello", COMMAND.format(name="hello"))
    assert atb("hello", "nobody") == (1, "", "error: there is nobody\nnext: Name somebody.\n")
    status, _, err = atb("hello", "bug")
    assert status == 1
    assert "the plugin atb-hello 1.0 failed: KeyError: 'greeting' (" in err and "atb_hello.py, line 13)" in err
    assert "bug in atb" not in err
