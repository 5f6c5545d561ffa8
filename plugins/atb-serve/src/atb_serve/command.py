# SPDX-License-Identifier: Apache-2.0
"""`atb serve`: a model behind OpenAI's API."""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from atb_cli.options import finite, load_runner, model_argument, model_options
from atb_cli.output import json_option, note
from atb_core.errors import EngineError, SettingsError
from atb_core.files import read_text
from atb_core.plugins import hookimpl
from atb_serve.settings import Access, Limits, ServeSettings, hashed_keys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_CONFIG_BYTES = 1 << 20
_LIMITS = Limits()
_POSITIVE = click.IntRange(min=1)
_MOST_SECONDS = 1_000_000  # the kernel counts milliseconds in 31 bits
_SECONDS = click.FloatRange(0.001, _MOST_SECONDS)
_MAX_NAME = 256


def _read_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Makes the options in a file the defaults of this call; an option that does not exist is an error."""
    if path is None:
        return None
    try:
        values = tomllib.loads(read_text(path, _MAX_CONFIG_BYTES, SettingsError) or "")
    except ValueError as error:
        raise SettingsError(f"{path} is no TOML: {error}") from None
    known = {name: one.name for one in ctx.command.params for name in (one.name, *_long_names(one)) if name}
    for name in values:
        if name not in known or name == "config":
            raise SettingsError(f"{path}: `atb serve` has no option {name!r}", hint="`atb serve --help` lists all.")
    ctx.default_map = {str(known[name]): value for name, value in values.items()}
    return path


def _check_names(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuses what no request or log could name."""
    for name in names:
        if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise click.BadParameter(f"{name!r:.300}: a name has 1 to {_MAX_NAME} printable characters.")
    return names


def _long_names(option: click.Parameter) -> list[str]:
    return [name.removeprefix("--") for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]


@click.command("serve", context_settings={"auto_envvar_prefix": "ATB_SERVE"})
@model_argument
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Where to listen; 0.0.0.0 lets other machines connect.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N",
              help="Port to listen at; 0 takes a free one.")  # fmt: skip
@click.option("--uds", type=click.Path(dir_okay=False, path_type=Path), metavar="PATH",
              help="Listen at a Unix socket instead, which who may write to it can reach.")  # fmt: skip
@click.option("--served-model-name", "names", multiple=True, callback=_check_names, metavar="NAME",
              help="Name of the model in requests; may be given again. [default: MODEL]")  # fmt: skip
@click.option("--api-key", "keys", multiple=True, metavar="KEY", envvar="ATB_SERVE_API_KEY",
              help="Refuse requests without this key, on every path but /health. Other users of the machine can read it"
              " in the list of processes: not so the file, and the variable ATB_SERVE_API_KEY.")  # fmt: skip
