# SPDX-License-Identifier: Apache-2.0
"""Tests of a family's graphs."""

from __future__ import annotations

from pathlib import Path

import torch

from atb_core.graph.dim import Dim
from atb_core.graph.verify import verify
from atb_testing.conformance import torch_threads
from atb_testing.lab import Lab
from atb_testing.sameness import assert_within_rounding
from atb_testing.serialize import load_network, save_network
from atb_testing.variants import replace_networks, unfused, variant_keys


class GraphTests:
    """Tests the graphs that a family records."""

    def test_every_variant_records_and_verifies_with_symbolic_sizes(self, atb_lab: Lab, backend: str) -> None:
        """Checks every variant's network: rules, known shapes, a free number of tokens."""
        model = atb_lab.model(backend=backend)
        for key in variant_keys(model):
            recorded = model.variants.network(key)
            verify(recorded)
            unknown = [node.place for node in recorded for tensor in node.outputs if tensor.shape is None]
            assert not unknown, f"{recorded.name}: the shapes of these values are unknown: {', '.join(unknown)}"
            (logits,) = (tensor for tensor in recorded.outputs if tensor.name == "model_out")
            assert logits.shape is not None
            assert isinstance(logits.shape[0], Dim), f"{recorded.name} gives a fixed number of logits: {logits}"
            assert logits.shape[1:] == (model.config.vocab_size,)
            model.variants.prepared(key)

    def test_fused_equals_unfused(self, atb_lab: Lab, dtype: str, backend: str) -> None:
        """Compares the logits with and without fusions."""
        with torch_threads(1):
            oracle = atb_lab.oracle(dtype=dtype)
            fused = atb_lab.logits(dtype=dtype, backend=backend)
            plain = oracle.run(unfused(atb_lab.fresh_model(dtype=dtype, backend=backend)))
        report = oracle.report(plain)
        assert report.within(), f"without fusions: {report}"
        assert_within_rounding(fused, plain, atb_lab, dtype)

    def test_a_saved_network_gives_the_same_bits(self, atb_lab: Lab, tmp_path: Path, dtype: str, backend: str) -> None:
        """Saves every variant's network, loads it and compares bits."""
        oracle = atb_lab.oracle(dtype=dtype)
        expected = atb_lab.logits(dtype=dtype, backend=backend)
        model = atb_lab.fresh_model(dtype=dtype, backend=backend)
        networks = {}
        for key in variant_keys(model):
            network = model.variants.prepared(key)
            save_network(network, tmp_path / f"{network.name}.atbnet")
            networks[key] = load_network(tmp_path / f"{network.name}.atbnet")
            assert str(networks[key]) == str(network)
        replace_networks(model, networks)
        assert torch.equal(oracle.run(model), expected)
