# SPDX-License-Identifier: Apache-2.0
"""Names of C++ models come from packages, by metadata first: they agree or are refused, and defaults give way."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from site_directory import GOOD, Site, settings_file, site
from tiny_decoder import ROOT

from atb_core import ModelTorch
from atb_core.errors import EngineError, PluginError
from atb_core.names import pip_install
from atb_core.plugins.once import forget
from atb_cpp_models import DECODER_WEIGHTS, CppModel, model_names, registered

__all__ = ["settings_file", "site"]  # fixtures

MINIMAL = {
    "normEps": 1e-6,
    "numHiddenLayers": 2,
    "numAttentionHeadsPerRank": 4,
    "numKeyValueHeadsPerRank": 2,
    "hiddenSizePerAttentionHead": 16,
}


def package(site: Site, distribution: str, name: str, arguments: str = "", version: str = "1.0", **more: Any) -> Path:
    """Installs a package that registers one model."""
    module = distribution.replace("-", "_")
    source = more.get("source", f"from atb_cpp_models import CppModel\nMODEL = CppModel({arguments})\n")
    (site.path / f"{module}.py").write_text(source, encoding="utf-8")
    text = f"[atb_core.cpp_models]\n{name} = {module}:MODEL\n[atb_core.api]\n1 = {module}\n"
    info = site.metadata(distribution, version, text, more.get("requires", ()))
    forget()
    return info


def with_parameters(name: str, **given: Any) -> ModelTorch:
    model = ModelTorch(name)
    model.set_param({**MINIMAL, **given})
    return model


def biases(model: ModelTorch) -> int:
    return sum(name.endswith(".bias") for name in model.weight_names)


def test_qwens_and_llamas_names_are_there_with_their_packages() -> None:
    assert {"core_DecoderModel", "llama_DecoderModel", "qwen_DecoderModel"} <= set(model_names())
    assert registered.registered_names()["qwen_DecoderModel"] == ["atb-qwen2", "atb-qwen3"]
    assert [name.split(".")[-1] for name in with_parameters("qwen_DecoderModel").weight_names].count("bias") == 2
    assert biases(with_parameters("llama_DecoderModel")) == 0


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("qwen_PAModel", "qwen_DecoderModel"),
        ("qwen_QwenDecoderModel", "qwen_DecoderModel"),
        ("llama_LlamaDecoderModel", "llama_DecoderModel"),
    ],
)
def test_the_names_of_atb_models_are_the_same_models(theirs: str, ours: str) -> None:
    first, second = registered.registered(theirs), registered.registered(ours)
    assert first is not None
    assert second is not None
    assert first.differences(second) == []
    assert with_parameters(theirs).weight_names == with_parameters(ours).weight_names


def test_two_packages_that_agree_share_a_name_and_each_runs_its_own_types() -> None:
    from atb_qwen2.cpp_model import DECODER as of_qwen2
    from atb_qwen3.cpp_model import DECODER as of_qwen3

    assert of_qwen2 == of_qwen3
    assert hash(of_qwen2) == hash(of_qwen3)
    assert registered.model_of_family("qwen2") == ("qwen_DecoderModel", of_qwen2)
    assert registered.model_of_family("qwen3") == ("qwen_DecoderModel", of_qwen3)
    assert (of_qwen2.model_types, of_qwen3.model_types) == (("qwen2",), ("qwen3",))
    assert registered.model_of_family("qwen2_moe") is None


def test_a_name_that_is_no_string_accuses_no_package(site: Site) -> None:
    package(site, "atb-one", "one_DecoderModel", "defaults={'normEps': 1e-6}")
    package(site, "atb-two", "two_DecoderModel", "defaults={'normEps': 1e-5}")
    for name in (None, 3):
        with pytest.raises(EngineError, match=f"the name of a C\\+\\+ model is a string, not {type(name).__name__}"):
            ModelTorch(name)  # type: ignore[arg-type]
    assert "atb_one" not in sys.modules


def test_names_are_listed_without_importing_a_package(site: Site) -> None:
    package(site, "atb-one", "one_DecoderModel", source="raise RuntimeError('imported')")
    assert "one_DecoderModel" in model_names()
    assert "atb_one" not in sys.modules


def test_defaults_hold_where_the_user_says_nothing(site: Site) -> None:
    package(site, "atb-one", "one_DecoderModel", "defaults={'linearHasBias': [[True, False, False, True]]}")
    assert biases(with_parameters("one_DecoderModel")) == 4
    assert biases(with_parameters("one_DecoderModel", linearHasBias=[[True] * 4, [False] * 4])) == 4
    assert biases(with_parameters("one_DecoderModel", linearHasBias=[[False] * 4])) == 0


def test_a_default_gives_way_to_the_other_spelling_of_its_field() -> None:
    model = CppModel(defaults={"normEps": 1e-6, "torchDtype": "float32", "rank": 0})
    assert model.parameters({"rmsNormEps": 1e-5, "isBF16": True}) == {"rmsNormEps": 1e-5, "isBF16": True, "rank": 0}
    assert model.parameters({}) == model.defaults
    decoder = ModelTorch("qwen_DecoderModel")
    given = {**MINIMAL, "rmsNormEps": 1e-5}
    del given["normEps"]
    decoder.set_param(json.dumps(given))
    del given["rmsNormEps"]
    decoder.set_param(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"numHiddenLayers": 2, "numHidenLayers": 2}', "'numHidenLayers'|is missing"),
        (json.dumps({**MINIMAL, "numHidenLayers": 2}), "unknown parameters: 'numHidenLayers'"),
        (json.dumps({**MINIMAL, "linearHasBias": [[True] * 4] * 3}), "has 3 lists where 2, or one for all, are needed"),
        ("[1]", "the parameters of qwen_DecoderModel must be a JSON object"),
        ("{", "the parameters of qwen_DecoderModel are no JSON"),
        ('{"rank": 0, "rank": 1}', "the key 'rank' occurs twice"),
        ("[" * 100_000, "are no JSON"),
    ],
    ids=lambda value: value[:20],
)
def test_the_users_fields_are_checked_as_without_defaults(given: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        ModelTorch("qwen_DecoderModel").set_param(given)


def test_packages_that_contradict_each_other_are_both_named(site: Site) -> None:
    package(site, "atb-one", "one_DecoderModel", "defaults={'normEps': 1e-6}", "1.1")
    package(site, "atb-two", "one_DecoderModel", "defaults={'normEps': 1e-5}, weights=('lm_head',)", "2.2")
    with pytest.raises(
        PluginError,
        match=r"'one_DecoderModel' is registered by atb-one 1\.1 and by atb-two 2\.2, which differ in defaults and"
        r" weights\. .*ATB_NO_PLUGINS=atb-two",
    ):
        ModelTorch("one_DecoderModel")


def test_a_disabled_or_broken_package_leaves_the_name_to_the_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    package(site, "atb-one", "one_DecoderModel", "defaults={'normEps': 1e-6}")
    package(site, "atb-two", "one_DecoderModel", source="raise ValueError('worn')")
    with caplog.at_level(logging.WARNING):
        assert ModelTorch("one_DecoderModel").registration.defaults == {"normEps": 1e-6}
    assert "atb-two 1.0 failed to import 'atb_two:MODEL': ValueError: worn" in caplog.text
    caplog.clear()
    monkeypatch.setenv("ATB_STRICT", "1")
    with pytest.raises(PluginError, match="worn"):
        ModelTorch("one_DecoderModel")
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-two")
    assert ModelTorch("one_DecoderModel").registration.defaults == {"normEps": 1e-6}
    forget()
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-one,atb-two")
    with pytest.raises(PluginError, match=r"the plugin atb-one 1\.0 is disabled by ATB_NO_PLUGINS"):
        ModelTorch("one_DecoderModel")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("MODEL = {}", "is a dict, where atb_core.cpp_models needs a CppModel"),
        ("from atb_cpp_models import CppModel as MODEL", "is a type, where atb_core.cpp_models needs a CppModel"),
        ("", "the module 'atb_one' has no 'MODEL'"),
        (
            "from atb_cpp_models import CppModel\nMODEL = CppModel(defaults={'normEps': object()})",
            "the defaults of a C.. model must be a JSON object",
        ),
        (
            "from atb_cpp_models import CppModel\nMODEL = CppModel(defaults={'normEps': float('nan')})",
            "the defaults of a C.. model must be a JSON object",
        ),
    ],
)
def test_an_entry_point_that_leads_to_something_else_is_refused(site: Site, source: str, message: str) -> None:
    package(site, "atb-one", "one_DecoderModel", source=source)
    with pytest.raises(PluginError, match=message):
        ModelTorch("one_DecoderModel")


def test_a_graph_that_no_library_has_brought_is_named(site: Site) -> None:
    package(site, "atb-one", "one_DecoderModel", "graph='other_Model'")
    with pytest.raises(EngineError, match=r"for the graph of 'other_Model', which does not exist\. .*load_native_lib"):
        ModelTorch("one_DecoderModel")


def test_a_package_cannot_take_the_name_of_a_model_of_c(site: Site) -> None:
    package(site, "atb-one", "core_DecoderModel")
    with pytest.raises(EngineError, match=r"'core_DecoderModel' is registered by atb-one and also by a library"):
        ModelTorch("core_DecoderModel")


def test_an_unknown_name_lists_the_known_ones_and_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        EngineError,
        match=r"'nobody_Model'; there are .*core_DecoderModel, .*qwen_QwenDecoderModel \(atb-qwen2, atb-qwen3\)\. load",
    ):
        ModelTorch("nobody_Model")
    # Where atb-qwen2 and atb-qwen3 are not installed.
    monkeypatch.setattr(registered, "_entries", lambda name=None: iter(()))
    with pytest.raises(EngineError, match="core_DecoderModel") as caught:
        ModelTorch("qwen_DecoderModel")
    assert caught.value.hint == f"{pip_install('atb-qwen2')} or {pip_install('atb-qwen3')}"


def test_the_index_holds_exactly_what_the_packages_of_this_repository_register() -> None:
    tomllib = pytest.importorskip("tomllib")
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        for name in project.get("entry-points", {}).get("atb_core.cpp_models", {}):
            found.setdefault(name, []).append(project["name"])
    assert {name: registered.known_packages(name) for name in found} == found
    assert set(registered.known_models()) == set(found)


def test_registering_a_model_imports_neither_torch_nor_the_engine() -> None:
    code = "import sys, atb_qwen2.cpp_model, atb_llama.cpp_model; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_usual_order_of_weights_is_that_of_a_decoder() -> None:
    assert DECODER_WEIGHTS[0] == "model.embed_tokens" and DECODER_WEIGHTS[-1] == "lm_head"


def test_a_family_runs_with_what_its_own_package_registers(site: Site) -> None:
    """Not with what another package registers for a type of that name."""
    model = "\nfrom atb_cpp_models import CppModel\nMODEL = CppModel(model_types=({},))\n"
    for distribution, types in (("atb-foo", "'foo'"), ("atb-bar", "'bar', 'foo', 'baz'")):
        module, model_type = distribution.replace("-", "_"), distribution[4:]
        groups = {"atb_core.routers": "Router", "atb_core.configs": "Config", "atb_core.cpp_models": "MODEL"}
        objects = {group: f"{module}:{name}" for group, name in groups.items()}
        site.family(distribution, model_type, source=GOOD + model.format(types), objects=objects)
    site.family("atb-baz", "baz")
    forget()
    assert registered.model_of_family("foo") == ("foo", CppModel())
    assert registered.model_of_family("bar") == ("bar", CppModel())
    assert registered.model_of_family("baz") is None
