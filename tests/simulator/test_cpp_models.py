# SPDX-License-Identifier: Apache-2.0
"""Graphs that C++ builds on the simulated device: by `ModelRunner(graph="cpp")`, and by `ModelTorch` alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from simulator.simulated import SIM, DeviceDriver, assert_agree, counted, greedy, prompts, run_python
from simulator.simulated import open_runner as any_runner
from tiny_decoder import HEAD, KV_HEADS, PARAMETERS, ROOT, VOCAB, execute, model_torch, prefill_inputs, weights

import atb_core
from atb_core import ModelRunner, ModelTorch, load_native_library
from atb_core.engine import get_backend
from atb_core.errors import AtbError, BackendUnavailableError, EngineError
from atb_cpp_models.graph_variants import CppEngine
from atb_testing import tiny_checkpoint
from atb_testing.variants import unfused

pytest.importorskip("transformers")

CHECKPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen2 with a tied embedding": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 with biases": ("qwen3", {"head_dim": 32, "attention_bias": True}),
}
LENGTHS = [4, 2, 18, 40]
SEQUENCES = prompts([length + 3 for length in LENGTHS])


def open_runner(directory: Path, graph: str = "cpp", **options: Any) -> ModelRunner:
    return any_runner(directory, graph=graph, **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("cpp") / "qwen2", "qwen2", torch.float16, tie_word_embeddings=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_who_writes_the_graph_changes_no_bit(tmp_path: Path, checkpoint: str, dtype: torch.dtype) -> None:
    family, config = CHECKPOINTS[checkpoint]
    tiny_checkpoint(tmp_path, family, dtype, **config)
    built, recorded = open_runner(tmp_path), open_runner(tmp_path, "python")
    # Fused and not fused differ in the last bits.
    assert_agree(*(runner.generate(prompts(), greedy(12)) for runner in (built, recorded)))
    theirs = DeviceDriver(unfused(recorded.model), len(SEQUENCES)).run(SEQUENCES, LENGTHS)
    ours = DeviceDriver(built.model, len(SEQUENCES)).run(SEQUENCES, LENGTHS)
    for left, right in zip(ours, theirs, strict=True):
        assert left.dtype is dtype
        assert torch.isfinite(left).all()
        assert torch.equal(left, right)


TOKENS_BY_GRAPH = """
from simulator.simulated import greedy, open_runner, prompts
for graph in ("cpp", "python"):
    runner = open_runner({directory!r}, graph=graph)
    print(runner.model.backend.soc_name, [output.token_ids for output in runner.generate(prompts(), greedy(8))])
