# SPDX-License-Identifier: Apache-2.0
"""Adapters on a divided model: each process has its part of their matrices, and the results are those of one."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import RequestError, WeightsError
from atb_testing import tiny_checkpoint

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8], [2, 8, 1, 8, 2, 8], [1, 6, 1, 8]]
GREEDY = SamplingParams(max_tokens=5, ignore_eos=True)
#: What an adapter has: its rank, and those of modules that have another one; 0 for modules without matrices.
ADAPTERS: dict[str, dict[str, int]] = {
    "all": {},
    "qv": dict.fromkeys(("k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 0),
    "ranks": {"down_proj": 7, "o_proj": 3, "k_proj": 0, "up_proj": 1},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 2},
    "llama": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "qwen2_moe": {},
}


def opened(path: Path, size: int, **options: Any) -> ModelRunner:
    """Returns a runner of `size` processes with a thread each."""
    given = {"load_tokenizer": False, "num_threads": 1, "max_model_len": 64, "backend": "cpu", **options}
    return ModelRunner(path, tensor_parallel_size=size, **given)


def write_adapter(model: Any, directory: Path, ranks: dict[str, int], bias: bool = False, seed: int = 0) -> Path:
    """Writes an adapter with random matrices for a model's linear layers, in PEFT's form."""
    from safetensors.numpy import save_file

    random, tensors = np.random.default_rng(seed), {}
    for target in model.lora.targets:
        for prefix, rows in zip(target.linear.prefixes, target.sizes, strict=True):
            name, rank = f"base_model.model.{prefix}", ranks.get(prefix.rpartition(".")[2], 4)
            if rank:
                tensors[f"{name}.lora_A.weight"] = (random.standard_normal((rank, target.k)) / 8).astype(np.float32)
                tensors[f"{name}.lora_B.weight"] = (random.standard_normal((rows, rank)) / 4).astype(np.float32)
            if bias and target.linear.bias is not None:
                tensors[f"{name}.bias"] = random.standard_normal(rows).astype(np.float32)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    pattern = {name: rank for name, rank in ranks.items() if rank}
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": pattern, "target_modules": "all-linear"}
    (directory / "adapter_config.json").write_text(json.dumps({**settings, "bias": "all" if bias else "none"}))
    return directory


class World:
    """Checkpoints, and adapters for them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def checkpoint(self, model_type: str, **config: Any) -> Path:
        path = self.root / model_type
        return path if path.exists() else tiny_checkpoint(path, model_type, **FAMILIES[model_type], **config)

    def adapters(self, model_type: str) -> dict[str, Path]:
        paths = {name: self.root / f"{model_type}-{name}" for name in (*ADAPTERS, "bias")}
        if not paths["bias"].exists():
            with opened(self.checkpoint(model_type), 1) as runner:
                for seed, (name, ranks) in enumerate(ADAPTERS.items()):
                    write_adapter(runner.model, paths[name], ranks, seed=seed)
                write_adapter(runner.model, paths["bias"], {}, bias=True, seed=7)
        return paths


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("adapters"))


def results(runner: ModelRunner, names: list[str | None]) -> list[tuple[list[int], list[float]]]:
    """Returns tokens, and log probabilities of each prompt's tokens."""
    outputs = runner.generate(PROMPTS[: len(names)], GREEDY, adapter_ids=names)
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    scored = runner.generate(PROMPTS[: len(names)], params, adapter_ids=names)
    found = []
    for prompt, output, other in zip(PROMPTS, outputs, scored, strict=False):
        assert other.prompt_logprobs is not None
        entries = [e[token].logprob for token, e in zip(prompt[1:], other.prompt_logprobs[1:], strict=True) if e]
        found.append((list(output.outputs[0].token_ids), entries))
    return found


def assert_same(ours: list[Any], others: list[Any]) -> None:
    for (tokens, logprobs), (wanted, expected) in zip(ours, others, strict=True):
        assert tokens == wanted
        np.testing.assert_allclose(logprobs, expected, atol=1e-4)


@pytest.mark.parametrize(("model_type", "size"), [("llama", 4), ("qwen2_moe", 2)])
def test_several_processes_give_the_results_of_one(model_type: str, size: int, world: World) -> None:
    """With adapters for all layers, some of a packed one, of several ranks, with biases; alone and together."""
    path, adapters = world.checkpoint(model_type), world.adapters(model_type)
    batches: list[list[str | None]] = [["all", "qv", None, "ranks"], ["bias"], ["qv", "qv"]]
    found = []
    for processes in (1, size):
        with opened(path, processes, lora_modules=adapters) as runner:
            found.append([results(runner, names) for names in batches])
    plain = opened(path, 1)
    with plain:
        base = results(plain, [None, None])
    assert found[0][2] != base
    for one, several in zip(*found, strict=True):
        assert_same(several, one)


def test_the_reference_divides_adapters_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    path, adapters = world.checkpoint("qwen2"), world.adapters("qwen2")
    found = []
    for size, backend in ((1, "cpu"), (2, "reference")):
        with opened(path, size, backend=backend, lora_modules={"ranks": adapters["ranks"]}) as runner:
            found.append(results(runner, ["ranks", "ranks"]))
    assert_same(*found)


def test_adapters_come_go_and_change_in_all_processes(world: World, tmp_path: Path) -> None:
    path, adapters = world.checkpoint("qwen2"), world.adapters("qwen2")
    wanted: dict[str, Any] = {}
    with opened(path, 1, lora_modules=adapters) as one:
        for name in adapters:
            wanted[name] = results(one, [name, name])
        wanted["base"] = results(one, [None, None])
    with opened(path, 2, max_loras=1) as runner:
        leader: Any = runner._group
        assert_same(results(runner, [None, None]), wanted["base"])
        # More adapters than slots: they take turns in each process.
        for name in ("all", "qv", "all"):
            if name not in runner.adapters:
                runner.load_adapter(name, adapters[name])
            assert_same(results(runner, [name, name]), wanted[name])
        runner.load_adapter("all", adapters["ranks"], replace=True)
        assert_same(results(runner, ["all", "all"]), wanted["ranks"])
        runner.unload_adapter("all")
        with pytest.raises(RequestError, match="there is no adapter 'all'"):
            runner.generate(PROMPTS[:1], GREEDY, adapter_ids=["all"])
        gc.collect()
        # Those that nothing can name are told to the others with the next step.
        assert len(leader._sent) == 1
        assert_same(results(runner, ["qv", "qv"]), wanted["qv"])
        assert leader._unused == []


def test_an_adapter_for_a_part_does_not_fit(world: World, tmp_path: Path) -> None:
    with opened(world.checkpoint("qwen2"), 2) as runner:
        part = write_adapter(runner.model, tmp_path / "part", ADAPTERS["all"])
        with pytest.raises(WeightsError, match="has shape"):
            runner.load_adapter("part", part)


def test_a_refused_step_with_adapters_leaves_the_group_usable(world: World) -> None:
    path, adapters = world.checkpoint("qwen2"), world.adapters("qwen2")
    with opened(path, 2, max_loras=1, lora_modules=adapters) as runner:
        before = results(runner, ["all", "all"])
        ids = np.zeros(2, np.int64)
        lengths = np.ones(2, np.int32)
        step = (ids, ids * 0, True, runner._cache.caches, None, np.array([-1, -1], np.int32), lengths, 1)
        with pytest.raises(RequestError, match="2 different adapters"):
            runner.forward(*step, adapter_ids=["all", "qv"])  # type: ignore[arg-type]
        assert_same(results(runner, ["all", "all"]), before)
