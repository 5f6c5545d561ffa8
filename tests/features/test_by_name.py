# SPDX-License-Identifier: Apache-2.0
"""A feature of a plugin goes on any model by name, through the runner and the command line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from hook_plugins import Site, install_family, site
from toy_model import write_model

from atb_cli import main
from atb_core import ModelRunner, SamplingParams
from atb_core.errors import GraphError, PluginError, RequestError

__all__ = ["site"]

# Shifts every token id of a step by one, in a network of its own.
FEATURE = """
    from atb_core import FeatureDecorator
    from atb_core.plugins import hookimpl

    steps = []

    class {name}(FeatureDecorator):
        feature_name = "{feature}"
        feature_stackable_whitelist = {stacks}
        is_enabled = {enabled}

        def is_activated(self, meta):
            return True

        def modify_inputs(self, inputs, outputs, runtime_params, meta):
            steps.append((self.feature_name, meta["is_prefill"]))
            inputs["input_ids"] = (inputs["input_ids"] + 1) % 97

    @hookimpl
    def atb_features():
        return [{name}]
"""


def feature(feature: str, stacks: tuple[str, ...] = ("prefill", "decode"), enabled: bool = True) -> str:
    return FEATURE.format(name=feature.title(), feature=feature, stacks=stacks, enabled=enabled)


@pytest.fixture
def model(site: Site, tmp_path: Path) -> Path:
    install_family(site)
    return write_model(tmp_path / "model")


def generate(model: Path, prompt: list[int], backend: str = "cpu", **options: object) -> list[int]:
    runner = ModelRunner(model, backend=backend, load_tokenizer=False, **options)  # type: ignore[arg-type]
    (output,) = runner.generate([prompt], SamplingParams(max_tokens=1))
    return output.token_ids


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_feature_of_a_plugin_changes_the_steps_of_a_model_that_asks_for_it(
    site: Site, model: Path, backend: str
) -> None:
    module = site.install("atb-shift", feature("shift"))
    assert generate(model, [3, 4, 5], backend, features=["shift"]) == generate(model, [4, 5, 6], backend)
    assert sys.modules[module].steps == [("shift", True)]


def test_without_being_asked_for_it_is_not_there(site: Site, model: Path) -> None:
    module = site.install("atb-shift", feature("shift"))
    plain = generate(model, [3])
    assert sys.modules[module].steps == []
    assert plain != generate(model, [3], features=["shift"])


def test_features_of_several_plugins_stack_in_the_order_given(site: Site, model: Path) -> None:
    site.install("atb-shift", feature("shift"))
    site.install("atb-again", feature("again", ("prefill", "decode", "shift")))
    assert generate(model, [3], features=["shift", "again"]) == generate(model, [5])
    with pytest.raises(GraphError, match="'again' stacks on 'shift', which is listed after it"):
        generate(model, [3], features=["again", "shift"])


def test_an_unknown_feature_is_an_error_that_lists_those_there_are(site: Site, model: Path) -> None:
    site.install("atb-shift", feature("shift"))
    site.install("atb-broken", "raise RuntimeError('no')")
    with pytest.raises(RequestError) as error:
        generate(model, [3], features=["shfit"])
    assert "'shfit'" in str(error.value)
    assert "shift (atb-shift 1.0)" in str(error.value)
    assert "failed and may offer it: atb-broken 1.0" in str(error.value)


def test_one_name_for_a_string_is_refused(site: Site, model: Path) -> None:
    with pytest.raises(RequestError, match="features must be a list of names, not 'shift'"):
        generate(model, [3], features="shift")


def test_a_feature_that_is_not_enabled_on_the_model_is_an_error(site: Site, model: Path) -> None:
    site.install("atb-shift", feature("shift", enabled=False))
    with pytest.raises(PluginError, match=r"'shift' .* is not enabled on this model"):
        generate(model, [3], features=["shift"])


def test_two_packages_with_one_feature_matter_only_to_those_who_ask_for_it(site: Site, model: Path) -> None:
    site.install("atb-a", feature("shift"))
    site.install("atb-b", feature("shift"))
    assert len(generate(model, [3])) == 1
    with pytest.raises(PluginError, match=r"'shift' comes from several plugins: atb-a 1\.0 and atb-b 1\.0"):
        generate(model, [3], features=["shift"])


def test_the_command_line_takes_features(site: Site, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("atb-shift", feature("shift"))
    asked: dict[str, object] = {}

    def load(reference: str, **loading: object) -> None:
        asked.update(loading)
        raise RequestError("enough")

    monkeypatch.setattr("atb_cli.options.load_runner", load)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["run", str(model), "--feature", "shift", "--feature", "other", "hello"]) == 1
    assert asked["features"] == ("shift", "other")
