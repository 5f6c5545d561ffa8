# SPDX-License-Identifier: Apache-2.0
"""Replicas by Ray Serve, the parts that need no Ray: choice of a replica, arguments, and a replica's answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_model import write_scripted
from serving import SCRIPTS

from atb_core.errors import SettingsError
from atb_serve.command import served_by
from atb_serve.ray.arguments import ScaleSettings, for_ranks, split_arguments
from atb_serve.ray.calls import HttpCall
from atb_serve.ray.ingress import Ingress
from atb_serve.ray.prefixes import CHUNK, PrefixTable, prefix_keys
from atb_serve.ray.replica import Replica
from atb_serve.settings import Limits, ServeSettings
from atb_serve.turnover import Turnover


def keys_of(**request: Any) -> tuple[bytes, ...]:
    return prefix_keys(json.dumps(request).encode())


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def test_prompts_have_the_keys_of_their_common_beginning() -> None:
    begun, other = keys_of(prompt="a" * 2000), keys_of(prompt="a" * 1000 + "b" * 1000)
    common = [one == two for one, two in zip(begun, other, strict=True)].index(False)
    assert common == 1000 // CHUNK
    # What follows a difference differs, even where the text is the same.
    assert not set(begun[common:]) & set(other[common:])


def test_a_conversation_that_goes_on_has_the_keys_of_its_beginning() -> None:
    turn = keys_of(messages=chat("a" * 3000), stream=True)
    later = keys_of(temperature=1, messages=chat("a" * 3000, "and then?", "b" * 1000))
    assert len(turn) > 10
    assert later[: len(turn)] == turn
    assert keys_of(model="m", messages=chat("a" * 3000))[0] != turn[0]
    assert keys_of(prompt=list(range(1000)))[:5] == keys_of(prompt=list(range(2000)))[:5]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"prompt": "short"}'], ids=repr)
def test_a_body_without_a_long_prompt_has_no_keys(body: bytes) -> None:
    assert prefix_keys(body) == ()


def test_a_long_prompt_has_a_bounded_number_of_keys() -> None:
    assert len(keys_of(prompt="x" * 5_000_000)) == 256


def test_the_replica_with_the_longest_beginning_is_chosen() -> None:
    table, loads = PrefixTable(), {"a": 2, "b": 0, "c": 0}
    assert table.choose([b"1"], loads) == ["a", "b", "c"]
    table.note([b"1"], "a")
    table.note([b"1", b"2"], "b")
    assert table.choose([b"1"], loads) == ["a", "b"]
    assert table.choose([b"1", b"2", b"3"], loads) == ["b"]
    assert table.choose([b"2"], loads) == ["b"]
    assert table.choose([], loads) == ["a", "b", "c"]
    assert table.choose([b"1"], {}) == []


def test_a_replica_that_is_busy_is_passed_over() -> None:
    table = PrefixTable(slack=3)
    table.note([b"1"], "a")
    assert table.choose([b"1"], {"a": 3, "b": 0}) == ["a"]
    assert table.choose([b"1"], {"a": 4, "b": 0, "c": 1}) == ["b", "c"]


def test_replicas_that_are_gone_are_forgotten() -> None:
    table = PrefixTable()
    table.note([b"1"], "a")
    table.note([b"1"], "b")
    table.keep({"b", "c"})
    assert table.choose([b"1"], {"a": 0, "b": 0, "c": 0}) == ["b"]


def test_what_was_not_asked_for_longest_is_forgotten_and_the_end_of_a_prompt_first() -> None:
    table = PrefixTable(size=4)
    table.note([b"1", b"2", b"3"], "a")
    table.note([b"4", b"5"], "b")
    loads = {"a": 0, "b": 0}
    assert table.choose([b"4", b"5"], loads) == ["b"]
    assert [table.choose([key], loads) for key in (b"1", b"2", b"3")] == [["a"], ["a"], ["a", "b"]]


def test_arguments_are_options_of_the_command_and_numbers_of_replicas() -> None:
    scale, words = split_arguments(
        {
            "model": "m",
            "served_model_name": ["a", "b"],
            "max-n": 3,
            "log-requests": "false",
            "min_replicas": "2",
            "max_replicas": 4,
            "resources": '{"NPU": 1}',
            "num_cpus": "8",
        }
    )
    assert scale == ScaleSettings(2, 4, 16.0, 8.0, '{"NPU": 1}')
    assert scale.actor_options == {"num_cpus": 8.0, "resources": {"NPU": 1}}
    served = served_by(words)
    assert (served.model, served.names, served.settings.limits.max_n) == ("m", ("a", "b"), 3)
    assert not served.log_requests
    assert served.settings.access.allows_host("any.example")
    assert split_arguments({"model": "m", "min_replicas": 3})[0].max_replicas == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "model="),
        ({"model": 3}, "model="),
        ({"model": "m", "port": 1}, "'port'"),
        ({"model": "m", "nothing": 1}, "'nothing'"),
        ({"model": "m", "min_replicas": "many"}, "min_replicas"),
        ({"model": "m", "min_replicas": 3, "max_replicas": 2}, "min_replicas"),
        ({"model": "m", "num_cpus": -1}, "num_cpus"),
        ({"model": "m", "log_requests": "perhaps"}, "log_requests"),
    ],
)
def test_an_argument_that_cannot_be_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        split_arguments(arguments)


def test_values_are_checked_where_the_application_is_built() -> None:
    with pytest.raises(SettingsError, match="max-n"):
        served_by(split_arguments({"model": "m", "max_n": "many"})[1])
    with pytest.raises(SettingsError, match="NPU"):
        _ = ScaleSettings(resources="[1]").actor_options


def test_importing_the_application_does_not_import_ray() -> None:
    code = "import sys, atb_serve.ray; print({'ray', 'torch', 'starlette'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model."""
    return write_scripted(tmp_path_factory.mktemp("model") / "tiny", SCRIPTS)


