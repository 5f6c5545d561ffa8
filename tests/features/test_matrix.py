# SPDX-License-Identifier: Apache-2.0
"""Everything that stacks is stacked: each pair of a family, a backend and options runs in some row, or is refused.

`matrix.py` finds the rows and the refusals from what options declare. A row's requests run together, with all of its
options; each gets the tokens that it gets alone, without those that must change nothing. Those tokens are compared with
transformers' on the values that the weights stand for.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import quant_files as files
import torch
from features.matrix import FACTORS, NOTHING, Row, config_of, covering_rows, default_row, name_of, refusal, sorted_pairs
from integer_files import round_inputs
from simulated_devices import two_devices

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import AtbError
from atb_testing import load_reference, tiny_checkpoint
from atb_testing.adapters import write_random_adapter

pytest.importorskip("transformers")

# Processes that share a model on the simulator have a device each.
pytestmark = pytest.mark.usefixtures("two_devices")
__all__ = ["two_devices"]

BLOCK = 16
PARAMS = SamplingParams(max_tokens=6, ignore_eos=True, logprobs=8)
_SHARED = [5, 9, 2, 7, 7, 1, 3, 8, 6, 4, 11, 13, 17, 19, 23, 29, 31, 37, 41]
#: The second begins as the first. The third has every token of the vocabulary, so that there is always one to guess.
PROMPTS = [[*_SHARED, 43, 47], [*_SHARED, 53], [place * 37 % 64 for place in range(64)], [3, 19]]
_PACKED4 = files.compressed_config(4, "int", "group", "pack-quantized", group_size=32, symmetric=True)
_SLIM = {"version": "1.0.0"}
#: How checkpoints are written: a packer, `quantization_config`, and the description of msModelSlim.
WEIGHTS: dict[str, tuple[files.Packer, dict[str, Any] | None, dict[str, Any] | None]] = {
    "W8A8": (files.slim_static, None, {"model_quant_type": "W8A8", **_SLIM}),
    "W8A8_DYNAMIC": (files.slim_dynamic, None, {"model_quant_type": "W8A8_DYNAMIC", **_SLIM}),
    "W4A16": (files.pack_quantized(), _PACKED4, None),
    "GPTQ": (files.gptq(), {"quant_method": "gptq", "bits": 4, "group_size": 32}, None),
}
#: Weights whose inputs are rounded to integers of 8 bits, with scale and offset if these are fixed.
ROUNDED = {"W8A8": (0.03125, 7), "W8A8_DYNAMIC": None}
#: Adapters by name, with the factor of their products.
ADAPTERS = {"one": 1.0, "other": 0.5}
#: Family, weights, and whether there is a window, and a cache of int8.
Key = tuple[str, str, bool, bool]
Result = tuple[list[int], list[dict[int, float]]]


class Workshop:
    """Makes checkpoints, adapters and what is expected of them, each once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoint = cache(self._checkpoint)
        self.adapters = cache(self._adapters)
        self.alone = cache(self._alone)
        self.merged = cache(self._merged)

    def of(self, row: Row) -> Key:
        return row["family"].name, row["weights"].name, row["window"] is not NOTHING, row["cache"] is not NOTHING

    def _checkpoint(self, family: str, weights: str, has_window: bool) -> tuple[Path, Path]:
        """Returns a checkpoint, and one with the values that its weights stand for."""
        directory = self.root / f"{family}-{weights}-{has_window}"
        if weights in WEIGHTS:
            pack, config, description = WEIGHTS[weights]
            source, _ = self.checkpoint(family, "float", has_window)
            return files.quantise_directory(source, directory, pack, config, description)
        level = next(each for each in FACTORS["family"] if each.name == family)
        row = default_row(("family", level), ("window", FACTORS["window"][has_window]))
        tiny_checkpoint(directory, family, **config_of(row))
        return directory, directory

    def _adapters(self, family: str) -> tuple[dict[str, Path], dict[str, torch.Tensor]]:
        """Returns the directories of adapters for all linear layers, and the products of a factor of 1."""
        paths, products = {}, {}
        with ModelRunner(self.checkpoint(family, "float", False)[0], load_tokenizer=False, backend="cpu") as runner:
            for name, factor in ADAPTERS.items():
                paths[name] = self.root / f"{family}-{name}"
                products = write_random_adapter(runner.model, paths[name])
                settings = json.loads((paths[name] / "adapter_config.json").read_text())
                settings["lora_alpha"] *= factor
                (paths[name] / "adapter_config.json").write_text(json.dumps(settings))
        return paths, products

    @contextmanager
    def opened(self, row: Row, **changes: Any) -> Iterator[ModelRunner]:
        arguments = {name: value for level in row.values() for name, value in level.arguments.items()}
        if row["adapters"] is not NOTHING:
            arguments["lora_modules"] = self.adapters(row["family"].name)[0]
        given = {"load_tokenizer": False, "num_threads": 1, "block_size": BLOCK, "enable_prefix_caching": False}
        with ModelRunner(self.checkpoint(*self.of(row)[:3])[0], **{**given, **arguments, **changes}) as runner:
            yield runner

    def _alone(self, key: Key, backend: str, named: tuple[str | None, ...]) -> list[Result]:
        """Returns what requests give one by one, without options that must change nothing, checked by transformers."""
        family, weights, window, int8 = key
        chosen = {"family": family, "weights": weights, "backend": backend, "window": "window" if window else ""}
        chosen["cache"] = "int8 kv" if int8 else ""
        levels = [(factor, level) for factor in chosen for level in FACTORS[factor] if level.name == chosen[factor]]
        row = default_row(*levels, ("adapters", FACTORS["adapters"][1 if any(named) else 0]))
        with self.opened(row) as runner:
            results = [generated(runner, [p], [name])[0] for p, name in zip(PROMPTS, named, strict=True)]
        for prompt, name, result in zip(PROMPTS, named, results, strict=True):
            self.assert_true(key, backend, prompt, name, result)
        return results

    def _merged(self, key: Key, name: str | None, rounds: bool) -> Any:
        """Returns transformers' model of the values of a checkpoint, with an adapter's products in its weights.

        With `rounds`, linear layers round their inputs; the adapter's products then stand beside them.
        """
        reference = load_reference(self.checkpoint(*key[:3])[1])
        products = {}
        if name is not None:
            products = {each: ADAPTERS[name] * value for each, value in self.adapters(key[0])[1].items()}
        if rounds:
            round_inputs(reference, ROUNDED[key[1]], products)
        weights = dict(reference.named_parameters())
        with torch.no_grad():
            for parameter, product in products.items():
                beside = rounds and parameter.endswith("_proj.weight") and ".experts." not in parameter
                if parameter in weights and not beside:
                    weights[parameter].add_(product)
        return reference

    def assert_true(self, key: Key, backend: str, prompt: list[int], name: str | None, result: Result) -> None:
        """Compares the best tokens' log probabilities with transformers', after the same tokens."""
        tokens, logprobs = result
        # With a dtype, which the simulator's rows have, activations stay floats.
        rounds = key[1] in ROUNDED and backend != "atb-sim"
        with torch.no_grad():
            logits = self.merged(key, name, rounds)(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        wanted = logits.log_softmax(-1)
        got = torch.tensor([[entry[token] for token in sorted(entry)] for entry in logprobs])
        best = torch.tensor([sorted(entry) for entry in logprobs])
        # Blocks are multiplied with activations of 8 bits on the CPU engine.
        blocks = backend == "cpu" and key[1] != "float" and not rounds
        limit = 0.2 if blocks else 0.03 if backend == "atb-sim" or rounds else 1e-4
        # Keys and values of 8 bits, which random weights do not expect.
        limit += 0.1 if key[3] else 0
        torch.testing.assert_close(got, wanted.gather(1, best), atol=limit, rtol=0)


def generated(runner: ModelRunner, prompts: list[list[int]], names: list[str | None]) -> list[Result]:
    outputs = runner.generate(prompts, PARAMS, adapter_ids=names if any(names) else None)
    return [result_of(output) for output in outputs]


def result_of(output: Any) -> Result:
    logprobs = output.outputs[0].logprobs
    return output.token_ids, [{token: entry.logprob for token, entry in each.items()} for each in logprobs]


def assert_same(ours: Result, expected: Result, exact: bool) -> int:
    """Compares tokens, and log probabilities where bits are promised; returns the number of tokens that agree.

    Otherwise a first difference is accepted between tokens whose probabilities are as good as equal.
    """
    if exact:
        assert ours == expected
    for place, (token, other) in enumerate(zip(ours[0], expected[0], strict=True)):
        if token != other:
            for entry in (ours[1][place], expected[1][place]):
                assert abs(entry[token] - entry[other]) < 0.05
            return place
    return len(ours[0])


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop(tmp_path_factory.mktemp("matrix"))
    made.checkpoint("qwen2", "float", False)
    # Runners that close collect garbage, and transformers' modules are large.
    gc.freeze()
    return made


@pytest.fixture(autouse=True)
def _guesses_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses are otherwise made if the times of earlier steps promise a gain."""
    monkeypatch.setattr("atb_core.runner.pace.Pace.draft_cost", 0.0)


def names_of(row: Row) -> list[str | None]:
    if row["adapters"] is NOTHING:
        return [None] * len(PROMPTS)
    return ["one"] * len(PROMPTS) if row["adapters"] is FACTORS["adapters"][1] else ["one", "other", None, "one"]


def run(workshop: Workshop, row: Row) -> None:
    """Runs the requests of a row, twice, and compares them; what the row names must have taken part."""
    names = names_of(row)
    expected = workshop.alone(workshop.of(row), row["backend"].name, tuple(names))
    exact = row["backend"].name == "cpu" and row["processes"] is NOTHING
    phases: list[str] = []
    with workshop.opened(row) as runner:
        forward = runner.engine_loop._forward
        runner.engine_loop._forward = lambda step: (phases.append(step.phase), forward(step))[1]
        agreed = 0
        for _ in range(2):
            outputs = runner.generate(PROMPTS, PARAMS, adapter_ids=names if any(names) else None)
            agreed += sum(assert_same(result_of(o), e, exact) for o, e in zip(outputs, expected, strict=True))
        assert agreed > PARAMS.max_tokens * len(PROMPTS)
        took_part(row, runner, outputs, phases)
        assert runner.num_free_blocks == runner.num_blocks


def took_part(row: Row, runner: ModelRunner, outputs: list[Any], phases: list[str]) -> None:
    model = runner.model
    mixes = model.mixed_steps_problem(runner.block_size) is None
    if row["prefixes"] is not NOTHING:
        for output, prompt in zip(outputs, PROMPTS, strict=True):
            assert (output.num_cached_tokens > 0) == (mixes and len(prompt) > BLOCK)
    if row["chunks"] is not NOTHING:
        assert ("mixed" in phases) == mixes
    if row["speculation"] is not NOTHING:
        assert sum(output.metrics.num_draft_tokens for output in outputs) > 0
    if row["processes"] is not NOTHING:
        assert runner._group is not None and runner._group.world_size == 2
    assert (model.window is not None) == (row["window"] is not NOTHING)
    assert (runner.kv_cache[0][0].dtype is torch.int8) == (row["cache"] is not NOTHING)
    used = {name for key in model.variants.variants for name in key}
    if row["adapters"] is not NOTHING:
        several = model.lora.is_grouped and row["adapters"] is FACTORS["adapters"][2]
        assert {"single_lora", "multi_lora"} & used >= {"multi_lora" if several else "single_lora"}


@pytest.mark.parametrize("row", covering_rows(), ids=name_of)
def test_what_stacks_gives_the_tokens_of_a_request_alone(row: Row, workshop: Workshop) -> None:
    run(workshop, row)


@pytest.mark.parametrize("row", [default_row(*pair) for pair in sorted_pairs()[2]], ids=name_of)
def test_options_that_a_model_cannot_have_are_off_where_that_is_documented(row: Row, workshop: Workshop) -> None:
    run(workshop, row)


@pytest.mark.parametrize("row", [default_row(*pair) for pair in sorted_pairs()[1]], ids=name_of)
def test_what_does_not_stack_is_refused_with_the_reason(row: Row, workshop: Workshop) -> None:
    reason = refusal(row)
    assert reason is not None
    with pytest.raises(AtbError) as error, workshop.opened(row):
        pass
    assert reason in str(error.value)