@click.option("--api-key-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="File with keys, one a line.")  # fmt: skip
@click.option("--lora-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIRECTORY",
              help="Let requests with a key load the adapters that are directories in this one.")  # fmt: skip
@click.option("--max-adapters", type=_POSITIVE, default=_LIMITS.max_adapters, show_default=True, metavar="N",
              help="Most adapters in memory, beyond which requests load none.")  # fmt: skip
@click.option("--allowed-host", "hosts", multiple=True, metavar="NAME",
              help="Answer under this name too; may be given again. Without a key, a server at a loopback address"
              " answers under such addresses and localhost alone.")  # fmt: skip
@click.option("--max-num-seqs", type=_POSITIVE, metavar="N",
              help="Most completions that run at a time. [default: what memory allows]")  # fmt: skip
@click.option("--max-queue-len", type=_POSITIVE, default=_LIMITS.max_queue_len, show_default=True, metavar="N",
              help="Most prompts that wait; more get status 429.")  # fmt: skip
@click.option("--max-body-bytes", type=_POSITIVE, default=_LIMITS.max_body_bytes, show_default=True, metavar="N",
              help="Largest body of a request.")  # fmt: skip
@click.option("--max-prompts", type=_POSITIVE, default=_LIMITS.max_prompts, show_default=True, metavar="N",
              help="Most prompts in one request.")  # fmt: skip
@click.option("--max-n", type=_POSITIVE, default=_LIMITS.max_n, show_default=True, metavar="N",
              help="Most completions of one prompt.")  # fmt: skip
@click.option("--max-tokens", type=_POSITIVE, metavar="N",
              help="Most tokens of one completion. [default: what the context holds]")  # fmt: skip
@click.option("--request-timeout", type=_SECONDS, callback=finite, default=_LIMITS.request_timeout, show_default=True,
              metavar="SECONDS", help="Longest time for one answer.")  # fmt: skip
@click.option("--idle-timeout", type=_SECONDS, callback=finite, default=_LIMITS.idle_timeout, show_default=True,
              metavar="SECONDS", help="Longest time for which a client may leave a stream unread.")  # fmt: skip
@click.option("--drain", type=click.FloatRange(0, _MOST_SECONDS), callback=finite, default=30.0, show_default=True,
              metavar="SECONDS", help="After SIGTERM or Ctrl-C, let running requests go on for so long.")  # fmt: skip
@click.option("--log-requests/--no-log-requests", default=True, show_default=True,
              help="Print one line of JSON for each request on stdout, without its text.")  # fmt: skip
@click.option("--log-texts", is_flag=True, help="Add prompts and answers to these lines.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE", is_eager=True,
              expose_value=False, callback=_read_config,
              help="TOML file with values of these options, by their names.")  # fmt: skip
@model_options
def command(model: str, **options: Any) -> None:
    """Serve MODEL in the form of OpenAI's API, on this machine alone unless --host says otherwise.

    Every option can be given as a variable too: ATB_SERVE_PORT for --port. Options go before variables, and variables
    before the file.
    """
    from atb_serve.server import Server, bind, bind_path, set_up_logs, tell_systemd, url_host

    host, port, uds = options["host"], options["port"], options.pop("uds")
    if uds is not None:
        options["host"] = ""
    keys, key_file = options["keys"], options["api_key_file"]
    served = _served(model, options)
    settings = served.settings
    if uds is None and not settings.access.key_hashes and not _is_loopback(host):
        note(f"warning: {host} can be reached by other machines, and without --api-key everybody may ask")
    with bind(host, port, settings.limits.idle_timeout) if uds is None else bind_path(uds) as listener:
        address = f"unix:{uds}" if uds else f"http://{url_host(host)}:{listener.getsockname()[1]}/v1"
        set_up_logs(served.log_requests)
        with load_runner(model, **served.loading) as runner:
            from atb_serve.app import make_app
            from atb_serve.engine import settled_heap, warm_up

            warm_up(runner)
            app = make_app(runner, served.names, settings)

            def ready() -> None:
                note(f"{served.names[0]} is served at {address} (Ctrl-C ends it)")
                tell_systemd("READY=1")

            hang_up = None if key_file is None else lambda: _read_keys_again(settings.access, keys, key_file)
            server = Server(
                app,
                served.drain,
                ready,
                settings.limits.body_timeout,
                lost=lambda: runner.failure,
                hang_up=hang_up,
                behind_proxy=uds is not None,
            )
            with settled_heap():
                server.run(sockets=[listener])
            if server.failure is not None:
                raise EngineError(server.failure, hint="Start the server again.")


def _read_keys_again(access: Access, keys: Sequence[str], key_file: Path) -> None:
    """Takes the keys that the file has now; if it is faulty, those before stay."""
    try:
        access.key_hashes = hashed_keys(keys, key_file)
        note("the keys were read again")
    except SettingsError as error:
        note(f"warning: the keys stay as they were: {error}")


@dataclass(frozen=True)
class Served:
    """A command line of `atb serve`, without the address.

    Attributes:
        model: Reference of the model.
        names: Names of the model in requests.
        settings: Limits and access.
        drain: Seconds for which requests go on at the end.
        log_requests: Writes a line for each request.
        loading: Arguments of `ModelRunner`.
    """

    model: str
    names: tuple[str, ...]
    settings: ServeSettings
    drain: float
    log_requests: bool
    loading: dict[str, Any]


def served_by(words: Sequence[str]) -> Served:
    """Reads a command line of `atb serve`, and the variables, for a server that gets its requests by other means.

    Such a server answers under every host name, unless the command line has some.

    Raises:
        SettingsError: An option is unknown or has a wrong value.
    """
    try:
        options = command.make_context("atb serve", list(words), auto_envvar_prefix="ATB_SERVE").params
    except click.ClickException as error:
        raise SettingsError(error.format_message(), hint="`atb serve --help` lists the options.") from None
    del options["uds"]
    return _served(options.pop("model"), {**options, "host": ""})


def _served(model: str, options: dict[str, Any]) -> Served:
    """Sorts the options."""
    host, names = options.pop("host"), options.pop("names") or (model,)
    del options["port"]
    keys = hashed_keys(options.pop("keys"), options.pop("api_key_file"))
    access = Access(keys, _hosts(host, options.pop("hosts"), bool(keys)))
    settings = ServeSettings(_limits(options), access, options.pop("log_texts"), options.pop("lora_dir"))
    drain, log_requests = options.pop("drain"), options.pop("log_requests")
    if options["max_num_seqs"] is None:
        del options["max_num_seqs"]
    return Served(model, tuple(names), settings, drain, log_requests, options)


def _limits(options: dict[str, Any]) -> Limits:
    """Takes the limits out of the options."""
    names = (
        "max_adapters", "max_queue_len", "max_body_bytes", "max_prompts", "max_n", "max_tokens", "request_timeout",
        "idle_timeout",
    )  # fmt: skip
    return Limits(**{name: options.pop(name) for name in names})


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(host: str, allowed: tuple[str, ...], has_key: bool) -> frozenset[str] | None:
    """Returns the names under which the server answers; `None`: all."""
    own = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
    if allowed:
        return frozenset({*own, *map(str.lower, allowed)})
    return frozenset(own) if _is_loopback(host) and not has_key else None


@click.command("bench serve")
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--model", metavar="NAME", help="Name of the model. [default: the server's first]")
@click.option("--api-key", envvar="ATB_SERVE_API_KEY", metavar="KEY", help="The server's key.")
@click.option("--num-requests", type=_POSITIVE, default=64, show_default=True, metavar="N", help="Number of requests.")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, show_default=True, metavar="N",
              help="Most requests at a time.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), callback=finite, metavar="N",
              help="Requests a second that arrive, at random times. [default: when another one has ended]")  # fmt: skip
@click.option("--prompt", default="Tell a long story about a lighthouse.", show_default=True, metavar="TEXT",
              help="What each request continues, after its number.")  # fmt: skip
@click.option("--max-tokens", type=_POSITIVE, default=128, show_default=True, metavar="N", help="Tokens of an answer.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the times of arrival.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Draw the times of first tokens and of gaps (.svg, .png, .pdf); needs matplotlib.")  # fmt: skip
@json_option
def bench_serve(url: str, as_json: bool, picture: Path | None, **options: Any) -> None:
    """Ask the server at URL by many clients, and report tokens a second, first tokens and gaps between tokens.

    Any server of OpenAI's API that knows ignore_eos will do. Answers are streamed.
    """
    from atb_serve.bench import Load, measure, plot, report_text

    result, answers = measure(Load(url=url.rstrip("/"), **options))
    if picture is not None:
        plot(answers, picture)
    click.echo(json.dumps(result, indent=2) if as_json else report_text(result))


@hookimpl
def atb_cli_commands() -> list[click.Command]:
    """Returns `atb serve` and `atb bench serve`."""
    return [command, bench_serve]
