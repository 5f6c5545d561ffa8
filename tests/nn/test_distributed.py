# SPDX-License-Identifier: Apache-2.0
"""One process is a world of its own; more are refused with a reason."""

from __future__ import annotations

import pytest

from atb_core.errors import EngineError
from atb_core.graph import Tensor
from atb_core.nn.distributed import distributed as dist


def test_outside_of_a_group_there_is_one_process() -> None:
    assert (dist.get_world_size(), dist.get_rank()) == (1, 0)


def test_collectives_of_one_process_are_the_identity() -> None:
    x = Tensor("x")
    assert dist.all_reduce(x, "-1") is x
    assert dist.all_gather(x) is x


class _Two:
    """The first of two processes."""

    rank, world_size = 0, 2

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Returns another tensor."""
        return Tensor(f"sum of {tensor.name}")

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Returns another tensor."""
        return Tensor(f"all of {tensor.name}")

    def gather_columns(self, tensor: Tensor, to_all: bool) -> Tensor:
        """Returns another tensor."""
        return Tensor(f"columns of {tensor.name}")

    def shares(self, prefix: str) -> list[tuple[list[slice], slice]]:
        """Returns halves of the outputs."""
        return [([slice(0, 2)], slice(0, 4)), ([slice(2, 4)], slice(0, 4))]


def test_a_model_is_recorded_in_its_group() -> None:
    with dist.recording_in(_Two()):
        assert (dist.get_world_size(), dist.get_rank()) == (2, 0)
        assert dist.all_reduce(Tensor("x")).name == "sum of x"
        with pytest.raises(EngineError, match="only SUM"):
            dist.all_reduce(Tensor("x"), None, "MAX")
        assert dist.all_gather(Tensor("x")).name == "all of x"
        assert dist.gather_columns(Tensor("x", (3, 2)), 4).name == "columns of x"
        assert dist.gather_columns(Tensor("x", (3, 4)), 4).name == "x"
        assert (dist.even_part(6, 4), dist.even_part(5, 4), dist.even_part(6, 3)) == (3, 5, 6)
    assert dist.get_world_size() == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: dist.all_reduce(Tensor("x"), "7"),
        lambda: dist.all_reduce(Tensor("x"), None, "MEDIAN"),
    ],
)
def test_what_does_not_exist_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EngineError):
        call()
