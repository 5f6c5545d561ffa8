# SPDX-License-Identifier: Apache-2.0
"""Other devices than the usual one: what they run, and what is refused before anything is launched."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from simulator.simulated import BACKENDS, SIM, assert_agree, counted, fault, greedy, open_runner, prompts, run_python

import atb_ascend.backend as atb
from atb_core.engine import get_backend
from atb_core.errors import AtbError, BackendUnavailableError, EngineError
from atb_testing import tiny_checkpoint

pytest.importorskip("transformers")

Become = Callable[..., None]
KNOWN = r"Ascend910B\* \(Atlas A2\), Ascend910_93\* \(Atlas A3\), Ascend310P\* \(Atlas 300I Duo\)"


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Iterator[Become]:
    """Lets the process find another device, of so much memory beyond what is in use, until the end of the test."""
    usual = get_backend("atb-sim").soc_name  # type: ignore[attr-defined]

    def change(soc: str = usual, free: int | None = None) -> None:
        SIM.set_soc(soc)
        if free is not None:
            gc.collect()  # models of other tests that are freed later would leave more
            SIM.set_memory(SIM.counters()["live_bytes"] + free)
        # A process keeps the devices that it has opened.
        monkeypatch.setattr(atb, "_shared_device", cache(atb._shared_device.__wrapped__))

    yield change
    SIM.set_soc(usual)
    SIM.set_memory(64 << 30)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    def make(family: str = "llama", dtype: torch.dtype = torch.float16, **config: Any) -> Path:
        name = f"{family}{len(list(tmp_path.iterdir()))}"
        return tiny_checkpoint(tmp_path / name, family, dtype, **{"vocab_size": 208, **config})

    return make


def refused(path: Path, match: str, error: type[AtbError] = BackendUnavailableError, **options: Any) -> None:
    """Opening the model and generating is refused, and nothing has run before."""
    with counted() as found, pytest.raises(error, match=match):
        open_runner(path, **options).generate(prompts(), greedy(2))
    assert found["launches"] == 0


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_300i_duo_gives_the_cpu_engines_tokens_in_float16(
    become: Become, checkpoint: Callable[..., Path], family: str
) -> None:
    become("Ascend310P3")
    # With 203 tokens the last matrix does not fit into blocks and stays in rows.
    for config in ({}, {"tie_word_embeddings": True}, {"vocab_size": 203}):
        path = checkpoint(family, **config)
        options = {"block_size": 32, "max_num_seqs": 4}
        runs = [open_runner(path, backend, **options).generate(prompts(), greedy(8)) for backend in BACKENDS]
        assert_agree(runs[1], runs[0])


def test_a_300i_duo_runs_prompts_longer_than_the_mask(become: Become, checkpoint: Callable[..., Path]) -> None:
    become("Ascend310P1")
    path = checkpoint(max_position_embeddings=512)
    given = prompts([130, 300, 128])
    runs = [open_runner(path, backend, max_model_len=512).generate(given, greedy(4)) for backend in BACKENDS]
    assert_agree(runs[1], runs[0])


def test_a_300i_duo_gets_matrices_caches_and_the_mask_in_blocks(
    become: Become, checkpoint: Callable[..., Path]
) -> None:
    become("Ascend310P3")
    runner = open_runner(checkpoint(), num_blocks=64)
    # ATB refuses the first layer's segment, and what it was given is told.
    with (
        pytest.raises(EngineError, match="the segment's inputs: ") as refusal,
        fault(SIM.inject, "Operation::Setup", 1, 3),
    ):
        runner.generate([[1, 2, 3]], greedy(1))
    given = str(refusal.value).partition("inputs: ")[2].split(", float16 ")
    matrices = {"[128, 64]": "[1, 4, 128, 16]", "[64, 64]": "[1, 4, 64, 16]", "[224, 64]": "[1, 4, 224, 16]"}
    matrices |= {"[64, 112]": "[1, 7, 64, 16]", "mask": "[1, 8, 128, 16]", "cache": "[64, 2, 16, 16]"}
    for name, blocks in matrices.items():
        assert any(tensor.startswith(f"{blocks} nz") for tensor in given), (name, given)


def test_a_matrix_that_is_faster_transposed_is_kept_so_and_nothing_else_changes(
    become: Become, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(intermediate_size=128)  # gate and up are [256, 64]
    results = []
    for switch, shape in (("1", "[64, 256]"), ("0", "[256, 64]")):
        monkeypatch.setenv("ATB_LLM_ENABLE_AUTO_TRANSPOSE", switch)
        become()
        runner = open_runner(path)
        with (
            pytest.raises(EngineError, match="the segment's inputs: ") as refusal,
            fault(SIM.inject, "Operation::Setup", 1, 3),
        ):
            runner.generate([[1, 2, 3]], greedy(1))
        assert f"float16 {shape}" in str(refusal.value).partition("inputs: ")[2]
        outputs = runner.generate(prompts(), greedy(6))
        store = runner.model.variants.store
        results.append(
            ([output.token_ids for output in outputs], [o.outputs[0].logprobs for o in outputs], store.nbytes)
        )
    assert results[0] == results[1]


def test_a_tied_embedding_is_kept_in_rows_and_in_blocks(become: Become, checkpoint: Callable[..., Path]) -> None:
    path = checkpoint(tie_word_embeddings=True)
    sizes = []
    for soc in ("Ascend910B4", "Ascend310P3"):
        become(soc)
        sizes.append(open_runner(path).model.variants.store.nbytes)
    assert sizes[1] - sizes[0] == 208 * 64 * 2


@pytest.mark.parametrize("soc", ["Ascend910B1", "Ascend910B4", "Ascend910_9392"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_devices_of_one_generation_give_the_same_tokens(
    become: Become, checkpoint: Callable[..., Path], soc: str, dtype: torch.dtype
) -> None:
    path = checkpoint("qwen3", dtype)
    expected = open_runner(path).generate(prompts(), greedy(4))
    become(soc)
    runner = open_runner(path)
    assert runner.model.backend.soc_name == soc  # type: ignore[attr-defined]
    outputs = runner.generate(prompts(), greedy(4))
    assert [output.outputs[0].logprobs for output in outputs] == [output.outputs[0].logprobs for output in expected]


def test_element_types_that_a_device_has_not_are_refused_with_those_that_it_has(
    become: Become, checkpoint: Callable[..., Path]
) -> None:
    bfloat16, float32 = checkpoint(dtype=torch.bfloat16), checkpoint(dtype=torch.float32)
    refused(float32, r"no float32 .*Run the model in float16 or bfloat16\.$")
    refused(bfloat16, "no float32", dtype="float32")
    become("Ascend310P3")
    refused(float32, r"no float32 .*Run the model in float16\.$")
    refused(bfloat16, r'300I Duo \(Ascend310P3\) has no bfloat16.*dtype="float16"')
    for path in (bfloat16, float32):  # the way out
        open_runner(path, dtype="float16").generate(prompts(), greedy(2))


def test_heads_that_a_device_cannot_take_are_refused(become: Become, checkpoint: Callable[..., Path]) -> None:
    narrow, long, longest = (checkpoint(head_dim=size) for size in (24, 272, 592))
    refused(longest, "at most 576 elements; this model's have 592")
    open_runner(narrow).generate(prompts(), greedy(2))
    become("Ascend310P3")
    refused(narrow, "multiples of 16 elements; this model's have 24")
    refused(long, "at most 256 .*this model's have 272")


@pytest.mark.parametrize(
    ("soc", "head", "block", "match"),
    [
        ("Ascend910B2", 16, 8, "blocks of 8 slots; Atlas A2 takes multiples of 16. Choose another block_size"),
        ("Ascend910B2", 272, 256, "at most 128 for heads of 272. Choose another block_size, such as 128"),
        ("Ascend910B2", 160, 128, "at most 96 for heads of 160. Choose another block_size, such as 64"),
        ("Ascend910B2", 128, 256, "at most 128 for heads of 128"),
        ("Ascend310P3", 16, 8, "blocks of 8 slots; Atlas 300I Duo takes multiples of 16"),
        ("Ascend310P3", 256, 128, "at most 64 for heads of 256"),
    ],
)
def test_blocks_that_a_device_cannot_take_are_refused(
    become: Become, checkpoint: Callable[..., Path], soc: str, head: int, block: int, match: str
) -> None:
    become(soc)
    path = checkpoint(head_dim=head)
    refused(path, match, EngineError, block_size=block)
    open_runner(path, block_size=64).generate(prompts(), greedy(2))


@pytest.mark.parametrize("soc", ["Ascend910B2", "Ascend310P3"])
@pytest.mark.parametrize("head", [160, 192, 256])
def test_the_runner_chooses_blocks_that_long_heads_fit(
    become: Become, checkpoint: Callable[..., Path], soc: str, head: int
) -> None:
    become(soc)
    runner = open_runner(checkpoint(head_dim=head), block_size=None)
    assert runner.block_size == 64
    assert runner.model.mixed_steps_problem(runner.block_size) is None
    runner.generate(prompts(), greedy(2))


def test_usual_heads_have_blocks_of_128(checkpoint: Callable[..., Path]) -> None:
    for backend in ("cpu", "atb-sim"):
        assert open_runner(checkpoint(), backend, block_size=None).block_size == 128


@pytest.mark.parametrize(
    ("soc", "match"),
    [
        ("Ascend910A", r"does not run on 'Ascend910A' \(Atlas A1\): it has no bfloat16"),
        ("Ascend910B", r"does not run on 'Ascend910B' \(Atlas A1\)"),  # not an A2, which has a digit more
        ("Ascend910ProB", r"does not run on 'Ascend910ProB' \(Atlas A1\)"),
        ("Ascend950DT_9591", r"does not run on 'Ascend950DT_9591' \(Atlas A5\).*aclnn"),
        ("Ascend910_9599", r"does not run on 'Ascend910_9599' \(Atlas A5\)"),
        ("Ascend310", "does not know the device 'Ascend310'"),
        ("Quantum1", "does not know the device 'Quantum1'"),
    ],
)
def test_devices_that_it_does_not_run_on_are_refused_by_name(become: Become, soc: str, match: str) -> None:
    become(soc)
    with counted() as found, pytest.raises(BackendUnavailableError, match=f"{match}.*; it runs on {KNOWN}"):
        get_backend("atb-sim")
    assert {name: found[name] for name in ("live_streams", "live_contexts", "live_bytes")} == {
        "live_streams": 0,
        "live_contexts": 0,
        "live_bytes": 0,
    }


def test_a_number_that_no_device_has_is_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="there is no device 1; this machine has 1"):
        get_backend("atb-sim", device_id=1)
    with pytest.raises(EngineError, match=r"device_id must be an integer from 0 to .*, not -1"):
        get_backend("atb-sim", device_id=-1)


def test_a_process_finds_the_device_that_the_environment_names() -> None:
    script = "from atb_core.engine import get_backend as g; b = g('atb-sim'); print(b.soc_name, b.available_memory())"
    assert run_python(script) == f"Ascend910B2 {64 << 30}\n"
    environment = {"ATB_SIM_SOC": "Ascend310P3", "ATB_SIM_MEMORY": str(1 << 30)}
    assert run_python(script, **environment) == f"Ascend310P3 {1 << 30}\n"


def test_a_process_finds_as_many_devices_as_the_environment_says() -> None:
    script = "from atb_core.engine import get_backend as g; print(g('atb-sim', device_id=2).soc_name)"
    assert run_python(script, ATB_SIM_DEVICES="3") == "Ascend910B2\n"


@pytest.mark.parametrize(("name", "what"), [("ATB_SIM_MEMORY", "bytes"), ("ATB_SIM_DEVICES", "devices")])
def test_a_number_in_the_environment_that_is_none_is_refused_by_name(name: str, what: str) -> None:
    script = (
        "from atb_core import AtbError\nfrom atb_core.engine import get_backend\n"
        "try: get_backend('atb-sim')\nexcept AtbError as error: print(error)"
    )
    said = f"{name}=abc is no number of {what}. Correct or unset the environment variable.\n"
    assert run_python(script, **{name: "abc"}) == said


def test_a_weight_that_does_not_fit_is_named_with_what_is_free(become: Become, checkpoint: Callable[..., Path]) -> None:
    path = checkpoint(hidden_size=512, intermediate_size=2048, num_hidden_layers=2)
    become(free=6 << 20)
    refused(
        path,
        r"device 0 \(Ascend910B2\) has no \d+ MiB for weight model\.layers\.\d\.\S+: \d of \d+ MiB are free; "
        r"ACL reports error 207001",
        EngineError,
    )


def test_a_cache_that_does_not_fit_is_refused_with_what_is_free(
    become: Become, checkpoint: Callable[..., Path]
) -> None:
    path = checkpoint()
    become(free=8 << 20)
    refused(path, "A key/value cache of 9999 blocks takes .* MiB, but only .* MiB", EngineError, num_blocks=9999)
    with pytest.raises(EngineError, match=r"has no \d+ MiB for a key/value cache: \d+ of \d+ MiB are free"):
        open_runner(path).model.backend.allocate((100 << 20,), torch.int8)


def test_activations_that_do_not_fit_are_refused_and_smaller_steps_go_on(
    become: Become, checkpoint: Callable[..., Path]
) -> None:
    path = checkpoint(max_position_embeddings=4096, intermediate_size=1024)
    become(free=8 << 20)
    runner = open_runner(path, max_model_len=4096, num_blocks=256)
    expected = runner.generate(prompts(), greedy(4))
    with pytest.raises(EngineError, match=r"MiB for (activations|ATB's workspace): \d+ of \d+ MiB are free"):
        runner.generate(prompts([4000]), greedy(1))
    again = runner.generate(prompts(), greedy(4))
    assert [output.token_ids for output in again] == [output.token_ids for output in expected]