"""


@pytest.mark.parametrize(
    "environment",
    [{"ATB_SIM_SOC": "Ascend310P3", "ATB_OPERATION_EXECUTE_ASYNC": "1"}, {"ASCEND_LAUNCH_BLOCKING": "1"}],
    ids=lambda environment: ", ".join(environment),
)
def test_so_it_is_on_another_card_and_with_another_way_to_launch(directory: Path, environment: dict[str, str]) -> None:
    built, recorded = run_python(TOKENS_BY_GRAPH.format(directory=str(directory)), **environment).splitlines()
    assert built == recorded
    assert built.startswith(environment.get("ATB_SIM_SOC", "Ascend910B"))


def decode_step(runner: ModelRunner) -> dict[str, int]:
    """Returns what the simulator counts in a decode step of two sequences that is not the first one."""
    driver = DeviceDriver(runner.model, 2)
    driver.prefill([[5, 9, 11], [7, 8]])
    driver.decode([3, 4])
    with counted() as found:
        driver.decode([5, 6])
    return found


def test_a_decode_step_launches_and_copies_what_one_of_a_recorded_graph_does(directory: Path) -> None:
    built, recorded = open_runner(directory), open_runner(directory, "python")
    ours, theirs = decode_step(built), decode_step(recorded)
    # One operation a layer, one before and one after.
    assert ours["executes"] == built.model.model_status.num_layers + 2
    assert ours["executes"] == theirs["executes"]
    # Position tables and caches are there already.
    assert ours["bytes_h2d"] == theirs["bytes_h2d"]
    assert ours["bytes_d2h"] == theirs["bytes_d2h"]


def test_prefill_and_decode_hold_one_copy_of_the_weights(directory: Path) -> None:
    built, recorded = open_runner(directory), open_runner(directory, "python")
    prefill, decode = (built.model.variants.get(base).engine for base in ("prefill", "decode"))
    assert isinstance(prefill, CppEngine)
    assert isinstance(decode, CppEngine)
    assert prefill.model.store is decode.model.store
    assert prefill.model.store.nbytes == recorded.model.variants.store.nbytes


def step(runner: ModelRunner, **changes: Any) -> torch.Tensor:
    known: dict[str, Any] = {
        "input_ids": torch.tensor([1, 2, 3]),
        "position_ids": torch.arange(3),
        "is_prefill": True,
        "kv_cache": runner.kv_cache,
        "block_tables": torch.zeros(1, 1, dtype=torch.int32),
        "slots": torch.arange(3, dtype=torch.int32),
        "input_lengths": torch.tensor([3], dtype=torch.int32),
        "max_seq_len": 3,
    }
    logits: torch.Tensor = runner.forward(**{**known, **changes})
    return logits


def test_a_cache_that_lies_on_the_host_is_refused_and_the_next_step_runs(directory: Path) -> None:
    runner = open_runner(directory)
    first = step(runner).clone()
    on_host = [(k.clone(), v.clone()) for k, v in runner.kv_cache]
    with pytest.raises(EngineError, match=r"the KV cache 'key cache 0' is not in device memory\. Allocate it with"):
        step(runner, kv_cache=on_host)
    assert torch.equal(step(runner, kv_cache=runner.allocate_kv_cache(2)), first)


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": torch.tensor([1, 2, 1_000_000])},
        {"slots": torch.tensor([0, 1, 10**6], dtype=torch.int32)},
        {"input_lengths": torch.tensor([2], dtype=torch.int32)},
        {"input_ids": torch.tensor([1, 2, 3], dtype=torch.int32)},
        {"kv_cache": []},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_a_wrong_step_is_refused_in_the_same_words(directory: Path, changes: dict[str, Any]) -> None:
    messages = []
    for graph in ("cpp", "python"):
        with pytest.raises(AtbError) as error:
            step(open_runner(directory, graph), **changes)
        messages.append((type(error.value), str(error.value)))
    assert messages[0] == messages[1]


def on_device(model: ModelTorch, value: torch.Tensor) -> torch.Tensor:
    return model.backend.allocate(tuple(value.shape), value.dtype).copy_(value)


def test_model_torch_gives_the_cpu_engines_logits() -> None:
    ours, theirs = (execute(model_torch(backend), prefill_inputs()) for backend in ("atb-sim", "cpu"))
    assert ours.shape == (5, VOCAB)
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


def test_a_constant_is_copied_once_and_until_it_comes_with_a_step() -> None:
    model, inputs = model_torch(), prefill_inputs()
    expected = execute(model, inputs)
    tables = {name: inputs.pop(name) for name in ("cosine_table", "sine_table", "attention_mask")}
    with pytest.raises(EngineError, match="input 2, 'cosine_table', is missing"):
        execute(model, inputs)
    model.set_constant(tables)
    with counted() as found:
        assert torch.equal(execute(model, inputs), expected)
    assert found["bytes_h2d"] < tables["attention_mask"].nbytes
    turned = {**inputs, "cosine_table": tables["sine_table"]}
    assert not torch.equal(execute(model, turned), expected)
    with pytest.raises(EngineError, match="input 2, 'cosine_table', is missing"):
        execute(model, inputs)
    # What is bound stays bound where the model gets its weights again.
    model.set_constant(tables)
    model.set_weight(weights(model.weight_names))
    assert torch.equal(execute(model, inputs), expected)
    with pytest.raises(EngineError, match=r"has no input cosine; it has input_ids, position_ids, cosine_table"):
        model.set_constant({"cosine": tables["cosine_table"]})


def test_lengths_that_lie_on_the_device_come_with_the_steps_json_too() -> None:
    model, inputs = model_torch(), prefill_inputs()
    expected = execute(model, inputs)
    assert torch.equal(execute(model, inputs, '{"seqLen": [2, 3]}'), expected)
    with pytest.raises(EngineError, match=r"seqLen = \[3, 2\] .* differs from seq_len = \[2, 3\]"):
        execute(model, inputs, '{"seqLen": [3, 2]}')
    there = {name: on_device(model, value) for name, value in inputs.items()}
    with counted() as found:
        assert torch.equal(execute(model, there, '{"seqLen": [2, 3]}'), expected)
    assert found["bytes_h2d"] == inputs["attention_mask"].nbytes  # ones where it hides
    with pytest.raises(EngineError, match=r'seq_len is on the device, .* Give them .* \{"seqLen": \[\.\.\.\]\}'):
        execute(model, there)
    with pytest.raises(EngineError, match=r"seqLen of the step's JSON has 3 lengths, seq_len \[2\]"):
        execute(model, there, '{"seqLen": [2, 2, 1]}')
    with pytest.raises(EngineError, match=r"seqLen = \['2', 3\] of the step's JSON is no list of lengths"):
        execute(model, there, '{"seqLen": ["2", 3]}')


def test_constants_and_outputs_may_lie_on_the_device() -> None:
    model, inputs = model_torch(), prefill_inputs()
    expected = execute(model, inputs)
    tables = {name: inputs.pop(name) for name in ("cosine_table", "sine_table", "attention_mask")}
    model.set_constant({name: on_device(model, value) for name, value in tables.items()})
    out = model.backend.allocate((5, VOCAB), torch.float16)
    with counted() as found:
        model.execute_out([inputs.get(name) for name in model.input_names], [out])
    assert torch.equal(out, expected)
    assert found["bytes_d2h"] == 0


def test_weights_that_do_not_fit_or_are_not_there_are_named() -> None:
    model = ModelTorch("core_DecoderModel", backend="atb-sim")
    model.set_param(PARAMETERS)
    given = weights(model.weight_names)
    with pytest.raises(EngineError, match=f"{len(given) - 1} weights were given where {len(given)} are needed"):
        model.set_weight(given[1:])
    with pytest.raises(EngineError, match="is bfloat16 where float16 is needed"):
        model.set_weight([weight.bfloat16() for weight in given])
    model.declare_weight(model.weight_names, [weight.to("meta") for weight in given])
    caches = [model.backend.allocate((1, 16, KV_HEADS, HEAD), torch.float16) for _ in range(4)]
    model.set_kv_cache(caches[:2], caches[2:])
    for name, weight in list(zip(model.weight_names, given, strict=True))[:-1]:
        model.store.set(name, weight)
    with pytest.raises(EngineError, match="weight 'lm_head' has not been set"):
        execute(model, prefill_inputs())
    model.store.set("lm_head", given[-1])
    assert torch.isfinite(execute(model, prefill_inputs())).all()


def test_caches_that_were_never_given_are_named() -> None:
    model = ModelTorch("core_DecoderModel", backend="atb-sim")
    model.set_param(PARAMETERS)
    model.set_weight(weights(model.weight_names))
    with pytest.raises(EngineError, match="layer_0_k_cache"):
        execute(model, prefill_inputs())


def test_what_the_device_cannot_do_is_refused_when_the_program_is_made() -> None:
    with pytest.raises(EngineError, match=r"Linear at lm_head.*keeps the type of x"):
        model_torch(float32Logits=True)
    with pytest.raises(BackendUnavailableError, match="the backend 'reference' runs no graph that C"):
        ModelTorch("core_DecoderModel", backend="reference")


def test_weights_are_shared_within_a_backend_only() -> None:
    prefill, decode = model_torch(), ModelTorch("core_DecoderModel", backend="atb-sim")
    decode.set_param({**PARAMETERS, "isPrefill": False})
    live = SIM.counters()["live_bytes"]
    decode.share_weight(prefill)
    assert decode.store is prefill.store
    assert SIM.counters()["live_bytes"] == live
    with pytest.raises(EngineError, match="'atb' cannot share weights of the backend 'cpu'"):
        decode.share_weight(model_torch("cpu"))


COMPILER = shutil.which("c++") or shutil.which("g++")
SAMPLE = ROOT / "examples" / "native-model" / "model.cpp"


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_a_librarys_model_runs_with_an_operation_for_each_cut(tmp_path: Path) -> None:
    assert COMPILER is not None
    source = SAMPLE.read_text(encoding="utf-8").replace("DataType::f32", "DataType::f16")
    assert source.count("graph.cut();") == 1
    (tmp_path / "model.cpp").write_text(source.replace("REGISTER_MODEL(sample", "REGISTER_MODEL(half"))
    library = tmp_path / "half.so"
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-isystem", atb_core.get_include()]
    subprocess.run([COMPILER, *flags, str(tmp_path / "model.cpp"), "-o", str(library)], check=True)
    # Loaded once, for all backends.
    assert load_native_library(library) == ["half_PairModel"]
    table, scale, matrix = torch.randn(9, 16).half(), torch.rand(16).half(), torch.randn(16, 16).half()
    given = [torch.tensor([0, 3, 8]), torch.tensor([1, 1, 2])]
    scores, counts = [], []
    for backend in (get_backend("atb-sim"), get_backend("cpu")):
        model = ModelTorch("half_PairModel", backend=backend)  # type: ignore[arg-type]
        model.set_param("{}")
        model.set_weight([table, scale, matrix])
        with counted() as found:
            scores += model.execute(given)
        counts.append(found["executes"])
    torch.testing.assert_close(scores[0], scores[1], atol=1e-2, rtol=1e-2)
    assert counts == [2, 0]
