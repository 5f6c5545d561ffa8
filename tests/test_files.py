# SPDX-License-Identifier: Apache-2.0
"""Untrusted files are read whole or refused by name, whatever they are and whatever they hold."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from atb_cli.line_input import history_path
from atb_core.errors import ConfigError, SettingsError
from atb_core.files import parse_json, read_file, read_json, read_text, user_folder, user_path
from atb_core.settings import settings


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_file(tmp_path / "x", 10, ConfigError) is None
    assert read_text(tmp_path / "x", 10, ConfigError) is None
    assert read_json(tmp_path / "x", ConfigError) is None
    (tmp_path / "file").touch()
    assert read_file(tmp_path / "file" / "x", 10, ConfigError) is None


def test_a_link_to_a_file_is_the_file_and_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert read_file(tmp_path / "link", 4, ConfigError) == b"text"
    with pytest.raises(ConfigError, match="dangling links to nowhere, which does not exist"):
        read_file(tmp_path / "dangling", 4, ConfigError)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "directory", "socket", "/dev/zero", "/dev/tty"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # the address of a socket may have 107 bytes
        socket.socket(socket.AF_UNIX).bind(path.name)
    else:
        path.symlink_to(kind)
    with pytest.raises(SettingsError, match=r"config\.json"):
        read_file(path, 10, SettingsError)


def test_a_file_is_no_larger_than_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    assert read_file(path, 1 << 20, ConfigError) == bytes(1 << 20)
    os.truncate(path, 1 << 40)  # sparse
    with pytest.raises(ConfigError, match="x is larger than 1 MiB"):
        read_file(path, 1 << 20, ConfigError)


def test_a_text_is_utf8_without_mark_and_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("\ufeffone\r\ntwo\rthree ✓".encode())
    assert read_text(path, 100, ConfigError) == "one\ntwo\nthree ✓"
    path.write_bytes(b"ok \xff")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        read_text(path, 100, ConfigError)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b'\xef\xbb\xbf{"a": -1}', {"a": -1}),
        (b'{"a": 1000000000000000019884624838656}', {"a": int(1e30)}),
        (b'{"a": 0.1000000000000000055511151231257827}', {"a": 0.1}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ],
)
def test_an_object_is_parsed(text: bytes, value: dict[str, Any]) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"", "Expecting value"),
        (b"{,}", "Expecting property"),
        (b"\xff{}", "utf-8"),
        (b"[1]", "object, not list"),
        (b'{"a": 1, "b": 2, "a": 1}', "key 'a' twice"),
        (b'{"x": [{"a": 1, "a": 2}]}', "key 'a' twice"),
        (b'{"a": NaN}', "NaN, which is no number"),
        (b'{"a": -Infinity}', "-Infinity, which is no number"),
        (b'{"a": 3e400}', "3e400, which is no number"),
        (b'{"a": 1' + b"0" * 300 + b"}", "integer of 301 digits"),
        (b'{"a": -1' + b"0" * 9000 + b"}", "integer of 9002 digits"),
        (nested(65), "deeper than 64"),
        (nested(100_000), "deeper than 64"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "deeper than 64"),
        (b'{"a": ["\\udc00"]}', "half of a surrogate pair"),
        (b'{"\\ud800": 1}', "half of a surrogate pair"),
    ],
)
def test_what_is_no_object_of_characters_and_numbers_is_refused(text: bytes, cause: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_json(text)
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ConfigError, match=r"x\.json cannot be read"):
        read_json(tmp_path / "x.json", ConfigError)


def test_a_table_of_very_many_values_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        parse_json(b'{"a": [' + b"[]," * 2_000_000 + b"0]}")


def test_the_deepest_object_that_is_parsed() -> None:
    assert parse_json(nested(63))


@pytest.mark.parametrize("text", ["a\0b", "~no-such-user/x", "~no-such-user"])
def test_what_can_be_no_path_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="is no path"):
        user_path(text, SettingsError)


def test_a_name_with_a_nul_is_an_error_about_it() -> None:
    with pytest.raises(ConfigError, match=r"'a\\x00b' is no path"):
        read_file(Path("a\0b"), 10, ConfigError)


def test_without_a_home_directory_there_is_no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    folder = user_folder({}, "XDG_CONFIG_HOME", ".config")
    assert read_file(folder / "config.toml", 10, ConfigError) is None
    with pytest.raises(NotADirectoryError):
        folder.mkdir(parents=True)
    assert user_folder({"XDG_CONFIG_HOME": "/c"}, "XDG_CONFIG_HOME", ".config") == Path("/c/atb")
    assert settings().path == folder / "config.toml"
    assert history_path().name == "chat_history"
