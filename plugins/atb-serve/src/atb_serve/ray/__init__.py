# SPDX-License-Identifier: Apache-2.0
"""Replicas of a model by Ray Serve: `serve run atb_serve.ray:app model=MODEL`.

Requests come to the deployment `Ingress`, which sends each to the replica of the deployment `Model` that has computed
the longest part of its prompt. Importing this package does not import Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atb_core.errors import SettingsError
from atb_serve.command import served_by
from atb_serve.ray.arguments import for_ranks, split_arguments

__all__ = ["app"]

# After the time for running requests, for closing the model.
_CLOSING_SECONDS = 10.0


def app(arguments: Mapping[str, Any]) -> Any:
    """Builds the application of Ray Serve; `serve run` and `serve deploy` call it.

    Args:
        arguments: `model`, options of `atb serve` by their names, except those about the address, and the fields of
            `arguments.ScaleSettings`.

    Returns:
        A `ray.serve.Application`.

    Raises:
        SettingsError: Ray Serve is not installed, or an argument is not known or has a wrong value.
    """
    try:
        from ray import serve
        from ray.serve.config import AutoscalingConfig, RequestRouterConfig
    except ImportError as error:
        raise SettingsError(f"Ray Serve cannot be imported: {error}", hint="pip install 'atb-serve[ray]'") from None
    from atb_serve.ray.ingress import Ingress
    from atb_serve.ray.replica import RayReplica

    scale, words = split_arguments(arguments)
    served = served_by(words)
    if (ranks := served.loading["tensor_parallel_size"]) > 1:
        scale, words = for_ranks(ranks, scale, words, arguments)
    drain, limits = served.drain, served.settings.limits
    shutdown = {"graceful_shutdown_wait_loop_s": 0.5, "graceful_shutdown_timeout_s": drain + _CLOSING_SECONDS}
    model = serve.deployment(
        RayReplica,
        name="Model",
        # A replica queues by itself, and says when its queue is full.
        max_ongoing_requests=limits.max_queue_len,
        max_queued_requests=limits.max_queue_len,
        autoscaling_config=AutoscalingConfig(**scale.autoscaling),
        ray_actor_options=scale.actor_options,
        request_router_config=RequestRouterConfig(request_router_class="atb_serve.ray.router.PrefixRouter"),
        health_check_period_s=10.0,
        health_check_timeout_s=60.0,
        **shutdown,
    )

    def make_ingress() -> Ingress:
        context = serve.get_replica_context()
        replicas = serve.get_deployment_handle("Model", context.app_name).options(stream=True)
        return Ingress(replicas, served_by(words).settings)

    ingress = serve.deployment(
        serve.ingress(make_ingress)(_Arguments), name="Ingress", max_ongoing_requests=10_000, **shutdown
    )
    return ingress.bind(model.bind(words))


class _Arguments:
    """Takes what a deployment is bound to: the ingress asks for the replicas by their name."""

    def __init__(self, *arguments: Any) -> None:
        pass