def with_replica(model: Path, use: Callable[[Replica], Any]) -> Any:
    async def run() -> Any:
        replica = Replica(["--no-log-requests", "--", str(model)], name="r1")
        try:
            return await use(replica)
        finally:
            await replica.close()

    return asyncio.run(run())


def completion(**body: Any) -> HttpCall:
    scope = {
        "method": "POST", "path": "/v1/completions", "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    return HttpCall(scope, json.dumps(body).encode())


def test_a_replica_answers_as_the_server_does(model: Path) -> None:
    async def use(replica: Replica) -> None:
        await replica.check_health()
        start, *bodies = [each async for several in replica.respond(completion(prompt="[greet]")) for each in several]
        assert start["status"] == 200
        assert (b"x-replica-id", b"r1") in start["headers"]
        text = json.loads(b"".join(each.get("body", b"") for each in bodies))["choices"][0]["text"]
        assert text == "Hello there, you."
        refused = [each async for several in replica.respond(completion(prompts=1)) for each in several]
        assert (refused[0]["status"], refused[-1].get("more_body", False)) == (400, False)

    with_replica(model, use)


def test_leaving_an_answer_ends_its_request(model: Path) -> None:
    async def use(replica: Replica) -> None:
        answer = replica.respond(completion(prompt="[count]", max_tokens=200, stream=True))
        assert (await anext(answer))[0]["status"] == 200
        await answer.aclose()
        while await replica.num_running():
            await asyncio.sleep(0.01)
        labels = {"path": "/v1/completions", "status": "499"}
        assert replica._app.state.server.metrics.registry.get_sample_value("atb_http_requests_total", labels) == 1

    with_replica(model, use)


def test_a_replica_whose_model_is_closed_is_not_healthy(model: Path) -> None:
    async def use(replica: Replica) -> None:
        await replica.close()
        with pytest.raises(Exception, match="not healthy"):
            await replica.check_health()

    with_replica(model, use)


def test_processes_of_a_replica_share_its_processors() -> None:
    def threads_of(**arguments: Any) -> tuple[float, int]:
        given = {"model": "m", "tp": 2, **arguments}
        scale, words = for_ranks(2, *split_arguments(given), given)
        loading = served_by(words).loading
        assert loading["tensor_parallel_size"] == 2
        return scale.num_cpus, loading["num_threads"]

    assert threads_of() == (2.0, 1)
    assert threads_of(num_cpus=7) == (7.0, 3)
    assert threads_of(num_cpus=8, num_threads=1) == (8.0, 1)
    with pytest.raises(SettingsError, match="num_cpus=1 is less than tp=2"):
        threads_of(num_cpus="1")


class _Refusing:
    """Stands for Ray's handle: answers two requests, each three seconds after the one before, and refuses others."""

    def __init__(self, error: type[Exception], clock: list[float]) -> None:
        self._error, self._clock, self._num_answered = error, clock, 0
        self.respond = self

    async def remote(self, call: HttpCall) -> Any:
        if self._num_answered == 2:
            raise self._error
        self._num_answered += 1
        yield [{"type": "http.response.start", "status": 200, "headers": []}]
        self._clock[0] += 3
        yield [{"type": "http.response.body", "body": b"{}"}]


def test_a_full_queue_of_replicas_says_when_it_is_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("BackPressureError", "RayActorError", "RayServeException", "RayTaskError")
    errors: dict[str, Any] = {name: type(name, (Exception,), {}) for name in names}
    for module in ("ray", "ray.exceptions", "ray.serve", "ray.serve.exceptions"):
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**errors))
    clock = [0.0]
    ingress = Ingress(_Refusing(errors["BackPressureError"], clock), ServeSettings(Limits(max_queue_len=7)))
    ingress._turnover = Turnover(lambda: clock[0])

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(ingress), base_url="http://test") as http:
            return await http.post("/v1/completions", json={"prompt": "x"})

    answers = [asyncio.run(ask()) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "21"
