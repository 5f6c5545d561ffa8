# SPDX-License-Identifier: Apache-2.0
"""Writes the package of a new model family from a template: what `atb plugins new` does."""

from __future__ import annotations
