# SPDX-License-Identifier: Apache-2.0
"""`atb list`: every installed family, by what its package says of itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[..., Any]


def test_an_installed_family_is_listed_with_package_and_version(atb: Run, tiny: Any) -> None:
    lines = [line.split() for line in atb("list").out.splitlines()]
    assert ["tiny", "atb-tiny", "1.2.3", "Tiny", "models"] in lines


def test_json_says_where_the_classes_are(atb: Run, tiny: Any) -> None:
    [family] = [f for f in json.loads(atb("list", "--json").out) if f["model_type"] == "tiny"]
    assert family["objects"]["atb_core.routers"] == "tiny_family:TinyRouter"


def test_listing_does_not_import_the_family(atb: Run, tiny: Any) -> None:
    module = sys.modules.pop("tiny_family")
    atb("list")
    assert "tiny_family" not in sys.modules
    sys.modules["tiny_family"] = module
