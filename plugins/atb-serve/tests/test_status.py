# SPDX-License-Identifier: Apache-2.0
"""`/health` steps the engine; `/metrics` has vLLM's names; tokens and their text are the tokenizer's."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from atb_core.errors import EngineError
from atb_serve.routes import ENDPOINTS


def _values(text: str) -> dict[tuple[str, str], float]:
    """Samples by name and label, of those with one label beside the model's at most."""
    return {
        (sample.name, ",".join(value for key, value in sample.labels.items() if key != "model_name")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_is_that_of_the_engine(http: httpx.Client, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert http.get("/health").json() == {"status": "ok"}

    async def broken() -> None:
        raise EngineError("broken at /home/me")

    model = served.app.state.server.models["tiny"]
    monkeypatch.setattr(model.engine, "check_health", broken)
    monkeypatch.setattr(served.app.state.health, "_checked", float("-inf"))
    answer = http.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "the engine cannot step"})
    monkeypatch.undo()
    served.app.state.health._checked = float("-inf")
    assert http.get("/health").status_code == 200


def test_version_is_that_of_the_packages(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": version("atb-serve"), "atb_core": version("atb-core")}


def test_metrics_count_what_was_answered(http: httpx.Client) -> None:
    before = _values(http.get("/metrics").text)
    assert http.post("/v1/completions", json={"prompt": ["[greet]", "[count]"], "max_tokens": 4}).status_code == 200
    assert http.post("/v1/completions", json={"prompt": ""}).status_code == 400
    after = _values(http.get("/metrics").text)

    def grown(name: str, label: str = "") -> float:
        return after[name, label] - before.get((name, label), 0.0)

    assert grown("atb_prompt_tokens_total") == 2
    assert grown("atb_generation_tokens_total") == 8
    assert grown("atb_request_success_total", "length") == 2
    assert grown("atb_time_to_first_token_seconds_count") == 2
    assert grown("atb_e2e_request_latency_seconds_count") == 2
    assert grown("atb_http_requests_total", "/v1/completions,200") == 1
    assert grown("atb_http_requests_total", "/v1/completions,400") == 1
    assert after["atb_num_requests_running", ""] == after["atb_num_requests_waiting", ""] == 0
    assert after["atb_kv_cache_usage_perc", ""] < 1


def test_a_prompt_that_comes_again_is_counted_as_found_in_the_cache(http: httpx.Client) -> None:
    body = {"prompt": "x" * 300, "max_tokens": 1}
    http.post("/v1/completions", json=body)
    before = _values(http.get("/metrics").text)
    usage = http.post("/v1/completions", json=body).json()["usage"]
    after = _values(http.get("/metrics").text)
    found = usage["prompt_tokens_details"]["cached_tokens"]
    assert 0 < found < usage["prompt_tokens"] == 300
    assert after["atb_prefix_cache_hits_total", ""] - before["atb_prefix_cache_hits_total", ""] == found
    assert after["atb_prefix_cache_queries_total", ""] - before["atb_prefix_cache_queries_total", ""] == 300


def test_tokens_and_their_text(http: httpx.Client, served: Any) -> None:
    ids = served.runner.tokenizer.encode("say [greet]")
    answer = http.post("/tokenize", json={"prompt": "say [greet]", "return_token_strs": True}).json()
    assert (answer["tokens"], answer["count"]) == (ids, 5)
    assert answer["token_strs"] == ["s", "a", "y", " ", "[greet]"]
    assert answer["max_model_len"] == served.runner.max_model_len
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": "say [greet]"}


@pytest.mark.parametrize(
    ("given", "further"),
    [("prompt", {"tools": []}), ("prompt", {"chat_template_kwargs": {}}), ("prompt", {"add_generation_prompt": False}),
     ("messages", {"add_special_tokens": True})],
    ids=str,
)  # fmt: skip
def test_parameters_of_conversations_are_not_those_of_texts(
    http: httpx.Client, given: str, further: dict[str, Any]
) -> None:
    text = {"prompt": "x"} if given == "prompt" else {"messages": [{"role": "user", "content": "x"}]}
    assert http.post("/tokenize", json={**text, **dict.fromkeys(further)}).status_code == 200
    answer = http.post("/tokenize", json={**text, **further})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, *further)


@pytest.mark.parametrize("tokens", [[-1], [10**6], ["x"], [2**70]], ids=str)
def test_no_token_of_the_model_has_no_text(http: httpx.Client, tokens: list[Any]) -> None:
    answer = http.post("/detokenize", json={"tokens": tokens})
    assert answer.status_code == 400
    assert re.match("tokens", answer.json()["error"]["param"])


def test_the_description_has_every_path_and_every_field(http: httpx.Client) -> None:
    found = http.get("/openapi.json").json()
    described = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    routes = {(each.method, each.path.replace("{name:path}", "{name}")) for each in ENDPOINTS}
    assert routes - described == {("GET", "/openapi.json"), ("GET", "/")}
    assert described <= routes
    body = found["components"]["schemas"]["ChatBody"]
    assert {"messages", "max_completion_tokens", "tools", "response_format"} <= set(body["properties"])
    assert body["additionalProperties"] is False
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/tokenize"):
        example = found["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert http.post(path, json=example).status_code == 200
