# SPDX-License-Identifier: Apache-2.0
"""Any failure of a plugin's import ends in a record, and in an error that names the plugin and the next step."""

from __future__ import annotations

import sys

import pytest
from site_directory import GOOD, Site

from atb_core.errors import PluginError
from atb_core.graph.op import registered_ops
from atb_core.plugins.loader import load_entry
from atb_core.plugins.records import Status, records
from atb_core.plugins.registry import CONFIGS, ROUTERS


def load(site: Site, group: str = ROUTERS) -> object:
    """Loads the entry point of the only plugin of a site in a group."""
    one = site.one()
    return load_entry(one, next(entry for entry in one.entries if entry.group == group))


def refusal(site: Site, group: str = ROUTERS) -> PluginError:
    """Returns the error that loading it raises."""
    with pytest.raises(PluginError) as error:
        load(site, group)
    return error.value


def test_a_success_is_recorded_once_with_its_time(site: Site) -> None:
    info = site.family("atb-one", "one", "1.2")
    one = site.one()
    assert load_entry(one, one.entries[0]) is load_entry(one, one.entries[0])
    (record,) = records()
    assert (record.distribution, record.version, record.path) == ("atb-one", "1.2", info)
    assert record.target == "atb_core.routers: one = atb_one:Router"
    assert (record.status, record.reason, record.fix, record.exception) == (Status.OK, "", None, None)
    assert record.import_seconds is not None and record.import_seconds > 0
    assert not record.imported_torch


