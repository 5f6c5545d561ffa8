# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus, under vLLM's names with `atb_` before them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from atb_core.runner.outputs import FinishReason

if TYPE_CHECKING:
    from atb_core import RequestOutput
    from atb_serve.engine import ServedModel

_MODEL = ("model_name",)
ABORTED: FinishReason = "abort"
_REASONS = get_args(FinishReason)
# Seconds; of one token, and of a whole request.
_SHORT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_LONG = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0)


class Metrics:
    """Counts of one server, in a registry of their own."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_State(tuple(models)))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"atb_{name}", text, (*_MODEL, *labels), registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"atb_{name}_seconds", text, _MODEL, buckets=buckets, registry=self.registry)

        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self._generation_tokens = counter("generation_tokens", "Generated tokens.")
        self._preemptions = counter("num_preemptions", "Requests whose cache blocks went to others.")
        self._queries = counter("prefix_cache_queries", "Tokens of prompts that were looked up in the cache.")
        self._hits = counter("prefix_cache_hits", "Tokens of prompts that were found in the cache.")
        self._success = counter("request_success", "Finished completions.", "finished_reason")
        self._first = histogram("time_to_first_token", "From arrival to the first token.", _SHORT)
        self._between = histogram("inter_token_latency", "Mean time between tokens of a request.", _SHORT)
        self._whole = histogram("e2e_request_latency", "From arrival to the last token.", _LONG)
        self._queue = histogram("request_queue_time", "From arrival to the first step.", _LONG)
        self._prefill = histogram("request_prefill_time", "From the first step to the first token.", _LONG)
        self._decode = histogram("request_decode_time", "From the first token to the last.", _LONG)
        self._http = Counter(
            "atb_http_requests", "Answers by path and status.", ("path", "status"), registry=self.registry
        )
        self._of_models = (
            self._prompt_tokens, self._generation_tokens, self._preemptions, self._queries, self._hits, self._first,
            self._between, self._whole, self._queue, self._prefill, self._decode,
        )  # fmt: skip

    def answered(self, path: str, status: int) -> None:
        """Counts an HTTP answer; `path` is that of a route."""
        self._http.labels(path, status).inc()

    def begin(self, model: str) -> None:
        """Has the counts of a model, or of an adapter, from now on: a rate needs the zero before the first request."""
        for metric in self._of_models:
            metric.labels(model)
        for reason in _REASONS:
            self._success.labels(model, reason)

    def forget(self, model: str) -> None:
        """Forgets the counts of an adapter that was unloaded: clients choose names, and each takes memory."""
        for metric in self._of_models:
            metric.remove(model)
        for reason in _REASONS:
            self._success.remove(model, reason)

    def embedded(self, model: str, prompt: int) -> None:
        """Counts the tokens of a prompt that became a vector."""
        self._prompt_tokens.labels(model).inc(prompt)

    def ended(self, model: str, output: RequestOutput, prompt: int, generated: int) -> None:
        """Counts the tokens of a prompt, as far as it was begun, and the ends of its completions, early or not."""
        for counter, value in (
            (self._prompt_tokens, prompt),
            (self._generation_tokens, generated),
            (self._preemptions, output.metrics.preemptions),
            (self._queries, prompt),
            (self._hits, output.num_cached_tokens),
        ):
            counter.labels(model).inc(value)
        reasons = reasons_of(output)
        for reason in reasons:
            self._success.labels(model, reason).inc()
        if ABORTED not in reasons:
            self._finished(model, output)

    def _finished(self, model: str, output: RequestOutput) -> None:
        times = output.metrics
        for histogram, seconds in (
            (self._first, times.time_to_first_token),
            (self._whole, times.total_time),
            (self._queue, times.queue_time),
            (self._prefill, times.time_to_first_token - times.queue_time),
            (self._decode, times.decode_time),
        ):
            histogram.labels(model).observe(seconds)
        steps = max(len(each.token_ids) for each in output.outputs) - 1
        if steps:
            self._between.labels(model).observe(times.decode_time / steps)


def reasons_of(output: RequestOutput) -> list[FinishReason]:
    """Returns why each completion ended; one that has no reason of its own ended early."""
    return [completion.finish_reason or ABORTED for completion in output.outputs]


class _State(Collector):
    """Reads the state of the engines when metrics are collected."""

    def __init__(self, models: tuple[ServedModel, ...]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """Yields the gauges."""
        running = GaugeMetricFamily("atb_num_requests_running", "Completions in steps.", labels=_MODEL)
        waiting = GaugeMetricFamily("atb_num_requests_waiting", "Completions that wait.", labels=_MODEL)
        usage = GaugeMetricFamily("atb_kv_cache_usage_perc", "Used part of the cache, 1 is all.", labels=_MODEL)
        for model in self._models:
            running.add_metric([model.name], model.engine.num_running)
            waiting.add_metric([model.name], model.engine.num_waiting)
            usage.add_metric([model.name], 1 - model.runner.num_free_blocks / model.runner.num_blocks)
        return [running, waiting, usage]
