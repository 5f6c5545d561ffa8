# SPDX-License-Identifier: Apache-2.0
"""Writes the package of a new model family from a template, for `atb plugins new`."""

from __future__ import annotations
