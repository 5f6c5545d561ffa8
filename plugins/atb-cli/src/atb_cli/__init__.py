# SPDX-License-Identifier: Apache-2.0
"""The command line `atb`: a module for each command, none of which imports torch before a model is used."""

from __future__ import annotations

from atb_cli.app import main

__all__ = ["main"]
