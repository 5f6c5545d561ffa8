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
    with pytest.raises(EngineError, match="world_size = 2: a process group is no argument here"):
        dist.init_process_group(world_size=2)
    assert not dist.is_initialized()


class _Two:
    """The first of two processes."""

    rank, world_size = 0, 2

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Returns another tensor."""
        return Tensor(f"sum of {tensor.name}")


def test_a_model_is_recorded_in_its_group() -> None:
    with dist.recording_in(_Two()):
        assert (dist.get_world_size(), dist.get_rank()) == (2, 0)
        assert dist.all_reduce(Tensor("x")).name == "sum of x"
        with pytest.raises(EngineError, match="only SUM"):
            dist.all_reduce(Tensor("x"), None, "MAX")
        with pytest.raises(EngineError, match="all_gather of several processes"):
            dist.all_gather(Tensor("x"))
    assert dist.get_world_size() == 1


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
