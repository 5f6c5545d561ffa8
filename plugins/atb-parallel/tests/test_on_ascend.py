# SPDX-License-Identifier: Apache-2.0
"""On Ascend devices the processes have one each, and the devices sum; here they are simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("atb_sim", reason="needs the distribution atb-sim: pip install ./plugins/atb-sim")

from simulated_devices import two_devices

from atb_ascend.backend import load_simulator
from atb_core import ModelRunner, SamplingParams
from atb_core.errors import AtbError, EngineError, RequestError
from atb_core.graph import DataType, Dim, Network, Tensor, record
from atb_core.graph.ops import AllReduce, Linear
from atb_core.graph.passes import run_passes
from atb_testing import tiny_checkpoint

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8]]
pytestmark = pytest.mark.usefixtures("two_devices")
__all__ = ["two_devices"]
PARAMS = SamplingParams(max_tokens=5, ignore_eos=True, logprobs=4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("qwen3"), "qwen3", head_dim=16, vocab_size=200)


def opened(path: Path, size: int, **options: Any) -> ModelRunner:
    given = {"load_tokenizer": False, "max_model_len": 64, "backend": "atb-sim", "dtype": "float16", **options}
    return ModelRunner(path, tensor_parallel_size=size, **given)


def results(runner: ModelRunner, **options: Any) -> list[tuple[list[int], list[dict[int, float]]]]:
    outputs = [each.outputs[0] for each in runner.generate(PROMPTS, PARAMS, **options)]
    return [(list(o.token_ids), [{t: e.logprob for t, e in each.items()} for each in o.logprobs]) for o in outputs]


def assert_near(ours: list[Any], others: list[Any], limit: float) -> None:
    """Compares up to the first token at which two are as good as equal."""
    for (tokens, logprobs), (wanted, expected) in zip(ours, others, strict=True):
        for place, (token, other) in enumerate(zip(tokens, wanted, strict=True)):
            common = logprobs[place].keys() & expected[place].keys()
            assert common
            assert all(abs(logprobs[place][each] - expected[place][each]) < limit for each in common)
            if token != other:
                assert abs(logprobs[place][token] - logprobs[place][other]) < limit
                break


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_two_devices_give_the_results_of_two_processes_of_the_cpu_engine(dtype: str, checkpoint: Path) -> None:
    with opened(checkpoint, 2, dtype=dtype) as runner:
        ours = results(runner)
        text = str(runner.model.variants.get("decode").engine.network)
    assert "AllReduce" in text
    assert "AllGather" in text  # of the embedding's columns, and of the logits
    with opened(checkpoint, 2, dtype=dtype, backend="cpu") as runner:
        others = results(runner)
    with opened(checkpoint, 1, dtype=dtype) as runner:
        one = results(runner)
    limit = 0.01 if dtype == "float16" else 0.05
    assert_near(ours, others, limit)
    assert_near(ours, one, limit)


@pytest.mark.parametrize(("size", "ops"), [(2, {"LinearParallel"}), (3, {"AllReduce", "Linear"})])
def test_products_and_sums_by_lccl_are_one_operation_for_powers_of_two(size: int, ops: set[str]) -> None:
    with Network() as network:
        x, weight = Tensor("x", (Dim("rows"), 64), DataType.FLOAT16), Tensor("w", (48, 64), DataType.FLOAT16)
        product = record(Linear(transpose_b=True), (x, weight))[0]
        total = record(AllReduce(1, size, "lccl", comm_domain="7"), (product,))[0]
        network.mark_output(total, "out")
    fused = run_passes(network, "atb")
    assert {node.op.name for node in fused.nodes} == ops
    unfused = run_passes(network, "atb", ["MatmulAllReducePass"])
    assert {node.op.name for node in unfused.nodes} == {"Linear", "AllReduce"}


def test_the_devices_of_a_server_may_sum_by_lccl(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(checkpoint, 1) as runner:
        one = results(runner)
    monkeypatch.setenv("ATB_COMM_BACKEND", "lccl")
    with opened(checkpoint, 2) as runner:
        assert_near(results(runner), one, 0.01)
        assert "LinearParallel" in str(runner.model.variants.get("decode").engine.network)
    monkeypatch.setenv("ATB_COMM_BACKEND", "mpi")
    with pytest.raises(EngineError, match="ATB_COMM_BACKEND='mpi' is neither hccl nor lccl"):
        opened(checkpoint, 2)


def test_a_process_that_ends_is_named_and_the_others_end(checkpoint: Path) -> None:
    runner = opened(checkpoint, 2)
    (follower,) = runner._group._followers  # type: ignore[union-attr,attr-defined]
    results(runner)
    follower.process.kill()
    with pytest.raises(AtbError):
        results(runner)
    with pytest.raises(EngineError, match=r"rank 1 .* ended with exit code -9"):
        results(runner)
    runner.close()


def test_a_step_that_rank_0_alone_gives_up_ends_the_group(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other device waits for its part, and would take that of another step."""
    monkeypatch.setattr("atb_parallel.leader._SECONDS_TO_FINISH", 0.5)
    sim = load_simulator().sim
    with opened(checkpoint, 2) as runner:
        results(runner)
        sim.inject("Operation::Setup", 0, 27)
        with pytest.raises(EngineError, match=r"\(27\)"):
            results(runner)
        with pytest.raises(EngineError, match="rank 1 does not end the step that rank 0 has ended"):
            results(runner)


def test_a_step_that_both_refuse_leaves_the_group_usable(checkpoint: Path) -> None:
    import torch

    with opened(checkpoint, 2) as runner:
        before = results(runner)
        one = torch.zeros(1, dtype=torch.int32)
        with pytest.raises(RequestError):
            runner.forward(one.long() + 10_000, one.long(), True, runner._cache.caches, None, one, one + 1, 1)  # type: ignore[arg-type]
        assert results(runner) == before


def test_a_rank_may_record_its_nodes_while_the_others_run_whole_layers(checkpoint: Path, tmp_path: Path) -> None:
    with opened(checkpoint, 2) as runner:
        before = results(runner)
        with runner.profile(tmp_path / "trace.json") as profile:
            recorded = results(runner)
        assert recorded == before == results(runner)
    counts = {row.name: row.count for row in profile.rows(phase="decode")}
    assert counts["AllReduce"] == 2 * runner.num_layers * len(profile.phases()["decode"])


def test_fewer_devices_than_processes_are_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_SIM_DEVICES", "1")
    load_simulator().sim.set_devices(1)
    with pytest.raises(EngineError, match="rank 1: there is no device 1") as error:
        opened(checkpoint, 2)
    assert "ATB_SIM_DEVICES" in str(error.value.hint)
