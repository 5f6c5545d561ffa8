# SPDX-License-Identifier: Apache-2.0
"""Runs the application: the socket, signals and the log."""

from __future__ import annotations

import asyncio
import errno
import logging
import logging.config
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from atb_core.errors import AtbError

if TYPE_CHECKING:
    from starlette.applications import Starlette

_BACKLOG = 2048
_SECONDS_TO_LEAVE = 3.0
_LOG = logging.getLogger("atb_serve")


class AddressError(AtbError):
    """Error for an address that the server cannot listen at."""


def bind(host: str, port: int, idle_timeout: float) -> socket.socket:
    """Takes the address, before the model is loaded; who connects meanwhile waits.

    Args:
        host: Name or address of this machine.
        port: Number of the port; 0 takes a free one.
        idle_timeout: Seconds after which the kernel ends a connection whose other side reads nothing.

    Raises:
        AddressError: The address is in use, or not one of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressError(f"{host} is no address: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * idle_timeout))
    try:
        listener.bind(address)
        # Two servers at one port would both bind, and the second fail only after it has loaded its model.
        listener.listen(0)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(
                f"Another program listens at {url_host(host)}:{port}",
                hint="End it, or choose another port with --port; 0 takes a free one.",
            ) from None
        raise AddressError(f"This machine cannot listen at {url_host(host)}:{port}: {error.strerror}") from None
    return listener


@contextmanager
def bind_path(path: Path) -> Iterator[socket.socket]:
    """Takes a path for a Unix socket, and removes it at the end; one that a server left behind is replaced.

    Raises:
        AddressError: Another program listens there, or the path cannot be one of a socket.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        try:
            if path.is_socket():
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                    if other.connect_ex(str(path)) == 0:
                        raise AddressError(f"Another program listens at {path}", hint="End it, or choose another path.")
                path.unlink()
            listener.bind(str(path))
            listener.listen(0)
        except OSError as error:
            raise AddressError(f"There can be no socket at {path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def url_host(host: str) -> str:
    """Returns a name or an address as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def tell_systemd(state: str) -> None:
    """Tells systemd a state of the service, such as "READY=1", if it waits for that (`Type=notify`)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.connect("\0" + address[1:] if address.startswith("@") else address)
            to.send(state.encode())
    except OSError as error:
        _LOG.warning("systemd was not told %s: %s", state, error)


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed if it does not bring a whole head of a request in time.

    uvicorn waits for it without end; and for that of a body that is not wanted any more.
    """

    head_timeout = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Takes data, which may be the beginning of a request."""
        super().data_received(data)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops to wait."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Serves an application until a signal, or `should_exit`, ends it.

    After the first SIGTERM or SIGINT running requests go on for a while; the second SIGINT ends them at once.

    Args:
        app: The application.
        drain: Seconds for which requests go on.
        head_timeout: Seconds for which a connection may take to send the head of a request.
        ready: Is called when requests are accepted.
        lost: Returns why the model cannot answer any more; the server ends then.
        behind_proxy: Only a proxy connects: what it says of the client is believed, as of one at 127.0.0.1.
        hang_up: Is called at each SIGHUP; by default that is a SIGTERM, unless it is ignored as `nohup` has it.

    Attributes:
        failure: Why the server ended by itself; `None` if it did not.
    """

    def __init__(
        self,
        app: Starlette,
        drain: float = 30.0,
        ready: Callable[[], None] = lambda: None,
        head_timeout: float = 30.0,
        lost: Callable[[], str | None] = lambda: None,
        hang_up: Callable[[], None] | None = None,
        behind_proxy: bool = False,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Protocol", (_Protocol,), {"head_timeout": head_timeout}),
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                forwarded_allow_ips="*" if behind_proxy else None,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=max(1, round(drain)),
                timeout_keep_alive=75,
            )
        )
        self._ready, self._lost, self._hang_up = ready, lost, hang_up
        self.failure: str | None = None

    async def on_tick(self, counter: int) -> bool:
        """Returns true if the server has to end; it is asked ten times a second."""
        if not self.should_exit and (failure := self._lost()) is not None:
            self.failure, self.should_exit = failure, True
            self.config.timeout_graceful_shutdown = 1
            # A step may wait for another process's device, and never end.
            leave = threading.Timer(_SECONDS_TO_LEAVE, os._exit, (1,))
            leave.daemon = True
            leave.start()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes a signal; unlike the base class it does not raise it again at the end, which is a regular one."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept requests."""
        await super().startup(sockets)
        if self.started:
            self._mind_hang_up()
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends requests and the application."""
        await super().shutdown(sockets)
        if self.force_exit:
            # The base class leaves this out then: the application would be torn down with the event loop, as an error.
            await self.lifespan.shutdown()

    def _mind_hang_up(self) -> None:
        if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
            return
        if self._hang_up is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
        elif signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.handle_exit, signal.SIGHUP, None)


class _Lines(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes lines; when that begins to fail, as on a full disk, it says so once."""

    _fails = False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        try:
            self.stream.write(self.format(record) + self.terminator)
            self.flush()
            self._fails = False
        except (OSError, ValueError) as error:
            if not self._fails:
                _LOG.warning("requests cannot be logged on stdout, until it works again: %s", error)
            self._fails = True


def set_up_logs(requests: bool) -> None:
    """Writes requests to stdout, one line of JSON each, and everything else to stderr."""
    plain: dict[str, Any] = {"format": "%(message)s"}
    handlers = {
        "requests": {"()": _Lines, "stream": "ext://sys.stdout", "formatter": "plain"},
        "errors": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "errors"},
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": plain, "errors": {"format": "%(levelname)s %(name)s: %(message)s"}},
            "handlers": handlers,
            "loggers": {
                "atb_serve": {"handlers": ["errors"], "level": "WARNING", "propagate": False},
                "atb_serve.requests": {
                    "handlers": ["requests"], "level": "INFO" if requests else "WARNING", "propagate": False,
                },
                # It warns of each token that is written before it is known that a client has left.
                "asyncio": {"handlers": ["errors"], "level": "ERROR", "propagate": False},
                # It warns of what is no HTTP, which anybody may send.
                "uvicorn": {"handlers": ["errors"], "level": "ERROR", "propagate": False},
            },
        }
    )  # fmt: skip
