# SPDX-License-Identifier: Apache-2.0
"""The kit's pytest plugin: a fixture, a section in the summary, the certificate.

It is loaded in every run of pytest where atb-testing is installed, so it does nothing, and imports nothing large, in a
run without a subclass of `FamilyTests`.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from atb_testing.certificate import Outcome
    from atb_testing.lab import Lab

# Assertions of the kit show their values like those of the author's module.
pytest.register_assert_rewrite("atb_testing.suite", "atb_testing.family", "atb_testing.sameness")
_FAMILY_MODULE = "atb_testing.family"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--atb-certificate`."""
    parser.getgroup("atb", "conformance of model families").addoption(
        "--atb-certificate",
        metavar="FILE",
        help="write the claims and test results of every family under test as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the collector of results."""
    config.pluginmanager.register(_Outcomes(config), "atb-outcomes")


@pytest.fixture(scope="class")
def atb_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Supplies tiny checkpoints, loaded models and Hugging Face's logits of the test class's family."""
    from atb_testing.lab import Lab

    return Lab(request.cls, tmp_path_factory.mktemp("atb"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Adds the family's facts to a test's report, which parallel runs pass between processes."""
    report = yield
    if _FAMILY_MODULE in sys.modules:
        from atb_testing.certificate import facts_of

        facts = facts_of(item)
        if facts is not None:
            report.atb_family = facts
    return report


class _Outcomes:
    """Collects the reports of families' tests and prints the summary."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.outcomes: list[Outcome] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        facts = getattr(report, "atb_family", None)
        if facts is not None and (report.when == "call" or report.outcome != "passed"):
            from atb_testing.certificate import Outcome

            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            expected_failure = hasattr(report, "wasxfail")
            self.outcomes.append(Outcome(facts, "xfailed" if expected_failure else report.outcome, reason))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.outcomes:
            return
        from atb_testing.certificate import certificates, summary_lines, write_certificates

        results = certificates(self.outcomes)
        terminalreporter.section("conformance of model families")
        for line in summary_lines(results):
            terminalreporter.line(line)
        target = self.config.getoption("--atb-certificate")
        if target and not hasattr(self.config, "workerinput"):
            terminalreporter.line(f"certificate: {write_certificates(results, target)}")
