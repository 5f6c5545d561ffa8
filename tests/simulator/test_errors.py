# SPDX-License-Identifier: Apache-2.0
"""Mistakes of users are told before anything runs; what ATB refuses is told with op, place, tensors and its code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interrupts import interrupted
from simulator.simulated import SIM, DeviceDriver, assert_agree, counted, fault, greedy, open_runner, prompts

from atb_core import ModelRunner
from atb_core.engine import get_backend
from atb_core.engine.base import Engine
from atb_core.errors import BackendUnavailableError, EngineError, RequestError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import gather, linear, paged_attention, rms_norm
from atb_testing import open_model, tiny_checkpoint

HIDDEN, VOCAB = 32, 48
HALF = DataType.FLOAT16
IDS = torch.tensor([1, 2, 3])


def small_network() -> Network:
    """ids -> rows of an embedding -> norm -> product with the same embedding: a decoder without its layers."""
    with Network("small") as net:
        embedding = Tensor("embedding", (VOCAB, HIDDEN), HALF)
        rows = gather(embedding, 0, Tensor("ids", (Dim("tokens"),), DataType.INT64))
        normed = rms_norm(rows, Tensor("norm", (HIDDEN,), HALF), 1e-6)
        net.mark_output(linear(normed, embedding, None, False, True), "logits")
    net.weights_keys |= {"embedding", "norm"}
    return net


@pytest.fixture
def engine() -> Engine:
    built = get_backend("atb-sim").build(small_network())
    built.set_weights({"embedding": torch.randn(VOCAB, HIDDEN).half(), "norm": torch.rand(HIDDEN).half()})
    return built


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("llama"), "llama", torch.float16)


def paged_engine(block_size: int | Dim = 16) -> Engine:
    """Attention over two caches, given with each call."""
    tokens, blocks = Dim("tokens"), Dim("blocks")
    with Network("paged") as net:
        q = Tensor("q", (tokens, 2, 16), HALF)
        k, v = (Tensor(name, (blocks, block_size, 1, 16), HALF) for name in ("k_cache", "v_cache"))
        table = Tensor("table", (tokens, Dim("width")), DataType.INT32)
        lengths = Tensor("lengths", (tokens,), DataType.INT32)
        out = paged_attention(
            q, k_cache=k, v_cache=v, block_table=table, kv_lens=lengths, head_num=2, kv_head_num=1, qk_scale=0.25
        )
        net.mark_output(out, "out")
    return get_backend("atb-sim").build(net)


def paged_inputs(block_size: int = 16, length: int = 5) -> dict[str, torch.Tensor]:
    caches = [torch.randn(4, block_size, 1, 16).half() for _ in range(2)]
    table, lengths = torch.tensor([[1]], dtype=torch.int32), torch.tensor([length], dtype=torch.int32)
    query = torch.randn(1, 2, 16).half()
    return {"q": query, "k_cache": caches[0], "v_cache": caches[1], "table": table, "lengths": lengths}


def test_missing_and_unknown_names_are_listed(engine: Engine) -> None:
    with pytest.raises(EngineError, match=r"missing: ids; unknown: tokens"):
        engine.forward({"tokens": IDS})
    with pytest.raises(EngineError, match="unknown: probabilities"):
        engine.forward({"ids": IDS}, {"probabilities": torch.empty(3, VOCAB)})
    with pytest.raises(EngineError, match="unknown: k_cache"):
        engine.set_kv_caches({"k_cache": torch.zeros(3)})


def test_types_shapes_and_strides_are_checked_before_anything_runs(engine: Engine) -> None:
    with counted() as found:
        with pytest.raises(EngineError, match=r"'ids' must be int64, not torch\.int32"):
            engine.forward({"ids": IDS.int()})
        with pytest.raises(EngineError, match="'ids' is not contiguous"):
            engine.forward({"ids": torch.arange(6)[::2]})
        with pytest.raises(EngineError, match="'ids' is on meta"):
            engine.forward({"ids": IDS.to("meta")})
        with pytest.raises(EngineError, match="'ids' must have 1 dimensions"):
            engine.forward({"ids": IDS[None]})
        with pytest.raises(EngineError, match=r"must be 3 \(tokens = 3\), not 4"):
            engine.forward({"ids": IDS}, {"logits": torch.empty(4, VOCAB).half()})
        with pytest.raises(EngineError, match=r"'logits' must be float16, not torch\.float32"):
            engine.forward({"ids": IDS}, {"logits": torch.empty(3, VOCAB)})
        with pytest.raises(EngineError, match="must be float16"):
            engine.set_weights({"norm": torch.zeros(HIDDEN)})
        with pytest.raises(EngineError, match=r"was given a tensor of shape \[7\]"):
            engine.set_weights({"norm": torch.zeros(7).half()})
    assert found["launches"] == found["copies_h2d"] == 0


def test_no_tokens_at_all_are_refused(engine: Engine, llama: Path) -> None:
    with pytest.raises(EngineError, match=r"would be \[0.*\]: ATB takes no tensors without elements"):
        engine.forward({"ids": IDS[:0]})
    driver = DeviceDriver(open_model(llama, "atb-sim"), 1)
    with pytest.raises(RequestError, match="at least one token"):
        driver.prefill([[]])


def test_weights_that_were_not_set_are_named() -> None:
    built = get_backend("atb-sim").build(small_network())
    with pytest.raises(EngineError, match="weights 'embedding', 'norm' have not been set"):
        built.forward({"ids": IDS})
    built.set_weights({"norm": torch.zeros(HIDDEN).half()})
    with pytest.raises(EngineError, match="weight 'embedding' has not been set"):
        built.forward({"ids": IDS})


def test_an_index_out_of_range_is_named_and_the_engine_goes_on(engine: Engine) -> None:
    expected = engine.forward({"ids": IDS})["logits"].clone()
    for bad in (VOCAB, -1, 2**40):
        with pytest.raises(EngineError, match=f"failed on the device: .*Gather.*{bad}"):
            engine.forward({"ids": torch.tensor([0, bad, 1])})
        assert torch.equal(engine.forward({"ids": IDS})["logits"], expected)


def test_a_cache_of_the_host_is_refused_with_the_way_to_get_one(llama: Path) -> None:
    model = open_model(llama, "atb-sim")
    driver = DeviceDriver(model, 1)
    expected = driver.prefill([[1, 2, 3]])
    good = driver.kv_cache
    driver.kv_cache = [(k.clone(), v.clone()) for k, v in good]
    with (
        counted() as found,
        pytest.raises(EngineError, match=r"cache 'layer_0_k_cache' is not in device memory.*alloc"),
    ):
        driver.prefill([[1, 2, 3]])
    assert found["launches"] == 0
    driver.kv_cache = good
    assert torch.equal(driver.prefill([[1, 2, 3]]), expected)


def test_caches_of_a_wrong_type_shape_or_stride_are_refused(llama: Path) -> None:
    model = open_model(llama, "atb-sim")
    driver = DeviceDriver(model, 1)
    good = driver.kv_cache
    blocks, block, heads, head = good[0][0].shape

    def refused(cache: torch.Tensor, match: str) -> None:
        driver.kv_cache = [(cache, good[0][1]), *good[1:]]
        with counted() as found, pytest.raises(EngineError, match=match):
            driver.prefill([[1, 2, 3]])
        assert found["launches"] == 0

    def fresh(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return model.backend.allocate(shape, dtype)  # type: ignore[no-any-return]

    refused(fresh(blocks, block, heads, head, dtype=torch.bfloat16), "must be float16, not torch.bfloat16")
    refused(fresh(blocks, block, heads, head + 16), r"was given a tensor of shape \[8, 16, 2, 32\]")
    refused(fresh(blocks, block, heads, 2 * head)[..., :head], "not contiguous")
    refused(fresh(blocks + 1, block, heads, head), r"must be \d+ \(blocks = \d+\), not \d+")


def test_a_part_of_a_larger_cache_will_do(llama: Path) -> None:
    model = open_model(llama, "atb-sim")
    driver = DeviceDriver(model, 1)
    expected = driver.prefill([[1, 2, 3]])
    pool = model.backend.allocate((2, len(driver.kv_cache), *driver.kv_cache[0][0].shape), torch.float16)
    driver.kv_cache = [(pool[0, layer], pool[1, layer]) for layer in range(len(driver.kv_cache))]
    assert torch.equal(driver.prefill([[1, 2, 3]]), expected)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (
            {"hidden_size": 72},
            r"RmsNorm at \S+ cannot run on Atlas A2: rows of 72 elements are no multiple of 32 bytes",
        ),
        ({"head_dim": 8}, r"Rope at \S+ cannot run on Atlas A2: the head size is 8; ATB's Rope takes 16 to 4096"),
    ],
)
def test_sizes_that_an_operation_cannot_take_are_refused_by_op_and_place(
    tmp_path: Path, config: dict[str, int], match: str
) -> None:
    pytest.importorskip("transformers")
    tiny_checkpoint(tmp_path, "llama", torch.float16, num_attention_heads=4, **{"head_dim": 16, **config})
    with pytest.raises(EngineError, match=match):
        open_runner(tmp_path)


def test_what_atb_refuses_at_setup_is_told_with_op_place_tensors_and_code() -> None:
    built = paged_engine(Dim("block_size"))
    built.forward(paged_inputs(16))
    # The network does not know how large blocks will be, so that only ATB can refuse these.
    with counted() as found, pytest.raises(EngineError) as error:
        built.forward(paged_inputs(8))
    assert found["launches"] == 0
    text = str(error.value)
    assert text.startswith("ATB cannot prepare the operations of ")
    assert "it refuses PagedAttention, made of PagedAttention at " in text
    assert "ERROR_INVALID_TENSOR_DIM (8)" in text
    assert text.endswith(
        "its inputs: float16 [1, 2, 16], float16 [4, 8, 1, 16], float16 [4, 8, 1, 16], int32 [1, 1], int32 [1]"
    )
    built.forward(paged_inputs(16))


def test_lengths_beyond_the_table_are_told_by_the_operation_that_reads_them() -> None:
    built = paged_engine()
    with pytest.raises(EngineError, match=r"PagedAttention"):
        built.forward(paged_inputs(length=17))
    built.forward(paged_inputs(length=16))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ("Operation::Setup", r"cannot prepare the operations of model\.layers\.0\S*: ERROR_INVALID_TENSOR_DIM \(8\)"),
        ("Operation::Execute", r"cannot launch the operations of model\.layers\.0\S*: ERROR_INVALID_TENSOR_DIM \(8\)"),
    ],
)
def test_a_layer_that_atb_refuses_is_told_with_all_its_inputs(llama: Path, call: str, match: str) -> None:
    driver = DeviceDriver(open_model(llama, "atb-sim"), 1)
    with pytest.raises(EngineError, match=match) as error, fault(SIM.inject, call, 1, 8):
        driver.prefill([[1, 2, 3]])
    for tensor in ("float16 [3, 64]", "float16 [128, 64]", "float16 [8, 16, 2, 16]", "int32 [3]"):
        assert tensor in str(error.value)


def test_a_code_that_nobody_documented_is_told_as_a_number(engine: Engine) -> None:
    with (
        pytest.raises(EngineError, match=r"a code that is not documented \(4242\)"),
        fault(SIM.inject, "Operation::Setup", 0, 4242),
    ):
        engine.forward({"ids": IDS})


def test_parameters_that_atb_refuses_are_told_when_the_engine_is_built() -> None:
    backend = get_backend("atb-sim")
    with (
        counted() as found,
        pytest.raises(EngineError, match=r"ATB refuses the parameters of RmsNorm, which is made of RmsNorm.*\(1\)"),
        fault(SIM.inject, "CreateOperation", 1, 1),
    ):
        backend.build(small_network())
    assert found["live_operations"] == 0
    backend.build(small_network())


@pytest.mark.parametrize(
    ("call", "status", "match"),
    [
        ("aclrtMalloc", 207001, "MiB for weight embedding: .* are free; ACL reports error 207001"),
        ("aclrtMemcpy", 107000, "copying 3072 bytes to the device failed: ACL reports error 107000"),
        ("aclrtGetDevice", 107001, "choosing device 0 failed: ACL reports error 107001"),
    ],
)
def test_a_failure_of_acl_is_told_with_what_was_done(engine: Engine, call: str, status: int, match: str) -> None:
    expected = engine.forward({"ids": IDS})["logits"].clone()
    weight = torch.randn(VOCAB, HIDDEN).half()
    with pytest.raises(EngineError, match=match), fault(SIM.inject, call, 0, status):
        engine.set_weights({"embedding": weight})
    assert torch.equal(engine.forward({"ids": IDS})["logits"], expected)
    engine.set_weights({"embedding": weight})
    assert not torch.equal(engine.forward({"ids": IDS})["logits"], expected)


def test_memory_whose_release_fails_is_told_by_the_next_use_and_only_by_that(engine: Engine) -> None:
    backend = get_backend("atb-sim")
    cache = backend.allocate((16, 16), torch.float16)
    with fault(SIM.inject, "aclrtFree", 0, 507899):
        del cache
    with pytest.raises(EngineError, match="giving back device memory failed: ACL reports error 507899"):
        engine.forward({"ids": IDS})
    engine.forward({"ids": IDS})


def test_a_request_that_failed_leaves_the_runner_able_to_serve_the_next(llama: Path) -> None:
    runner = open_runner(llama)
    expected = runner.generate(prompts(), greedy(6))
    for where in (0, 3, 7, 12):
        with pytest.raises(EngineError), fault(SIM.inject, "Operation::Execute", where, 4):
            runner.generate(prompts(), greedy(6))
        assert runner.num_free_blocks == runner.num_blocks
        again = runner.generate(prompts(), greedy(6))
        assert [output.token_ids for output in again] == [output.token_ids for output in expected]
    assert_agree(again, expected)


def test_what_this_machine_lacks_for_a_real_device_is_said_exactly(llama: Path) -> None:
    with pytest.raises(BackendUnavailableError) as error:
        ModelRunner(llama, backend="atb", dtype="float16")
    text = str(error.value)
    assert text.startswith("backend 'atb' (Ascend) cannot be used here: ")
    for part in ("no NPU in /dev", "driver", "CANN toolkit", "ATB", "torch_npu", "`atb doctor`"):
        assert part in text


INTERRUPTED = """
import torch
from atb_ascend.backend import AtbBackend
from atb_core.graph import DataType, Dim, Network, Tensor

