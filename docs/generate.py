# SPDX-License-Identifier: Apache-2.0
"""Writes the pages that are generated from the code.

`api.md` describes the public modules, `cli.md` the commands, and `ops.md` the registry of ops with the table of the
Ascend backend. Run it after a change of any; a test fails while a page is stale.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "tools"))

from api_listing import api_page, described_names  # noqa: E402 - from tools/

_NOTE = "<!-- Written by docs/generate.py; change the code instead. -->"


def cli_page() -> str:
    """Every command with its options."""
    from atb_core.cli.app import COMMANDS, app
    from atb_core.cli.errors import __doc__ as statuses
    from atb_core.cli.plugin_commands import KNOWN_COMMANDS

    context = click.Context(app, info_name="atb")
    parts = ["# Commands", _NOTE, _paragraphs(app.help), _options(app, context)]
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        parts += _command(command, f"atb {name}", "##")
    for name, package in KNOWN_COMMANDS.items():
        command = app.get_command(context, name)
        assert command is not None
        section = _command(command, f"atb {name}", "##")
        parts += [section[0], f"Needs the package `{package}`.", *section[1:]]
    assert statuses is not None
    parts += ["## Exit status", inspect.cleandoc(statuses).split("\n\n", 1)[1]]
    parts.append(
        "An error is one paragraph on stderr and the next step; `--traceback` or `ATB_TRACEBACK=1` shows more."
    )
    parts.append('Completion for a shell: `eval "$(_ATB_COMPLETE=bash_source atb)"` (or `zsh_source`, `fish_source`).')
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, name: str, heading: str) -> list[str]:
    """The sections of a command and, of a group, those of its commands."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"{heading} {name}", f"```text\n{usage}\n```", _paragraphs(command.help), _options(command, context)]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            assert subcommand is not None
            parts += _command(subcommand, f"{name} {child}", f"{heading}#")
    return parts


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def _options(command: click.Command, context: click.Context) -> str:
    rows = ["| option | |", "|---|---|"]
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and param.param_type_name == "option" and "--help" not in param.opts:
            flags, text = (part.replace("|", "\\|") for part in record)
            rows.append(f"| `{flags}` | {text} |")
    return "\n".join(rows)


def ops_page() -> str:
    """Every op with its attributes, inputs, engines, and what it becomes on Ascend."""
    import atb_core.graph.ops  # noqa: F401 - registers them
    from atb_core.graph.op import registered_ops

    # Ops of plugins may have been imported too; they are not core's to document.
    ops = {name: op for name, op in sorted(registered_ops().items()) if not op.namespace}
    rules = _ascend_rules()
    without = ", ".join(f"[{name}](#{name.lower()})" for name, op in ops.items() if "atb" not in op.backends)
    parts = [
        "# Ops",
        _NOTE,
        "What networks are made of. Names and attributes follow ATB's, in snake case. An input with an exclamation "
        "mark is written in place.",
        "`atb` is [Ascend](ascend.md): there an op becomes operations of ATB. The types are those of its first input "
        "on an Atlas A2; an Atlas 300I Duo (310P) has no bfloat16. What a limit excludes is refused when the engine "
        "is built, by name.",
        f"Without an operation on ATB, and refused there: {without}.",
    ]
    for name, op in ops.items():
        attributes = [
            f"`{field.name}`" + ("" if field.default is dataclasses.MISSING else f" = {_value(field.default)}")
            for field in dataclasses.fields(op)  # type: ignore[arg-type]
        ]
        labels = op.input_names if isinstance(op.input_names, tuple) else ("depend on the attributes",)
        inputs = [f"{label}!" if index in op.writes else label for index, label in enumerate(labels)]
        rows = [
            ("attributes", ", ".join(attributes) or "none"),
            ("inputs", ", ".join(inputs)),
            ("engines", ", ".join(sorted(op.backends))),
            *(_ascend_rows(name, rules) if "atb" in op.backends else []),
        ]
        parts += [f"## {name}", _paragraphs(op.__doc__)]
        parts.append("\n".join(["| | |", "|---|---|", *(f"| {title} | {cell} |" for title, cell in rows)]))
    parts += ["## Functions", "`atb_core.nn.functional`:", described_names("atb_core.nn.functional", {})]
    return "\n\n".join(parts) + "\n"


def _ascend_rules() -> dict[str, dict[str, Any]]:
    """The Ascend backend's table by op. The simulator is built from the same code as the backend for devices."""
    from atb_core.engine.atb import load_simulator

    return {rule["op"]: rule for rule in load_simulator().op_rules()}


def _ascend_rows(name: str, rules: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    if name == "Reshape":
        return [("on ATB", "no operation: the tensor is read in another shape")]
    rule = rules[name]
    rows = [("on ATB", rule["becomes"]), ("types on ATB", ", ".join(rule["types"]))]
    return [*rows, ("limits on ATB", rule["limits"])] if rule["limits"] else rows


def _value(value: object) -> str:
    return f"`{getattr(value, 'value', value)}`"


PAGES = {"api.md": api_page, "cli.md": cli_page, "ops.md": ops_page}


def main() -> None:
    """Writes all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
