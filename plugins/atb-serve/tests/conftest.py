# SPDX-License-Identifier: Apache-2.0
"""Servers on a free port of this machine, in a thread, with a small model that gives known answers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from atb_core import ModelRunner
from atb_serve.settings import ServeSettings

sys.path.insert(0, str(Path(__file__).parent))
from scripted_model import write_scripted
from serving import SCRIPTS, Served, serving


@pytest.fixture(scope="module")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Returns a function that serves a model with given scripts."""

    def make(scripts: Any = SCRIPTS, settings: ServeSettings | None = None, drain: float = 120, **of_model: Any) -> Any:
        directory = write_scripted(tmp_path_factory.mktemp("model") / "tiny", scripts, **of_model)
        return serving(ModelRunner(directory), settings, drain)

    return make


@pytest.fixture(scope="module")
def served(make_server: Callable[..., Any]) -> Iterator[Served]:
    """A server with default settings."""
    with make_server() as found:
        yield found


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """A client of `served`."""
    with served.http() as client:
        yield client


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's client of `served`."""
    with served.openai() as client:
        yield client


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the log of requests."""
    found: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: found.append(record.getMessage()))
    logger = logging.getLogger("atb_serve.requests")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "isEnabledFor", lambda level: True)
    return found
