# SPDX-License-Identifier: Apache-2.0
"""Adapters in PEFT's format give PEFT's tokens, alone and in mixed batches, whatever is loaded meanwhile."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import AtbError, BackendUnavailableError, EngineError, RequestError, WeightsError
from atb_lora.adapter import WEIGHTS_FILE

sys.path.insert(0, str(Path(__file__).parent))
from lora_adapters import ADAPTERS, change_settings, greedy, write_adapter, write_base

TOKENS = 8
GREEDY = SamplingParams(max_tokens=TOKENS, ignore_eos=True, logprobs=0)


def prompts_of(count: int, seed: int = 1) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(199) for _ in range(rng.randrange(3, 30))] for _ in range(count)]


class World:
    """Base and adapters on disk, and PEFT's models of them."""

    def __init__(self, root: Path) -> None:
        self.base = write_base(root / "base")
        self.models = {
            name: write_adapter(self.base, root / name, seed, **settings)
            for seed, (name, settings) in enumerate(ADAPTERS.items())
        }
        self.paths = {name: root / name for name in ADAPTERS}

    def open(self, **arguments: Any) -> ModelRunner:
        arguments = {
            "lora_modules": self.paths,
            "load_tokenizer": False,
            "block_size": 16,
            "backend": "cpu",
            **arguments,
        }
        return ModelRunner(self.base, **arguments)

    def copy_of(self, name: str, directory: Path) -> Path:
        return Path(shutil.copytree(self.paths[name], directory / name))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("lora"))


@pytest.fixture
def runner(world: World) -> Iterator[ModelRunner]:
    with world.open() as opened:
        yield opened


def results(runner: ModelRunner, prompts: Any, names: Any) -> list[tuple[list[int], float]]:
    """Tokens and the sum of their log probabilities, which is the same for the same bits alone."""
    outputs = [result.outputs[0] for result in runner.generate(prompts, GREEDY, adapter_ids=names)]
    return [(output.token_ids, output.cumulative_logprob) for output in outputs]


def test_mapped_weights_take_adapters(world: World, runner: ModelRunner, tmp_path: Path) -> None:
    prompts, names = prompts_of(4), [None, *list(world.paths)[:3]]
    for is_mapped in (False, True):
        with world.open(cache_packed=tmp_path / "packed") as mapped:
            assert bool(mapped.model.mapped_bytes) == is_mapped
            assert results(mapped, prompts, names) == results(runner, prompts, names)


def test_tokens_are_those_of_peft_in_mixed_batches(world: World, runner: ModelRunner) -> None:
    prompts = prompts_of(32)
    for shift in range(3):
        names = [[*ADAPTERS, None][(i + shift) % 5] for i in range(32)]
        got = results(runner, prompts, names)
        for prompt, name, (tokens, _) in zip(prompts, names, got, strict=True):
            if name is not None:
                assert tokens == greedy(world.models[name], prompt, TOKENS), name


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_log_probabilities_are_those_of_peft(world: World, backend: str) -> None:
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    with world.open(backend=backend) as runner:
        for name in ADAPTERS:
            for prompt in prompts_of(3):
                (result,) = runner.generate(prompt, params, adapter_ids=name)
                with torch.no_grad():
                    wanted = world.models[name](torch.tensor([prompt])).logits[0].double().log_softmax(-1)
                got = [
                    entry[token].logprob for token, entry in zip(prompt[1:], result.prompt_logprobs[1:], strict=True)
                ]
                torch.testing.assert_close(
                    torch.tensor(got), wanted[range(len(prompt) - 1), prompt[1:]].float(), atol=1e-4, rtol=1e-4
                )


def test_a_request_has_the_same_bits_alone_and_among_others(world: World, runner: ModelRunner) -> None:
    prompts, names = prompts_of(8), ["qv", None, "patterns", "biases", "qv", None, "patterns", "biases"]
    together = results(runner, prompts, names)
    with world.open(enable_prefix_caching=False) as other:
        assert together == [results(other, prompt, [name])[0] for prompt, name in zip(prompts, names, strict=True)]
    with world.open(lora_modules=None) as plain:
        bare = results(plain, prompts, None)
    assert [each for each, name in zip(together, names, strict=True) if name is None] == [bare[1], bare[5]]


def test_more_adapters_than_slots_take_turns(world: World) -> None:
    prompts, names = prompts_of(10), [*ADAPTERS, None] * 2
    with world.open() as runner:
        wanted = results(runner, prompts, names)
    for slots in (1, 2):
        with world.open(max_loras=slots) as runner:
            assert results(runner, prompts, names) == wanted
            manager = runner.model.lora
            # The adapter that was used last is still in its slot.
            placed = manager.num_placed
            results(runner, prompts[:1], [next(iter(ADAPTERS))])
            again = manager.num_placed
            results(runner, prompts[1:2], [next(iter(ADAPTERS))])
            assert placed <= again == manager.num_placed


