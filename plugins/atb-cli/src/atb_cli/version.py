# SPDX-License-Identifier: Apache-2.0
"""`atb version`: what is installed, for a bug report."""

from __future__ import annotations

import json
import platform
import sys
from typing import Final

import click

from atb_cli.output import aligned, json_option
from atb_core.distributions import version_of
from atb_core.plugins.scan import installed

_DEPENDENCIES: Final = ("torch", "transformers", "tokenizers", "safetensors")
_ABSENT: Final = "not installed"


@click.command(short_help="Print versions, for a bug report.")
@json_option
def command(as_json: bool) -> None:
    """Print the versions of atb, Python and the packages that atb needs."""
    facts = {
        **{name: version_of(name) or _ABSENT for name in ("atb-core", "atb-cli")},
        **{one.distribution: one.version for one in installed()},
        "atb-sim": version_of("atb-sim") or _ABSENT,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version_of(name) or _ABSENT for name in _DEPENDENCIES},
    }
    click.echo(json.dumps(facts, indent=2) if as_json else aligned(facts))
