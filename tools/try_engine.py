# SPDX-License-Identifier: Apache-2.0
"""Runs a small graph on the C++ engine; an argument, if any, is the version of torch that is expected."""

from __future__ import annotations

import sys

import atb_core

assert "torch" not in sys.modules, "import atb_core imported torch"

import torch  # noqa: E402

from atb_core.graph import Tensor, get_default_net  # noqa: E402
from atb_core.nn.functional import linear  # noqa: E402

version = torch.__version__.split("+")[0]
assert sys.argv[1:] in ([], [version]), f"torch is {torch.__version__}, not {sys.argv[1]}"

out = linear(Tensor("x"), Tensor("weight"), None, False, False)
get_default_net().mark_output(out, "out")
engine = get_default_net().build_engine()
x, weight = torch.rand(4, 8), torch.rand(8, 3)
result = torch.empty(4, 3)
engine.forward({"x": x, "weight": weight}, {"out": result})
assert torch.allclose(result, x @ weight, atol=1e-5), "the engine's result differs from torch's"
print(f"atb-core {atb_core.__version__} runs with torch {torch.__version__}")
