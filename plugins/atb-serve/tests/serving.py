# SPDX-License-Identifier: Apache-2.0
"""A server in a thread, for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from atb_core import ModelRunner
from atb_serve.app import make_app
from atb_serve.server import Server, bind
from atb_serve.settings import ServeSettings

#: Answers by the end of the prompt.
SCRIPTS = {
    "[greet]": ["Hello", " there", ", you", "."],
    "[count]": [f"{number} " for number in range(200)],
}


@dataclass
class Served:
    """A running server and what is in it."""

    url: str
    runner: ModelRunner
    app: Any
    server: Server

    def http(self, **options: Any) -> httpx.Client:
        """Returns a client for the server's paths."""
        return httpx.Client(base_url=self.url, timeout=300, **options)

    def openai(self, **options: Any) -> openai.OpenAI:
        """Returns OpenAI's client; it does not try again, so that every answer is seen."""
        return openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, **options})


@contextmanager
def serving(runner: ModelRunner, settings: ServeSettings | None = None, drain: float = 120) -> Iterator[Served]:
    """Serves a model as `tiny` and `alias`; closes it at the end."""
    settings = settings or ServeSettings()
    app = make_app(runner, ["tiny", "alias"], settings)
    ready = threading.Event()
    with bind("127.0.0.1", 0, settings.limits.idle_timeout) as listener:
        server = Server(app, drain, ready.set, settings.limits.body_timeout)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert ready.wait(60)
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", runner, app, server)
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
