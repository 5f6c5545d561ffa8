# SPDX-License-Identifier: Apache-2.0
"""Chromium without a window, for tests of pages; `BROWSER` is `None` where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """Chromium without a window, through its debugging pipe."""

    def __init__(self, profile: Path) -> None:
        read_theirs, write_ours = os.pipe()
        read_ours, write_theirs = os.pipe()

        def place_pipes() -> None:
            # Descriptors may be those that the pipes must have: away from there first.
            there, here = os.dup(read_theirs), os.dup(write_theirs)
            low = [os.dup(there), os.dup(here)]
            os.dup2(low[0], 3)
            os.dup2(low[1], 4)

        assert BROWSER is not None
        self._process = subprocess.Popen(
            [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place_pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_theirs)
        os.close(write_theirs)
        self._out, self._in = os.fdopen(write_ours, "wb"), os.fdopen(read_ours, "rb")
        self._number, self._session, self._rest = 0, None, b""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._in.fileno(), 1 << 16)
                assert more, "the browser has ended"
                self._rest += more
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def run(self, script: str) -> Any:
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        deadline = time.monotonic() + 60
        while not self.run(script):
            assert time.monotonic() < deadline, (script, self.run("document.body.innerText"))
            time.sleep(0.05)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._out.close()
        self._in.close()
