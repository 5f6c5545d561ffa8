# SPDX-License-Identifier: Apache-2.0
"""The kit fails a family that is wrong, says where, and reports what was not claimed or was replaced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

FAMILY = """
from atb_testing import Capability, FamilyTests, overrides


class TestQwen2(FamilyTests):
    model_type = "qwen2"
    capabilities = frozenset({Capability.TIED_EMBEDDINGS})
"""
LOGITS = "test_logits_are_as_close_to_the_truth_as_torchs and base"


def kit(folder: Path, source: str, conftest: str = "", select: str = "") -> tuple[int, str, dict[str, object]]:
    """Exit status, output and certificate of a run of the kit on a test module."""
    (folder / "test_family.py").write_text(source, encoding="utf-8")
    (folder / "conftest.py").write_text(conftest, encoding="utf-8")
    certificate = folder / "certificate.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    options = ["--atb-certificate", str(certificate), *(["-k", select] if select else [])]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=folder, check=False)
    written = json.loads(certificate.read_text(encoding="utf-8")) if certificate.is_file() else {}
    return done.returncode, done.stdout + done.stderr, written


WRONG = """
from atb_core.layers.{module} import {cls}

right = {cls}.__init__


def wrong(self, *args, **kwargs):
    right(self, *args, **kwargs)
    {mistake}


{cls}.__init__ = wrong
"""


@pytest.mark.parametrize(
    ("module", "cls", "mistake", "where"),
    [
        ("attention.attention", "Attention", "self.scale *= 2", "model.layers.0.self_attn"),
        ("mlp.mlp", "Mlp", "self.forward = lambda x, **_: x", "model.layers.0.mlp"),
    ],
    ids=["attention scale", "no feed-forward"],
)
def test_a_wrong_layer_fails_the_logits_and_is_named(
    tmp_path: Path, module: str, cls: str, mistake: str, where: str
) -> None:
    conftest = WRONG.format(module=module, cls=cls, mistake=mistake)
    status, out, _ = kit(tmp_path, FAMILY, conftest, f"{LOGITS} and float32")
    assert status == 1
    assert where in out


def test_what_is_not_claimed_is_reported(tmp_path: Path) -> None:
    status, out, certificate = kit(tmp_path, FAMILY, select="chat_template")
    assert status == 0
    assert "not claimed" in out
    assert "not claimed" in json.dumps(certificate)


def test_a_standard_test_cannot_be_replaced_silently(tmp_path: Path) -> None:
    silent = FAMILY + "\n    def test_the_number_of_threads_changes_nothing(self):\n        pass\n"
    status, out, _ = kit(tmp_path, silent, select="overrid or silent or threads")
    assert status == 1
    assert "test_the_number_of_threads_changes_nothing" in out


def test_a_replacement_with_a_reason_is_listed(tmp_path: Path) -> None:
    said = '\n    @overrides("one thread is all there is")\n'
    source = FAMILY + said + "    def test_the_number_of_threads_changes_nothing(self):\n        pass\n"
    status, out, _ = kit(tmp_path, source, select="overrid or silent or threads")
    assert status == 0
    assert "one thread is all there is" in out
