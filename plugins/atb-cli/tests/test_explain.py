# SPDX-License-Identifier: Apache-2.0
"""`atb explain` tells who serves a model and why, also when nobody does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hook_plugins import Site, families, site

from atb_cli import main

__all__ = ["families", "site"]

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("families")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from atb_testing import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "qwen2")


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["explain", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_a_served_checkpoint(site: Site, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explained(capsys, str(checkpoint))
    assert (status, err) == (0, "")
    assert "model type    qwen2\n" in out
    assert "because       the only package that serves it" in out
    assert "runs in       float32, float16, bfloat16" in out
    assert "of weights" in out


def test_a_model_type_alone_has_no_files(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explained(capsys, "qwen2", "--json")
    facts = json.loads(out)
    assert status == 0
    assert (facts["path"], facts["facts"], facts["error"]) == (None, None, None)
    assert facts["winner"].startswith("atb-qwen2 ")


def test_json_holds_what_show_knows(site: Site, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = explained(capsys, str(checkpoint), "--json")
    explanation = json.loads(out)
    main(["show", str(checkpoint), "--json"])
    assert explanation["facts"] == json.loads(capsys.readouterr().out)


def test_a_disabled_family_is_a_candidate_with_its_reason(
    site: Site, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-qwen2")
    status, out, err = explained(capsys, str(checkpoint))
    assert status == 1
    assert "served by   nobody" in out
    assert "disabled  is disabled by ATB_NO_PLUGINS" in out
    assert "Take atb-qwen2 out of ATB_NO_PLUGINS" in err


def test_a_type_that_nobody_knows_is_an_error_after_the_explanation(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = explained(capsys, "nobody_knows_me")
    assert status == 1
    assert "served by   nobody" in out
    assert "no installed package serves the model type 'nobody_knows_me'" in err


def test_a_path_that_leads_nowhere_is_no_model_type(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = explained(capsys, str(tmp_path / "gone"))
    assert (status, out) == (1, "")
    assert "there is no model" in err
