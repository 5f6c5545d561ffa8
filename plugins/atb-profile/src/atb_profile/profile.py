# SPDX-License-Identifier: Apache-2.0
"""Profiles of a `ModelRunner`: where the time of its steps goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from atb_cli.output import writing
from atb_core.errors import EngineError
from atb_profile.recorded import Recorded
from atb_profile.recorder import Call, attach, stored_bytes
from atb_profile.tables import profile_text
from atb_profile.trace import write_trace

if TYPE_CHECKING:
    from atb_core import ModelRunner
    from atb_profile.limits import Limits


class Profile(Recorded):
    """Records when each node runs, while it is entered as a context manager.

        with runner.profile("trace.json") as profile:
            runner.generate("Hello")
        print(profile)

    Args:
        runner: the runner to observe; steps that other threads run are recorded too.
        trace: file for a trace in Chrome's JSON format, which https://ui.perfetto.dev opens; `None` for none.
        max_nodes: number of nodes that are kept. Calls beyond it are counted in `dropped` and not kept.
    """

    def __init__(
        self, runner: ModelRunner, trace: str | os.PathLike[str] | None = None, max_nodes: int = 2_000_000
    ) -> None:
        super().__init__(runner.backend + (" with graph='cpp'" if runner.graph == "cpp" else ""))
        self._runner = runner
        self._trace = None if trace is None else Path(trace)
        self._room = max_nodes
        self._detach: Callable[[], None] | None = None

    def __enter__(self) -> Profile:
        if self.begin:
            raise EngineError("a profile is recorded once", hint="Make another one.")
        if self._trace is not None:
            with writing(self._trace):
                self._trace.touch()  # a file that cannot be written is said now
        with self._runner.engine_loop.lock:
            self.stored = stored_bytes(self._runner.model.variants.store)
            self._detach = attach(self._runner.model.variants, self._keep)
        self.begin = time.perf_counter_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.end = time.perf_counter_ns()
        assert self._detach is not None
        with self._runner.engine_loop.lock:
            self._detach()
        if self._trace is not None:
            write_trace(self, self._trace)

    def _keep(self, call: Call) -> None:
        self._room -= sum(len(run.steps) for run in call.runs)
        if self._room < 0:
            self.dropped += 1
        else:
            self.calls.append(call)

    def text(self, limits: Limits | None = None) -> str:
        """Returns tables by op and by module for each phase, beside `limits` if there are some."""
        return profile_text(self, limits)

    def __str__(self) -> str:
        return self.text()
