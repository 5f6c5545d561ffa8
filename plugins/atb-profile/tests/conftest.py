# SPDX-License-Identifier: Apache-2.0
"""A small model, and runners of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atb_core import ModelRunner
from atb_testing import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random model of the type qwen2."""
    return tiny_checkpoint(tmp_path_factory.mktemp("model"), "qwen2")


@pytest.fixture
def open_runner(checkpoint: Path) -> Iterator[Callable[..., ModelRunner]]:
    """Opens runners and closes them at the end."""
    opened = []

    def make(backend: str = "cpu", **options: object) -> ModelRunner:
        if backend == "atb-sim":
            pytest.importorskip("atb_sim")
            options = {"dtype": "float16", **options}
        options = {"num_threads": 2, "max_model_len": 64, **options}
        opened.append(ModelRunner(checkpoint, backend=backend, load_tokenizer=False, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for runner in opened:
        runner.close()
