# SPDX-License-Identifier: Apache-2.0
"""One replica: the application of `atb serve` with a model of its own, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.types import Message

from atb_cli.options import load_runner
from atb_core.errors import EngineError
from atb_serve.app import make_app
from atb_serve.command import served_by
from atb_serve.engine import ServedModel, settled_heap, warm_up
from atb_serve.ray.calls import HttpCall
from atb_serve.server import set_up_logs
from atb_serve.state import ServerState
from atb_serve.status import problem_of

_SECONDS_TO_LEAVE = 5.0


class Replica:
    """Answers the requests that the ingress sends.

    Args:
        words: Command line of `atb serve`.
        name: Sent in the header `X-Replica-Id` of each answer; by default Ray's name of the replica.
    """

    def __init__(self, words: Sequence[str], name: str | None = None) -> None:
        served = served_by(words)
        set_up_logs(served.log_requests)
        self._name = name or _name_by_ray()
        runner = load_runner(served.model, **served.loading)
        warm_up(runner)
        self._app = make_app(runner, served.names, served.settings)

    async def respond(self, call: HttpCall) -> AsyncGenerator[list[Message], None]:
        """Runs the application on a request and yields the ASGI messages of its answer, as many as have come.

        Leaving the generator is to the application as a client that leaves.
        """
        answer = _Answer(call.body, self._name)
        scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "root_path": "", **call.scope}
        task = asyncio.ensure_future(self._app(scope, answer.receive, answer.send))
        task.add_done_callback(answer.end)
        try:
            while messages := await answer.take():
                yield messages
            await task
        finally:
            answer.leave()
            # It notices that, and says so in the log; a server that ends cancels it.
            await asyncio.wait({task}, timeout=_SECONDS_TO_LEAVE)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def check_health(self) -> None:
        """Lets the engine take a step; Ray replaces a replica for which this fails.

        Raises:
            EngineError: It cannot.
        """
        if problem := await problem_of(self._app):
            raise EngineError(f"The replica is not healthy: {problem}")

    async def num_running(self) -> int:
        """Returns the number of requests that have cache blocks."""
        return sum(each.engine.num_running for each in self._models())

    async def close(self) -> None:
        """Closes the model."""
        for model in self._models():
            await model.close()

    def _models(self) -> list[ServedModel]:
        """Returns the models, those with adapters not again."""
        state: ServerState = self._app.state.server
        return list({each.engine: each for each in state.models.values()}.values())


class RayReplica(Replica):
    """A replica in a process of its own, which Ray Serve ends: it awaits `__del__` once running requests are done."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(words)
        self._heap = settled_heap()
        self._heap.__enter__()

    async def __del__(self) -> None:
        """Closes the model, if it was opened."""
        if hasattr(self, "_heap"):
            self._heap.__exit__(None, None, None)
            await self.close()


class _Answer:
    """The messages of one answer on their way from the application to the generator."""

    def __init__(self, body: bytes, name: str) -> None:
        self._body: bytes | None = body
        self._name = name.encode("ascii")
        self._messages: list[Message] = []
        self._changed, self._left = asyncio.Event(), asyncio.Event()
        self._has_ended = False

    async def receive(self) -> Message:
        """Returns the body, and later that the client has left."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Takes a message of the answer."""
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"x-replica-id", self._name)]}
        self._messages.append(message)
        self._changed.set()

    async def take(self) -> list[Message]:
        """Returns the messages since the last time, as soon as there is one; none at the end."""
        while not self._messages and not self._has_ended:
            self._changed.clear()
            await self._changed.wait()
        messages, self._messages = self._messages, []
        return messages

    def end(self, task: Any) -> None:
        """Notes that the application is done."""
        self._has_ended = True
        self._changed.set()

    def leave(self) -> None:
        """Notes that nobody reads the answer any more."""
        self._left.set()


def _name_by_ray() -> str:
    from ray import serve

    return str(serve.get_replica_context().replica_id.unique_id)
