# SPDX-License-Identifier: Apache-2.0
"""Hooks are called when they are needed, each plugin's separately, and results are checked."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hook_plugins import Site, failures, site

from atb_cli.options import BackendName
from atb_cli.plugin_commands import COMMANDS
from atb_core.checkpoint.formats import CHECKPOINT_FORMATS, CheckpointFormat
from atb_core.checkpoint.quant_schemes import QUANT_SCHEMES, QuantScheme
from atb_core.checkpoint.sources.base import SOURCES
from atb_core.engine import MAKERS, BackendMaker, get_backend
from atb_core.errors import BackendUnavailableError, EngineError, PluginError
from atb_core.extensions import Extensions
from atb_core.features import FEATURES
from atb_core.features.adapters import ADAPTERS
from atb_core.graph.custom_ops import OPS
from atb_core.graph.passes import FUSIONS, Pass
from atb_core.models.graph_builders import GRAPH_BUILDERS, GraphBuilder
from atb_core.nn.functional import FUNCTIONS
from atb_core.plugins import ToolParser, hookimpl, register_hooks
from atb_core.plugins.hookspecs import HOOKS
from atb_core.plugins.records import Status, records
from atb_core.runner.drafting import DRAFT_METHODS, DraftMethod
from atb_core.runner.tool_calls import TOOL_PARSERS

__all__ = ["site"]

PARSER = """
    from atb_core.plugins import ParsedAnswer, ToolParser, hookimpl

    class Parser(ToolParser):
        name = "{0}"

        def parse(self, text):
            return ParsedAnswer(text)

    @hookimpl
    def atb_tool_parsers():
        return [Parser]
