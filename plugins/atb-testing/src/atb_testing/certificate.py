# SPDX-License-Identifier: Apache-2.0
"""Sums up a run of the kit for each family: claimed, not claimed, overridden, passed; as text and as JSON."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atb_cli.output import writing
from atb_core.distributions import version_of
from atb_core.errors import AtbError
from atb_core.plugins.registry import registry
from atb_testing.capabilities import Capability
from atb_testing.cases import BASE, CAPABILITY_CASES
from atb_testing.claims import needed_by, unclaimed_reason
from atb_testing.family import FamilyTests
from atb_testing.overriding import override_reasons, standard_tests

_FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    """A report of pytest about one test of a family; `facts` come from `facts_of`."""

    facts: dict[str, Any]
    outcome: str
    reason: str


@dataclass
class Certificate:
    """The results of one family. `tests` maps a standard test to its verdict and counts.

    Verdicts: passed, failed, overridden (with the reason), not claimed, silenced (a marker of the author's skips it
    or expects it to fail), not run.
    """

    name: str
    model_type: str
    claimed: dict[str, str] = field(default_factory=dict)
    not_claimed: list[str] = field(default_factory=list)
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    special: Counter[str] = field(default_factory=Counter)

    @property
    def verdict(self) -> str:
        """Returns `passed`, `failed` or `incomplete`, without regard to unclaimed and overridden tests."""
        verdicts = {test["verdict"] for test in self.tests.values()}
        if "failed" in verdicts or self.special["failed"]:
            return "failed"
        return "incomplete" if verdicts & {"silenced", "not run"} else "passed"

    def with_verdict(self, verdict: str) -> list[str]:
        """Returns the names of the standard tests with this verdict."""
        return [name for name, test in self.tests.items() if test["verdict"] == verdict]


def facts_of(item: Any) -> dict[str, Any] | None:
    """Returns the family that a test item belongs to, as plain data; `None` for tests outside a family's class."""
    cls = getattr(item, "cls", None)
    if cls is None or not issubclass(cls, FamilyTests):
        return None
    test = item.originalname
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    capability = needed_by(item.function) or _capability(parameters.get("case", BASE), parameters.get("dtype", ""))
    return {
        "class": item.parent.nodeid,
        "model_type": cls.model_type,
        "claimed": sorted(c.name for c in cls.capabilities),
        "test": test,
        "overrides": override_reasons(cls, FamilyTests),
        "capability": capability.name if capability else None,
    }


def _capability(case: str, dtype: str) -> Capability | None:
    """Returns the capability that a parametrised test checks."""
    if dtype == "float16":
        return Capability.FLOAT16
    return next((capability for capability, cases in CAPABILITY_CASES.items() if case in cases), None)


def certificates(outcomes: Iterable[Outcome]) -> list[Certificate]:
    """Returns a certificate for each test class."""
    by_class: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_class.setdefault(outcome.facts["class"], []).append(outcome)
    return [_certificate(name, reports) for name, reports in by_class.items()]


def _certificate(name: str, outcomes: list[Outcome]) -> Certificate:
    facts = outcomes[0].facts
    certificate = Certificate(name, facts["model_type"])
    standard = standard_tests(FamilyTests)
    for test in standard:
        own = [outcome for outcome in outcomes if outcome.facts["test"] == test]
        certificate.tests[test] = _verdict(own, facts["model_type"], facts["overrides"].get(test))
    for capability in Capability:
        if capability.name not in facts["claimed"]:
            certificate.not_claimed.append(capability.name)
            continue
        ends = {outcome.outcome for outcome in outcomes if outcome.facts["capability"] == capability.name}
        certificate.claimed[capability.name] = next(
            (e for e in ("failed", "skipped", "passed") if e in ends), "not run"
        )
    certificate.special.update(outcome.outcome for outcome in outcomes if outcome.facts["test"] not in standard)
    return certificate


def _verdict(outcomes: list[Outcome], model_type: str, override: str | None) -> dict[str, Any]:
    unclaimed = {f"Skipped: {unclaimed_reason(model_type, capability)}" for capability in Capability}
    counts = Counter(o.outcome for o in outcomes if o.reason not in unclaimed)
    left_out = sum(o.reason in unclaimed for o in outcomes)
    test: dict[str, Any] = {**counts, **({"not claimed": left_out} if left_out else {})}
    if counts["failed"]:
        verdict = "failed"
    elif override is not None:
        verdict, test["reason"] = "overridden", override
    elif counts["skipped"] or counts["xfailed"]:
        verdict = "silenced"
        test["reason"] = next((o.reason for o in outcomes if o.outcome != "passed" and o.reason not in unclaimed), "")
    elif counts["passed"]:
        verdict = "passed"
    else:
        verdict = "not claimed" if left_out else "not run"
    return {"verdict": verdict, **test}


def summary_lines(results: Sequence[Certificate]) -> list[str]:
    """Returns the lines that the terminal shows."""
    lines = []
    for certificate in results:
        counts = Counter(test["verdict"] for test in certificate.tests.values())
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        lines.append(f"{certificate.model_type} ({_package(certificate.model_type)}): {certificate.verdict}")
        lines.append(f"  standard tests: {verdicts}")
        lines.append(f"  claimed: {', '.join(map(_words, certificate.claimed)) or 'nothing'}")
        lines.append(f"  not claimed: {', '.join(map(_words, certificate.not_claimed)) or 'nothing'}")
        for verdict in ("overridden", "silenced"):
            for test in certificate.with_verdict(verdict):
                lines.append(f"  {verdict}: {test}: {certificate.tests[test]['reason']}")
        for test in certificate.with_verdict("not run"):
            lines.append(f"  not run: {test}")
    return lines


def write_certificates(results: Sequence[Certificate], target: str) -> Path:
    """Writes the JSON file and returns its path."""
    data = {
        "format": _FORMAT,
        "atb-core": version_of("atb-core"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "torch": version_of("torch"),
        "transformers": version_of("transformers"),
        "families": [
            {
                "model_type": certificate.model_type,
                "package": _package(certificate.model_type),
                "class": certificate.name,
                "verdict": certificate.verdict,
                "claimed": certificate.claimed,
                "not_claimed": certificate.not_claimed,
                "tests": certificate.tests,
                "special_tests": dict(certificate.special),
            }
            for certificate in results
        ],
    }
    path = Path(target)
    with writing(path):
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _words(name: str) -> str:
    return Capability[name].value


def _package(model_type: str) -> str:
    try:
        return registry().find(model_type).package
    except AtbError:
        return "no package"
