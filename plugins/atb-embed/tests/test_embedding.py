# SPDX-License-Identifier: Apache-2.0
"""Embeddings are Hugging Face's hidden states, pooled, whatever else a prompt shares its steps with."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import MemoryLoader, SmallForCausalLM, random_tensors, small_config

from atb_core import ModelRunner, SamplingParams, torch_to_mindie_graph
from atb_core.errors import ContextLengthError, RequestError
from atb_embed.embedder import batches, check_dimensions, check_pooling, pooling_of
from atb_testing import available_backends, load_reference, tiny_checkpoint

PROMPTS = [[5], [9, 8, 7], list(range(100, 140)), [3] * 17]


def opened(directory: Path, backend: str = "cpu", **options: Any) -> ModelRunner:
    return ModelRunner(directory, backend=backend, load_tokenizer=False, num_threads=2, block_size=16, **options)


def expected(directory: Path, pooling: str) -> list[np.ndarray[Any, Any]]:
    model = load_reference(directory)
    found = []
    for prompt in PROMPTS:
        with torch.no_grad():
            states = model.model(torch.tensor([prompt])).last_hidden_state[0].double()
        pooled = {"last": states[-1], "cls": states[0], "mean": states.mean(0)}[pooling]
        found.append((pooled / pooled.norm()).numpy())
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", "llama")


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("backend", available_backends())
def test_embeddings_are_hugging_faces_states_pooled(directory: Path, backend: str, pooling: Any) -> None:
    outputs = opened(directory, backend).embed(PROMPTS, pooling=pooling)
    for output, prompt, vector in zip(outputs, PROMPTS, expected(directory, pooling), strict=True):
        assert output.prompt_token_ids == prompt
        assert output.embedding.dtype == np.float32
        np.testing.assert_allclose(output.embedding, vector, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_checkpoint_of_the_body_alone_embeds(tmp_path: Path, family: str) -> None:
    whole = tiny_checkpoint(tmp_path / "model", family, tie_word_embeddings=True)
    vectors = expected(whole, "last")
    tensors = load_file(whole / "model.safetensors")
    save_file({name.removeprefix("model."): each for name, each in tensors.items()}, whole / "model.safetensors")
    for output, vector in zip(opened(whole).embed(PROMPTS), vectors, strict=True):
        np.testing.assert_allclose(output.embedding, vector, atol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_a_vector_has_the_bits_of_the_prompt_alone(directory: Path, pooling: Any) -> None:
    runner = opened(directory, max_num_batched_tokens=20)
    alone = [runner.embed(prompt, pooling=pooling, normalize=False)[0].embedding for prompt in PROMPTS]
    together = runner.embed(PROMPTS, pooling=pooling, normalize=False)
    assert [each.embedding.tobytes() for each in together] == [each.tobytes() for each in alone]
    assert not np.isclose(np.linalg.norm(alone[0]), 1.0)


def steps_of(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of tokens of the steps that the model runs from now on."""
    sizes: list[int] = []
    run_step = runner.model.run_step

    def noted(step: Any) -> Any:
        sizes.append(len(step.input_ids))
        return run_step(step)

    monkeypatch.setattr(runner.model, "run_step", noted)
    return sizes


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
@pytest.mark.parametrize("backend", available_backends())
def test_a_prompt_that_is_longer_than_a_step_is_computed_in_chunks(
    directory: Path, backend: str, pooling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = opened(directory, backend).embed(PROMPTS, pooling=pooling)
    runner = opened(directory, backend, max_num_batched_tokens=17, num_blocks=16)
    sizes = steps_of(runner, monkeypatch)
    for one, other in zip(whole, runner.embed(PROMPTS, pooling=pooling), strict=True):
        if backend == "cpu":
            assert one.embedding.tobytes() == other.embedding.tobytes()
        np.testing.assert_allclose(other.embedding, one.embedding, atol=1e-5)
    assert sizes == [4, 17, 17, 6, 17]
    assert runner.num_free_blocks == runner.num_blocks


def test_a_model_without_mixed_steps_computes_a_long_prompt_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}
    runner = opened(tiny_checkpoint(tmp_path / "model", "qwen2", **window), max_num_batched_tokens=17)
    sizes = steps_of(runner, monkeypatch)
    runner.embed(PROMPTS)
    assert sizes == [4, 40, 17]


