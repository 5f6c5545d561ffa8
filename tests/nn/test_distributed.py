# SPDX-License-Identifier: Apache-2.0
"""One process is a world of its own; more are refused with a reason."""

from __future__ import annotations

import pytest

from atb_core.errors import EngineError
from atb_core.graph import Tensor
from atb_core.nn.distributed import distributed as dist


@pytest.fixture(autouse=True)
def _fresh_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "_backend", None)


def test_before_initialisation_there_is_one_process() -> None:
    assert not dist.is_initialized()
    assert (dist.get_world_size(), dist.get_rank()) == (1, 0)


def test_collectives_of_one_process_are_the_identity() -> None:
    dist.init_process_group(world_size=1)
    assert dist.is_initialized()
    x = Tensor("x")
    group = dist.new_group([0])
    assert dist.all_reduce(x, group) is x
    assert dist.all_gather(x) is x
    assert dist.get_backend(group) == "gloo"


def test_several_processes_are_refused() -> None:
    with pytest.raises(EngineError, match="world_size = 2: tensor parallel is not available yet"):
        dist.init_process_group(world_size=2)
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    "call",
    [
        lambda: dist.init_process_group(rank=3),
        lambda: dist.new_group([0, 1]),
        lambda: dist.all_reduce(Tensor("x"), "7"),
        lambda: dist.all_reduce(Tensor("x"), None, "MEDIAN"),
        lambda: dist.get_backend(),
    ],
)
def test_what_does_not_exist_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EngineError):
        call()
