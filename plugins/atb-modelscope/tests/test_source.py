# SPDX-License-Identifier: Apache-2.0
"""Fetching from ModelScope over HTTP with its own library."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from atb_core.checkpoint import Progress, SilentProgress, open_checkpoint, stored_models
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_modelscope.source import ModelScopeSource

FILES = {
    "config.json": b'{"model_type": "qwen2", "dtype": "float32"}',
    "model.safetensors": bytes(range(256)) * 5000,
    "additional_chat_templates/rag.jinja": b"{{ documents }}",
    "configuration_qwen.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
}


class Site(BaseHTTPRequestHandler):
    """Serves `maker/tiny` as the site does: the list of its files, and each by revision and path, also by ranges."""

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        known = query.get("Revision", "master") in ("master", "v1")
        if address.path == "/api/v1/models/maker/tiny/repo/files" and known:
            entries = [
                {"Path": name, "Size": len(data), "Type": "blob", "Sha256": hashlib.sha256(data).hexdigest()}
                for name, data in FILES.items()
            ]
            body = json.dumps({"Code": 200, "Success": True, "Data": {"Files": entries}}).encode()
            self.answer(200, body, Content_Type="application/json")
        elif address.path == "/api/v1/models/maker/tiny/repo" and known and query["FilePath"] in FILES:
            data = FILES[query["FilePath"]]
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            start = int(wanted.split("-")[0]) if wanted else 0
            if wanted:
                span = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.answer(206, data[start:], Content_Range=span, Accept_Ranges="bytes")
            else:
                self.answer(200, data, Accept_Ranges="bytes")
        else:
            body = json.dumps({"Code": 10010205001, "Success": False, "Message": "not found"}).encode()
            self.answer(404, body, Content_Type="application/json")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    hub = pytest.importorskip("modelscope_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = hub.HubConfig(endpoint=f"http://127.0.0.1:{server.server_port}", cache_dir=tmp_path / "cache")
    before = hub.get_default_config()
    hub.set_default_config(config)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield server
    hub.set_default_config(before)
    server.shutdown()
    server.server_close()


class Counter(Progress):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.nbytes = 0

    def advance(self, nbytes: int) -> None:
        self.nbytes += nbytes


def test_data_are_fetched_and_kept(site: ThreadingHTTPServer) -> None:
    counter = Counter()
    checkpoint = open_checkpoint("modelscope:maker/tiny", counter)
    assert checkpoint.model_type([]) == "qwen2"
    kept = {str(file.relative_to(checkpoint.path)): file for file in checkpoint.path.rglob("*") if file.is_file()}
    assert set(kept) == {"config.json", "model.safetensors", "additional_chat_templates/rag.jinja"}
    assert all(file.read_bytes() == FILES[name] for name, file in kept.items())
    assert counter.nbytes == sum(file.stat().st_size for file in kept.values())
    site.shutdown()
    site.server_close()
    assert open_checkpoint("modelscope:maker/tiny", SilentProgress()).path == checkpoint.path


def test_what_was_fetched_is_listed_and_can_be_removed(site: ThreadingHTTPServer) -> None:
    path = open_checkpoint("https://modelscope.cn/models/maker/tiny/tree/v1", SilentProgress()).path
    [(source, model)] = [each for each in stored_models() if each[1].reference.startswith("modelscope:")]
    assert (model.reference, model.path, model.revision) == ("modelscope:maker/tiny@v1", path, "v1")
    assert model.nbytes > 1_280_000
    source.remove(model)
    assert ModelScopeSource().stored() == []


def test_a_disk_that_cannot_be_written_is_named(site: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("modelscope_hub.HubApi.download_repo", refuse)
    with pytest.raises(WeightsError, match=r"cannot write to .*cache: Permission denied.*MODELSCOPE_CACHE"):
        open_checkpoint("modelscope:maker/tiny", SilentProgress())


@pytest.mark.parametrize("reference", ["modelscope:maker/other", "modelscope:maker/tiny@v2"])
def test_what_is_not_there_is_an_error(reference: str, site: ThreadingHTTPServer) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot fetch modelscope:maker/") as caught:
        open_checkpoint(reference, SilentProgress())
    assert "MODELSCOPE_API_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        ("modelscope:o/n", True),
        ("modelscope:o/n@v1.0", True),
        ("https://www.modelscope.cn/models/o/n/summary", True),
        ("https://modelscope.cn/models/o/n/files?version=master", True),
        ("modelscope.cn/models/o/n", True),
        ("https://modelscope.cn/datasets/o/n", False),
        ("modelscope:o", False),
        ("o/n", False),
    ],
)
def test_forms(text: str, claimed: bool) -> None:
    assert ModelScopeSource().claims(text) is claimed
