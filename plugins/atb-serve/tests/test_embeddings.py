# SPDX-License-Identifier: Apache-2.0
"""`/v1/embeddings` gives the vectors of `ModelRunner.embed`, in both encodings."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from serving import wait_until

from atb_serve.settings import Limits, ServeSettings

TEXTS = ["a lighthouse", "a", "b" * 300]


def test_vectors_are_those_of_the_runner(client: openai.OpenAI, served: Any) -> None:
    expected = np.array([each.embedding for each in served.runner.embed(TEXTS)])
    # The client asks for base64 by itself.
    answer = client.embeddings.create(model="tiny", input=TEXTS)
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert np.array_equal(np.array([each.embedding for each in answer.data], np.float32), expected)
    numbers = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float")
    assert np.array_equal(np.array([each.embedding for each in numbers.data], np.float32), expected)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == len("".join(TEXTS))


def test_inputs_are_texts_and_token_ids(client: openai.OpenAI) -> None:
    def vectors(given: Any) -> list[list[float]]:
        return [each.embedding for each in client.embeddings.create(model="tiny", input=given).data]

    ids = [5, 6, 7]
    assert vectors(ids) == vectors([ids])
    assert vectors([ids, [8]]) == vectors(ids) + vectors([8])
    assert vectors("a") == vectors(["a"])


@pytest.mark.parametrize(
    ("change", "param", "status"),
    [
        ({"input": []}, "input", 400),
        ({"input": ""}, "input", 400),
        ({"input": [[]]}, "input", 400),
        ({"input": "a" * 600}, "input", 400),
        ({"input": [10**6]}, "input", 400),
        ({"input": ["a"] * 200}, "input", 400),
        ({"dimensions": 8}, "dimensions", 400),
        ({"dimensions": 0}, "dimensions", 400),
        ({"encoding_format": "int8"}, "encoding_format", 400),
        ({"model": "none"}, "model", 404),
        ({"pooling": "mean"}, "pooling", 400),
    ],
)
def test_bad_requests_name_the_parameter(http: httpx.Client, change: dict[str, Any], param: str, status: int) -> None:
    answer = http.post("/v1/embeddings", json={"input": "a", **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_a_full_queue_refuses(make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServeSettings(limits=Limits(max_queue_len=1))
    with make_server(settings=settings) as served, served.http() as http, ThreadPoolExecutor(1) as pool:
        begun, go_on, embed = threading.Event(), threading.Event(), served.runner.embed

        def waiting(*args: Any, **options: Any) -> Any:
            begun.set()
            assert go_on.wait(60)
            return embed(*args, **options)

        monkeypatch.setattr(served.runner, "embed", waiting)
        first = pool.submit(http.post, "/v1/embeddings", json={"input": "a"})
        assert begun.wait(60)
        assert http.post("/v1/embeddings", json={"input": "b"}).status_code == 429
        go_on.set()
        assert first.result().status_code == 200
        assert http.post("/v1/embeddings", json={"input": "b"}).status_code == 200


def test_streams_go_on_beside_embeddings(served: Any) -> None:
    body = {"prompt": "[count]", "max_tokens": 100}
    with served.http() as http, ThreadPoolExecutor(4) as pool:
        whole = http.post("/v1/completions", json=body).json()["choices"]
        asked = [pool.submit(http.post, "/v1/embeddings", json={"input": TEXTS * 8}) for _ in range(3)]
        assert http.post("/v1/completions", json=body).json()["choices"] == whole
        assert {each.result().status_code for each in asked} == {200}
    assert served.runner.num_free_blocks == served.runner.num_blocks


def test_inputs_that_were_computed_before_the_end_of_a_request_are_counted(
    make_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    with make_server(settings=ServeSettings(Limits(request_timeout=0.3))) as served, served.http() as http:
        go_on, embed = threading.Event(), served.runner.embed

        def waiting(prompt: Any, **options: Any) -> Any:
            assert len(prompt["prompt_token_ids"]) == 1 or go_on.wait(60)
            return embed(prompt, **options)

        monkeypatch.setattr(served.runner, "embed", waiting)
        assert http.post("/v1/embeddings", json={"input": ["a", "b" * 300]}).status_code == 504
        go_on.set()
        wait_until(lambda: len(lines) == 1)
        counted = served.app.state.server.metrics.registry.get_sample_value
        assert json.loads(lines[0])["prompt_tokens"] == counted("atb_prompt_tokens_total", {"model_name": "tiny"}) == 1
