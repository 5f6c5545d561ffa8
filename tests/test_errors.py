# SPDX-License-Identifier: Apache-2.0
"""What every error of the package promises."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from atb_core import errors

KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_an_atb_error_and_survives_a_process_boundary(kind: type[errors.AtbError]) -> None:
    error = pickle.loads(pickle.dumps(kind("the thing", hint="Do this.")))
    assert type(error) is kind
    assert isinstance(error, errors.AtbError)
    assert (error.message, error.hint) == ("the thing", "Do this.")


@pytest.mark.parametrize(
    ("message", "hint", "text"),
    [
        ("it broke", None, "it broke"),
        ("it broke", "Mend it.", "it broke. Mend it."),
        ("it broke!", "Mend it.", "it broke! Mend it."),
        ("it\n  broke", "Mend\nit.", "it broke. Mend it."),
        ("你好 é", None, "你好 é"),
    ],
)
def test_the_text_is_one_paragraph(message: str, hint: str | None, text: str) -> None:
    assert str(errors.AtbError(message, hint)) == text


def test_control_characters_cannot_steer_a_terminal() -> None:
    error = errors.AtbError("tensor \x1b[2Jname\x07\u202e", "See \x9b31m.")
    assert error.message == "tensor \\x1b[2Jname\\x07\\u202e"
    assert error.hint == "See \\x9b31m."


def test_the_module_needs_nothing_heavy() -> None:
    program = "import sys, atb_core.errors; print({'torch', 'numpy', 'gguf', 'tokenizers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
