# SPDX-License-Identifier: Apache-2.0
"""Every path but `/health` wants the key; foreign hosts and bodies that are none are refused; the log has no text."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from serving import wait_until

from atb_serve.routes import ENDPOINTS
from atb_serve.settings import Access, Limits, ServeSettings, hashed_keys

KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def guarded(make_server: Callable[..., Any]) -> Iterator[Any]:
    """A server with a key and small limits."""
    access = Access(hashed_keys([KEY]), frozenset({"127.0.0.1", "[::1]", "localhost"}))
    limits = Limits(max_body_bytes=2000, max_tokens=30, max_prompts=2)
    with make_server(settings=ServeSettings(limits, access)) as found:
        yield found


@pytest.mark.parametrize(("method", "path"), [(each.method, each.path) for each in ENDPOINTS if each.path != "/health"])
@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer", f"Basic {KEY}", "Basic !!", f"Bearer {KEY}x"])
def test_no_path_answers_without_the_key(guarded: Any, method: str, path: str, header: str) -> None:
    with guarded.http() as http:
        answer = http.request(method, path.replace("{name:path}", "tiny"), headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_the_health_is_open_and_other_paths_open_with_the_key(guarded: Any) -> None:
    with guarded.http() as http:
        assert http.get("/health").status_code == 200
        assert http.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        assert http.get("/v1/models", auth=("anybody", KEY)).status_code == 200
    with guarded.openai(api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == ["tiny", "alias"]


def test_a_page_of_another_site_does_not_reach_the_server(guarded: Any) -> None:
    with guarded.http(headers={"Authorization": f"Bearer {KEY}"}) as http:
        assert http.get("/v1/models", headers={"Host": "elsewhere.example:80"}).status_code == 421
        assert http.get("/v1/models", headers={"Host": "LOCALHOST:1"}).status_code == 200
        assert http.get("/v1/models", headers={"Host": "[::1]:1"}).status_code == 200
        # Every browser sends the header, and checks of a load balancer in HTTP/1.0 do not.
        assert http.get("/v1/models", headers={"Host": ""}).status_code == 200
        # What a page may send without asking first is no JSON to the server.
        assert (
            http.post("/tokenize", content='{"prompt": "x"}', headers={"Content-Type": "text/plain"}).status_code == 415
        )


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[1]", 400, "invalid_type"),
        (b'{"prompt": "\xff"}', 400, "invalid_json"),
        (b'{"prompt": "\\ud800"}', 400, "invalid_json"),
        (b'{"prompt": NaN}', 400, "invalid_json"),
        (b'{"prompt": "a", "prompt": 1e999}', 400, "invalid_type"),
        (b'{"prompt": "' + b"a" * 2000 + b'"}', 413, "body_too_large"),
    ],
    ids=str,
)
def test_a_body_that_is_no_request_is_refused(guarded: Any, content: bytes, status: int, code: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with guarded.http(headers=headers) as http:
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize"):
            answer = http.post(path, content=content)
            if path == "/v1/completions" or status != 400:
                assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
            assert 400 <= answer.status_code < 500


def test_a_body_that_nests_without_end_is_refused(http: httpx.Client) -> None:
    content = b'{"messages": [], "chat_template_kwargs": {"a": ' + b"[" * 100_000
    answer = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_body_that_does_not_come_is_not_waited_for(make_server: Callable[..., Any]) -> None:
    with make_server(settings=ServeSettings(Limits(body_timeout=0.1))) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert b" 408 " in connection.recv(4096)


def test_limits_of_the_server_name_the_parameter(guarded: Any) -> None:
    with guarded.openai(api_key=KEY) as client:
        with pytest.raises(openai.BadRequestError, match="allows at most 30") as caught:
            client.completions.create(model="tiny", prompt="x", max_tokens=31)
        assert caught.value.param == "max_tokens"
        with pytest.raises(openai.BadRequestError, match="allows at most 2"):
            client.completions.create(model="tiny", prompt=["x"] * 3)
        answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "[count]"}])
        assert answer.usage is not None and answer.usage.completion_tokens == 30


def test_a_model_is_looked_up_in_the_table(client: openai.OpenAI) -> None:
    assert client.completions.create(model="alias", prompt="[greet]").model == "tiny"
    for name in ("../tiny", "other", ""):
        with pytest.raises(openai.NotFoundError) as caught:
            client.completions.create(model=name, prompt="x")
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [("/tokenize", "application/json", 413), ("/tokenize", "text/plain", 415), ("/nothing", "application/json", 404)],
)
def test_a_body_that_is_only_declared_is_refused_before_it_comes(
    guarded: Any, path: str, kind: str, status: int
) -> None:
    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 2001\r\n"
            f"Content-Type: {kind}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        with connection.makefile("rb") as answer:  # to its end: the connection is closed
            assert answer.read().startswith(f"HTTP/1.1 {status} ".encode())


def test_a_compressed_body_is_refused(http: httpx.Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = http.post("/tokenize", content=b"{}", headers=headers)
    assert answer.status_code == 415 and "Content-Encoding" in answer.text


def test_paths_and_methods_that_do_not_exist(http: httpx.Client) -> None:
    assert http.get("/nothing").status_code == 404
    assert "It is /v1/models." in http.get("/models").text
    assert http.get("/health/").status_code == 404
    answer = http.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["code"] == "not_found"


def test_a_request_is_one_line_of_json_without_its_text(http: httpx.Client, lines: list[str]) -> None:
    body = {"model": "tiny", "prompt": "[greet]", "max_tokens": 3}
    answer = http.post("/v1/completions?secret", json=body, headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    http.post("/v1/completions", json=body, headers={"X-Request-Id": 'a"b'})
    wait_until(lambda: len(lines) == 2)
    first, second = map(json.loads, lines)
    assert first["request_id"] == "abc-1" != second["request_id"]
    assert (first["path"], first["status"], first["model"]) == ("/v1/completions", 200, "tiny")
    assert (first["prompt_tokens"], first["completion_tokens"], first["finish_reasons"]) == (1, 3, ["length"])
    assert not any(word in str(lines) for word in ("greet", "Hello", "secret"))


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses"])
def test_an_error_in_a_stream_that_has_begun_is_in_the_log(http: httpx.Client, lines: list[str], path: str) -> None:
    schema = {"const": "x<|im_end|>y"}  # fails at its second token
    prompt: dict[str, Any] = (
        {"prompt": "x"} if path == "completions" else {"messages": [{"role": "user", "content": "x"}]}
    )
    body = {**prompt, "structured_outputs": {"json": schema}}
    if path == "responses":
        body = {"input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}
    with http.stream("POST", f"/v1/{path}", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        assert "special token" in [*answer.iter_lines()][-2]
    wait_until(lambda: len(lines) == 1)
    line = json.loads(lines[0])
    assert line["error"] == "invalid_grammar"
    assert line["completion_tokens"] > 0 and line["finish_reasons"] == ["abort"]


def test_the_log_has_prompts_and_answers_if_asked_for(make_server: Callable[..., Any], lines: list[str]) -> None:
    with make_server(settings=ServeSettings(log_texts=True)) as served, served.http() as http:
        http.post("/v1/completions", json={"prompt": ["[greet]", "[count]"], "max_tokens": 2})
        wait_until(lambda: len(lines) == 1)
    line = json.loads(lines[0])
    texts = dict(zip(line["prompts"], line["answers"], strict=True))
    assert texts == {"[count]": "0 1 ", "[greet]": "Hello there"}
