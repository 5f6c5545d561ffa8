# SPDX-License-Identifier: Apache-2.0
"""Each decoder layer is a graph of its own, or what lies between the author's cuts."""

from __future__ import annotations

from atb_ascend.segments import segments
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.source import module_scope
from atb_core.nn import functional as F


def test_segments_are_decoder_layers_unless_the_author_cuts() -> None:
    def write(cut: bool) -> Network:
        with Network() as net:
            x = F.neg(Tensor("x", (Dim("T"),), DataType.FLOAT))
            for i in range(3):
                with module_scope(f"model.layers.{i}"):
                    x = F.cos(F.sin(x))
                if cut and i == 1:
                    net.cut()
            net.mark_output(F.neg(x), "y")
        return net

    assert [len(s) for s in segments(write(False))] == [1, 2, 2, 2, 1]
    assert [len(s) for s in segments(write(True))] == [5, 3]
