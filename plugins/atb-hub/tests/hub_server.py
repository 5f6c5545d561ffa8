# SPDX-License-Identifier: Apache-2.0
"""Stands in for the hub over HTTP: the requests that huggingface_hub makes to fetch a snapshot, and no others.

Like the hub it answers with commit and ETag of each file, serves ranges, and says why it refuses by `X-Error-Code`.
Unlike the hub it has one repository, sends no redirects to a store, and knows nothing of Xet.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "maker/tiny"


class Hub(ThreadingHTTPServer):
    """Serves `files` as `maker/tiny` at `main` and `v1`.

    `gated` refuses all, `delay` is waited for each 64 KiB, `cuts` are connections that end after 1 MiB.
    """

    daemon_threads = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = dict(files)
        self.delay = 0.0
        self.cuts = 0
        self.gated = False
        self.log: list[tuple[str, str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sent(self, name: str) -> list[str]:
        """The ranges that were asked for of a file, empty texts for the whole."""
        return [wanted for method, path, wanted in self.log if method == "GET" and path.endswith(f"/{name}")]


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append((self.command, path, self.headers.get("Range", "")))
        if REPOSITORY not in path:
            return self.refuse(401, "RepoNotFound")
        if self.server.gated:
            return self.refuse(403, "GatedRepo")
        match = re.fullmatch(rf"/(api/models/)?{REPOSITORY}(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?/?", path)
        kind, revision, name = (match[2], match[3], match[4]) if match else (None, None, None)
        if revision not in (None, "main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        files = self.server.files
        if kind == "tree":
            return self.json([{"type": "file", "path": n, "size": len(d), "oid": _etag(d)} for n, d in files.items()])
        if kind in (None, "revision"):
            siblings = [{"rfilename": n, "size": len(d), "blobId": _etag(d)} for n, d in files.items()]
            return self.json({"id": REPOSITORY, "sha": COMMIT, "private": False, "siblings": siblings})
        if name not in files:
            return self.refuse(404, "EntryNotFound")
        return self.file(files[name])

    def file(self, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        stop = int(match[2]) + 1 if match and match[2] else len(data)
        self.send_response(206 if match else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(stop - start))
        if match:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(start, stop, 1 << 16):
            time.sleep(self.server.delay)
            try:
                self.wfile.write(data[at : min(at + (1 << 16), stop)])
            except (BrokenPipeError, ConnectionResetError):
                return
            if self.server.cuts and at - start >= 1 << 20:
                self.server.cuts -= 1
                self.close_connection = True
                return


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
