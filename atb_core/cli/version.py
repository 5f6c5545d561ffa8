# SPDX-License-Identifier: Apache-2.0
"""`atb version`: what is installed, for a bug report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys

import click


def version_line() -> str:
    """`atb 0.1.0`."""
    return f"atb {_version('atb-core')}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Print the versions of atb, its engine's host and what it relies on."""
    facts = {
        "atb-core": _version("atb-core"),
        "atb-sim": _version("atb-sim"),
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in ("torch", "transformers", "tokenizers", "safetensors", "gguf")},
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")
