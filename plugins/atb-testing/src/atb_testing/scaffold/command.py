# SPDX-License-Identifier: Apache-2.0
"""`atb plugins new`: the package of a new model family."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from atb_cli.output import note
from atb_core.plugins.registry import registry
from atb_testing.scaffold.names import LIKES, derive_names
from atb_testing.scaffold.write import write_package

_LIKES = "; ".join(f"{name}: {text}" for name, text in LIKES.items())


@click.command("plugins new")
@click.argument("name")
@click.option("--like", type=click.Choice(list(LIKES)), help=f"The model that it resembles. {_LIKES}.")
@click.option("--model-type", help="model_type in config.json; by default the part of NAME after atb-.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False),
              help="Folder to write into; by default a new one called NAME here.")  # fmt: skip
@click.option("--author", metavar="'NAME <ADDRESS>'", help="Author in pyproject.toml.")
@click.option("--force", is_flag=True, help="Overwrite existing files; the existing package gives the defaults.")
def command(
    name: str, like: str | None, model_type: str | None, directory: Path | None, author: str | None, force: bool
) -> None:
    """Write the package of a new model family: code, tests with the conformance kit, metadata, CI.

    NAME is the distribution's name, by convention atb-MODELTYPE.
    """
    target = directory or Path(derive_names(name, model_type).distribution)
    names = write_package(name, target, like=like, model_type=model_type, author=author, force=force)
    for family in registry().families():
        if family.model_type == names.model_type and family.distribution != names.distribution:
            note(
                f"warning: model type {names.model_type} is already served by {family.package}; "
                "with both installed, plugins.prefer has to name the one to use"
            )
    click.echo(f"Wrote {names.distribution} into {target}; the model is in src/{names.package}/modeling.py. Next:\n")
    click.echo(f"  cd {shlex.quote(str(target))}\n  pip install -e '.[test]'\n  pytest")
