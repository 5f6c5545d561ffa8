# SPDX-License-Identifier: Apache-2.0
"""Writes the pages that come from the code: `cli.md` from the commands, `ops.md` from the registry of ops.

Run it after a change of either; a test fails while a page is stale.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import click

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by docs/generate.py; change the code instead. -->"


def cli_page() -> str:
    """Every command with its options."""
    from atb_core.cli.app import COMMANDS, app
    from atb_core.cli.errors import __doc__ as statuses

    context = click.Context(app, info_name="atb")
    parts = ["# Commands", _NOTE, _paragraphs(app.help), _options(app, context)]
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        parts += _command(command, f"atb {name}", "##")
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
            found = command.get_command(context, child)
            assert found is not None
            parts += _command(found, f"{name} {child}", f"{heading}#")
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
    """Every op with its attributes, inputs and engines."""
    import atb_core.graph.ops  # noqa: F401 - registers them
    from atb_core.graph.op import registered_ops

    parts = [
        "# Ops",
        _NOTE,
        "What networks are made of. Names and attributes follow ATB's, in snake case. An input with an exclamation "
        "mark is written in place.",
    ]
    # Ops of plugins may have been imported too; they are not core's to document.
    ops = {name: op for name, op in registered_ops().items() if not op.namespace}
    for name in sorted(ops):
        op = ops[name]
        attributes = [
            f"`{field.name}`" + ("" if field.default is dataclasses.MISSING else f" = {_value(field.default)}")
            for field in dataclasses.fields(op)  # type: ignore[arg-type]
        ]
        labels = op.input_names if isinstance(op.input_names, tuple) else ("depend on the attributes",)
        inputs = [f"{label}!" if index in op.writes else label for index, label in enumerate(labels)]
        parts += [f"## {name}", _paragraphs(op.__doc__)]
        parts.append(
            f"| | |\n|---|---|\n| attributes | {', '.join(attributes) or 'none'} |\n"
            f"| inputs | {', '.join(inputs)} |\n| engines | {', '.join(sorted(op.backends))} |"
        )
    return "\n\n".join(parts) + "\n"


def _value(value: object) -> str:
    return f"`{getattr(value, 'value', value)}`"


PAGES = {"cli.md": cli_page, "ops.md": ops_page}


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