FAILURES = {
    "an error": ("raise ValueError('no\\n good')", "ValueError: no good", "pip install --upgrade atb-one"),
    "an error that cannot be shown": (
        "class Odd(Exception):\n    def __str__(self): raise KeyError\nraise Odd",
        "Odd",
        "pip install --upgrade atb-one",
    ),
    "a syntax error": ("def", "SyntaxError", "pip install --upgrade atb-one"),
    "an exit": ("raise SystemExit(3)", "its import ends the program (SystemExit: 3)", "pip install --upgrade atb-one"),
    "os.abort's cousin": ("raise GeneratorExit", "GeneratorExit", "pip install --upgrade atb-one"),
    "endless recursion": ("def f(): f()\nf()", "RecursionError", "pip install --upgrade atb-one"),
    "a missing dependency": (
        "import numbat.core",
        "it needs the module 'numbat', which is not installed",
        "pip install 'numbat>=0.60'",
    ),
    "a missing optional dependency": (
        "import fast_thing",
        "it needs the module 'fast_thing', which is not installed",
        "pip install 'atb-one[fast]'",
    ),
    "an undeclared dependency": (
        "import undeclared_thing",
        "'undeclared_thing', which is not installed and which atb-one does not declare as a requirement",
        "often pip install undeclared_thing",
    ),
    "a part of the core that is gone": (
        "import atb_core.gone",
        "it imports 'atb_core.gone', which this atb-core does not have",
        "pip install --upgrade atb-one",
    ),
    "a name of the core that is gone": (
        "from atb_core.errors import GoneError",
        "it imports what this atb-core does not have: ImportError: cannot import name 'GoneError'",
        "pip install --upgrade atb-one",
    ),
    "no such class": (
        "from atb_core.models.base.router import BaseRouter",
        "the module 'atb_one' has no 'Router'",
        "pip install --upgrade atb-one",
    ),
    "a class of another kind": (
        "class Router: ...",
        "'atb_one:Router' is not a subclass of BaseRouter, which atb_core.routers needs",
        "pip install --upgrade atb-one",
    ),
    "a function": ("def Router(): ...", "'atb_one:Router' is a function, where atb_core.routers needs a class", "pip"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_names_the_package_the_cause_and_the_cure(
    site: Site, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    source, reason, fix = FAILURES[failure]
    # Requirements are looked at before the import; here only the import is to fail.
    monkeypatch.setattr("atb_core.plugins.admission.incompatibility", lambda *_: None)
    site.family("atb-one", "one", "1.2", source, requires=["numbat>=0.60", "Fast.Thing; extra == 'fast'"])
    error = refusal(site)
    assert str(error).startswith("the plugin atb-one 1.2 failed to import 'atb_one:Router': ")
    assert reason in error.message
    assert error.hint is not None and fix in error.hint
    (record,) = records()
    assert (record.status, record.fix) == (Status.FAILED, error.hint)
    assert reason in record.reason
    assert record.exception is not None and "Traceback" in record.exception
    assert record.import_seconds is not None


@pytest.mark.parametrize("value", ["atb_absent.router:Router", "atb_one.absent:Router"])
def test_an_entry_point_that_leads_to_no_module_is_said_so(site: Site, value: str) -> None:
    site.family("atb-one", "one", objects={ROUTERS: value})
    error = refusal(site)
    assert "there is no module" in error.message
    assert error.hint == "pip install --force-reinstall --no-deps atb-one"


def test_a_missing_module_of_the_plugins_own_is_said_so(site: Site) -> None:
    site.family("atb-one", "one", source="import atb_one.router")
    error = refusal(site)
    assert "its own module 'atb_one.router' is missing" in error.message


def test_a_configuration_must_be_a_configuration(site: Site) -> None:
    site.family("atb-one", "one", source=GOOD + "Config = Router")
    assert "'atb_one:Config' is not a subclass of BaseConfig" in refusal(site, CONFIGS).message


def test_a_model_must_be_decorated(site: Site) -> None:
    bare = "from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3\nclass Model(FlashCausalLMV3): ..."
    site.family("atb-one", "one", source=bare, objects={"atb_core.models": "atb_one:Model"})
    says = "is not a subclass of FlashCausalLMV3 under @torch_to_mindie_graph()"
    assert says in refusal(site, "atb_core.models").message


def test_a_module_with_hooks_needs_no_class(site: Site) -> None:
    hooks = "from atb_core.plugins import hookimpl\n\n@hookimpl\ndef atb_ops():\n    return []\n"
    site.family("atb-one", "one", source=hooks, objects={"atb_core.plugins": "atb_one"})
    assert load(site, "atb_core.plugins") is sys.modules["atb_one"]


@pytest.mark.parametrize("name", ["ATB_NO_PLUGINS", "ATB_PLUGINS"])
def test_what_is_disabled_is_recorded_and_not_imported(site: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "atb-one" if name == "ATB_NO_PLUGINS" else "atb-two")
    site.family("atb-one", "one")
    error = refusal(site)
    assert name in error.message
    (record,) = records()
    assert (record.status, record.import_seconds) == (Status.DISABLED, None)
    assert "atb_one" not in sys.modules


def test_what_is_incompatible_is_recorded_and_not_imported(site: Site) -> None:
    site.metadata("atb-core", "0.9")
    site.family("atb-one", "one", requires=["atb-core>=2"])
    error = refusal(site)
    assert str(error) == (
        "the plugin atb-one 1.0 requires atb-core>=2, and atb-core 0.9 is installed. pip install 'atb-core>=2'"
    )
    (record,) = records()
    assert (record.status, record.fix) == (Status.INCOMPATIBLE, "pip install 'atb-core>=2'")
    assert "atb_one" not in sys.modules


def test_what_has_damaged_metadata_is_not_imported(site: Site) -> None:
    info = site.family("atb-one", "one")
    (info / "METADATA").write_bytes(b"Name: atb-one\nVersion: 1.0\nAuthor: Ren\xe9\n")
    assert "its METADATA is not UTF-8" in refusal(site).message
    assert records()[0].status is Status.FAILED
    assert "atb_one" not in sys.modules


def package(site: Site, **modules: str) -> None:
    """Installs a plugin whose package has several modules."""
    site.family("atb-one", "one", objects={ROUTERS: "atb_pack.router:Router", CONFIGS: "atb_pack.config:Config"})
    (site.path / "atb_pack").mkdir()
    for name, source in {"__init__": "", **modules}.items():
        (site.path / "atb_pack" / f"{name}.py").write_text(source)


def test_a_failed_import_leaves_no_module_of_the_plugin_behind(site: Site) -> None:
    package(site, config=GOOD, router="import colorsys, atb_pack.config\nraise RuntimeError('half-way')")
    sys.modules.pop("colorsys", None)
    refusal(site)
    assert not [name for name in sys.modules if name.startswith("atb_pack")]
    assert "colorsys" in sys.modules


def test_a_failed_import_leaves_no_op_behind(site: Site) -> None:
    define = (
        "from atb_core.graph.op import Op\nclass Half(Op, namespace='atb_pack'): ...\n"
        "from atb_core.graph.op import registered_ops\nassert 'atb_pack.Half' in registered_ops()\n"
    )
    package(site, config=define, router="import atb_pack.config\nraise RuntimeError('half-way')")
    assert "half-way" in refusal(site).message
    assert "atb_pack.Half" not in registered_ops()


def test_a_failure_keeps_what_had_loaded_before(site: Site) -> None:
    package(site, config="import atb_pack.later\nraise RuntimeError", later="", router=GOOD)
    load(site, ROUTERS)
    refusal(site, CONFIGS)
    left = sorted(name for name in sys.modules if name.startswith("atb_pack"))
    assert left == ["atb_pack", "atb_pack.router"]
    assert not hasattr(sys.modules["atb_pack"], "later")


def test_what_failed_is_tried_again_and_may_then_succeed(site: Site) -> None:
    package(site, config=GOOD, router="import atb_pack.config\nraise RuntimeError('half-way')")
    refusal(site)
    (site.path / "atb_pack" / "router.py").write_text(GOOD + "# longer than before, so that it is compiled again\n")
    assert load(site) is sys.modules["atb_pack.router"].Router
    assert [record.status for record in records()] == [Status.FAILED, Status.OK]


def test_a_plugin_that_imports_torch_is_recorded_as_such(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    (site.path / "torch.py").write_text("")
    site.family("atb-one", "one", source="import torch\n" + GOOD)
    load(site)
    del sys.modules["torch"]
    assert records()[0].imported_torch


def test_an_import_that_takes_long_is_warned_of_and_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ATB_PLUGIN_TIMEOUT", "0.05")
    site.family("atb-one", "one", "1.2", source="import time\ntime.sleep(0.5)\n" + GOOD)
    site.family("atb-two", "two", source=GOOD)
    one, two = site.scan().installed
    load_entry(two, two.entries[0])
    assert caplog.messages == []
    assert load_entry(one, one.entries[0]) is sys.modules["atb_one"].Router
    assert caplog.messages == [
        "importing 'atb_one:Router' of the plugin atb-one 1.2 takes more than 0.05 s. Ctrl-C interrupts it,"
        " or else Ctrl-\\; ATB_NO_PLUGINS=atb-one leaves the plugin out."
    ]


def test_an_interruption_by_the_user_stays_one(site: Site) -> None:
    site.family("atb-one", "one", source="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(site)
    assert "atb_one" not in sys.modules
