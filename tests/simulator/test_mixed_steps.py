# SPDX-License-Identifier: Apache-2.0
"""Steps in which sequences bring several tokens over their caches, on the simulated devices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from simulator.simulated import BACKENDS, SIM, DeviceDriver, assert_agree, greedy, open_runner, prompts

import atb_ascend.backend as atb
from atb_core.engine import get_backend
from atb_core.errors import RequestError
from atb_core.graph.arrays import to_torch
from atb_core.graph.dtype import DataType
from atb_core.models.runtime.inputs import mixed_mask
from atb_testing import compare_logits, load_reference, open_model, tiny_checkpoint
from atb_testing.conformance import hugging_face_logits, torch_threads

pytest.importorskip("transformers")


@pytest.fixture(params=["", "Ascend310P3"], ids=["the usual device", "Ascend310P3"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    usual = get_backend("atb-sim").soc_name  # type: ignore[attr-defined]
    SIM.set_soc(request.param or usual)
    # A process keeps the devices that it has opened.
    monkeypatch.setattr(atb, "_shared_device", cache(atb._shared_device.__wrapped__))
    yield
    SIM.set_soc(usual)


@pytest.mark.usefixtures("device")
def test_chunks_beside_a_sequence_that_decodes_have_no_more_error_than_torchs(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "llama", "llama", torch.float16, vocab_size=208)
    long, short = prompts([150, 5])
    with torch_threads(1):
        truth = hugging_face_logits(load_reference(path), [long, short])
        peer = hugging_face_logits(load_reference(path, torch.float16), [long, short])
    driver = DeviceDriver(open_model(path, "atb-sim", 256), 2, 256)
    steps = [([90, 2], driver.extend([long[:90], short[:2]])), ([59, 1], driver.extend([long[90:149], short[2:3]]))]
    steps += [([1, 1], driver.decode([long[149], short[3]]))]
    driver.lengths = [149, 4]  # once more, as the one new token of a mixed step
    steps += [([1, 1], driver.extend([long[149:], short[4:]]))]
    assert torch.equal(steps[2][1][0], steps[3][1][0])
    parts = [torch.split(logits, counts) for counts, logits in steps]
    ours = torch.cat([*(first for first, _ in parts[:3]), *(second for _, second in parts)])
    report = compare_logits(ours, peer, truth)
    assert report.within(2.0), report


def test_blocks_that_such_attention_does_not_take_are_named(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "llama", "llama", torch.float16, vocab_size=208, head_dim=256)
    model = open_model(path, "atb-sim", 256)
    assert model.supports_mixed_steps
    assert model.mixed_steps_problem(64) is None
    assert "at most 64 for heads of 256" in model.mixed_steps_problem(128)
    longer = tiny_checkpoint(tmp_path / "longer", "llama", torch.float16, vocab_size=208, head_dim=272)
    assert "takes at most 256" in open_model(longer, "atb-sim", 256).mixed_steps_problem(16)
    driver = DeviceDriver(model, 1, 256, block_size=128)
    with pytest.raises(RequestError, match="blocks of 128 slots"):
        driver.extend([[1, 2, 3]])
    assert DeviceDriver(model, 1, 256, block_size=64).extend([[1, 2, 3]]).shape == (3, 208)


def test_a_runner_on_such_blocks_takes_whole_prompts(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "llama", "llama", torch.float16, vocab_size=208, head_dim=256)
    options = {"block_size": 128, "max_num_batched_tokens": 16}
    runs = [open_runner(path, backend, **options).generate(prompts(), greedy(4)) for backend in BACKENDS]
    assert_agree(runs[1], runs[0])


def test_the_mask_hides_what_comes_after_a_token_of_its_sequence() -> None:
    q_lens, lengths = torch.tensor([2, 1, 3]), torch.tensor([4, 130, 3])
    mask = to_torch(mixed_mask(q_lens.numpy(), lengths.numpy(), DataType.FLOAT16))
    assert mask.shape == (6, 256)
    assert mask.unique().tolist() == [-10000.0, 0.0]
    assert (mask == 0).sum(1).tolist() == [3, 4, 130, 1, 2, 3]
