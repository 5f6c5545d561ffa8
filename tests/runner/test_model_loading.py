# SPDX-License-Identifier: Apache-2.0
"""Claims of a configuration are compared with the checkpoint's files before a model is built of it."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_model import MemoryLoader, small_config

from atb_core.errors import WeightsError
from atb_core.runner.model_loading import load_model


def test_more_layers_than_tensors_are_refused_before_any_is_built() -> None:
    loader = MemoryLoader({"model.norm.weight": torch.ones(32), "model.embed_tokens.weight": torch.ones(8, 32)})
    checkpoint: Any = SimpleNamespace(weights=lambda dtype: nullcontext(loader))
    router: Any = SimpleNamespace(model_type="small", model_cls=lambda *args, **kwargs: pytest.fail("it was built"))
    with pytest.raises(WeightsError, match="memory has 2 tensors, fewer than num_hidden_layers = 900"):
        load_model(
            router,
            checkpoint,
            small_config(num_hidden_layers=900).hf_config,
            backend="reference",
            graph="python",
            num_threads=None,
            max_model_len=64,
            features=(),
            quantization=None,
            keep_blocks=False,
            progress=None,
        )