def test_the_cache_does_not_share_prefixes_between_adapters(world: World, runner: ModelRunner, tmp_path: Path) -> None:
    prompt = prompts_of(1)[0] * 4
    with world.open(enable_prefix_caching=False) as other:
        wanted = [results(other, prompt, [name])[0] for name in [None, *ADAPTERS]]
    for _ in range(2):
        assert [results(runner, prompt, [name])[0] for name in [None, *ADAPTERS]] == wanted
    (cached,) = runner.generate(prompt, GREEDY, adapter_ids="qv")
    assert cached.num_cached_tokens > 0
    # Another adapter under the same name finds nothing.
    runner.load_adapter("qv", world.paths["patterns"], replace=True)
    assert results(runner, prompt, ["qv"])[0] == wanted[2]
    # The same adapter under another name finds what it computed.
    runner.load_adapter("again", world.copy_of("qv", tmp_path))
    (cached,) = runner.generate(prompt, GREEDY, adapter_ids="again")
    assert cached.num_cached_tokens > 0


def test_running_requests_keep_the_adapter_that_they_began_with(world: World, runner: ModelRunner) -> None:
    prompt = prompts_of(1)[0]
    wanted = {name: results(runner, prompt, [name])[0][0] for name in ADAPTERS}
    stream = runner.generate(prompt, GREEDY, adapter_ids="qv", stream=True)
    tokens = [next(stream).token_id for _ in range(2)]
    runner.load_adapter("qv", world.paths["patterns"], replace=True)
    assert results(runner, prompt, ["qv"])[0][0] == wanted["patterns"]
    tokens.append(next(stream).token_id)
    runner.unload_adapter("qv")
    with pytest.raises(RequestError, match=r"no adapter 'qv'[\s\S]*biases, pattern, patterns"):
        runner.generate(prompt, GREEDY, adapter_ids="qv")
    assert tokens + [chunk.token_id for chunk in stream] == wanted["qv"]
    runner.load_adapter("qv", world.paths["qv"])
    assert results(runner, prompt, ["qv"])[0][0] == wanted["qv"]
    assert runner.adapters == ("patterns", "biases", "pattern", "qv")


def test_a_variant_for_adapters_has_no_copy_of_the_weights(runner: ModelRunner) -> None:
    results(runner, prompts_of(2), [None, None])
    store = runner.model.variants.store
    before = store.nbytes
    results(runner, prompts_of(2), ["qv", None])
    results(runner, prompts_of(2), ["qv", "qv"])
    keys = {"+".join(sorted(key)) for key in runner.model.variants.variants}
    assert {"decode", "decode+multi_lora", "decode+single_lora"} <= keys
    assert store.nbytes == before


def test_steps_without_an_adapter_run_the_plain_variant(runner: ModelRunner) -> None:
    results(runner, prompts_of(2), [None, "base"])
    assert all(len(key) == 1 for key in runner.model.variants.variants)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
        ({"use_dora": True}, "use_dora is 'True', which is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa"}, "'pissa', with which training changes the base model"),
        ({"a_later_invention": 3}, "a_later_invention is '3'"),
        ({"r": 0}, "r is 0, not a positive number"),
        ({"lora_alpha": None}, "lora_alpha is None, not a positive number"),
        ({"r": 4}, r"lora_A.weight has shape \[8, 64\], not \[4, 64\]"),
        ({"lora_alpha": "much"}, "lora_alpha is much"),
        ({"alpha_pattern": {"(.*)*x": 3}}, r"pattern '\(\.\*\)\*x' of alpha_pattern is none, or not"),
        ({"target_modules": ["q_proj"]}, "v_proj has matrices, and it has none by target_modules"),
        ({"target_modules": r".*\.q_proj"}, "v_proj has matrices, and it has none by target_modules"),
        ({"target_modules": {"q": 1}}, "target_modules is neither a list nor a pattern"),
        ({"exclude_modules": ["q_proj"]}, "q_proj has matrices, and it has none by exclude_modules"),
        ({"exclude_modules": r".*\.1\..*"}, r"layers\.1\..* has matrices, and it has none by exclude_modules"),
        ({"layers_to_transform": 1}, r"layers\.0\..* has matrices, and it has none by layers_to_transform"),
        ({"layers_to_transform": [0], "layers_pattern": "layers"}, r"layers\.1\..* it has none by layers_to_transform"),
        ({"layers_to_transform": ["0"]}, r"layers_to_transform is \['0'\], neither a number nor"),
    ],
)
def test_what_an_adapter_asks_for_and_is_not_done_is_named(
    world: World, runner: ModelRunner, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    directory = world.copy_of("qv", tmp_path)
    change_settings(directory, **changes)
    with pytest.raises(AtbError, match=message):
        runner.load_adapter("new", directory)
    assert "new" not in runner.adapters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, t: np.full_like(t, np.nan) if "0.self_attn.q_proj.lora_A" in name else t,
         "lora_A of model.layers.0.self_attn.q_proj has numbers that are not finite in float32"),
        (lambda name, t: t * np.float32(3e38) if "1.self_attn.v_proj.lora_B" in name else t,
         "lora_B times its scale of model.layers.1.self_attn.v_proj has numbers that are not finite"),
        (lambda name, t: t.astype(np.int32) if "lora_A" in name else t, "lora_A.weight is of int32"),
    ],
    ids=["nan", "too large", "integers"],
)  # fmt: skip
def test_numbers_that_are_none_are_named(
    world: World, runner: ModelRunner, tmp_path: Path, change: Callable[[str, Any], Any], message: str
) -> None:
    directory = world.copy_of("qv", tmp_path)
    with np.errstate(over="ignore"):
        tensors = {name: change(name, tensor) for name, tensor in load_file(directory / WEIGHTS_FILE).items()}
    save_file(tensors, directory / WEIGHTS_FILE)
    with pytest.raises(WeightsError, match=message):
        runner.load_adapter("new", directory)
    assert "new" not in runner.adapters


