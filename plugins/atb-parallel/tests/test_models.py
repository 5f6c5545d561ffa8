# SPDX-License-Identifier: Apache-2.0
"""A divided model gives the tokens of the whole one, and ends with its processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import AtbError, ConfigError, EngineError, RequestError
from atb_testing import tiny_checkpoint

PROMPTS = [[1, 2, 3, 4, 5], [7, 8, 9]]
GREEDY = SamplingParams(max_tokens=6, ignore_eos=True)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "qwen2_moe": {},
    "qwen3_moe": {"moe_intermediate_size": 64, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes checkpoints; one with the same arguments once."""
    made: dict[str, Path] = {}

    def make(model_type: str, **config: Any) -> Path:
        key = f"{model_type} {config}"
        if key not in made:
            made[key] = tiny_checkpoint(tmp_path_factory.mktemp(model_type), model_type, **config)
        return made[key]

    return make


def opened(path: Path, size: int, **options: Any) -> ModelRunner:
    """Returns a runner of `size` processes with a thread each."""
    given = {"load_tokenizer": False, "num_threads": 1, "max_model_len": 64, "backend": "cpu", **options}
    return ModelRunner(path, tensor_parallel_size=size, **given)


def tokens(path: Path, size: int, **options: Any) -> list[list[int]]:
    """Returns the tokens that `size` processes give."""
    with opened(path, size, **options) as runner:
        return [list(output.outputs[0].token_ids) for output in runner.generate(PROMPTS, GREEDY)]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_two_processes_give_the_tokens_of_one(model_type: str, checkpoint: Callable[..., Path]) -> None:
    path = checkpoint(model_type, **FAMILIES[model_type])
    assert tokens(path, 2) == tokens(path, 1)


def logprobs(path: Path, size: int, dtype: str) -> list[float]:
    """Returns the log probability of each token of a prompt after those before it."""
    prompt = [(7 * place) % 199 for place in range(40)]
    with opened(path, size, dtype=dtype) as runner:
        (output,) = runner.generate([prompt], SamplingParams(max_tokens=1, prompt_logprobs=0))
    assert output.prompt_logprobs is not None
    entries = zip(prompt[1:], output.prompt_logprobs[1:], strict=True)
    return [entry[token].logprob for token, entry in entries if entry is not None]


@pytest.mark.parametrize("model_type", ["qwen3", "qwen3_moe"])
def test_two_processes_round_in_bfloat16_as_one_does(model_type: str, checkpoint: Callable[..., Path]) -> None:
    """The mean error is at most twice that of one process; a part is rounded once more before each sum."""
    path = checkpoint(model_type, **FAMILIES[model_type])
    truth, one, two = logprobs(path, 1, "float32"), logprobs(path, 1, "bfloat16"), logprobs(path, 2, "bfloat16")
    errors = [sum(abs(a - b) for a, b in zip(each, truth, strict=True)) / len(truth) for each in (one, two)]
    assert 0 < errors[1] <= 2 * errors[0]