# The host waits after each segment, so that it has not given everything to the device when the signal comes.
backend = AtbBackend(simulator=True)
backend.device = backend.extension.Device(0, launch_blocking=True)
with Network("long") as net:
    x = Tensor("x", (Dim("n"),), DataType.FLOAT16)
    y = x
    for _ in range(6000):
        y = y * 1.0
    net.mark_output(y, "y")
engine = backend.build(net)
out = torch.full((1 << 19,), -1.0).half()
before = engine.forward({"x": torch.ones(3).half()})["y"].tolist()
try:
    interrupt_soon()
    engine.forward({"x": torch.ones(1 << 19).half()}, {"y": out})
    print("finished")
except KeyboardInterrupt:
    print("interrupted" if bool((out == -1).all()) else "interrupted after the end")
print(engine.forward({"x": torch.ones(3).half()})["y"].tolist() == before)
"""

INTERRUPTED_RUNNER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from simulator.simulated import greedy, open_runner, prompts

runner = open_runner({checkpoint!r}, max_num_seqs=2)
before = [output.token_ids for output in runner.generate(prompts(), greedy(5))]
try:
    interrupt_soon()
    while True:
        runner.generate(prompts(), greedy(60))
except KeyboardInterrupt:
    print("interrupted", runner.num_free_blocks == runner.num_blocks)
print([output.token_ids for output in runner.generate(prompts(), greedy(5))] == before)
"""


def test_an_interrupt_ends_the_run_and_not_the_engine() -> None:
    assert interrupted(INTERRUPTED) == ["interrupted", "True"]


def test_an_interrupt_ends_a_generation_and_not_the_runner(llama: Path) -> None:
    script = INTERRUPTED_RUNNER.format(path=[str(Path(__file__).parents[1])], checkpoint=str(llama))
    assert interrupted(script) == ["interrupted True", "True"]