def test_two_modules_of_one_matrix_are_refused(world: World, runner: ModelRunner, tmp_path: Path) -> None:
    directory = world.copy_of("qv", tmp_path)
    tensors = load_file(directory / WEIGHTS_FILE)
    again = {name.replace("model.model.", "model."): tensor for name, tensor in tensors.items() if ".0." in name}
    save_file({**tensors, **again}, directory / WEIGHTS_FILE)
    with pytest.raises(WeightsError, match="q_proj and another of its modules are for the same matrix"):
        runner.load_adapter("new", directory)


def test_targets_that_cannot_be_served_are_named(world: World, runner: ModelRunner, tmp_path: Path) -> None:
    write_adapter(world.base, tmp_path / "head", r=2, target_modules=["q_proj", "lm_head"])
    with pytest.raises(AtbError, match=r"lm_head.* no LoRA matrices of linear layers"):
        runner.load_adapter("head", tmp_path / "head")
    write_adapter(world.base, tmp_path / "embeddings", r=2, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(AtbError, match="lora_embedding_A"):
        runner.load_adapter("embeddings", tmp_path / "embeddings")


def test_ranks_are_bounded_and_names_checked(world: World, tmp_path: Path) -> None:
    with world.open(lora_modules=None, max_lora_rank=4) as runner:
        with pytest.raises(AtbError, match=r"rank 8 .*the limit is 4[\s\S]*max_lora_rank=8"):
            runner.load_adapter("qv", world.paths["qv"])
        for name in ("", "base", "x" * 257, "a\nb", None):
            with pytest.raises(RequestError, match="cannot be called"):
                runner.load_adapter(name, world.paths["qv"])
        with pytest.raises(AtbError, match="has no adapter_config"):
            runner.load_adapter("qv", world.base)
        pickled = world.copy_of("qv", tmp_path)
        (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
        with pytest.raises(AtbError, match="pickle"):
            runner.load_adapter("qv", pickled)


def test_names_of_requests_are_checked(runner: ModelRunner) -> None:
    for names, message in [
        ("swedish", "no adapter 'swedish'"), (["qv"], "1 entries for 2 prompts"), (3, "must be a list with a name"),
        ([3, None], "no adapter 3"),
    ]:  # fmt: skip
        with pytest.raises(RequestError, match=message):
            runner.generate(prompts_of(2), GREEDY, adapter_ids=names)
    with pytest.raises(RequestError, match="'qv' is loaded already"):
        runner.load_adapter("qv", "anywhere")
    with pytest.raises(RequestError, match="no adapter 'swedish'"):
        runner.unload_adapter("swedish")


def test_graphs_that_cpp_builds_refuse_adapters(world: World) -> None:
    with world.open(graph="cpp", lora_modules=None) as runner:
        with pytest.raises(BackendUnavailableError, match=r"graph='cpp'.*no adapters"):
            runner.load_adapter("qv", world.paths["qv"])
        assert len(results(runner, prompts_of(2), None)) == 2


def test_the_two_features_do_not_stack_and_say_why(runner: ModelRunner) -> None:
    with pytest.raises(
        EngineError, match="'multi_lora' does not stack on 'single_lora': a step has one adapter for all"
    ):
        runner.model.variants.get("decode", runner.model.features)


def test_an_adapter_given_as_a_model_says_what_it_is(world: World) -> None:
    with pytest.raises(AtbError, match=r"is an adapter .*belongs to '.*base'[\s\S]*--lora NAME="):
        ModelRunner(world.paths["qv"])


def test_the_variants_that_were_used_last_are_kept(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.models.runtime.variants.MAX_VARIANTS", 3)
    prompts = prompts_of(2)
    wanted = results(runner, prompts, ["qv", None])
    for names in (["qv", "qv"], [None, None], ["biases", "qv"]):
        results(runner, prompts, names)
        assert len(runner.model.variants.variants) <= 3
    assert results(runner, prompts, ["qv", None]) == wanted
