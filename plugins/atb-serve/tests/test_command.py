# SPDX-License-Identifier: Apache-2.0
"""`atb serve` says where it serves, ends at a signal, and names what is wrong with its options."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from atb_cli import main
from atb_serve import command as serve
from atb_serve.server import _Lines
from atb_serve.settings import Access

from scripted_model import write_scripted  # isort: skip

SCRIPTS = {"[greet]": ["Hello", " there"], "[count]": [f"{number} " for number in range(200)]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small model."""
    return write_scripted(tmp_path_factory.mktemp("model") / "tiny", SCRIPTS)


@pytest.fixture
def start(model: Path) -> Iterator[Callable[..., Any]]:
    """Returns a function that starts the command and gives the process with the server's address."""
    processes: list[subprocess.Popen[str]] = []

    def run(*options: str, **variables: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "atb_cli", "serve", str(model), "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables},
            # Under `nohup` tests ignore it, and so would the server.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )  # fmt: skip
        processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"is served at (http://\S+(?=/v1)|unix:\S+)", line):
                return process, found[1]
        raise AssertionError(process.wait(60))

    yield run
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["serve", *arguments]) in (1, 2)
    return " ".join(capsys.readouterr().err.split())


def test_help_imports_no_library_of_the_server() -> None:
    code = (
        "import sys; from atb_cli import main; assert main(['serve', '--help']) == 0; "
        "print({'torch', 'transformers', 'starlette', 'uvicorn', 'msgspec'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("set()\n")
    assert "--api-key" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_serves_and_a_signal_ends_it_after_running_requests(
    start: Callable[..., Any], number: signal.Signals
) -> None:
    process, url = start("--served-model-name", "small", ATB_SERVE_API_KEY="k1 k2")
    headers = {"Authorization": "Bearer k2"}
    assert httpx.get(f"{url}/v1/models").status_code == 401
    body = {"prompt": "[count]", "max_tokens": 200, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=headers, timeout=60) as answer:
        events = answer.iter_lines()
        assert '"model":"small"' in next(events)
        process.send_signal(number)
        assert "data: [DONE]" in list(events)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["path"], line["status"]) for line in lines] == [("unknown", 401), ("/v1/completions", 200)]


def test_at_a_unix_socket_systemd_is_told_and_the_keys_are_read_again(
    start: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    path, keys = tmp_path / "s", tmp_path / "keys"
    keys.write_text("old")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        notify = str(tmp_path / "notify")
        process, address = start("--uds", str(path), "--api-key-file", str(keys), NOTIFY_SOCKET=notify)
        assert systemd.recv(100) == b"READY=1"
    assert address == f"unix:{path}"
    assert f"Another program listens at {path}" in error_of(capsys, "/no/such/model", "--uds", str(path))
    assert "no socket at /no/such/s" in error_of(capsys, "m", "--uds", "/no/such/s")

    def status(key: str) -> int:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any.example") as http:
            headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": "192.0.2.1"}
            return http.get("/version", headers=headers).status_code

    for text, said in (("new\nnewer", "read again"), ("", "stay as they were")):
        keys.write_text(text)
        process.send_signal(signal.SIGHUP)
        assert said in process.stderr.readline()
        assert [status(key) for key in ("old", "new", "newer")] == [401, 200, 200]
    process.send_signal(signal.SIGTERM)
    lines = process.communicate(timeout=60)[0].splitlines()
    assert {json.loads(line)["client"] for line in lines} == {"192.0.2.1"}
    assert process.returncode == 0 and not path.exists()


class _Disk(io.StringIO):
    """A file on a disk that may be full."""

    is_full = True

    def write(self, text: str) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_log_that_cannot_be_written_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    disk = _Disk()
    log = _Lines(disk)
    for disk.is_full in (True, True, False, True, True):
        log.handle(logging.makeLogRecord({"msg": "line"}))
    assert [each.message.partition(":")[2] for each in caplog.records] == [" [Errno 28] No space left on device"] * 2
    assert disk.getvalue() == "line\n"


def test_two_processes_serve_one_model_and_a_dead_one_ends_the_server(start: Callable[..., Any]) -> None:
    process, url = start("--tp", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = [each for each in children if b"atb_parallel" in Path(f"/proc/{each}/cmdline").read_bytes()]
    body = {"prompt": "[greet]", "max_tokens": 9, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert (answer.status_code, answer.json()["choices"][0]["text"]) == (200, "Hello there")
    os.kill(int(other), signal.SIGKILL)
    err = process.communicate(timeout=10)[1]
    assert process.returncode == 1
    assert f"error: rank 1 (process {other}) ended with exit code -9, so the model is gone" in err


def test_a_port_in_use_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        error = error_of(capsys, "/no/such/model", "--port", port)
    assert f"Another program listens at 127.0.0.1:{port}" in error
    assert "--port" in error


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert host in error_of(capsys, "/no/such/model", "--host", host, "--port", "0", "--api-key", "k")


@pytest.mark.parametrize("option", ["--request-timeout", "--idle-timeout", "--drain"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "1e12", "-1"])
def test_times_are_those_that_a_machine_can_wait(capsys: pytest.CaptureFixture[str], option: str, seconds: str) -> None:
    assert f"Invalid value for '{option}'" in error_of(capsys, "/no/such/model", option, seconds)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257])
def test_names_are_those_that_a_request_can_give(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert "Invalid value for '--served-model-name'" in error_of(capsys, "/no/such/model", "--served-model-name", name)


def test_keys_are_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "API key" in error_of(capsys, "m", "--api-key", "")
    file = tmp_path / "keys"
    assert "cannot be read" in error_of(capsys, "m", "--api-key-file", str(file))
    file.write_text("# none\n")
    assert "is empty" in error_of(capsys, "m", "--api-key-file", str(file))
    file.write_text("# two\none\ntwo\n")
    access = Access(serve.hashed_keys((), file))
    assert access.allows_key("one") and access.allows_key("two") and not access.allows_key("# two")


def test_a_file_has_options_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(serve.command, "callback", lambda **options: given.update(options))
    file = tmp_path / "serve.toml"
    file.write_text('port = 1234\nmax-n = 3\nserved-model-name = ["a"]\ndtype = "float32"\n')
    monkeypatch.setenv("ATB_SERVE_MAX_N", "4")
    result = CliRunner().invoke(serve.command, ["m", "--config", str(file)])
    assert result.exit_code == 0, result.output
    assert (given["port"], given["max_n"], given["names"], given["dtype"]) == (1234, 4, ("a",), "float32")


@pytest.mark.parametrize("text", ["prot = 1", "port = [", "port = 'x'"])
def test_a_file_with_a_mistake_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(text)
    assert re.search("prot|TOML|port", error_of(capsys, "m", "--config", str(file)))


def test_a_loopback_address_without_a_key_answers_under_its_own_names_alone() -> None:
    assert serve._hosts("127.0.0.1", (), False) == {"localhost", "127.0.0.1", "[::1]"}
    assert serve._hosts("127.0.0.1", ("me.example",), False) == {"localhost", "127.0.0.1", "[::1]", "me.example"}
    assert serve._hosts("127.0.0.1", (), True) is None
    assert serve._hosts("0.0.0.0", (), False) is None
