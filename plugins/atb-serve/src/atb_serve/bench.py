# SPDX-License-Identifier: Apache-2.0
"""`atb bench serve`: how fast a server answers many clients."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atb_core.errors import AtbError

_TIMEOUT = 600.0

_HINT = "`atb serve MODEL` starts a server; --url says where one is, and its log what it refuses."


class BenchError(AtbError):
    """Error for a server that does not answer as one of OpenAI's API does."""


@dataclass
class Answer:
    """One request: when it was sent, when its tokens came, in seconds; or why it failed."""

    sent: float
    times: list[float] = field(default_factory=list)
    tokens: int = 0
    error: str = ""


@dataclass(frozen=True)
class Load:
    """The requests of one measurement.

    Attributes:
        url: Address of the server, without `/v1`.
        model: Name of the model; `None`: the server's first one.
        api_key: Key; `None`: none.
        num_requests: Number of requests.
        concurrency: Most of them at a time.
        rate: Requests a second that arrive, at random times; `None`: as soon as another one has ended.
        prompt: Text of each prompt, after its number.
        max_tokens: Tokens of each answer, which goes on after an end token.
        seed: Of the times of arrival.
    """

    url: str
    model: str | None
    api_key: str | None
    num_requests: int
    concurrency: int
    rate: float | None
    prompt: str
    max_tokens: int
    seed: int = 0

    def connect(self) -> http.client.HTTPConnection:
        """Returns a new connection to the server."""
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise BenchError(f"{self.url!r:.200} is no address of a server", hint="For example http://127.0.0.1:8000")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=_TIMEOUT)

    def headers(self) -> dict[str, str]:
        """Returns the headers of each request."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": "application/json", **key}


def measure(load: Load) -> tuple[dict[str, Any], list[Answer]]:
    """Sends the load and returns what came of it, times in seconds, with the answers.

    Raises:
        BenchError: The server cannot be reached, or no request succeeded.
    """
    model = load.model or _first_model(load)
    arrivals = _arrivals(load)
    answers: list[Answer] = []
    lock, numbers = threading.Lock(), iter(range(load.num_requests))
    begin = time.perf_counter()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            time.sleep(max(0.0, begin + arrivals[number] - time.perf_counter()))
            answer = _ask(load, model, number)
            with lock:
                answers.append(answer)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(load.concurrency, load.num_requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"model": model, **_report(load, answers, time.perf_counter() - begin)}, answers


def _arrivals(load: Load) -> list[float]:
    if load.rate is None:
        return [0.0] * load.num_requests
    generator, now = random.Random(load.seed), 0.0
    return [now := now + generator.expovariate(load.rate) for _ in range(load.num_requests)]


def _first_model(load: Load) -> str:
    connection = load.connect()
    try:
        connection.request("GET", "/v1/models", headers=load.headers())
        response = connection.getresponse()
        body = json.loads(response.read())
        if response.status != 200:
            hint = "Give its key with --api-key." if response.status in (401, 403) else _HINT
            raise BenchError(f"{load.url} answers with status {response.status}: {body!r:.300}", hint)
        return str(body["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        raise BenchError(f"{load.url} cannot be asked for its models: {error}", _HINT) from None
    finally:
        connection.close()


def _ask(load: Load, model: str, number: int) -> Answer:
    body = {
        "model": model, "prompt": f"{number}. {load.prompt}", "max_tokens": load.max_tokens, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    answer, connection = Answer(time.perf_counter()), load.connect()
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), load.headers())
        response = connection.getresponse()
        if response.status != 200:
            answer.error = f"status {response.status}"
            return answer
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                answer.error = str(event["error"].get("message"))
            elif event.get("usage"):
                answer.tokens = int(event["usage"]["completion_tokens"])
            elif event.get("choices"):
                answer.times.append(time.perf_counter())
        if not answer.tokens and not answer.error:
            answer.error = "the stream has no usage"
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        answer.error = type(error).__name__
    finally:
        connection.close()
    return answer


def _report(load: Load, answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    good, first_tokens, gaps = _times(answers)
    errors: dict[str, int] = {}
    for answer in answers:
        if answer.error:
            errors[answer.error] = errors.get(answer.error, 0) + 1
    if not good:
        raise BenchError(f"No request succeeded at {load.url}: {errors}", _HINT)
    tokens = sum(answer.tokens for answer in good)
    settings = asdict(load)
    del settings["api_key"], settings["model"]
    return {
        "load": settings,
        "seconds": seconds,
        "completed": len(good),
        "errors": errors,
        "generated_tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "requests_per_second": len(good) / seconds,
        "time_to_first_token": _spread(first_tokens),
        "inter_token_latency": _spread(gaps),
        "request_latency": _spread([one.times[-1] - one.sent for one in good]),
    }


def _times(answers: Sequence[Answer]) -> tuple[list[Answer], list[float], list[float]]:
    """Returns the good answers, their times to the first token, and the gaps between their tokens."""
    good = [answer for answer in answers if not answer.error and answer.times]
    gaps = [later - earlier for one in good for earlier, later in zip(one.times, one.times[1:], strict=False)]
    return good, [one.times[0] - one.sent for one in good], gaps


def plot(answers: Sequence[Answer], path: Path) -> None:
    """Draws which part of the first tokens, and of the gaps between tokens, took at most how long.

    Args:
        answers: What came.
        path: The picture; its suffix says the format, such as `.svg` or `.png`.

    Raises:
        BenchError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchError(
            "A plot needs matplotlib, which is not installed", hint="pip install 'atb-serve[plot]' adds it."
        ) from None
    _, first_tokens, gaps = _times(answers)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    titles = ("Time to first token", "Time between tokens")
    for axes, title, values in zip(figure.subplots(1, 2), titles, (first_tokens, gaps), strict=True):
        if values:
            axes.ecdf([1000 * value for value in values])
        axes.set(title=title, xlabel="ms", ylabel="part of all", ylim=(0, 1), xlim=(0, None))
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be written: {error}", "Choose another file, or another suffix.") from None


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Returns mean, median and the 90th and 99th of a hundred; `None` of no values."""
    if not values:
        return None
    ordered = sorted(values)

    def at(part: float) -> float:
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

    return {
        "mean": statistics.fmean(values), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": ordered[-1],
    }  # fmt: skip


def report_text(result: dict[str, Any]) -> str:
    """Returns a result for a person."""
    lines = [
        f"{result['completed']} requests in {result['seconds']:.1f} s, {sum(result['errors'].values())} failed",
        f"{result['tokens_per_second']:.1f} tokens a second, {result['requests_per_second']:.2f} requests a second",
    ]
    for name in ("time_to_first_token", "inter_token_latency", "request_latency"):
        if (spread := result[name]) is not None:
            values = ", ".join(f"{key} {1000 * value:.1f} ms" for key, value in spread.items())
            lines.append(f"{name.replace('_', ' ')}: {values}")
    return "\n".join([*lines, *(f"failed: {count} x {error}" for error, count in result["errors"].items())])
