# SPDX-License-Identifier: Apache-2.0
"""`ModelRunner(kv_cache_dtype="int8")`: half of the memory, close results, the same bits however they are computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from atb_core import ModelRunner
from atb_core._cpu import supported_isas
from atb_core.checkpoint import SilentProgress, open_checkpoint, open_weights
from atb_core.engine.cpu import CpuBackend
from atb_core.errors import BackendUnavailableError, RequestError
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.router import router_of
from atb_testing import tiny_checkpoint
from atb_testing.driver import PagedDriver

PROMPTS = [[place * 7 % 61 for place in range(90)], [3, 1, 4, 1, 5, 9, 2, 6]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "qwen2"
    tiny_checkpoint(path, "qwen2", hidden_size=64, intermediate_size=128)
    return path


def model_of(directory: Path, backend: Any, kv_cache_dtype: str = "int8", dtype: str = "bfloat16") -> Any:
    router = router_of(open_checkpoint(str(directory)))
    config = router.config.replace(torch_dtype=dtype)
    with open_weights(directory) as loader:
        model = router.model_cls(MindIELLMConfig(config), loader, backend=backend, kv_cache_dtype=kv_cache_dtype)
        model.load_weights(loader, SilentProgress())
    return model


def whole(model: Any) -> torch.Tensor:
    """Returns the logits of the prompts in one prefill."""
    return PagedDriver(model, 2).prefill(PROMPTS)


def in_pieces(model: Any) -> torch.Tensor:
    """Returns the same logits from a prefill, a chunk of each prompt, and single tokens."""
    driver = PagedDriver(model, 2)
    first, second = PROMPTS
    parts = [*driver.prefill([first[:40], second[:1]]).split([40, 1])]
    parts += driver.extend([first[40:84], second[1:2]]).split([44, 1])
    for a, b in zip(first[84:], second[2:], strict=True):
        parts += driver.decode([a, b]).split([1, 1])
    return torch.cat([*parts[::2], *parts[1::2]])


def test_a_cache_of_int8_takes_half_of_the_memory(directory: Path) -> None:
    sizes = {}
    options = {"load_tokenizer": False, "dtype": "bfloat16", "num_blocks": 4}
    for kv_cache_dtype in ("auto", "int8"):
        with ModelRunner(directory, kv_cache_dtype=kv_cache_dtype, **options) as runner:
            keys, _ = runner.kv_cache[0]
            sizes[kv_cache_dtype] = keys.nbytes
            assert runner.allocate_kv_cache(2)[0][0].dtype is keys.dtype
            assert keys.shape[-1] == runner.head_size + (4 if kv_cache_dtype == "int8" else 0)
            size = runner.head_size
    assert sizes["int8"] * 2 * size == sizes["auto"] * (size + 4)


@pytest.mark.parametrize("isa", supported_isas())
def test_chunks_batches_threads_and_instruction_sets_change_no_bit(directory: Path, isa: str) -> None:
    expected = whole(model_of(directory, CpuBackend(isa="portable", num_threads=1)))
    model = model_of(directory, CpuBackend(isa=isa, num_threads=3))
    assert torch.equal(whole(model), expected)
    assert torch.equal(in_pieces(model), expected)
    alone = [PagedDriver(model, 1).prefill([prompt]) for prompt in PROMPTS]
    assert torch.equal(torch.cat(alone), expected)


def test_the_engines_agree_and_the_result_is_close_to_that_of_a_cache_of_the_models_type(directory: Path) -> None:
    plain, ours, reference = (
        model_of(directory, backend, kv_cache_dtype, "float32")
        for backend, kv_cache_dtype in (("cpu", "auto"), ("cpu", "int8"), ("reference", "int8"))
    )
    logprobs = whole(ours).log_softmax(-1)
    for way in (whole, in_pieces):
        torch.testing.assert_close(way(reference).log_softmax(-1), logprobs, rtol=0, atol=0.01)
    assert 0 < (logprobs - whole(plain).log_softmax(-1)).abs().max() < 0.05


def test_what_cannot_be_is_refused_by_name(directory: Path) -> None:
    with pytest.raises(RequestError, match="kv_cache_dtype must be one of 'auto', 'int8', not 'fp8'"):
        ModelRunner(directory, kv_cache_dtype="fp8")
    for backend in ("atb", "atb-sim"):
        with pytest.raises(BackendUnavailableError, match="kv_cache_dtype='int8': ATB's caches of int8 have a fixed"):
            ModelRunner(directory, backend=backend, kv_cache_dtype="int8")
