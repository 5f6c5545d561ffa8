# SPDX-License-Identifier: Apache-2.0
"""`atb plugins` shows what is installed and what is wrong with it; `--no-plugins` leaves plugins out."""

from __future__ import annotations

import json

import pytest
from hook_plugins import Site, families, site

from atb_cli import main
from atb_cli.plugin_doctor import imports

__all__ = ["families", "site"]

BROKEN = "raise RuntimeError('broken on purpose')\n"


@pytest.fixture(autouse=True)
def _restored(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--no-plugins` sets the variable for child processes; it ends with the test."""
    monkeypatch.setenv("ATB_NO_PLUGINS", "")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(list(arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.usefixtures("families")
def test_list_shows_version_and_model_types(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "plugins", "list")
    assert status == 0
    (row,) = [line for line in out.splitlines() if line.startswith("atb-qwen2")]
    assert "ok" in row
    assert "qwen2_moe" in row


def test_list_as_json_imports_nothing_and_holds_every_fact(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("atb-broken", BROKEN)
    status, out, _ = said(capsys, "plugins", "list", "--json")
    assert status == 0
    text = json.dumps(json.loads(out))
    assert "atb-broken" in text
    assert "broken on purpose" not in text


def test_doctor_finds_a_healthy_plugin_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "plugins", "doctor", "atb-qwen2")
    assert status == 0
    assert "atb-qwen2" in out


def test_doctor_names_the_cause_and_fails(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("atb-broken", BROKEN)
    status, out, _ = said(capsys, "plugins", "doctor", "atb-broken")
    assert status == 1
    assert "broken on purpose" in out


@pytest.mark.parametrize(
    ("source", "said_of_it"),
    [
        ("held = bytearray(64 << 30)\n", "MemoryError (an import may take 4 GiB here)"),
        ("import os\nos._exit(0)\n", "ended the process with exit status 0"),
        ("while True:\n    pass\n", "did not end within 2 seconds"),
    ],
)
def test_doctor_survives_what_an_import_does(
    site: Site, capsys: pytest.CaptureFixture[str], source: str, said_of_it: str
) -> None:
    site.install("atb-hostile", source)
    status, out, _ = said(capsys, "plugins", "doctor", "atb-hostile", "--timeout", "2")
    assert status == 1
    assert said_of_it in out


def test_doctor_imports_registered_models_of_c_where_their_package_is_there(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("atb-broken", BROKEN, group="atb_core.cpp_models")
    status, out, _ = said(capsys, "plugins", "doctor", "atb-broken")
    assert (status, "broken on purpose" in out) == (1, True)
    monkeypatch.setattr(imports, "environment", lambda: {"atb-core", "atb-broken"})
    status, out, _ = said(capsys, "plugins", "doctor", "atb-broken")
    assert (status, "broken on purpose" in out) == (0, False)


def test_doctor_names_another_package_whose_entry_points_break_imports(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    info = site.path / "other_pkg-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"[console_scripts]\nx = y:z\xff\n")
    status, out, _ = said(capsys, "plugins", "doctor", "atb-qwen2")
    assert status == 0
    assert f"warning: {info / 'entry_points.txt'} is not UTF-8" in out
    assert "--no-deps other-pkg\n" in out


def test_doctor_refuses_a_name_that_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = said(capsys, "plugins", "doctor", "atb-nowhere")
    assert status != 0
    assert "atb-nowhere" in err


@pytest.mark.parametrize(
    "arguments", [["--no-plugins=atb-qwen2", "list"], ["list", "--no-plugins=atb-qwen2"]], ids=" ".join
)
def test_a_plugin_can_be_left_out(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, out, err = said(capsys, *arguments)
    assert status == 0
    assert "qwen2 " not in out
    assert "atb plugins doctor" in err or "disabled" in err


def test_all_plugins_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "--no-plugins", "list")
    assert status == 0
    assert "No installed model family can be used." in out