def test_requests_that_run_keep_their_tokens_and_no_block_is_taken(directory: Path) -> None:
    runner = opened(directory)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    alone = runner.generate([[1, 2, 3]], params)[0].token_ids
    vectors = runner.embed(PROMPTS)
    stop, seen = threading.Event(), []

    def embed() -> None:
        while not stop.is_set():
            seen.append([each.embedding.tobytes() for each in runner.embed(PROMPTS)])

    thread = threading.Thread(target=embed)
    thread.start()
    while not seen:
        assert runner.generate([[1, 2, 3]], params)[0].token_ids == alone
    stop.set()
    thread.join()
    assert all(each == [vector.embedding.tobytes() for vector in vectors] for each in seen)
    assert runner.num_free_blocks == runner.num_blocks


def test_bad_calls_are_refused(directory: Path) -> None:
    runner = opened(directory)
    for call, error, words in [
        (lambda: runner.embed(PROMPTS, pooling="max"), RequestError, "pooling must be one of last, mean, cls"),  # type: ignore[arg-type]
        (lambda: runner.embed([[1], []]), RequestError, "Prompt 1"),
        (lambda: runner.embed([[1], [10**6]]), RequestError, "Prompt 1 has the token id"),
        (lambda: runner.embed([1] * 500), ContextLengthError, "500 tokens"),
        (lambda: runner.embed([1], normalize=3), RequestError, "normalize must be True or False"),  # type: ignore[arg-type]
        (lambda: runner.embed([1], pool="last"), RequestError, "embed has no argument 'pool'"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(error, match=words):
            call()
    assert runner.embed([]) == []
    runner.close()
    with pytest.raises(RequestError, match="closed"):
        runner.embed(PROMPTS)


def test_a_forward_that_knows_no_hidden_states_is_refused() -> None:
    @torch_to_mindie_graph()
    class Deaf(SmallForCausalLM):
        def forward(self, **kwargs: Any) -> Mapping[str, Any]:
            kwargs.pop("hidden_states", None)
            return super().forward(**kwargs)

    model: Any = Deaf(small_config(), None, backend="reference")
    model.load_weights(MemoryLoader(random_tensors(model)))
    with pytest.raises(RequestError, match="gives no hidden states"):
        check_pooling("last", model)


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")])
def test_the_checkpoint_says_how_to_pool(tmp_path: Path, mode: str, pooling: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    modes = {
        "word_embedding_dimension": 64,
        **dict.fromkeys(["pooling_mode_cls_token", "pooling_mode_max_tokens"], False),
    }
    config = json.dumps({**modes, f"pooling_mode_{mode}": True})
    (tmp_path / "1_Pooling" / "config.json").write_text(config, encoding="utf-8")
    assert pooling_of(tmp_path) == pooling


def test_other_poolings_are_refused(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == "last"
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RequestError, match=r"no 1_Pooling/config\.json"):
        pooling_of(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}', encoding="utf-8")
    with pytest.raises(RequestError, match="not supported: pooling_mode_max_tokens"):
        pooling_of(tmp_path)


def test_vectors_are_cut_where_the_checkpoint_says_so(directory: Path) -> None:
    with pytest.raises(RequestError, match="does not say"):
        opened(directory).embed(PROMPTS, dimensions=8)
    runner = opened(tiny_checkpoint(directory.parent / "cut", "llama", is_matryoshka=True))
    whole, short = runner.embed(PROMPTS), runner.embed(PROMPTS, dimensions=8)
    for one, other in zip(whole, short, strict=True):
        begin = one.embedding[:8].astype(np.float64)
        np.testing.assert_allclose(other.embedding, begin / np.linalg.norm(begin), rtol=1e-6)
    for bad in (0, 65, True, "8"):
        with pytest.raises(RequestError, match="dimensions must be"):
            runner.embed(PROMPTS, dimensions=bad)  # type: ignore[arg-type]
    known = {"matryoshka_dimensions": [8, 16]}
    check_dimensions(16, 64, known)
    with pytest.raises(RequestError, match="knows 8, 16"):
        check_dimensions(9, 64, known)


def test_batches_keep_the_order_and_the_limit() -> None:
    prompts = [[1] * length for length in (3, 4, 9, 20, 1, 1)]
    assert [[*map(len, batch)] for batch in batches(prompts, 10)] == [[3, 4], [9], [20], [1, 1]]
