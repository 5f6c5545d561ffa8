# SPDX-License-Identifier: Apache-2.0
"""Groups of one process are made as in ATB-Models, by the module of the core; more are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atb_core.errors import EngineError
from atb_core.graph import Tensor
from atb_core.nn.distributed import distributed as dist
from atb_ops import groups


@pytest.fixture(autouse=True)
def _fresh_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_backend", None)


def test_a_group_of_one_process_has_a_handle_for_collectives() -> None:
    assert not dist.is_initialized()
    dist.init_process_group(backend="hccl", init_method="", world_size=1, rank=0, buffer_size=128)
    assert dist.is_initialized()
    group = dist.new_group(ranks=[0], backend="hccl", buffer_size=128)
    x = Tensor("x")
    assert dist.all_reduce(send_tensor=x, process_group=group, all_reduce_type=dist.AllReduceType.SUM) is x
    assert dist.all_gather(send_tensor=x, process_group=group) is x
    assert dist.get_backend(group) == "hccl"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dist.init_process_group(world_size=2), "world_size = 2: a process group is no argument here"),
        (lambda: dist.init_process_group(rank=3), "rank = 3 does not exist"),
        (lambda: dist.new_group([0, 1]), "ranks outside of a world of 1"),
        (lambda: dist.get_backend(), "no process group is initialized"),
        (lambda: dist.get_backend("7"), "there is no process group '7'"),
    ],
)
def test_what_does_not_exist_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        call()
    assert not dist.is_initialized()


def test_there_is_one_group() -> None:
    dist.init_process_group()
    with pytest.raises(EngineError, match="already initialized"):
        dist.init_process_group()
