# SPDX-License-Identifier: Apache-2.0
"""`atb models`: the models that were fetched to this machine."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atb_cli.output import json_option, note, say, size_text, table
from atb_core.errors import AtbError
from atb_core.plugins.registry import registry

if TYPE_CHECKING:
    from atb_core.checkpoint import StoredModel


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the models in the caches of this machine: what opens each, its family and its size.

    The caches are those of the hub (HF_HOME) and of other sources; models in other directories are not looked for.
    `atb list` lists the families that can run.
    """
    from atb_core.checkpoint import stored_models

    facts = [_facts(model) for _, model in stored_models()]
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    elif facts:
        rows = [
            [str(each[key] or "-") for key in ("model", "model_type", "package")]
            + [size_text(float(str(each["bytes"]))), str(each["revision"])[:8] or "-", str(each["path"])]
            for each in facts
        ]
        say(table(("MODEL", "MODEL TYPE", "PACKAGE", "SIZE", "REVISION", "PATH"), rows))
    else:
        note("no models in the caches; `atb pull MODEL` fetches one")


def _facts(model: StoredModel) -> dict[str, object]:
    model_type = _model_type(model.path)
    winner = registry().resolve(model_type).winner if model_type else None
    return {
        "model": model.reference,
        "model_type": model_type,
        "package": winner.distribution if winner else None,
        "bytes": model.nbytes,
        "revision": model.revision,
        "path": str(model.path),
    }


def _model_type(path: Path) -> str | None:
    """Returns the type that a family serves; `None` for a model that is damaged, or was fetched in part."""
    from atb_core.checkpoint import open_checkpoint

    with suppress(AtbError, OSError):
        return open_checkpoint(path).model_type({family.model_type for family in registry().families()})
    return None
