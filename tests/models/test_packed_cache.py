# SPDX-License-Identifier: Apache-2.0
"""Keys and values that the CPU engine keeps in the order in which its attention reads them."""

from __future__ import annotations

import pytest
import torch
from small_model import MemoryLoader, SmallForCausalLM, random_tensors, small_config

from atb_core._cpu import supported_isas
from atb_core.engine.cpu import CpuBackend
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_testing import PagedDriver

HEAD = {"head_dim": 64, "torch_dtype": "bfloat16", "max_position_embeddings": 256}
PROMPTS = [[3, 1, 4, 1, 5] * 30, [9, 2, 6], [5, 3, 5, 8] * 16]


class Plain(SmallForCausalLM):
    packed_kv_cache = False


def run(cls: type[SmallForCausalLM], isa: str, **config: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Returns logits of prefill, decode and mixed steps, and the first cache."""
    settings = small_config(**{**HEAD, **config})
    model = torch_to_mindie_graph()(cls)(settings, None, backend=CpuBackend(2, isa))
    model.load_weights(MemoryLoader(random_tensors(model)))
    driver = PagedDriver(model, len(PROMPTS), max_len=256, block_size=128)
    for cache in (cache for pair in driver.kv_cache for cache in pair):
        cache.zero_()
    logits = [driver.prefill(PROMPTS), driver.decode([7, 8, 9]), driver.extend([[1], [2] * 70, [3, 4]])]
    return logits, driver.kv_cache[0][0]


@pytest.mark.parametrize("isa", supported_isas())
def test_the_order_of_a_cache_changes_no_bit(isa: str) -> None:
    (packed, cache), (plain, rows) = (run(cls, isa) for cls in (SmallForCausalLM, Plain))
    assert all(map(torch.equal, packed, plain))
    assert not torch.equal(cache, rows)
    assert torch.equal(*(each.view(torch.int16).flatten().sort().values for each in (cache, rows)))


def test_a_cache_that_cannot_be_packed_has_its_rows() -> None:
    caches = [run(cls, "portable", head_dim=24)[1] for cls in (SmallForCausalLM, Plain)]
    assert torch.equal(*caches)
