# SPDX-License-Identifier: Apache-2.0
"""Processes that die, fail or vanish while others load, send, or wait for a device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Pipe
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from atb_core.checkpoint import open_checkpoint
from atb_core.errors import EngineError
from atb_core.models.base.router import router_of
from atb_parallel.channel import Channel, Kind
from atb_parallel.leader import Leader
from atb_parallel.processes import Follower
from atb_testing import tiny_checkpoint


class Other(Follower):
    """Another rank, of which this test has both ends of the connection."""

    def __init__(self, rank: int) -> None:
        ours, theirs = Pipe()
        super().__init__(rank, Channel(ours))
        self.theirs = Channel(theirs)

    def part(self, failure: str | None) -> None:
        self.channel.close()

    def end(self) -> None:
        pass

    def death(self) -> str:
        return f"rank {self.rank} ended"


@pytest.fixture
def loading(tmp_path: Path) -> Iterator[tuple[list[Other], Any]]:
    """The other processes of a group of four, and the loader of rank 0's part."""
    checkpoint = open_checkpoint(tiny_checkpoint(tmp_path, "qwen2", num_hidden_layers=1))
    router, others = router_of(checkpoint), [Other(rank) for rank in (1, 2, 3)]
    leader = Leader(others, 4, None)
    with checkpoint.weights() as loader, pytest.MonkeyPatch.context() as patch:
        patch.setattr("atb_parallel.leader.check_same", lambda *findings: None)
        for each in others:
            each.theirs.send_json(Kind.HELLO, {})
        yield others, leader.divide(router.model_cls, router.config, loader)[1]
        leader.close()


def test_rank_0_ends_its_loading_when_another_process_dies(loading: tuple[list[Other], Any]) -> None:
    others, loader = loading
    others[0].theirs.send(Kind.READY)
    assert loader.get("model.norm.weight").any()
    others[1].theirs.close()
    with pytest.raises(EngineError, match="rank 2 ended, so the model is gone"):
        loader.get("model.norm.weight")


def test_rank_0_ends_its_loading_when_another_process_fails(loading: tuple[list[Other], Any]) -> None:
    others, loader = loading
    others[2].theirs.send(Kind.ERROR, 0, json.dumps(["no memory", "Buy some."]).encode())
    with pytest.raises(EngineError, match=r"rank 3: no memory\. Buy some\."):
        loader.get("model.norm.weight")


STUCK = """
import sys, time
from multiprocessing.connection import Connection
from atb_parallel import follower
from atb_parallel.channel import Channel
follower._open = lambda channel, content: time.sleep(60)
follower._SECONDS_TO_NOTICE = 0.1
follower.serve(Channel(Connection(int(sys.argv[1]))), "rank 1 of 2")
"""


def test_a_process_that_cannot_notice_the_end_of_rank_0_ends_too() -> None:
    ours, theirs = Pipe()
    arguments = [sys.executable, "-c", STUCK, str(theirs.fileno())]
    process = subprocess.Popen(arguments, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True)
    theirs.close()
    Channel(ours).send_json(Kind.OPEN, {})
    ours.close()
    assert "rank 1 of 2 ends: rank 0 ended" in process.communicate(timeout=30)[1]
    assert process.returncode == 1


@contextmanager
def interrupted() -> Iterator[None]:
    """Interrupts what runs, as Ctrl-C does, after a moment."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("sends", [True, False])
def test_an_interrupt_within_a_message_ends_the_connection(sends: bool) -> None:
    """The rest of the message would be missing, and the other side wait for it."""
    ours, theirs = Pipe()
    channel, other = Channel(ours), Channel(theirs)
    with interrupted():
        if sends:
            channel.send(Kind.STEP, 1, bytes(1 << 22))
        else:
            os.write(theirs.fileno(), (8).to_bytes(4, "big") + b"step")
            channel.receive()
    with pytest.raises((EOFError, OSError)):
        other.receive()


def test_an_interrupt_between_messages_changes_nothing() -> None:
    ours, theirs = Pipe()
    channel, other = Channel(ours), Channel(theirs)
    with interrupted():
        channel.receive()
    other.send(Kind.READY)
    assert channel.receive().kind is Kind.READY
