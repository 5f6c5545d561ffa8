# SPDX-License-Identifier: Apache-2.0
"""The parts of all processes together are the checkpoint, and what processes must share is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atb_core.checkpoint import open_checkpoint
from atb_core.errors import EngineError
from atb_core.graph.arrays import to_numpy
from atb_core.models.base.router import router_of
from atb_parallel.inspection import check_same
from atb_parallel.shards import Cut, PartLoader, part_of
from atb_testing import tiny_checkpoint


@pytest.mark.parametrize(("suffix", "dim"), [("gate_proj.weight", 0), ("down_proj.weight", 1), ("o_proj.weight", 1)])
def test_parts_join_to_the_whole(suffix: str, dim: int, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "qwen3", num_hidden_layers=1))
    router = router_of(checkpoint)
    with checkpoint.weights() as loader:
        (name,) = [each for each in loader.names() if each.endswith(suffix)]
        parts = [part_of(router.model_cls, router.config, loader, rank, 2)[1] for rank in range(2)]
        joined = np.concatenate([to_numpy(part.get(name)) for part in parts], axis=dim)
        np.testing.assert_array_equal(joined, to_numpy(loader.get(name)))
        for part in parts:
            assert part.nbytes(name) * 2 == loader.nbytes(name)
            out = np.empty(part.shape(name), np.float32)
            part.read_into(name, out)
            np.testing.assert_array_equal(out, to_numpy(part.get(name)))


def test_a_tensor_that_holds_gate_and_up_is_cut_twice(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from atb_core.checkpoint import open_weights

    whole = np.arange(8 * 3, dtype=np.float32).reshape(8, 3)
    save_file({"gate_up_proj.weight": whole}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader:
        cut = Cut((8, 3), 0, ((2, 4), (6, 8)))
        part = PartLoader(loader, {"gate_up_proj.weight": cut}, ())
        np.testing.assert_array_equal(to_numpy(part.get("gate_up_proj.weight")), whole[[2, 3, 6, 7]])
        assert part.shape("gate_up_proj.weight") == (4, 3)


def test_the_bias_of_a_sum_is_added_once(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "llama", num_hidden_layers=1, attention_bias=True))
    router = router_of(checkpoint)
    with checkpoint.weights() as loader:
        (name,) = [each for each in loader.names() if each.endswith("o_proj.bias")]
        values = [to_numpy(part_of(router.model_cls, router.config, loader, rank, 2)[1].get(name)) for rank in (0, 1)]
        np.testing.assert_array_equal(values[0], to_numpy(loader.get(name)))
        assert values[0].any()
        assert not values[1].any()


def test_different_packages_are_named() -> None:
    own = {"versions": {"atb-core": "1", "atb-qwen2": "1", "atb-gguf": "1"}, "checkpoint": "a"}
    check_same(own, own, 1)
    other = {"versions": {"atb-core": "1", "atb-qwen2": "2"}, "checkpoint": "a"}
    with pytest.raises(EngineError, match="atb-gguf is 1 on rank 0 and not installed on rank 3; atb-qwen2 is 1 on"):
        check_same(own, other, 3)
    with pytest.raises(EngineError, match="rank 1 has another checkpoint"):
        check_same(own, {**own, "checkpoint": "b"}, 1)