def test_two_heads_of_keys_are_copied_to_four_processes(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("qwen3", num_key_value_heads=2)
    assert tokens(path, 4) == tokens(path, 1)


def test_one_head_of_keys_is_copied_to_two_processes(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("qwen2", num_key_value_heads=1)
    assert tokens(path, 2) == tokens(path, 1)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_divided_vocabulary_gives_the_bits_of_a_whole_one(
    backend: str, is_tied: bool, checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One token more cannot be divided: then each process has the whole of both tables."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = checkpoint("qwen2", vocab_size=201, num_hidden_layers=1, tie_word_embeddings=is_tied)
    divided = with_vocabulary(whole, tmp_path, 200)
    given = [torch.tensor([3, 1, 4, 1]), torch.arange(4), True]
    rest = [None, torch.arange(4, dtype=torch.int32), torch.tensor([4], dtype=torch.int32), 4]
    found = []
    for path in (whole, divided):
        with opened(path, 2, backend=backend, dtype="bfloat16") as runner:
            assert (runner.model.lm_head.weight.declared_shape[0] == 100) == (path is divided)
            found.append(runner.forward(*given, runner.kv_cache, *rest).clone())  # type: ignore[arg-type]
    assert found[1].dtype is torch.float32
    assert torch.equal(found[0][:, :200], found[1])


def with_vocabulary(source: Path, directory: Path, vocab_size: int) -> Path:
    """Writes a checkpoint without its last tokens."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        if name in ("lm_head.weight", "model.embed_tokens.weight"):
            tensors[name] = tensor[:vocab_size].copy()
    (directory / "config.json").write_text(json.dumps({**config, "vocab_size": vocab_size}))
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def test_long_prompts_are_embedded_in_chunks(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("qwen2", vocab_size=200)
    prompts = [list(range(1, 60)), [4, 5], list(range(60, 100))]
    found = []
    for size in (1, 2):
        with opened(path, size, max_num_batched_tokens=16) as runner:
            steps = []
            tell = runner.model.before_step
            runner.model.before_step = lambda step, tell=tell, steps=steps: (steps.append(step), tell and tell(step))
            found.append([each.embedding for each in runner.embed(prompts)])
            assert [step.phase for step in steps].count("mixed") == 7
            assert [list(each.outputs[0].token_ids) for each in runner.generate(PROMPTS, GREEDY)] == tokens(path, 1)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_the_reference_is_divided_too(checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path = checkpoint("qwen2", num_hidden_layers=1)
    assert tokens(path, 2, backend="reference") == tokens(path, 1)


def test_a_dead_process_is_named_and_the_others_end(checkpoint: Callable[..., Path]) -> None:
    runner = opened(checkpoint("qwen3"), 4)
    followers: Any = runner._group._followers  # type: ignore[union-attr]
    processes = [each.process for each in followers]
    processes[1].kill()
    with pytest.raises(EngineError, match=rf"rank 2 \(process {processes[1].pid}\) ended with exit code -9"):
        runner.generate(PROMPTS, GREEDY)
    assert all(each.poll() is not None for each in processes)
    with pytest.raises(EngineError, match="ended with exit code -9"):
        runner.generate(PROMPTS, GREEDY)
    runner.close()


def test_a_process_that_dies_between_steps_ends_the_others(
    checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with opened(checkpoint("qwen3"), 4) as runner:
        followers: Any = runner._group._followers  # type: ignore[union-attr]
        processes = [each.process for each in followers]
        processes[2].kill()
        assert [each.wait(30) for each in processes] == [0, 0, -9]
        while not caplog.text:
            time.sleep(0.01)
        assert f"rank 3 (process {processes[2].pid}) ended with exit code -9, so the model is gone" in caplog.text


def test_closing_ends_the_processes(checkpoint: Callable[..., Path]) -> None:
    runner = opened(checkpoint("qwen3"), 2)
    (follower,) = runner._group._followers  # type: ignore[union-attr,attr-defined]
    assert follower.process.poll() is None
    runner.close()
    assert follower.process.poll() == 0


def test_a_process_does_not_get_the_interrupts_of_the_terminal(checkpoint: Callable[..., Path]) -> None:
    with opened(checkpoint("qwen3"), 2) as runner:
        (follower,) = runner._group._followers  # type: ignore[union-attr,attr-defined]
        assert os.getpgid(follower.process.pid) != os.getpgrp()


def test_a_refused_step_leaves_the_group_usable(checkpoint: Callable[..., Path]) -> None:
    import torch

    path = checkpoint("qwen3")
    with opened(path, 2) as runner:
        one = torch.zeros(1, dtype=torch.int32)
        with pytest.raises(RequestError):
            runner.forward(one.long() + 10_000, one.long(), True, runner.kv_cache, None, one, one + 1, 1)  # type: ignore[arg-type]
        copied = [(keys.clone(), values.clone()) for keys, values in runner.kv_cache]
        with pytest.raises(RequestError, match="a cache that its runner has allocated"):
            runner.forward(one.long(), one.long(), True, copied, None, one, one + 1, 1)  # type: ignore[arg-type]
        outputs = runner.generate(PROMPTS, GREEDY)
        assert [list(each.outputs[0].token_ids) for each in outputs] == tokens(path, 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_may_have_another_cache_of_the_runner(dtype: str, checkpoint: Callable[..., Path]) -> None:
    import torch

    with opened(checkpoint("qwen3"), 2, dtype=dtype) as runner:
        ids, places, lengths = torch.arange(5), torch.arange(5), torch.tensor([5], dtype=torch.int32)
        rows, block = places.int(), torch.zeros(1, 1, dtype=torch.int32)
        found = []
        for cache in (runner.kv_cache, runner.allocate_kv_cache(2), runner.allocate_kv_cache(1)):
            runner.forward(ids[:4], places[:4], True, cache, block, rows[:4], lengths - 1, 4)
            found.append(runner.forward(ids[4:], places[4:], False, cache, block, rows[4:], lengths, 5).clone())
        assert found[0].any()
        assert all(torch.equal(each, found[0]) for each in found)


def test_a_step_that_rank_0_gives_up_may_be_followed_by_a_long_message(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process then sends its part of a sum, more than a connection holds, which nobody reads."""
    import torch

    count = 4000

    def step(runner: ModelRunner, count: int, width: int) -> torch.Tensor:
        places, lengths = torch.arange(count), torch.tensor([count], dtype=torch.int32)
        table = torch.arange(width, dtype=torch.int32)[None] % runner.num_blocks
        given = (places % 100, places, True, runner.kv_cache, table, places.int(), lengths, count)
        return runner.forward(*given, torch.tensor([count - 1])).clone()

    path = checkpoint("qwen2", num_hidden_layers=1, max_position_embeddings=count)
    with opened(path, 2, max_model_len=count, max_num_seqs=1) as runner:
        expected = step(runner, 8, 1)
        with monkeypatch.context() as patch:
            patch.setattr(type(runner._group), "_parts", lambda group, part: iter([1 / 0]))
            with pytest.raises(EngineError, match="division by zero"):
                step(runner, count, runner.num_blocks)
        assert torch.equal(step(runner, 8, 100_000), expected)


@pytest.mark.parametrize(
    ("config", "size", "cause"),
    [
        ({}, 3, "num_attention_heads = 4 cannot be divided among 3"),
        ({"intermediate_size": 98}, 4, "intermediate_size = 98 cannot be divided among 4"),
        (
            {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 96, "head_dim": 16},
            2,
            "num_key_value_heads = 3",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_named(
    config: dict[str, Any], size: int, cause: str, checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match=cause):
        opened(checkpoint("qwen3", **config), size)


def test_what_a_group_cannot_run_is_refused(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint("qwen3")
    for options in ({"graph": "cpp"}, {"backend": "reference", "graph": "cpp"}):
        with pytest.raises(AtbError):
            opened(path, 2, **options)
    with pytest.raises(RequestError, match="at most 64"):
        opened(path, 128)
