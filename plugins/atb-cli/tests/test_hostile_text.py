# SPDX-License-Identifier: Apache-2.0
"""Nothing that a file or a package says reaches a terminal as it is, and nothing of any length."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atb_core.errors import AtbError, error_text, printable
from atb_core.plugins.once import forget

Run = Callable[..., Any]

# The title of a window, a cleared screen by one character, text from right to left, half of a surrogate pair.
EVIL = "a\x1b]0;pwned\x07\x9b2J\u202egnp\udc80\x00"
ESCAPED = "a\\x1b]0;pwned\\x07\\x9b2J\\u202egnp\\udc80\\x00"
LONG = "z" * 1_000_000


def test_what_is_not_printable_is_escaped_and_the_middle_of_a_long_text_left_out() -> None:
    assert printable(EVIL) == ESCAPED
    assert printable("naïve 漢字 \n", keep="\n") == "naïve 漢字 \n"
    assert printable("a\nb") == "a\\nb"
    assert printable(LONG) == "z" * 250 + " ... (1000000 characters) ... " + "z" * 250
    assert len(printable("\U000e0001" * 1_000_000)) < 10_000


def test_an_error_is_bounded_and_printable_whatever_it_quotes() -> None:
    error = AtbError(f"the type {EVIL} and {LONG}", hint=f"Install {LONG}.")
    assert ESCAPED in error.message
    assert str(error).isprintable()
    assert len(str(error)) < 10_000
    assert error_text(ValueError(f"{EVIL}\nsecond line")) == f"ValueError: {ESCAPED} second line"


def checked(*texts: str) -> None:
    for text in texts:
        assert text.replace("\n", "").isprintable()
        assert len(text) < 50_000


CONFIGS = {
    "escapes in the architecture": {"architectures": [EVIL]},
    "a long architecture": {"architectures": [LONG]},
    "an object of architectures": {"architectures": {"0": "Llama"}},
    "a number of architectures": {"architectures": 7},
    "no text in architectures": {"architectures": [None]},
    "a long kind of quantization": {"quantization_config": {"quant_method": LONG}},
    "escapes in the kind of quantization": {"quantization_config": {"quant_method": EVIL[:5]}},
    "escapes in the type": {"model_type": EVIL[:-2]},
    "a long type": {"model_type": LONG},
    "a long name in rope_scaling": {"rope_scaling": {"rope_type": LONG}},
    "a long dtype": {"torch_dtype": LONG},
    "a list of a million sizes": {"hidden_size": [1] * 1_000_000},
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("command", ["show", "explain", "run"])
def test_a_configuration_cannot_control_a_terminal_nor_fill_it(
    atb: Run, tiny: Any, tmp_path: Path, kind: str, command: str
) -> None:
    # As JSON writes them: half a surrogate pair is refused when the file is read, which other tests cover.
    config = json.loads(json.dumps(CONFIGS[kind]).replace("\\udc80", ""))
    directory = tiny.write_checkpoint(tmp_path / "model", tiny.weights(), **config)
    result = atb(command, str(directory), *(["hello", "--raw"] if command == "run" else []))
    checked(result.out, result.err)
    assert "bug in atb" not in result.err


def install(site: Path, **fields: str) -> None:
    """Installs a family whose metadata says `fields`."""
    info = site / "atb_evil-1.0.dist-info"
    info.mkdir(parents=True)
    headers = {"Name": "atb-evil", "Version": "1.0", "Summary": "s", **fields}
    entry = headers.pop("entry", "evil = evil:Router")
    (info / "METADATA").write_text(
        "".join(f"{name.replace('_', '-')}: {text}\n" for name, text in headers.items()), encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        f"[atb_core.routers]\n{entry}\n[atb_core.api]\n{headers.get('api', '1')} = evil\n", encoding="utf-8"
    )


# Without what ends a line of metadata, and without what UTF-8 cannot hold.
LINE = "a\x1b]0;pwned\x07\u202egnp"
METADATA = {
    "a summary": {"Summary": LINE},
    "a long summary": {"Summary": LONG},
    "a version": {"Version": LINE},
    "a long version": {"Version": LONG},
    "a long number of a version": {"Version": "9" * 10_000},
    "a requirement": {"Requires_Dist": LINE},
    "a long requirement": {"Requires_Dist": f"numpy>={LONG}"},
    "a number in a requirement": {"Requires_Dist": f"numpy>={'9' * 5000}"},
    "a number in a marker": {"Requires_Dist": f"numpy; python_version > '{'9' * 5000}'"},
    "brackets in a marker": {"Requires_Dist": f"numpy; {'(' * 400}"},
    "a model type": {"entry": f"{LINE} = evil:Router"},
    "a long model type": {"entry": f"{LONG} = evil:Router"},
    "a line that is no entry point": {"entry": f"{LINE}"},
    "a long module": {"entry": f"evil = {LONG}:Router"},
    "an API version": {"api": "9" * 10_000},
    "an API version of another kind": {"api": LINE},
}


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("command", ["list", "plugins list", "explain evil", "--help", "plugins doctor atb-evil"])
def test_metadata_cannot_control_a_terminal_fill_it_or_end_a_command(
    atb: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, command: str
) -> None:
    install(tmp_path / "site", **METADATA[kind])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    forget()
    with caplog.at_level(logging.WARNING):
        result = atb(*command.split())
    checked(result.out, result.err, *caplog.messages)
    assert "bug in atb" not in result.err


def test_a_wrong_command_line_is_quoted_as_text_of_files_is(atb: Run) -> None:
    for args in (["run", "m", "p", "--backend", EVIL], [EVIL], ["run", "m", "p", "--chat-template-kwarg", LONG]):
        result = atb(*args)
        assert result.status == 2
        checked(result.out, result.err)


def test_a_models_text_is_printed_as_it_is_but_for_control_characters_on_a_terminal(
    atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.pieces = ["\x1b[2J", "red\x9b31m\t漢\n", "\u200fשלום"]
    assert atb("run", "m", "hello").out == "\x1b[2Jred\x9b31m\t漢\n\u200fשלום\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert atb("run", "m", "hello").out == "[2Jred31m\t漢\n\u200fשלום\n"
