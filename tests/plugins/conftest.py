# SPDX-License-Identifier: Apache-2.0
"""Gives the tests of plugins their fixtures."""

from site_directory import settings_file, site

__all__ = ["settings_file", "site"]
