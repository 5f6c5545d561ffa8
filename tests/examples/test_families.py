# SPDX-License-Identifier: Apache-2.0
"""The families of `examples/` pass the kit on every engine; the page that builds atb-olmo2 runs that one's."""

from __future__ import annotations

from pathlib import Path

import packages
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("atb-gemma3", "TestGemma3"),
        pytest.param("atb-gemma3", "TestGemma2", marks=pytest.mark.slow),
        ("atb-glm4", "TestGlm4"),
    ],
)
def test_a_family_passes_the_kit(name: str, family: str, tmp_path: Path) -> None:
    packages.install(EXAMPLES / name, tmp_path / "site")
    result = packages.run_kit(EXAMPLES / name, tmp_path, "-k", family)
    assert result.returncode == 0, result.stdout + result.stderr
