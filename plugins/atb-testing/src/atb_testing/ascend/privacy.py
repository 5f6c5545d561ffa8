# SPDX-License-Identifier: Apache-2.0
"""Takes out of a report what names a person, a machine or its folders."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import atb_core

#: Names that say nothing, and would take words out of messages.
_COMMON = frozenset({"root", "localhost", "localhost.localdomain", "user", "atb", "ascend", "npu"})
_SHORTEST = 3
_HOMES = re.compile(r"/(?:home|Users|root)(?:/[^/\s'\":,;)]+)?")
_PACKAGES = re.compile(r"[^\s'\"]*/(?:site|dist)-packages/")


class Anonymizer:
    """Replaces folders, the user's name and the host's in texts.

    Args:
        secrets: further texts, such as the path of a model, by what takes their place.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        source = Path(atb_core.__file__).resolve().parent.parent
        folders = [
            *secrets,
            (str(source), "SOURCE"),
            (os.path.realpath(tempfile.gettempdir()), "TMP"),
            (tempfile.gettempdir(), "TMP"),
            (os.getcwd(), "."),
            (os.path.expanduser("~"), "~"),
            (os.path.realpath(os.path.expanduser("~")), "~"),
        ]
        # A folder inside another one must go first.
        self._folders = sorted((one for one in folders if len(one[0]) > 1), key=lambda one: -len(one[0]))
        host = platform.node()
        names = [(host, "HOST"), (host.partition(".")[0], "HOST")]
        names += [(os.environ.get(variable, ""), "USER") for variable in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")]
        self._names = [
            (re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])"), substitute)
            for name, substitute in names
            if len(name) >= _SHORTEST and name.lower() not in _COMMON
        ]

    def text(self, value: str) -> str:
        """Returns a text without them."""
        value = _PACKAGES.sub("PACKAGES/", value)
        for folder, substitute in self._folders:
            value = value.replace(folder, substitute)
        value = _HOMES.sub("~", value)
        for name, substitute in self._names:
            value = name.sub(substitute, value)
        return value

    def clean(self, value: Any) -> Any:
        """Returns a copy of a JSON value whose texts, keys included, are without them."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(item) for item in value]
        return value
