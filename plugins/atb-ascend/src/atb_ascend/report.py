# SPDX-License-Identifier: Apache-2.0
"""Examines this machine for Ascend's software: versions, mismatches, what the backend `atb` lacks.

Nothing here imports torch or torch_npu in this process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from atb_ascend.findings import Finding, Level, any_error
from atb_ascend.installs import find_atb, find_driver, find_toolkit
from atb_ascend.machine import Machine, blocking
from atb_ascend.modules import check_backend, check_cpu, check_simulator, check_torch, check_torch_npu
from atb_ascend.software import check_atb, check_devices, check_driver, check_toolkit
from atb_ascend.switches import check_switches
from atb_core.errors import BackendUnavailableError
from atb_core.names import BACKENDS, command


@dataclass(frozen=True)
class Report:
    """Holds all findings, in the order from the hardware up to atb_core's own modules."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """True if the CPU engine can run and nothing that is here is broken or does not match."""
        return "cpu" in self.usable() and not any_error(self.findings)

    def usable(self) -> tuple[str, ...]:
        """Returns the backends that can be used on this machine."""
        return tuple(backend for backend in BACKENDS if not self.missing(backend))

    def missing(self, backend: str) -> list[Finding]:
        """Returns the findings that keep `backend` from being used."""
        return [finding for finding in self.findings if backend in finding.blocks]


def examine(machine: Machine | None = None) -> Report:
    """Examines everything; loads libraries and extensions in child processes only."""
    machine = machine or Machine()
    ascend = _ascend_findings(machine, import_torch_npu=True)
    return Report((*ascend, check_simulator(machine), check_cpu(machine), check_switches(machine)))


def missing_for_backend(machine: Machine | None = None) -> list[Finding]:
    """Returns the findings that keep the backend `atb` from being used here."""
    return Report(_ascend_findings(machine or Machine())).missing("atb")


def unavailable(missing: Sequence[Finding]) -> BackendUnavailableError:
    """Returns the error that names everything in `missing`, from `missing_for_backend`, and the first thing to do."""
    reasons = "; ".join(f"{finding.check}: {finding.cause or finding.message}" for finding in missing)
    if any(finding.level is Level.ABSENT for finding in missing):
        hint = "Without an Ascend NPU the backend cpu computes, and atb-sim, of the package atb-sim, simulates one."
        hint += f" {command('doctor')} shows all checks."
    else:
        first = next((finding.fix for finding in missing if finding.fix), None)
        hint = f"{command('doctor')} shows all checks." + (f" First: {first}" if first else "")
    return BackendUnavailableError(f"backend 'atb' (Ascend) cannot be used here: {reasons}", hint=hint)


def _ascend_findings(machine: Machine, import_torch_npu: bool = False) -> tuple[Finding, ...]:
    if not _has_ascend(machine):
        cause = "no NPU in /dev, neither driver nor CANN toolkit nor ATB at the usual places, no torch_npu"
        fix = "Nothing, unless this machine has an Ascend NPU: then install its driver, CANN and NNAL."
        return (check_torch(machine), blocking("ascend", "nothing of it is here", cause, fix, Level.ABSENT))
    return (
        check_driver(machine),
        check_devices(machine),
        *check_toolkit(machine),
        *check_atb(machine),
        check_torch(machine),
        check_torch_npu(machine, import_torch_npu),
        check_backend(machine),
    )


def _has_ascend(machine: Machine) -> bool:
    """Returns true if any part of Ascend is here, so that the absence of the others is worth a warning."""
    return (
        any(find(machine) is not None for find in (find_driver, find_toolkit, find_atb))
        or machine.package_version("torch_npu") is not None
        or machine.module_file("atb_core._atb") is not None
        or os.path.exists(machine.dev / "davinci0")
    )
