# SPDX-License-Identifier: Apache-2.0
"""Steps name the blocks that their requests have now."""

from __future__ import annotations

from atb_core.runner.outputs import RequestOutput
from atb_core.runner.request import Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Batch
from atb_core.runner.step_inputs import StepInputs


def make_request(prompt: list[int], table: list[int]) -> Request:
    request = Request(RequestOutput("0", None, prompt, []), 0, SamplingParams(), 64, frozenset())
    request.block_table, request.num_computed = table, len(prompt) - 1
    return request


def test_blocks_that_changed_between_decode_steps_are_seen() -> None:
    inputs = StepInputs(4, 8, 2, [])
    requests = [make_request([1, 2, 3], [5, 6]), make_request([4, 5, 6, 7], [1, 2])]
    assert inputs.decode(requests).block_tables.tolist() == [[5, 6, *[0] * 6], [1, 2, *[0] * 6]]  # type: ignore[union-attr]
    # Preempted and admitted again in a step that was no decode step.
    requests[1].block_table = [3, 0]
    requests[1].num_computed = 1
    inputs.packed(Batch("mixed", requests, [1, 3], 1))
    step = inputs.decode(requests)
    assert step.block_tables is not None and step.slots is not None
    assert step.block_tables.tolist() == [[5, 6, *[0] * 6], [3, 0, *[0] * 6]]
    assert step.slots.tolist() == [6 * 2, 0 * 2 + 1]


def test_a_mixed_step_has_the_next_tokens_of_each_request() -> None:
    inputs = StepInputs(4, 3, 2, [])
    begun, decoding = make_request([1, 2, 3, 4, 5], [5, 6, 7]), make_request([8, 9], [2])
    begun.num_computed = 1
    step = inputs.packed(Batch("mixed", [decoding, begun], [1, 2], 1))
    assert step.phase == "mixed"
    fields = ("input_ids", "position_ids", "slots", "input_lengths", "q_lens", "lm_head_indices")
    assert [getattr(step, name).tolist() for name in fields] == [
        [9, 2, 3],
        [1, 1, 2],
        [2 * 2 + 1, 5 * 2 + 1, 6 * 2],
        [2, 3],
        [1, 2],
        [0],
    ]
    # Logits of the first one alone: the other is not through its prompt. Without any, a step asks for one row.
    assert inputs.packed(Batch("mixed", [begun], [2], 0)).lm_head_indices.tolist() == [0]  # type: ignore[union-attr]


def test_the_tokens_of_a_draft_follow_the_newest_token() -> None:
    inputs = StepInputs(4, 3, 2, [])
    plain, guessing = make_request([8, 9], [2]), make_request([1, 2, 3], [5, 6, 7])
    plain.num_computed, guessing.num_computed = 1, 2
    step = inputs.packed(Batch("mixed", [guessing, plain], [1, 1], 2, {guessing: [40, 41]}))
    fields = ("input_ids", "position_ids", "slots", "input_lengths", "q_lens", "lm_head_indices")
    assert [getattr(step, name).tolist() for name in fields] == [
        [3, 40, 41, 9],
        [2, 3, 4, 1],
        [6 * 2, 6 * 2 + 1, 7 * 2, 2 * 2 + 1],
        [5, 2],
        [3, 1],
        [0, 1, 2, 3],
    ]
    assert step.max_seq_len == 5
