# SPDX-License-Identifier: Apache-2.0
"""The page at `/` stands alone, and a browser can chat with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def test_the_page_asks_no_other_address_and_runs_no_other_script(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert re.findall(r"https?://|src=|@import|url\(|innerHTML|eval\(", answer.text) == []


def test_both_languages_have_every_word(http: httpx.Client) -> None:
    text = http.get("/").text
    english, chinese = re.search(r"en: \{(.*?)\},\n  zh: \{(.*?)\},\n\};", text, re.DOTALL).groups()  # type: ignore[union-attr]
    names = [re.findall(r"(\w+): \"", words) for words in (english, chinese)]
    assert names[0] == names[1]
    used = re.findall(r'data-(?:text|label|placeholder)="(\w+)"', text)
    assert set(used) <= set(names[0])


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


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


def type_and_send(browser: Browser, text: str) -> None:
    browser.run(
        f"document.getElementById('prompt').value = {json.dumps(text)}; document.getElementById('prompt').focus()"
    )
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_chats_stops_and_changes_the_language(make_server: Callable[..., Any], browser: Browser) -> None:
    scripts = {"[greet]": ["Hello", " <b>there</b>"], "[long]": [f"{number} " for number in range(400)]}
    with make_server(scripts) as served:
        browser.ask("Page.navigate", url=served.url + "/")
        browser.wait("document.readyState === 'complete' && document.getElementById('version').textContent !== ''")
        assert browser.run("document.getElementById('model').value") == "tiny"
        browser.wait("document.getElementById('cache').textContent.endsWith('%')")

        type_and_send(browser, "[greet]")
        browser.wait("document.querySelector('.assistant .facts') !== null")
        # Text of the model is text and no markup.
        assert browser.run("document.querySelector('.assistant .text').textContent") == "Hello <b>there</b>"
        assert "3 tokens" in browser.run("document.querySelector('.assistant .facts').textContent")
        assert browser.run("document.getElementById('status').textContent") == "Answer complete"

        browser.run("document.getElementById('language').click()")
        assert browser.run("document.documentElement.lang") == "zh"
        assert browser.run("document.getElementById('send').textContent") == "发送"
        browser.run("document.getElementById('language').click()")

        browser.run("document.getElementById('clear').click()")
        browser.run("document.getElementById('temperature').value = '-1'")
        type_and_send(browser, "[greet]")
        browser.wait("document.querySelector('.error') !== null")
        assert "temperature" in browser.run("document.querySelector('.error').textContent")

        browser.run("document.getElementById('temperature').value = ''; document.getElementById('clear').click()")
        browser.run("document.getElementById('max_tokens').value = '400'")
        type_and_send(browser, "[long]")
        browser.wait("document.querySelector('.assistant .text') !== null")
        browser.run("document.getElementById('stop').click()")
        browser.wait("!document.getElementById('send').hidden")
