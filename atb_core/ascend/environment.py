# SPDX-License-Identifier: Apache-2.0
"""The whole examination, and the part that the backend `atb` asks for when it cannot start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from atb_core.ascend.extensions import check_backend, check_cpu, check_simulator
from atb_core.ascend.installs import find_atb, find_driver, find_toolkit
from atb_core.ascend.machine import Machine
from atb_core.ascend.packages import check_packages
from atb_core.ascend.software import check_atb, check_toolkit
from atb_core.ascend.switches import check_switches
from atb_core.ascend.system import check_devices, check_driver
from atb_core.errors import BackendUnavailableError
from atb_core.findings import Finding, any_error
from atb_core.names import BACKENDS


@dataclass(frozen=True)
class Report:
    """Everything that was found, in the order from the hardware up to our own code."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether the CPU engine can run and nothing that is here is broken or does not match."""
        return "cpu" in self.usable() and not any_error(self.findings)

    def usable(self) -> tuple[str, ...]:
        """The backends that can be used on this machine."""
        return tuple(backend for backend in BACKENDS if not self.missing(backend))

    def missing(self, backend: str) -> list[Finding]:
        """What keeps `backend` from being used."""
        return [finding for finding in self.findings if backend in finding.blocks]


def examine(machine: Machine | None = None) -> Report:
    """Looks at everything; loads libraries and extensions in processes of their own, never in this one."""
    machine = machine or Machine()
    ascend = _ascend_findings(machine, thorough=True)
    return Report((*ascend, check_simulator(machine), check_cpu(machine), check_switches(machine)))


def missing_for_backend(machine: Machine | None = None) -> list[Finding]:
    """What keeps the backend `atb` from being used here: empty if nothing that could be found does."""
    return Report(_ascend_findings(machine or Machine())).missing("atb")


def unavailable(missing: Sequence[Finding]) -> BackendUnavailableError:
    """The error that names everything in `missing`, from `missing_for_backend`, and the first thing to do."""
    reasons = "; ".join(f"{finding.check}: {finding.cause or finding.message}" for finding in missing)
    first = next((finding.fix for finding in missing if finding.fix), None)
    hint = "`atb doctor` shows all that was looked at." + (f" First: {first}" if first else "")
    return BackendUnavailableError(f"backend 'atb' (Ascend) cannot be used here: {reasons}", hint=hint)


def _ascend_findings(machine: Machine, thorough: bool = False) -> tuple[Finding, ...]:
    """`thorough`: torch_npu is imported, too, which takes seconds and which the backend does itself anyway."""
    ascend = _has_ascend(machine)
    return (
        check_driver(machine, ascend),
        check_devices(machine, ascend),
        *check_toolkit(machine, ascend),
        *check_atb(machine, ascend),
        *check_packages(machine, ascend, thorough),
        check_backend(machine, ascend),
    )


def _has_ascend(machine: Machine) -> bool:
    """Whether any part of Ascend is here: only then is what lacks worth a warning."""
    installed = any(find(machine) is not None for find in (find_driver, find_toolkit, find_atb))
    return installed or machine.package_version("torch_npu") is not None or os.path.exists(machine.dev / "davinci0")
