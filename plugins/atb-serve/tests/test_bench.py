# SPDX-License-Identifier: Apache-2.0
"""`atb bench serve` counts what a server really answered, and names what failed."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from atb_cli import main
from atb_serve.bench import Answer, BenchError, plot


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["bench", "serve", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_it_counts_tokens_and_times(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--num-requests", "6", "--concurrency", "3", "--max-tokens", "10", "--prompt", "[count]")
    status, out, _ = bench(capsys, served.url, *options, "--json")
    assert status == 0
    result = json.loads(out)
    assert (result["model"], result["completed"], result["errors"]) == ("tiny", 6, {})
    assert result["generated_tokens"] == 60
    for name in ("time_to_first_token", "inter_token_latency", "request_latency"):
        spread = result[name]
        assert 0 < spread["p50"] <= spread["p90"] <= spread["p99"] <= spread["max"]
    assert "api_key" not in result["load"]
    status, out, _ = bench(capsys, served.url, *options, "--rate", "1000")
    assert status == 0
    assert "6 requests in" in out and "time to first token: mean" in out


def test_it_draws_the_times(served: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("--num-requests", "3", "--max-tokens", "5", "--prompt", "[count]", "--plot")
    status, _, _ = bench(capsys, served.url, *options, str(tmp_path / "times.svg"))
    assert status == 0
    assert "<svg" in (tmp_path / "times.svg").read_text(encoding="utf-8")
    status, _, err = bench(capsys, served.url, *options, str(tmp_path / "times.thing"))
    assert status == 1
    assert "cannot be written" in err


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BenchError, match="needs matplotlib"):
        plot([Answer(0.0, [0.1, 0.2])], tmp_path / "times.svg")


def test_a_server_that_refuses_is_named(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = bench(capsys, served.url, "--model", "other", "--num-requests", "2")
    assert status == 1
    assert "status 404" in err


@pytest.mark.parametrize("url", ["nothing", "ftp://x", "http://", "http://[", "http://x:y"])
def test_what_is_no_address_is_refused(capsys: pytest.CaptureFixture[str], url: str) -> None:
    status, _, err = bench(capsys, url)
    assert status == 1
    assert "is no address" in err


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        status, _, err = bench(capsys, f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert status == 1
    assert "cannot be asked for its models" in err
    assert "next: `atb serve MODEL` starts a server" in err
