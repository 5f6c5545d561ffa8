# SPDX-License-Identifier: Apache-2.0
"""`atb graph --html` and `--against`: what differs between two networks, and a page that a browser shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from headless_browser import BROWSER, Browser

from atb_cli.graph_diff import Change, changes, diff_text
from atb_cli.graph_page import page
from atb_cli.graph_page.lifetimes import lifetimes
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import linear, neg, rms_norm, softmax

Run = Callable[..., Any]


def network(*ops: Callable[[Tensor], Tensor], size: int = 4) -> Network:
    with Network("small") as net:
        value = Tensor("x", (Dim("tokens"), size), DataType.FLOAT)
        for op in ops:
            value = op(value)
        net.mark_output(value, "y")
    return net


def weigh(x: Tensor) -> Tensor:
    return softmax(x, -1)


def test_nodes_that_only_one_network_has_are_found_in_their_place() -> None:
    first, second = network(neg, weigh), network(neg, neg, weigh, neg)
    found = changes(first, second)
    assert [each.kind for each in found].count("added") == 2
    assert {each.kind for each in found} == {"added", "same"}
    assert [each.before for each in found if each.before >= 0] == [0, 1]
    assert [each.after for each in found if each.after >= 0] == [0, 1, 2, 3]


def test_a_node_with_other_attributes_or_types_is_changed_and_says_in_what() -> None:
    def norm(epsilon: float) -> Callable[[Tensor], Tensor]:
        return lambda x: rms_norm(x, Tensor("w", (4,), DataType.FLOAT), epsilon)

    assert changes(network(norm(1e-5)), network(norm(1e-6))) == [Change("changed", 0, 0, ("attributes",))]
    wider = changes(network(neg), network(neg, size=8))
    assert wider == [Change("changed", 0, 0, ("inputs", "outputs"))]
    assert changes(network(neg), network(neg)) == [Change("same", 0, 0)]


def test_the_text_has_what_differs_alone() -> None:
    first, second = network(neg, weigh), network(neg)
    text = diff_text(first, second, changes(first, second))
    assert text.splitlines()[0] == "# 1 same, 0 changed, 1 removed, 0 added"
    assert re.search(r"^- y: .*Softmax\(", text, re.MULTILINE)


def test_values_live_from_their_node_to_the_last_reader_of_them_or_of_a_view() -> None:
    with Network("views") as net:
        x = Tensor("x", (Dim("tokens"), 4), DataType.FLOAT)
        first = neg(x)
        view = first.reshape(lambda shape: (shape[0], 2, 2))
        second = neg(x)
        net.mark_output(neg(view), "y")
        net.mark_output(linear(second, Tensor("w", (3, 4), DataType.FLOAT)), "z")
    found = lifetimes(net, [{"tokens": 5}, {}])
    assert [(each.first, each.last, each.bytes) for each in found] == [
        (0, 3, (80, -1)),
        (2, 4, (80, -1)),
        (3, 5, (80, -1)),
        (4, 5, (60, -1)),
    ]


def test_two_models_are_compared_after_the_passes(atb: Run, tiny_model: str, other_model: str) -> None:
    same = atb("graph", tiny_model, "--against", tiny_model)
    assert (same.status, same.out.count("\n")) == (0, 1)
    assert re.fullmatch(r"# \d+ same, 0 changed, 0 removed, 0 added\n", same.out)
    other = atb("graph", tiny_model, "--against", other_model)
    assert other.status == 0, other.err
    assert "- " in other.out and "# model.layers.2" in other.out
    assert "# model.layers.1" not in other.out


@pytest.mark.parametrize("option", [("--layers", "0"), ("--stage", "after")], ids=lambda option: option[0])
def test_choices_that_would_have_no_effect_are_refused(
    atb: Run, tiny_model: str, tmp_path: Path, option: tuple[str, str]
) -> None:
    for way in (("--against", tiny_model), ("--html", str(tmp_path / "graph.html"))):
        result = atb("graph", tiny_model, *way, *option)
        assert result.status == 2
        assert f"nothing to choose with {option[0]}" in result.err


def test_the_page_needs_nothing_else_and_text_of_a_model_is_no_markup() -> None:
    net = network(neg)
    text = page("</script><b>bold", "decode", {"one": net}, [], [])
    assert re.findall(r"https?://|src=|href=|@import|url\(|innerHTML|eval\(", text) == []
    assert "</script><b>" not in text
    data = re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)
    assert data is not None and json.loads(data[1])["title"] == "</script><b>bold"


@pytest.fixture
def other_model(tiny: Any, tmp_path: Path) -> str:
    """A model like the tiny one, with one layer less."""
    return str(tiny.write_checkpoint(tmp_path / "other", tiny.weights(), num_hidden_layers=2))


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


def press(browser: Browser, key: str) -> None:
    text = {"text": key} if len(key) == 1 else {}
    browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
    browser.ask("Input.dispatchKeyEvent", type="keyUp", key=key)


ROWS = "[...document.querySelectorAll('.row')].map((row) => row.textContent)"
PANEL = "document.querySelector('aside').textContent"
CHOSEN = "document.querySelector('[aria-selected=true]')?.textContent ?? ''"


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_folds_searches_and_compares(atb: Run, tiny_model: str, tmp_path: Path, browser: Browser) -> None:
    target = tmp_path / "graph.html"
    result = atb("graph", tiny_model, "--html", str(target))
    assert result.status == 0, result.err
    browser.ask("Page.navigate", url=target.as_uri())
    browser.wait("document.querySelectorAll('.row').length > 0")
    shown = browser.run(ROWS)
    assert any("layers.0" in row for row in shown)
    assert any("AddRmsNorm" in row for row in shown)
    assert "nodes" in browser.run(PANEL) and "are alive at a time" in browser.run(PANEL)
    assert browser.run("document.querySelectorAll('aside svg rect').length") > 10
    assert browser.run("document.querySelectorAll('.cut')[1].textContent") == "end of segment 2"  # a layer
    passes = browser.run("document.getElementById('passes').textContent")
    assert "AddRmsNorm" in passes and "\u2212" in passes

    press(browser, "c")
    assert len(browser.run(ROWS)) < len(shown) / 4
    press(browser, "e")
    unfolded = browser.run(ROWS)
    assert sum("PagedAttention" in row for row in unfolded) == 3  # of every layer, alike or not

    press(browser, "/")
    browser.ask("Input.insertText", text="pagedattention")
    browser.wait("document.getElementById('count').textContent === '3 found'")
    assert "PagedAttention" in browser.run(CHOSEN)
    assert "model.layers.0" in browser.run(PANEL) and "head_num" in browser.run(PANEL)
    press(browser, "Enter")
    assert "model.layers.1" in browser.run(PANEL)
    press(browser, "Escape")
    press(browser, "n")
    assert "model.layers.0" in browser.run(PANEL)
    press(browser, "ArrowDown")
    assert "PagedAttention" not in browser.run(CHOSEN)
    browser.run("document.querySelector('aside a').click()")
    assert browser.run(CHOSEN)

    press(browser, "3")
    assert browser.run("document.querySelectorAll('.row.added').length") > 0
    assert browser.run("document.querySelectorAll('.row.removed').length") > 0
    assert "before" in browser.run(PANEL)
    for scheme in ("light", "dark"):
        browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours = browser.run(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        dark_text, dark_back = (sum(map(int, re.findall(r"\d+", colour)[:3])) < 384 for colour in colours)
        assert (dark_text, dark_back) == ((True, False) if scheme == "light" else (False, True))
