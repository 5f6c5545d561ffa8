# SPDX-License-Identifier: Apache-2.0
"""Arguments of the application of Ray Serve: options of `atb serve`, and how many replicas there are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from atb_core.errors import SettingsError
from atb_serve.command import command

# Ray Serve has the address; the file of options would be read on another machine.
_NOT_HERE = frozenset({"host", "port", "uds", "config"})


@dataclass(frozen=True)
class ScaleSettings:
    """Numbers of replicas and what each takes. A configuration file of Ray Serve may say more.

    Attributes:
        min_replicas: Fewest replicas.
        max_replicas: Most replicas.
        target_ongoing_requests: Requests of each replica, running and waiting, above which there will be more replicas.
        num_cpus: Processors of each replica; its processes together take as many threads.
        resources: Other resources of each replica as JSON, such as `{"NPU": 1}`.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 16.0
    num_cpus: float = 1.0
    resources: str = "{}"

    @property
    def autoscaling(self) -> dict[str, Any]:
        """The arguments of Ray's `AutoscalingConfig`."""
        names = ("min_replicas", "max_replicas", "target_ongoing_requests")
        return {name: getattr(self, name) for name in names}

    @property
    def actor_options(self) -> dict[str, Any]:
        """The options of each replica's actor.

        Raises:
            SettingsError: `resources` is no JSON of numbers by names.
        """
        try:
            resources = json.loads(self.resources)
        except ValueError:
            resources = None
        if not isinstance(resources, dict) or not all(type(each) in (int, float) for each in resources.values()):
            raise SettingsError(
                f"resources must be numbers by names, not {self.resources!r:.100}", hint="""Write '{"NPU": 1}'."""
            )
        return {"num_cpus": self.num_cpus, "resources": resources}


def split_arguments(arguments: Mapping[str, Any]) -> tuple[ScaleSettings, list[str]]:
    """Returns the numbers of replicas, and the command line of `atb serve` that the other arguments stand for.

    Raises:
        SettingsError: There is no such argument, a number is none, or no model is named.
    """
    fields = {field.name: field.type for field in dataclasses.fields(ScaleSettings)}
    scale: dict[str, Any] = {}
    words: list[str] = []
    for name, value in arguments.items():
        if name in fields:
            scale[name] = _number(name, value, str(fields[name]))
        elif name != "model":
            words += _words(name, value)
    if not isinstance(arguments.get("model"), str):
        raise SettingsError("No model is named", hint="Add model=MODEL, a directory, a hub id or pypi:PACKAGE.")
    settings = ScaleSettings(**scale)
    if not 0 < settings.min_replicas <= settings.max_replicas:
        # The default follows what is given.
        if "max_replicas" in scale or settings.min_replicas <= 0:
            raise SettingsError("min_replicas must be at least 1 and at most max_replicas")
        settings = dataclasses.replace(settings, max_replicas=settings.min_replicas)
    return settings, [*words, "--", arguments["model"]]


def for_ranks(
    ranks: int, scale: ScaleSettings, words: list[str], arguments: Mapping[str, Any]
) -> tuple[ScaleSettings, list[str]]:
    """Returns settings and command line of replicas of several processes each, which share the replica's processors.

    By default each process has one, and there are as many processors as processes.

    Raises:
        SettingsError: There are fewer processors than processes, which would wait for each other.
    """
    if "num_cpus" not in arguments:
        scale = dataclasses.replace(scale, num_cpus=float(ranks))
    if scale.num_cpus < ranks:
        raise SettingsError(
            f"num_cpus={scale.num_cpus:g} is less than tp={ranks}: each process needs a processor",
            hint="Raise num_cpus, or leave it out.",
        )
    # An option that is given again counts as it is given last.
    return scale, ["--num-threads", str(int(scale.num_cpus) // ranks), *words]


def _number(name: str, value: Any, kind: str) -> Any:
    if kind == "str":
        return value if isinstance(value, str) else json.dumps(value)
    try:
        number = int(value) if kind == "int" else float(value)
    except (TypeError, ValueError):
        number = 0
    if not 0 < number < float("inf"):
        raise SettingsError(f"{name} must be a positive number, not {value!r:.100}")
    return number


def _words(name: str, value: Any) -> list[str]:
    """Returns the words of one option; an option that may be given again takes a list."""
    flag = f"--{name.replace('_', '-')}"
    options = [each for each in command.params if isinstance(each, click.Option) and flag in each.opts]
    if not options or flag.removeprefix("--") in _NOT_HERE:
        raise SettingsError(
            f"The application of Ray Serve has no argument {name!r:.100}",
            hint="It has the options of `atb serve`, without those about the address.",
        )
    if options[0].is_flag:
        return _switch(options[0], name, value)
    values = value if isinstance(value, (list, tuple)) else [value]
    return [word for each in values for word in (flag, str(each))]


def _switch(option: click.Option, name: str, value: Any) -> list[str]:
    is_on = {"true": True, "false": False}.get(str(value).lower())
    if is_on is None:
        raise SettingsError(f"{name} must be true or false, not {value!r:.100}")
    return [option.opts[0]] if is_on else option.secondary_opts[:1]
