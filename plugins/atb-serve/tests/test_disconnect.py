# SPDX-License-Identifier: Apache-2.0
"""Clients that leave or do not read, queues that are full, and a server that ends: nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from serving import wait_until

from atb_serve.http import _Patience
from atb_serve.settings import Limits, ServeSettings

COUNT: dict[str, Any] = {"prompt": "[count]", "max_tokens": 500, "ignore_eos": True}
# Answers of one token without end, so that no machine is done with them in time.
ENDLESS: dict[str, Any] = {**COUNT, "prompt": ["[count]"] * 128, "n": 2, "temperature": 1.0, "seed": 1}


def is_idle(served: Any) -> bool:
    engine = served.app.state.server.models["tiny"].engine
    return bool(
        engine.num_running == engine.num_waiting == 0 and served.runner.num_free_blocks == served.runner.num_blocks
    )


def counts(served: Any) -> list[float]:
    """Tokens of prompts, generated ones, and completions that ended early, in the metrics."""
    registry, model = served.app.state.server.metrics.registry, {"model_name": "tiny"}
    tokens = [registry.get_sample_value(f"atb_{name}_tokens_total", model) for name in ("prompt", "generation")]
    return [*tokens, registry.get_sample_value("atb_request_success_total", {**model, "finished_reason": "abort"})]


def logged(line: str, status: int) -> list[float]:
    """The same in the line of a request."""
    facts = json.loads(line)
    assert facts["status"] == status
    return [facts["prompt_tokens"], facts["completion_tokens"], facts["finish_reasons"].count("abort")]


def send_raw(url: str, path: str, body: dict[str, Any]) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + data)
    return connection


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses"])
@pytest.mark.parametrize("stream", [True, False])
def test_leaving_ends_the_request_and_frees_its_blocks(served: Any, stream: bool, path: str, lines: list[str]) -> None:
    engine = served.app.state.server.models["tiny"].engine
    before = counts(served)
    prompt = {"completions": "prompt", "chat/completions": "messages", "responses": "input"}[path]
    body = {prompt: [{"role": "user", "content": "[count]"}] if prompt == "messages" else "[count]", "stream": stream}
    connection = send_raw(served.url, f"/v1/{path}", {**body, **({"max_tokens": 500} if prompt == "prompt" else {})})
    if stream:
        connection.recv(100)
    else:
        wait_until(lambda: engine.num_running > 0)
    connection.close()
    wait_until(lambda: is_idle(served) and len(lines) == 1)
    tokens, generated, ended = (now - then for now, then in zip(counts(served), before, strict=True))
    assert tokens > 0 and ended == 1 and (generated > 0 or not stream)
    assert logged(lines[0], 499) == [tokens, generated, ended]


def test_a_stream_that_is_left_early_ends(client: openai.OpenAI, served: Any) -> None:
    with client.completions.create(model="tiny", stream=True, prompt="[count]", max_tokens=500) as stream:
        next(iter(stream))
    wait_until(lambda: is_idle(served))


def test_requests_with_the_same_id_do_not_disturb_each_other(served: Any) -> None:
    headers = {"X-Request-Id": "same"}
    with served.http(headers=headers) as http, ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda _: http.post("/v1/completions", json=COUNT), range(8))
        assert {answer.status_code for answer in answers} == {200}


def test_a_full_queue_is_refused_and_can_be_tried_again(make_server: Callable[..., Any]) -> None:
    limits = Limits(max_queue_len=2)
    with make_server(settings=ServeSettings(limits)) as served, served.http() as http:
        body = {**COUNT, "n": 2, "temperature": 1.0, "seed": 1}

        def status(_: int) -> httpx.Response:
            return http.post("/v1/completions", json=body)

        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(status, range(32)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"].isdigit() for answer in refused)
        assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
        wait_until(lambda: is_idle(served))
        answer = http.post("/v1/completions", json={"prompt": ["x"] * 3})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize("seconds", [1e-6, 0.3])
def test_a_request_that_takes_too_long_is_ended(
    make_server: Callable[..., Any], lines: list[str], seconds: float
) -> None:
    with make_server(settings=ServeSettings(Limits(request_timeout=seconds))) as served, served.http() as http:
        answer = http.post("/v1/completions", json=ENDLESS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        wait_until(lambda: is_idle(served) and len(lines) == 1)
        assert logged(lines[0], 504) == counts(served)
        assert (counts(served)[1] > 0) == (seconds == 0.3)


def test_a_stream_that_nobody_reads_is_ended(make_server: Callable[..., Any]) -> None:
    with make_server(settings=ServeSettings(Limits(idle_timeout=0.2))) as served:
        # Far more than the buffers of the connection hold.
        body = {**COUNT, "stream": True, "n": 16, "temperature": 1.0, "logprobs": 20}
        connections = [send_raw(served.url, "/v1/completions", body) for _ in range(2)]
        registry = served.app.state.server.metrics.registry
        labels = {"path": "/v1/completions", "status": "499"}
        wait_until(lambda: registry.get_sample_value("atb_http_requests_total", labels) == 2)
        wait_until(lambda: is_idle(served))
        for connection in connections:
            connection.close()


@pytest.mark.parametrize(
    "sent", [b"", b"GE", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n", b"endless"], ids=str
)
def test_a_connection_without_a_whole_request_is_closed(make_server: Callable[..., Any], sent: bytes) -> None:
    with make_server(settings=ServeSettings(Limits(body_timeout=0.3, max_body_bytes=100))) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            if sent == b"endless":  # the body of a request that is refused goes on
                head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + b" " * 256 + b"\r\n"
            connection.sendall(sent)
            while connection.recv(4096):
                with suppress(OSError):
                    connection.sendall(b"1\r\n \r\n")
        # Those that send requests are left alone.
        with served.http() as http:
            assert {http.post("/v1/completions", json=COUNT).status_code for _ in range(3)} == {200}


def test_only_a_wait_that_is_too_long_ends_a_stream() -> None:
    async def is_ended_after(seconds: float) -> bool:
        async def stream() -> None:
            patience = _Patience(60.0)
            for wait in (59.0, seconds):
                patience.begin()
                assert patience._since is not None
                patience._since -= wait
                patience._look()
                await asyncio.sleep(0)
                patience.end()
            patience.cancel()

        task = asyncio.create_task(stream())
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(is_ended_after(61.0))
    assert not asyncio.run(is_ended_after(59.0))


def test_requests_that_take_longer_than_the_server_waits_are_told(
    make_server: Callable[..., Any], lines: list[str]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        with make_server(drain=1) as served:
            engine = served.app.state.server.models["tiny"].engine
            answer = threads.submit(httpx.post, f"{served.url}/v1/completions", json=ENDLESS, timeout=300)
            wait_until(lambda: engine.num_running > 0)
        assert answer.result().status_code == 503
        assert answer.result().json()["error"]["code"] == "ended"
        assert logged(lines[0], 503) == counts(served) and counts(served)[1] > 0


def test_a_server_that_ends_lets_running_requests_finish(make_server: Callable[..., Any]) -> None:
    done = threading.Event()
    texts: list[str] = []
    with make_server() as served:

        def ask() -> None:
            with served.http() as http:
                texts.append(http.post("/v1/completions", json=COUNT).json()["choices"][0]["text"])
            done.set()

        thread = threading.Thread(target=ask)
        thread.start()
        engine = served.app.state.server.models["tiny"].engine
        wait_until(lambda: engine.num_running > 0 or done.is_set())
    thread.join(60)
    assert texts[0].startswith("0 1 2 ")
    with pytest.raises(httpx.ConnectError), served.http() as http:
        http.get("/health")


def test_a_server_that_is_ended_at_once_ends_its_application_too(make_server: Callable[..., Any]) -> None:
    with make_server() as served, send_raw(served.url, "/v1/completions", {**COUNT, "stream": True}) as connection:
        connection.recv(100)
        served.server.should_exit = served.server.force_exit = True
        while connection.recv(1 << 16):
            pass
    assert not served.server.lifespan.error_occurred
