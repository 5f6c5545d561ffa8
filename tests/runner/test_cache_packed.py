# SPDX-License-Identifier: Apache-2.0
"""`ModelRunner(cache_packed=)`: the second process maps what the first one packed, with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import BackendUnavailableError, RequestError
from atb_core.models.runtime.packed_weights import stored_files
from atb_testing import tiny_checkpoint

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8]]
Answers = list[tuple[list[int], list[float]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "qwen2"
    tiny_checkpoint(path, "qwen2", hidden_size=64, intermediate_size=128)
    return path


def answers(model: Path, **options: Any) -> tuple[Answers, bool]:
    """Greedy tokens with their log probabilities, and whether the weights were mapped."""
    with ModelRunner(model, load_tokenizer=False, **options) as runner:
        mapped = runner.model.mapped_bytes > 0
        outputs = runner.generate(PROMPTS, SamplingParams(max_tokens=4, logprobs=1, ignore_eos=True))
    completions = [output.outputs[0] for output in outputs]
    return [(c.token_ids, [p.logprob for each in c.logprobs or () for p in each.values()]) for c in completions], mapped


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "int4"}, {"graph": "cpp"}], ids=str)
def test_mapped_weights_give_the_same_bits(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    plain, mapped = answers(model, cache_packed=tmp_path / "packed", **options)
    assert not mapped
    assert answers(model, cache_packed=tmp_path / "packed", **options) == (plain, True)
    assert len(stored_files(tmp_path / "packed")) == 1


def test_each_writer_of_graphs_has_packed_weights_of_its_own(model: Path, tmp_path: Path) -> None:
    for graph in ("python", "cpp"):
        assert answers(model, cache_packed=tmp_path, graph=graph)[1] is False
    assert [answers(model, cache_packed=tmp_path, graph=graph)[1] for graph in ("python", "cpp")] == [True, True]


def test_only_a_backend_that_packs_can_keep_packed_weights(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="cache_packed: this backend packs no weights"):
        ModelRunner(model, load_tokenizer=False, backend="reference", cache_packed=tmp_path)
    with pytest.raises(RequestError, match="cache_packed must be True, False or a directory, not 3"):
        ModelRunner(model, cache_packed=3)  # type: ignore[arg-type]


def test_settings_choose_it_for_backends_that_pack(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATB_CACHE_PACKED", str(tmp_path / "packed"))
    for options in ({"backend": "reference"}, {"cache_packed": False}):
        ModelRunner(model, load_tokenizer=False, **options).close()  # type: ignore[arg-type]
    assert not (tmp_path / "packed").exists()
    ModelRunner(model, load_tokenizer=False).close()
    assert len(stored_files(tmp_path / "packed")) == 1