"""


def names() -> list[str]:
    return [offer.value.name for offer in TOOL_PARSERS.all()]


def test_every_hook_fills_one_slot_of_a_layer() -> None:
    slots = (
        FUSIONS,
        OPS,
        FUNCTIONS,
        FEATURES,
        ADAPTERS,
        MAKERS,
        GRAPH_BUILDERS,
        COMMANDS,
        CHECKPOINT_FORMATS,
        QUANT_SCHEMES,
        SOURCES,
        DRAFT_METHODS,
        TOOL_PARSERS,
    )
    assert [slot.hook for slot in slots] == list(HOOKS)


@pytest.mark.parametrize(
    ("point", "kind", "field"),
    [
        (FUSIONS, Pass, "run"),
        (MAKERS, BackendMaker, "make"),
        (GRAPH_BUILDERS, GraphBuilder, "prepare"),
        (QUANT_SCHEMES, QuantScheme, "open"),
        (DRAFT_METHODS, DraftMethod, "configure"),
        (CHECKPOINT_FORMATS, partial(CheckpointFormat, matches=bool), "open"),
    ],
)
def test_what_has_to_be_a_function_is_checked(point: Extensions[Any], kind: Any, field: str) -> None:
    assert point.problem(kind("a", **{field: len})) is None
    problem = str(point.problem(kind("a", **{field: 3})))
    assert problem.startswith(f"{field} of the ")
    assert problem.endswith(" 'a' is 3, which is not a function")


def test_an_op_that_a_pass_makes_is_named_by_text() -> None:
    assert FUSIONS.problem(Pass("a", len, "AddRmsNorm")) is None  # type: ignore[arg-type]
    assert FUSIONS.problem(Pass("a", len, 3)) == "makes of the Pass 'a' is 3, which is no text"  # type: ignore[arg-type]


def test_contributions_come_with_their_owner_in_the_order_of_the_packages_names(site: Site) -> None:
    site.install("atb-b", PARSER.format("b"), version="2.0")
    site.install("atb-a", PARSER.format("a"))
    assert [(offer.value.name, str(offer.owner)) for offer in TOOL_PARSERS.all()] == [
        ("a", "atb-a 1.0"),
        ("b", "atb-b 2.0"),
    ]
    # The hooks of this repository's own packages are disabled here, and have records that say so.
    assert [(r.distribution, r.status) for r in records() if r.status is not Status.DISABLED] == [
        ("atb-b", Status.OK),
        ("atb-a", Status.OK),
    ]


def test_an_implementation_is_called_once(site: Site) -> None:
    module = site.install(
        "atb-once",
        """
        from atb_core.plugins import hookimpl

        calls = []

        @hookimpl
        def atb_ops():
            calls.append(1)
            return []
        """,
    )
    assert FEATURES.all() == []
    assert sys.modules[module].calls == []
    assert OPS.all() == OPS.all() == []
    assert sys.modules[module].calls == [1]


BROKEN = {
    "raises": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "returns nothing": ("pass", "returned None, not a list of subclasses of ToolParser"),
    "returns one instead of a list": ("return 7", "returned 7, not a list"),
    "returns another class": ("return [int]", "<class 'int'> is no subclass of ToolParser; expected was a list of"),
    "returns an abstract class": (
        "from atb_core.plugins import ToolParser; return [type('P', (ToolParser,), {'name': 'p'})]",
        "P is abstract; it lacks parse",
    ),
    "returns a class without a name": (
        "from atb_core.plugins import ToolParser; return [type('P', (ToolParser,), {'parse': print})]",
        "P has no name",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_implementation_that_fails_harms_no_other_and_is_told_of_once(
    site: Site, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    body, message = BROKEN[case]
    hook = "from atb_core.plugins import hookimpl\n\n@hookimpl\ndef atb_tool_parsers():\n    " + body + "\n"
    site.install("atb-broken", hook, version="0.3")
    site.install("atb-good", PARSER.format("good"))
    assert names() == ["good"]
    assert names() == ["good"]
    (record,) = failures()
    assert (record.distribution, record.version) == ("atb-broken", "0.3")
    assert message in record.reason
    assert record.target == "atb_core.plugins: hooks = atb_broken (atb_tool_parsers)"
    assert record.exception and "Traceback" in record.exception
    (told,) = [entry.getMessage() for entry in caplog.records]
    assert "atb_tool_parsers of the plugin atb-broken 0.3 is left out" in told
    assert "ATB_NO_PLUGINS=atb-broken" in told


def test_in_strict_mode_a_failure_is_an_error_each_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("atb-broken", "from atb_core.plugins import hookimpl\n@hookimpl\ndef atb_ops():\n    return 1\n")
    monkeypatch.setenv("ATB_STRICT", "1")
    for _ in range(2):
        with pytest.raises(PluginError, match=r"atb_ops of the plugin atb-broken 1\.0 is left out: it returned 1"):
            OPS.all()


def test_a_module_that_cannot_be_imported_is_told_of_and_left_out(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.install("atb-broken", "import a_module_that_does_not_exist")
    site.install("atb-good", PARSER.format("good"))
    assert names() == ["good"]
    assert [record.distribution for record in failures()] == ["atb-broken"]
    assert "atb-broken 1.0" in caplog.text and "a_module_that_does_not_exist" in caplog.text


REFUSED = {
    "an unknown hook": ("@hookimpl\ndef atb_opps(): return []", "atb_opps, which is no hook of this version; the "
                        "nearest is atb_ops"),
    "an argument that the hook has not": ("@hookimpl\ndef atb_ops(backend): return []", "{'backend'} are declared"),
    "no mark": ("def atb_ops(): return []", "has atb_ops, which is not marked with @hookimpl"),
    "no hook at all": ("", "implements no hook"),
    "a wrapper": ("@hookimpl(wrapper=True)\ndef atb_ops():\n    return (yield)", "historic incompatible with"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_module_whose_hooks_are_not_those_of_core_is_refused_whole(site: Site, case: str) -> None:
    source, message = REFUSED[case]
    site.install("atb-odd", "from atb_core.plugins import hookimpl\n" + source)
    site.install(
        "atb-half", "from atb_core.plugins import hookimpl\n" + source + PARSER.format("half").replace("\n    ", "\n")
    )
    site.install("atb-good", PARSER.format("good"))
    assert "good" in names()
    record = next(record for record in failures() if record.distribution == "atb-odd")
    assert message in record.reason
    if case != "no hook at all":
        assert names() == ["good"]


def test_a_hook_of_a_later_core_may_be_optional(site: Site) -> None:
    later = "\n    @hookimpl(optionalhook=True)\n    def atb_schedulers():\n        return []\n"
    site.install("atb-new", PARSER.format("new") + later)
    assert names() == ["new"]
    assert failures() == []


def test_a_package_that_is_disabled_is_not_imported(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    module = site.install("atb-off", PARSER.format("off"))
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-off")
    assert "off" not in names()
    assert module not in sys.modules
    assert failures() == []


def test_what_is_registered_after_the_first_use_still_arrives(site: Site) -> None:
    site.install("atb-early", PARSER.format("early"))
    assert names() == ["early"]

    class Late(ToolParser):
        name = "late"

        def parse(self, text: str) -> object:  # type: ignore[override]
            return text

    class Plugin:
        @staticmethod
        @hookimpl
        def atb_tool_parsers() -> list[type[ToolParser]]:
            return [Late]

    register_hooks(Plugin, "a notebook", "7")
    assert names() == ["early", "late"]
    assert str(TOOL_PARSERS.all()[-1].owner) == "a notebook 7"
    with pytest.raises(PluginError, match="'a notebook' is registered already"):
        register_hooks(Plugin, "a notebook")


def test_registering_what_has_no_hooks_is_an_error_at_once(site: Site) -> None:
    with pytest.raises(PluginError, match=r"nothing implements no hook: write .*; the hooks are atb_fusion_passes"):
        register_hooks(SimpleNamespace(), "nothing")


def test_an_implementation_may_use_other_hooks(site: Site) -> None:
    site.install(
        "atb-asking",
        """
        from atb_core.features import FEATURES
        from atb_core.graph.custom_ops import OPS
        from atb_core.plugins import hookimpl

        @hookimpl
        def atb_ops():
            assert FEATURES.all() == [] and OPS.all() == []
            return []
        """,
    )
    assert OPS.all() == []
    assert failures() == []


def test_a_name_that_two_packages_claim_names_both(site: Site) -> None:
    site.install("atb-a", PARSER.format("same"))
    site.install("atb-b", PARSER.format("same"))
    with pytest.raises(PluginError, match=r"atb-a 1\.0 and atb-b 1\.0.*ATB_NO_PLUGINS=atb-b"):
        TOOL_PARSERS.named("same", "the tool parser 'same'")


@pytest.mark.parametrize(
    ("point", "item"),
    [
        (COMMANDS, click.Command(None)),
        (DRAFT_METHODS, DraftMethod("", lambda config: None)),
        (GRAPH_BUILDERS, GraphBuilder("", lambda model_type, config: None)),
        (QUANT_SCHEMES, QuantScheme(7, lambda *given: None)),
    ],
)
def test_an_item_that_is_chosen_by_its_name_has_one(point: Extensions[Any], item: object) -> None:
    assert str(point.problem(item)).endswith(" has no name")


def test_importing_core_listing_and_help_import_no_hooks(site: Site) -> None:
    site.install("atb-loud", "raise RuntimeError('imported')")
    code = (
        "import sys, atb_core, atb_core.plugins; from atb_cli import main; "
        "assert main(['list']) == 0 and main(['--help']) == 0; "
        "assert not {'torch', 'pluggy', 'atb_loud'} & set(sys.modules)"
    )
    path = {"PYTHONPATH": str(site.path), "PATH": "", "HOME": str(site.path)}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Packages that may add commands:" in done.stdout
    assert "atb-loud 1.0" in done.stdout


def test_a_plugins_backend_is_chosen_by_its_name(site: Site) -> None:
    source = """
    from atb_core.engine import BackendMaker, get_backend
    from atb_core.plugins import hookimpl

    def make(num_threads=None):
        return get_backend("reference", num_threads=num_threads)

    @hookimpl
    def atb_backends():
        return [BackendMaker({0!r}, make)]
    """
    site.install("atb-b", source.format("b"))
    site.install("atb-c", source.format("cpu"))
    assert get_backend("b").name == "reference"
    with pytest.raises(EngineError, match="the backend 'b' has no option device_id"):
        get_backend("b", device_id=0)
    with pytest.raises(BackendUnavailableError, match=r"Known: cpu, reference, atb, atb-sim, b \(atb-b 1.0\)"):
        get_backend("d")
    assert [record.reason for record in failures() if "the backend 'cpu' is the core's" in str(record.reason)]
    assert BackendName("auto").convert("b", None, None) == "b"
    with pytest.raises(click.BadParameter, match="'d' is not one of 'auto', 'cpu'"):
        BackendName("auto").convert("d", None, None)
