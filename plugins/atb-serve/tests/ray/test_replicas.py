# SPDX-License-Identifier: Apache-2.0
"""Two replicas of a model by Ray Serve on this machine; `nox -s ray` installs Ray."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_model import write_random

pytest.importorskip("ray.serve")
import ray
from ray import serve

from atb_serve.ray import app

KEY = "a-key-of-the-tests"
STREAMS = 8
TOKENS = 4000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of two replicas."""
    folder = tmp_path_factory.mktemp("ray")
    model = write_random(folder / "tiny")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192}), encoding="utf-8")
    (folder / "keys").write_text(KEY, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(address="local", num_cpus=8, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    arguments = {
        "model": str(model), "served_model_name": ["tiny", "alias"], "api_key_file": str(folder / "keys"),
        "min_replicas": 2, "max_body_bytes": "50000", "num_cpus": "1",
    }  # fmt: skip
    serve.run(app(arguments), name="atb", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    """A client with the key."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120) as client:
        yield client


def replica_of(answer: httpx.Response) -> str:
    return answer.headers["x-replica-id"]


def ask(http: httpx.Client, prompt: str, **more: Any) -> httpx.Response:
    return http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 4, "ignore_eos": True, **more})


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def kill(replica: str) -> None:
    """Ends the process of a replica at once."""
    (actor,) = (each for each in ray.util.list_named_actors(all_namespaces=True) if each["name"].endswith(replica))
    ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]), no_restart=True)


def test_the_api_is_that_of_one_server(http: httpx.Client, url: str) -> None:
    assert http.get("/health").status_code == 200
    assert [each["id"] for each in http.get("/v1/models").json()["data"]] == ["tiny", "alias"]
    answer = ask(http, "x", temprature=1)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "temprature")
    assert http.get("/v1/completions").status_code == 405
    assert http.post("/v1/completions", content="{", headers={"Content-Type": "application/json"}).status_code == 400
    assert ask(http, "x" * 60000).status_code == 413
    assert "alias" in http.get("/v1/models/alias").text
    whole = ask(http, "a story", max_tokens=20).json()["choices"][0]["text"]
    streamed = [json.loads(line[6:]) for line in ask(http, "a story", max_tokens=20, stream=True).text.splitlines()
                if line.startswith("data: {")]  # fmt: skip
    assert "".join(each["choices"][0]["text"] for each in streamed) == whole
    for path in ("/v1/models", "/", "/metrics", "/nothing"):
        assert httpx.get(f"{url}{path}").status_code == 401
    for path in ("/metrics", "/v1/load_lora_adapter"):
        assert "here are several" in http.post(path, json={}).json()["error"]["message"]


def test_prompts_that_begin_alike_share_a_replica(http: httpx.Client) -> None:
    homes = set()
    for number in range(6):
        beginning = f"{number} " * 400
        home = replica_of(ask(http, beginning))
        later = [ask(http, f"{beginning} question {other}") for other in range(4)]
        assert {replica_of(each) for each in later} == {home}
        assert all(each.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 0 for each in later)
        homes.add(home)
    with ThreadPoolExecutor(STREAMS) as threads:
        homes |= set(threads.map(lambda number: replica_of(ask(http, f"{number}", max_tokens=200)), range(STREAMS)))
    assert len(homes) == 2


def test_a_client_that_leaves_ends_its_request(http: httpx.Client) -> None:
    body = {"prompt": "x", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
    model = serve.get_deployment_handle("Model", "atb")
    wait_until(lambda: sum(model.broadcast("num_running").results()) == 0)


def test_a_replica_that_is_killed_loses_its_running_requests_alone_and_comes_back(http: httpx.Client) -> None:
    begun = threading.Barrier(STREAMS + 1)

    def stream(number: int) -> tuple[str, str]:
        body = {"prompt": f"{number}", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            begun.wait(120)
            rest = [first, *filter(None, lines)]
        return replica_of(answer), rest[-1]

    with ThreadPoolExecutor(STREAMS) as threads:
        streams = [threads.submit(stream, number) for number in range(STREAMS)]
        victim = replica_of(ask(http, "who"))
        begun.wait(120)
        kill(victim)
        ends = [each.result(240) for each in streams]
    lost = {end for replica, end in ends if replica == victim}
    kept = {end for replica, end in ends if replica != victim}
    assert lost and kept == {"data: [DONE]"}
    assert {json.loads(end.removeprefix("data: "))["error"]["code"] for end in lost} == {"replica_lost"}
    # Requests that come meanwhile are answered, and in a while by two replicas again.
    found: set[str] = set()

    def two_again() -> bool:
        with ThreadPoolExecutor(STREAMS) as threads:
            answers = list(threads.map(lambda number: ask(http, f"{number}", max_tokens=100), range(STREAMS)))
        assert {each.status_code for each in answers} == {200}
        found.update(map(replica_of, answers))
        return len(found) == 2

    wait_until(two_again)
    assert victim not in found


def processes(text: bytes, parent: bytes) -> list[int]:
    """Returns the processes with a text in their command line whose parent's has another one."""
    lines = {int(each.parent.name): _read(each) for each in Path("/proc").glob("[0-9]*/cmdline")}
    found = [process for process, line in lines.items() if text in line]
    stats = {each: _read(Path(f"/proc/{each}/stat")) for each in found}
    return [each for each, stat in stats.items() if stat and parent in lines.get(_parent(stat), b"")]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


def _parent(stat: bytes) -> int:
    return int(stat.rpartition(b") ")[2].split()[1])


def test_a_replica_may_be_several_processes_and_comes_back_when_one_of_them_dies(
    http: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(KEY, encoding="utf-8")
    arguments = {"model": str(write_random(tmp_path / "tiny")), "tensor_parallel_size": 2,
                 "api_key_file": str(tmp_path / "keys")}  # fmt: skip
    serve.run(app(arguments), name="group", route_prefix="/group")
    http.base_url = httpx.URL(f"{http.base_url}/group")
    first = ask(http, "a story", max_tokens=8)
    assert first.status_code == 200
    (rank,) = processes(b"atb_parallel.follower", b"ServeReplica")
    os.kill(rank, signal.SIGKILL)

    def answers_again() -> bool:
        answer = ask(http, "a story", max_tokens=8)
        # Until Ray has seen that the replica is not healthy, it says that it cannot answer.
        assert answer.status_code in (200, 500, 503)
        return answer.status_code == 200 and replica_of(answer) != replica_of(first)

    wait_until(answers_again)
    assert ask(http, "a story", max_tokens=8).json()["choices"][0] == first.json()["choices"][0]
    assert processes(b"atb_parallel.follower", b"ServeReplica") != [rank]
    serve.delete("group")
    wait_until(lambda: not processes(b"atb_parallel.follower", b"ServeReplica"))
