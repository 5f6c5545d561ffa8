# SPDX-License-Identifier: Apache-2.0
"""The page at `/` stands alone, and a browser can chat with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from headless_browser import BROWSER, Browser


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
    scripts = {
        "[greet]": ["Hello", " <b>there</b>"],
        "[code]": ["So:\n", "```py\nif a:\n", "  b\n", "```\n", "Done"],
        "[long]": [f"{number} " for number in range(400)],
    }
    with make_server(scripts) as served:
        browser.ask("Page.navigate", url=served.url + "/")
        browser.wait("document.readyState === 'complete' && document.getElementById('version').textContent !== ''")
        assert browser.run("document.getElementById('model').value") == "tiny"
        browser.wait("document.getElementById('cache').textContent.endsWith('%')")

        type_and_send(browser, "[greet]")
        browser.wait("document.querySelector('.assistant .facts') !== null")
        # Text of the model is text and no markup.
        assert browser.run("document.querySelector('.assistant .text').textContent") == "Hello <b>there</b>"
        facts = browser.run("document.querySelector('.assistant .facts').textContent")
        assert "3 tokens" in facts and facts == browser.run("document.getElementById('speed').textContent")
        assert browser.run("document.getElementById('status').textContent") == "Answer complete"

        type_and_send(browser, "[code]")
        browser.wait("document.querySelectorAll('.assistant .facts').length === 2")
        blocks = "[...document.querySelectorAll('.assistant:last-child .text > *')].map(e => e.tagName + e.textContent)"
        assert browser.run(blocks) == ["SPANSo:\n", "PREif a:\n  b", "SPANDone"]

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
