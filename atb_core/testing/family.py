# SPDX-License-Identifier: Apache-2.0
"""`FamilyTests`: the class an author derives from; it brings every standard test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from atb_core.errors import PluginError
from atb_core.testing.capabilities import Capability
from atb_core.testing.cases import BASE, CAPABILITY_CASES, SHAPE_CASES
from atb_core.testing.claims import needed_by, unclaimed, unclaimed_reason
from atb_core.testing.driver import available_backends
from atb_core.testing.overriding import GUARD, override_reasons
from atb_core.testing.suite.graphs import GraphTests
from atb_core.testing.suite.numbers import NumberTests
from atb_core.testing.suite.package import PackageTests
from atb_core.testing.suite.text import TextTests
from atb_core.testing.suite.weights import WeightTests

#: Types that every family runs in.
DTYPES = ("float32", "bfloat16")


class FamilyTests(PackageTests, GraphTests, WeightTests, NumberTests, TextTests):
    """The conformance kit of one model type: derive, set `model_type`, claim capabilities, add what is special.

        class TestFoo(FamilyTests):
            model_type = "foo"
            config = {"foo_bias": True}
            cases = {"no bias": {"foo_bias": False}}
            capabilities = frozenset({Capability.TIED_EMBEDDINGS})

    Tests of the subclass's own may use the arguments `atb_lab` (checkpoints, models, Hugging Face's logits; see
    `atb_core.testing.lab.Lab`), `dtype`, `backend` and `case`, and then run once for each of them.
    """

    #: The `model_type` of `config.json`: the name of the family's entry points and of Hugging Face's architecture.
    model_type: str = ""
    #: Fields of `config.json`, over those of a tiny decoder: 3 layers of 64, 4 heads, 2 of them for keys and values.
    config: ClassVar[Mapping[str, Any]] = {}
    #: Further configurations by name, over `config`; each gets the tests of weights and logits.
    cases: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: What the family claims. The tests of the others are skipped, and the summary says so.
    capabilities: frozenset[Capability] = frozenset()
    #: For `Capability.CHAT_TEMPLATE`: the template's source, or a directory with tokenizer_config.json.
    chat_template: ClassVar[str | None] = None
    tokenizer_directory: ClassVar[Path | str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_definition(cls)

    @pytest.fixture(autouse=True)
    def _atb_skips_what_is_not_claimed(self, request: pytest.FixtureRequest) -> None:
        capability = needed_by(request.function)
        if capability is not None and capability not in self.capabilities:
            pytest.skip(unclaimed_reason(self.model_type, capability))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Gives `case`, `dtype` and `backend` their values, unless a marker of the test's own does."""
        marked = {
            name.strip()
            for mark in metafunc.definition.iter_markers("parametrize")
            for name in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0])
        }
        wanted = [n for n in ("case", "dtype", "backend") if n in metafunc.fixturenames and n not in marked]
        if wanted:
            metafunc.parametrize(wanted, _parameters(type(self), wanted))

    def test_no_standard_test_is_silently_overridden(self) -> None:
        silent = [name for name, reason in override_reasons(type(self), FamilyTests).items() if reason is None]
        assert not silent, (
            f"{type(self).__name__} replaces {', '.join(silent)} of the kit; give the method another name, "
            'or say why with @overrides("reason") from atb_core.testing'
        )


def _check_definition(cls: type[FamilyTests]) -> None:
    name = cls.__name__
    if GUARD in cls.__dict__:
        raise PluginError(f"{name} replaces {GUARD}, which finds silent overrides", hint="Remove it from the class.")
    strangers = [item for item in cls.capabilities if not isinstance(item, Capability)]
    if strangers:
        raise PluginError(
            f"{name}.capabilities holds {strangers[0]!r}, which is no Capability",
            hint=f"Known: {', '.join(f'Capability.{item.name}' for item in Capability)}.",
        )
    taken = sorted(set(cls.cases) & {BASE, *SHAPE_CASES, *(n for c in CAPABILITY_CASES.values() for n in c)})
    if taken:
        raise PluginError(f"{name}.cases uses names of the kit's own cases: {', '.join(taken)}")


def _parameters(family: type[FamilyTests], wanted: Sequence[str]) -> list[Any]:
    if not family.model_type:
        raise PluginError(f"{family.__name__} sets no model_type", hint='Write model_type = "..." in the class.')
    backends = available_backends() if "backend" in wanted else [""]
    parameters = []
    for case, lacking in _cases(family) if "case" in wanted else [(BASE, None)]:
        dtypes = _dtypes(family, case) if "dtype" in wanted else [("", None)]
        for dtype, narrow in dtypes:
            missing = lacking or narrow
            if missing is not None:
                parameters.append(_unclaimed(family, wanted, case, dtype, missing))
                if lacking:
                    break
                continue
            for backend in backends:
                values = {"case": case, "dtype": dtype, "backend": backend}
                parameters.append(pytest.param(*(values[n] for n in wanted), id="-".join(values[n] for n in wanted)))
    return parameters


def _cases(family: type[FamilyTests]) -> list[tuple[str, Capability | None]]:
    """Every case with the capability that it lacks; one entry stands for all cases of such a capability."""
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
