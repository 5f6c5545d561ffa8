# SPDX-License-Identifier: Apache-2.0
"""`ModelRunner(quantization=)`."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import BackendUnavailableError, RequestError
from atb_core.names import QUANTIZATIONS
from atb_testing import tiny_checkpoint

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8]]
SHORT = SamplingParams(max_tokens=24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "qwen2"
    tiny_checkpoint(path, "qwen2", hidden_size=64, intermediate_size=128)
    return path


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_quantised_model_takes_less_memory_and_still_generates(model: Path, quantization: str) -> None:
    with (
        ModelRunner(model, load_tokenizer=False) as plain,
        ModelRunner(model, load_tokenizer=False, quantization=quantization) as runner,
    ):
        assert runner.model.variants.store.nbytes < 0.7 * plain.model.variants.store.nbytes
        alone = [runner.generate([prompt], SHORT)[0].token_ids for prompt in PROMPTS]
        assert [output.token_ids for output in runner.generate(PROMPTS, SHORT)] == alone


def test_what_cannot_be_quantised_is_refused_by_name(model: Path) -> None:
    with pytest.raises(RequestError, match="quantization must be one of None, 'int8', 'int4', not 'int3'"):
        ModelRunner(model, quantization="int3")
    with pytest.raises(BackendUnavailableError, match=r"quantization='int4': graph='cpp' runs no quantised weights"):
        ModelRunner(model, graph="cpp", quantization="int4")
