# SPDX-License-Identifier: Apache-2.0
"""`atb cache`: the files of packed weights on this machine."""

from __future__ import annotations

import json

import click

from atb_cli.line_input import confirmed
from atb_cli.output import json_option, note, say, size_text, table
from atb_core.errors import ModelNotFoundError
from atb_core.settings import settings


@click.command()
@click.argument("names", nargs=-1, metavar="[FILE]...")
@click.option("--remove", is_flag=True, help="Remove the files instead, without FILE all of them; asks first.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def command(names: tuple[str, ...], remove: bool, yes: bool, as_json: bool) -> None:
    """List the files of packed weights that `--cache-packed` keeps, with their sizes, or remove them.

    They are in the user's cache, or in the directory that the settings name. A process that runs a model goes on with
    a file that is removed.
    """
    from atb_core.models.runtime.packed_weights import packed_folder, stored_files

    folder = packed_folder(settings().cache_packed or True)
    assert folder is not None
    stored = stored_files(folder)
    files = [file for file in stored if not names or file.name in names]
    if unknown := set(names) - {file.name for file in stored}:
        raise ModelNotFoundError(f"{folder} has no file {min(unknown)!r}", hint="`atb cache` lists what is there.")
    sizes = {file: file.stat().st_size for file in files}
    if remove:
        total = f"{len(files)} files of packed weights, {size_text(sum(sizes.values()))} in {folder}"
        if files and not yes and not confirmed(f"Remove {total}?"):
            raise click.Abort
        for file in files:
            file.unlink(missing_ok=True)
        note(f"removed {total}")
    elif as_json:
        click.echo(json.dumps([{"path": str(file), "bytes": size} for file, size in sizes.items()], indent=2))
    elif files:
        say(table(("FILE", "SIZE"), [[file.name, size_text(float(size))] for file, size in sizes.items()]))
        note(f"{size_text(sum(sizes.values()))} in {folder}")
    else:
        note(f"no packed weights in {folder}; --cache-packed keeps them")
