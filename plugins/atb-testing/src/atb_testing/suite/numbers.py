# SPDX-License-Identifier: Apache-2.0
"""Tests of a family's logits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from atb_core.engine import get_backend
from atb_core.errors import RequestError
from atb_core.features.adapters import NoAdapters
from atb_testing.adapters import open_merged, write_random_adapter
from atb_testing.capabilities import Capability
from atb_testing.checkpoints import load_reference
from atb_testing.claims import needs
from atb_testing.conformance import torch_threads
from atb_testing.diagnosis import explain_difference
from atb_testing.driver import PagedDriver
from atb_testing.lab import Lab
from atb_testing.routing import chosen_experts
from atb_testing.sameness import assert_same, assert_within_rounding

SEQUENCES = [[3, 1, 4, 1, 5, 9], [2, 7], [1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5]]
NEXT = [11, 12]
_TYPES = (torch.float32, torch.bfloat16, torch.float16)


class NumberTests:
    """Tests the logits that a family computes."""

    mixed_steps: ClassVar[bool]

    def test_logits_are_as_close_to_the_truth_as_torchs(
        self, atb_lab: Lab, case: str, dtype: str, backend: str
    ) -> None:
        """Compares our errors with torch's in the same type."""
        report = atb_lab.oracle(case, dtype).report(atb_lab.logits(case, dtype, backend))
        assert report.within(), f"{report}: {explain_difference(atb_lab.checkpoint(case, dtype), backend)}"

    def test_a_prefill_equals_the_same_tokens_decoded_one_by_one(self, atb_lab: Lab, dtype: str, backend: str) -> None:
        """Compares one prefill with decode steps."""
        model = atb_lab.model(dtype=dtype, backend=backend)
        tokens = [5, 17, 2, 80, 33, 9, 61, 17, 4, 12, 90, 1, 2, 44, 80, 9]
        whole = PagedDriver(model, 1).prefill([tokens])
        driver = PagedDriver(model, 1)
        steps = [driver.prefill([tokens[:1]]), *(driver.decode([token]) for token in tokens[1:])]
        if model.window is None:
            assert_same(torch.cat(steps), whole, atb_lab, dtype, backend)
        else:
            # In a cache that a window goes round in, sums have another order.
            assert_within_rounding(torch.cat(steps), whole, atb_lab, dtype)

    def test_company_and_block_size_change_nothing(self, atb_lab: Lab, dtype: str, backend: str) -> None:
        """Compares sequences in one batch with each alone in smaller blocks."""
        model = atb_lab.model(dtype=dtype, backend=backend)
        lengths = [len(sequence) for sequence in SEQUENCES]
        together = PagedDriver(model, len(SEQUENCES)).run([s + NEXT for s in SEQUENCES], lengths)
        for sequence, expected in zip(SEQUENCES, together, strict=True):
            alone = PagedDriver(model, 1, block_size=4).run([sequence + NEXT], [len(sequence)])[0]
            assert_same(alone, expected, atb_lab, dtype, backend)

    def test_prompts_in_chunks_equal_whole_ones(self, atb_lab: Lab, dtype: str, backend: str) -> None:
        """Compares whole prompts with chunks of them in mixed steps, beside a sequence that decodes.

        A model with a window, or of a family that says `mixed_steps = False`, must refuse such steps.
        """
        model = atb_lab.model(dtype=dtype, backend=backend)
        long, other = [5, 17, 2, 80, 33, 9, 61, 17, 4, 12, 90, 1, 2, 44, 80, 9], [2, 7, 1, 8, 2]
        driver = PagedDriver(model, 2)
        if not self.mixed_steps or model.window is not None:
            with pytest.raises(RequestError, match="q_lens"):
                driver.extend([long[:7], other[:2]])
            return
        assert model.supports_mixed_steps, model.mixed_steps_problem()
        chunks = [([7, 2], driver.extend([long[:7], other[:2]]))]
        chunks += [([8, 1], driver.extend([long[7:15], other[2:3]])), ([1, 1], driver.decode([long[15], other[3]]))]
        chunks += [([1, 1], driver.extend([[3], other[4:]]))]
        for i, tokens in enumerate(([*long, 3], other)):
            ours = torch.cat([torch.split(logits, counts)[i] for counts, logits in chunks])
            assert_same(ours, PagedDriver(model, 1, block_size=4).prefill([tokens]), atb_lab, dtype, backend)

    def test_an_adapter_equals_merged_weights(self, atb_lab: Lab, dtype: str, backend: str, tmp_path: Path) -> None:
        """Compares a LoRA adapter for every linear layer with a checkpoint that it is merged into."""
        model = atb_lab.fresh_model(dtype=dtype, backend=backend)
        if isinstance(model.lora, NoAdapters):
            pytest.skip("the plugin atb-lora is left out")
        products = write_random_adapter(model, tmp_path)
        assert products, "the model has no linear layers of atb_core.layers.linear, to which adapters can add"
        model.lora.load("random", tmp_path)
        merged = open_merged(atb_lab.checkpoint(dtype=dtype), products, backend)
        results = []
        for each, adapter in ((model, "random"), (merged, None), (model, None)):
            driver = PagedDriver(each, len(SEQUENCES))
            driver.adapter_ids = [adapter] * len(SEQUENCES)
            results.append(torch.cat([driver.prefill(SEQUENCES), driver.decode([7] * len(SEQUENCES))]))
        # Weights are rounded too, the sum in one and its parts in the other: each may be off by twice torch's error.
        assert_within_rounding(results[0], results[1], atb_lab, dtype, multiple=4.0)
        assert (results[0] - results[2]).abs().max() > 10 * (results[0] - results[1]).abs().max()

    def test_the_number_of_threads_changes_nothing(self, atb_lab: Lab, dtype: str, backend: str) -> None:
        """Compares one thread with three."""
        results = []
        for threads in (1, 3):
            with torch_threads(threads):
                model = atb_lab.fresh_model(dtype=dtype, backend=get_backend(backend, num_threads=threads))
                driver = PagedDriver(model, len(SEQUENCES))
                results.append(torch.cat([driver.prefill(SEQUENCES), driver.decode([7] * len(SEQUENCES))]))
        assert_same(results[1], results[0], atb_lab, dtype, backend)

    @needs(Capability.EXPERTS)
    def test_torch_itself_routes_alike_in_every_type(self, atb_lab: Lab, case: str) -> None:
        """Checks that the comparisons above compare the same experts; see `atb_testing.routing`."""
        directory, sequences = atb_lab.checkpoint(case), atb_lab.oracle(case).sequences
        choices = [chosen_experts(load_reference(directory, dtype), sequences) for dtype in _TYPES]
        used = sorted(set(choices[0].flatten().tolist()))
        assert len(used) > choices[0].shape[-1], f"only the experts {used} are ever chosen"
        assert all(torch.equal(choices[0], other) for other in choices[1:])
