# SPDX-License-Identifier: Apache-2.0
"""Fetching from a hub over HTTP with the hub's own library: what is moved, kept, resumed, listed and removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from atb_hub.source import HubReference, parse_reference

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import COMMIT, Hub, serve

FILES = {
    "config.json": b'{"model_type": "llama", "dtype": "float32"}',
    "model.safetensors": save({"a": torch.ones(400_000)}),
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/rag.jinja": b"{{ documents }}",
    "1_Pooling/config.json": b"{}",
    "onnx/config.json": b"{}",
    "modeling.py": b"raise SystemExit",
    "pytorch_model.bin": b"\x80",
    "tiny-Q8_0.gguf": b"GGUF" + bytes(20),
}
KEPT = ["1_Pooling", "additional_chat_templates", "chat_template.jinja", "config.json", "model.safetensors"]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(FILES) as server:
        yield server


def environment(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    return {**kept, "HF_ENDPOINT": hub.address, "HF_HOME": str(home), "ATB_CACHE": str(home / "atb"), **more}


def atb(hub: Hub, home: Path, *args: str, answer: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "atb_cli", *args]
    env = environment(hub, home, **more)
    return subprocess.run(command, env=env, input=answer, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubReference("owner/name")),
        ("owner/name@v1.0", HubReference("owner/name", "v1.0")),
        ("owner/name@refs/pr/3", HubReference("owner/name", "refs/pr/3")),
        ("https://huggingface.co/owner/name", HubReference("owner/name")),
        ("https://huggingface.co/owner/name/", HubReference("owner/name")),
        ("https://huggingface.co/owner/name?library=vllm#usage", HubReference("owner/name")),
        ("huggingface.co/owner/name/tree/main", HubReference("owner/name", "main")),
        ("hf.co/owner/name", HubReference("owner/name")),
        ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F3", HubReference("owner/name", "refs/pr/3")),
        ("https://hf.co/o/n/blob/main/sub/x.gguf", HubReference("o/n", "main", "sub/x.gguf")),
        ("https://hf.co/o/n/resolve/v1/model.safetensors?download=true", HubReference("o/n", "v1")),
        ("https://mirror.example/o/n/tree/dev", HubReference("o/n", "dev")),
        ("https://other.example/o/n", None),
        ("https://huggingface.co/datasets/o/n", None),
        ("https://huggingface.co/o", None),
        ("ftp://huggingface.co/o/n", None),
        ("o/n.gguf", None),
        ("o/n/m", None),
        ("[", None),
        ("", None),
    ],
)
def test_ids_and_addresses_as_people_paste_them(
    text: str, expected: HubReference | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert parse_reference(text) == expected


def test_data_are_fetched_and_nothing_else_and_nothing_twice(hub: Hub, tmp_path: Path) -> None:
    done = atb(hub, tmp_path, "pull", "maker/tiny")
    path = Path(done.stdout.strip())
    assert sorted(file.name for file in path.iterdir()) == KEPT
    assert [file.name for file in (path / "additional_chat_templates").iterdir()] == ["rag.jinja"]
    assert hub.sent("model.safetensors") == [""]
    assert atb(hub, tmp_path, "pull", "maker/tiny").stdout == done.stdout
    assert hub.sent("model.safetensors") == [""]
    hub.log.clear()
    offline = atb(hub, tmp_path, "pull", "maker/tiny", HF_HUB_OFFLINE="1")
    assert (offline.stdout, hub.log) == (done.stdout, [])


def test_a_revision_goes_to_every_command_that_opens_a_model(hub: Hub, tmp_path: Path) -> None:
    pulled = atb(hub, tmp_path, "pull", "maker/tiny@v1").stdout.strip()
    shown = json.loads(atb(hub, tmp_path, "show", "maker/tiny", "--revision", "v1", "--json").stdout)
    assert shown["path"] == pulled
    unknown = atb(hub, tmp_path, "run", "maker/tiny", "--revision", "v9", "hi")
    assert "maker/tiny@v9" in unknown.stderr


def test_a_revision_is_fetched_listed_and_removed(hub: Hub, tmp_path: Path) -> None:
    path = atb(hub, tmp_path, "pull", "maker/tiny", "--revision", "v1").stdout.strip()
    (listed,) = json.loads(atb(hub, tmp_path, "models", "--json").stdout)
    assert (listed["model"], listed["revision"], listed["path"]) == ("maker/tiny@v1", COMMIT, path)
    assert listed["model_type"] == "llama"
    assert listed["package"] == "atb-llama"
    assert 1_600_000 < listed["bytes"] < 1_700_000
    assert "maker/tiny@v1  llama" in atb(hub, tmp_path, "models").stdout
    refused = atb(hub, tmp_path, "rm", "maker/tiny", answer="n\n")
    assert refused.returncode == 130
    assert Path(path).exists()
    assert "Remove maker/tiny@v1, 1.53 MiB in" in refused.stderr
    unknown = atb(hub, tmp_path, "rm", "maker/tyni")
    assert "not in the caches" in unknown.stderr
    assert "maker/tiny@v1" in unknown.stderr
    assert atb(hub, tmp_path, "rm", "maker/tiny", "--yes").returncode == 0
    assert not Path(path).exists()
    assert json.loads(atb(hub, tmp_path, "models", "--json").stdout) == []


def test_a_cache_that_cannot_be_read_is_named_and_is_no_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listed = atb(hub, tmp_path, "models", "--json", HF_HUB_CACHE=str(tmp_path / "file"))
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    assert "what the source of a hub id" in listed.stderr
    assert "is left out" in listed.stderr
    assert f"{tmp_path / 'file'}" in listed.stderr


def test_a_damaged_model_in_the_cache_is_named_and_the_others_are_listed(hub: Hub, tmp_path: Path) -> None:
    atb(hub, tmp_path, "pull", "maker/tiny")
    (tmp_path / "hub" / "models--maker--damaged").mkdir()
    (tmp_path / "hub" / "notes.txt").touch()  # not a model, and nobody's concern
    listed = atb(hub, tmp_path, "models", "--json")
    assert [model["model"] for model in json.loads(listed.stdout)] == ["maker/tiny"]
    (line,) = listed.stderr.splitlines()
    assert "a model in the hub's cache is left out" in line
    assert "models--maker--damaged" in line


def test_the_address_of_a_gguf_file_fetches_that_file(hub: Hub, tmp_path: Path) -> None:
    done = atb(hub, tmp_path, "pull", f"{hub.address}/maker/tiny/blob/main/tiny-Q8_0.gguf")
    assert Path(done.stdout.strip()).read_bytes() == FILES["tiny-Q8_0.gguf"]
    assert hub.sent("model.safetensors") == []
    missing = atb(hub, tmp_path, "pull", f"{hub.address}/maker/tiny/blob/main/other.gguf")
    assert "has no such file" in missing.stderr


def test_the_address_of_a_part_fetches_all_parts_of_the_model(hub: Hub, tmp_path: Path) -> None:
    parts = [f"split-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.files.update((name, b"GGUF" + name.encode()) for name in parts)
    path = Path(atb(hub, tmp_path, "pull", f"{hub.address}/maker/tiny/blob/main/{parts[1]}").stdout.strip())
    assert (path.name, sorted(file.name for file in path.parent.iterdir())) == (parts[1], parts)


def test_a_repository_of_gguf_files_tells_their_addresses(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    hub.files["tiny-F16.gguf"] = b"GGUF"
    done = atb(hub, tmp_path, "pull", "maker/tiny")
    assert "maker/tiny has no safetensors weights" in done.stderr
    assert f"{hub.address}/maker/tiny/blob/main/tiny-Q8_0.gguf; others: tiny-F16.gguf" in done.stderr


def test_an_interrupted_fetch_ends_at_once_and_keeps_whole_files(hub: Hub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = save({"a": torch.ones(12_000_000)})
    hub.delay = 0.1
    command = [sys.executable, "-m", "atb_cli", "pull", "maker/tiny"]
    process = subprocess.Popen(command, env=environment(hub, tmp_path), stderr=subprocess.PIPE, text=True)
    repository = tmp_path / "hub" / "models--maker--tiny"
    deadline = time.monotonic() + 60
    while len([*repository.glob("snapshots/*/*")]) < len(KEPT) - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 10, "the whole file takes a minute"
    assert process.returncode == 130
    assert errors.strip().splitlines() == [
        "files that were fetched whole are kept; the same command fetches the rest",
        "interrupted",
    ]
    assert [*repository.rglob("*.incomplete")] == []
    hub.delay = 0.0
    path = Path(atb(hub, tmp_path, "pull", "maker/tiny").stdout.strip())
    assert (path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert len(hub.sent("chat_template.jinja")) == 1


def test_a_lost_connection_is_resumed_within_a_file(hub: Hub, tmp_path: Path) -> None:
    hub.cuts = 1
    path = Path(atb(hub, tmp_path, "pull", "maker/tiny").stdout.strip())
    assert (path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.sent("model.safetensors") == ["", "bytes=1048576-"]


@pytest.mark.parametrize(
    ("model", "cause", "step"),
    [
        ("maker/other", "no such repository", "HF_TOKEN"),
        ("maker/tiny@v9", "no such revision", "follows the @"),
        ("maker/gated", "no such repository", "HF_TOKEN"),
    ],
)
def test_refusals_name_the_cause_and_the_next_step(model: str, cause: str, step: str, hub: Hub, tmp_path: Path) -> None:
    done = atb(hub, tmp_path, "pull", model)
    assert done.returncode == 1
    assert cause in done.stderr
    assert step in done.stderr


def test_restricted_access_names_the_token(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    done = atb(hub, tmp_path, "pull", "maker/tiny")
    assert "access is restricted" in done.stderr
    assert "HF_TOKEN" in done.stderr


def test_a_hub_that_is_not_reachable_names_mirror_and_cache(hub: Hub, tmp_path: Path) -> None:
    done = atb(hub, tmp_path, "pull", "maker/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 is not reachable" in done.stderr
    assert "HF_ENDPOINT" in done.stderr
    assert str(tmp_path) in done.stderr


def test_the_commands_import_no_torch(hub: Hub, tmp_path: Path) -> None:
    atb(hub, tmp_path, "pull", "maker/tiny")
    program = (
        "import sys\n"
        "from atb_cli import main\n"
        "codes = [main(['pull', 'maker/tiny']), main(['models']), main(['rm', 'maker/tiny', '--yes'])]\n"
        "print(codes, {'torch', 'transformers'} & set(sys.modules))\n"
    )
    env = environment(hub, tmp_path)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0, 0] set()"
