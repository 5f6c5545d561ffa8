# SPDX-License-Identifier: Apache-2.0
"""Defines `FamilyTests`, the base class of a family's tests, which has every standard test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from atb_core.errors import PluginError
from atb_testing.capabilities import Capability
from atb_testing.cases import BASE, CAPABILITY_CASES, SHAPE_CASES
from atb_testing.claims import needed_by, unclaimed, unclaimed_reason
from atb_testing.conformance import torch_threads
from atb_testing.definition import FamilyDefinition
from atb_testing.driver import available_backends
from atb_testing.overriding import GUARD, override_reasons
from atb_testing.suite.graphs import GraphTests
from atb_testing.suite.numbers import NumberTests
from atb_testing.suite.package import PackageTests
from atb_testing.suite.text import TextTests
from atb_testing.suite.weights import WeightTests

#: Types that every family runs in.
DTYPES = ("float32", "bfloat16")


class FamilyTests(FamilyDefinition, PackageTests, GraphTests, WeightTests, NumberTests, TextTests):
    """The conformance kit of one model type: derive, set `model_type`, claim capabilities, add what is special.

        class TestFoo(FamilyTests):
            model_type = "foo"
            config = {"foo_bias": True}
            cases = {"no bias": {"foo_bias": False}}
            capabilities = frozenset({Capability.TIED_EMBEDDINGS})

    Own tests of the subclass may use the arguments `atb_lab` (checkpoints, models, Hugging Face's logits; see
    `atb_testing.lab.Lab`), `dtype`, `backend` and `case`, and then run once for each of them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if GUARD in cls.__dict__:
            raise PluginError(
                f"{cls.__name__} replaces {GUARD}, which finds silent overrides", hint="Remove it from the class."
            )

    @pytest.fixture(autouse=True)
    def _atb_skips_what_is_not_claimed(self, request: pytest.FixtureRequest) -> None:
        capability = needed_by(request.function)
        if capability is not None and capability not in self.capabilities:
            pytest.skip(unclaimed_reason(self.model_type, capability))

    @pytest.fixture(autouse=True)
    def _atb_one_thread_of_torch(self) -> Iterator[None]:
        with torch_threads(1):
            yield

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Sets the values of `case`, `dtype` and `backend`, unless the test's own marker does."""
        marked = {
            name.strip()
            for mark in metafunc.definition.iter_markers("parametrize")
            for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
        }
        wanted = [n for n in ("case", "dtype", "backend") if n in metafunc.fixturenames and n not in marked]
        if wanted:
            metafunc.parametrize(wanted, _parameters(type(self), wanted))

    def test_no_standard_test_is_silently_overridden(self) -> None:
        """Checks that every replaced standard test has a reason."""
        silent = [name for name, reason in override_reasons(type(self), FamilyTests).items() if reason is None]
        assert not silent, (
            f"{type(self).__name__} replaces {', '.join(silent)} of the kit; give the method another name, "
            'or give the reason with @overrides("reason") from atb_testing'
        )


def _parameters(family: type[FamilyTests], wanted: Sequence[str]) -> list[Any]:
    if not family.model_type:
        raise PluginError(f"{family.__name__} sets no model_type", hint='Write model_type = "..." in the class.')
    backends = available_backends() if "backend" in wanted else [""]
    parameters = []
    for case, unclaimed_case in _cases(family) if "case" in wanted else [(BASE, None)]:
        dtypes = _dtypes(family, case) if "dtype" in wanted else [("", None)]
        for dtype, unclaimed_dtype in dtypes:
            missing = unclaimed_case or unclaimed_dtype
            if missing is not None:
                parameters.append(_unclaimed(family, wanted, case, dtype, missing))
                if unclaimed_case:
                    break
                continue
            for backend in backends:
                values = {"case": case, "dtype": dtype, "backend": backend}
                parameters.append(pytest.param(*(values[n] for n in wanted), id="-".join(values[n] for n in wanted)))
    return parameters


def _cases(family: type[FamilyTests]) -> list[tuple[str, Capability | None]]:
    """Lists the cases, each with the unclaimed capability that it needs; of several such cases only the first."""
    cases: list[tuple[str, Capability | None]] = [(name, None) for name in (BASE, *SHAPE_CASES)]
    for capability, standard in CAPABILITY_CASES.items():
        if capability in family.capabilities:
            cases += [(name, None) for name in standard]
        else:
            cases.append((next(iter(standard)), capability))
    return [*cases, *((name, None) for name in family.cases)]


def _dtypes(family: type[FamilyTests], case: str) -> list[tuple[str, Capability | None]]:
    dtypes: list[tuple[str, Capability | None]] = [(dtype, None) for dtype in DTYPES]
    if case == BASE:
        dtypes.append(("float16", None if Capability.FLOAT16 in family.capabilities else Capability.FLOAT16))
    return dtypes


def _unclaimed(family: type[FamilyTests], wanted: Sequence[str], case: str, dtype: str, capability: Capability) -> Any:
    values = {"case": case, "dtype": dtype, "backend": "none"}
    mark = unclaimed(family.model_type, capability)
    return pytest.param(*(values[n] for n in wanted), id=f"not claimed: {capability.value}", marks=mark)
