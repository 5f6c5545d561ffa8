# SPDX-License-Identifier: Apache-2.0
"""The families of `examples/` pass the kit; the page that builds atb-olmo2 runs that one's."""

from __future__ import annotations

from pathlib import Path

import packages
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


FAMILIES = [("atb-gemma3", "TestGemma3"), ("atb-glm4", "TestGlm4")]


def assert_passes(name: str, select: str, folder: Path) -> None:
    packages.install(EXAMPLES / name, folder / "site")
    result = packages.run_kit(EXAMPLES / name, folder, "-k", select)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("name", "family"), FAMILIES)
def test_a_family_passes_the_kit_on_the_cpu_in_two_types(name: str, family: str, tmp_path: Path) -> None:
    assert_passes(name, f"{family} and {packages.BRIEFLY}", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("name", "family"), [*FAMILIES, ("atb-gemma3", "TestGemma2")])
def test_a_family_passes_the_whole_kit(name: str, family: str, tmp_path: Path) -> None:
    assert_passes(name, family, tmp_path)
