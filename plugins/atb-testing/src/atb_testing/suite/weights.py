# SPDX-License-Identifier: Apache-2.0
"""Tests of loading a family's weights."""

from __future__ import annotations

import pytest
import torch

from atb_core.checkpoint import SilentProgress, open_weights
from atb_core.errors import WeightsError
from atb_core.names import QUANTIZATIONS
from atb_testing.driver import PagedDriver, available_backends, build_model, open_model
from atb_testing.lab import Lab
from atb_testing.loaders import AlteredLoader


class WeightTests:
    """Tests the loading of checkpoints that Hugging Face wrote."""

    def test_every_tensor_of_the_checkpoint_is_read_once_and_no_other(self, atb_lab: Lab, case: str) -> None:
        """Counts the reads of every tensor."""
        directory = atb_lab.checkpoint(case)
        with open_weights(directory) as inner:
            loader = AlteredLoader(inner)
            build_model(directory, loader).load_weights(loader, SilentProgress())
            assert sorted(loader.reads) == sorted(inner.names())
            twice = [name for name, count in loader.reads.items() if count > 1]
        assert not twice, f"read more than once: {', '.join(twice)}"

    def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_its_name(self, atb_lab: Lab) -> None:
        """Leaves out each tensor in turn."""
        directory = atb_lab.checkpoint()
        with open_weights(directory) as inner:
            for name in inner.names():
                loader = AlteredLoader(inner, without=[name])
                with pytest.raises(WeightsError) as refusal:
                    build_model(directory, loader).load_weights(loader, SilentProgress())
                assert name in str(refusal.value), f"{name} is missing, but the message is: {refusal.value}"

    def test_a_checkpoint_with_one_tensor_more_is_refused_by_its_name(self, atb_lab: Lab) -> None:
        """Adds unknown tensors in turn."""
        directory = atb_lab.checkpoint()
        with open_weights(directory) as inner:
            beyond = {name.replace("layers.0.", "layers.99.") for name in inner.names()} - set(inner.names())
            for name in ("model.layers.0.unheard_of.weight", "unheard_of", *sorted(beyond)[:1]):
                loader = AlteredLoader(inner, extra={name: torch.ones(3, 5)})
                with pytest.raises(WeightsError) as refusal:
                    build_model(directory, loader).load_weights(loader, SilentProgress())
                assert name in str(refusal.value), f"{name} is unknown, but the message is: {refusal.value}"

    @pytest.mark.parametrize("quantization", QUANTIZATIONS)
    def test_quantised_weights_compute_what_their_values_do(self, atb_lab: Lab, quantization: str) -> None:
        """Compares the engine in C++, whose activations are integers too, with the reference's quantised values."""
        if "cpu" not in available_backends():
            pytest.skip("the cpu engine is not built")
        directory, tokens = atb_lab.checkpoint(), [5, 17, 2, 80, 33, 9, 61, 17]
        models = {name: open_model(directory, name, quantization=quantization) for name in ("cpu", "reference")}
        logits = {name: PagedDriver(model, 1).prefill([tokens]).float() for name, model in models.items()}
        assert models["cpu"].variants.store.nbytes < atb_lab.model(backend="cpu").variants.store.nbytes
        difference = (logits["cpu"] - logits["reference"]).norm() / logits["reference"].norm()
        assert difference < 0.1, f"the logits differ by {difference:.1%}"

    def test_several_shards_load_like_one_file(self, atb_lab: Lab, dtype: str, backend: str) -> None:
        """Compares the logits of three shards with those of one file."""
        directory = atb_lab.checkpoint(dtype=dtype, shards=3)
        assert len(list(directory.glob("*.safetensors"))) >= 3
        sharded = atb_lab.oracle(dtype=dtype).run(open_model(directory, backend))
        assert torch.equal(sharded, atb_lab.logits(dtype=dtype, backend=backend))
