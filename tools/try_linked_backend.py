# SPDX-License-Identifier: Apache-2.0
"""Runs a graph on the module for a card, linked with a stand-in for CANN and ATB, and checks the output of doctor.

    python tools/try_linked_backend.py

Requires the environment that tools/stand_in_ascend.py prints, and a core that was built with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import torch

import atb_ascend.backend as atb
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import linear, rms_norm

# Checks that the stand-in fulfils; the driver, the card and torch_npu cannot be replaced by folders.
GOOD = ("cann", "libascendcl", "libopapi", "atb", "libatb", "versions", "abi", "atb backend", "cpu engine")


def check_doctor() -> None:
    """Exits with an error unless doctor reports that all parts of the stand-in are correct."""
    command = [str(Path(sys.executable).with_name("atb")), "doctor", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    for check in GOOD:
        print(f"{check}: {findings[check]['level']}: {findings[check]['message']}")
    wrong = [findings[check] for check in GOOD if findings[check]["level"] != "ok"]
    if wrong:
        sys.exit(f"doctor reports problems: {wrong}")


def stand_in_torch_npu() -> None:
    """Replaces torch_npu by a module whose current stream is one of the null device."""
    current = types.SimpleNamespace(npu_stream=0, synchronize=lambda: None)
    npu = types.SimpleNamespace(set_device=lambda device: None, current_stream=lambda: current)
    sys.modules["torch_npu"] = types.ModuleType("torch_npu")
    sys.modules["torch_npu"].npu = npu  # type: ignore[attr-defined]
    vars(atb)["missing_for_backend"] = list


def check_graph() -> None:
    """Runs a graph on the module and compares the result with torch."""
    with Network("linked") as net:
        rows = Tensor("x", (Dim("tokens"), 64), DataType.FLOAT16)
        scales, matrix = Tensor("scale", (64,), DataType.FLOAT16), Tensor("weight", (256, 64), DataType.FLOAT16)
        net.weights_keys |= {"scale", "weight"}
        net.mark_output(linear(rms_norm(rows, scales, 1e-6), matrix), "y")
    backend = atb.AtbBackend()
    assert backend.extension.__name__ == "atb_core._atb", backend.extension
    engine = backend.build(net)
    x, scale, weight = torch.randn(5, 64).half(), torch.rand(64).half(), torch.randn(256, 64).half()
    engine.set_weights({"scale": scale, "weight": weight})
    normalized = torch.nn.functional.rms_norm(x.float(), (64,), scale.float(), 1e-6)
    torch.testing.assert_close(
        engine.forward({"x": x})["y"], (normalized @ weight.float().T).half(), rtol=1e-2, atol=5e-2
    )
    # The same by a call of aclnn, which is found in libopapi.
    engine.quantize_weight("weight", weight, "int8")
    torch.testing.assert_close(
        engine.forward({"x": x})["y"], (normalized @ weight.float().T).half(), rtol=5e-2, atol=0.3
    )
    print(f"{backend.extension.__name__}, ATB {backend.extension.atb_version()}, {backend.soc_name}: a graph runs")


if __name__ == "__main__":
    check_doctor()
    stand_in_torch_npu()
    check_graph()
