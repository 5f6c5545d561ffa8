# SPDX-License-Identifier: Apache-2.0
"""An exception of a plugin's code, wherever it is called, names the plugin, the file and the line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from site_directory import Site, site

from atb_cli import main
from atb_core import ModelRunner, SamplingParams
from atb_core.checkpoint import open_checkpoint, open_weights
from atb_core.errors import AtbError, ConfigError, ModelNotFoundError, PluginError, WeightsError
from atb_core.extensions import Owner
from atb_core.models.base.router import router_of
from atb_core.plugin_errors import plugin_error, plugin_errors
from atb_core.plugins.hooks import register_hooks
from atb_core.plugins.hookspecs import hookimpl
from atb_core.plugins.records import records

__all__ = ["site"]

Make = Callable[[], BaseException]

# A family and hooks that fail at the place, and in the way, that `fault` is told.
SOURCE = """
import click
from dataclasses import dataclass
from pathlib import Path

from atb_core import FeatureDecorator
from atb_core.checkpoint import DirectoryCheckpoint, Source
from atb_core.graph.passes import Pass
from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_core.models.base.modeling_python import DecoderModel
from atb_core.models.base.router import BaseRouter
from atb_core.nn.functional import gather
from atb_core.plugins import CheckpointFormat, ParsedAnswer, ToolParser, hookimpl

faults = {}

def fault(place):
    if place in faults:
        raise faults[place]

@dataclass
class Config(BaseConfig):
    model_type: str = "faulty"

    def __post_init__(self):
        super().__post_init__()
        fault("configuration")

class Router(BaseRouter):
    tool_parser = "faulty"

    def __post_init__(self):
        fault("router")

    def get_config(self):
        fault("get_config")
        return super().get_config()

    def get_model_cls(self):
        fault("get_model_cls")
        return Model

    def get_tokenizer(self):
        fault("get_tokenizer")

    def get_generation_config(self):
        fault("get_generation_config")
        return {}

class Quiet(FeatureDecorator):
    feature_name = "quiet"
    is_enabled = True

    def is_activated(self, meta):
        fault("feature")
        return False

@torch_to_mindie_graph()
class Model(FlashCausalLMV3):
    def __init__(self, mindie_llm_config, weight_loader, **kwargs):
        super().__init__(mindie_llm_config, weight_loader, **kwargs)
        fault("constructor")
        config = mindie_llm_config.hf_config
        self.model = DecoderModel(config, weight_loader, prefix="model")
        self.lm_head = ColumnParallelLinear(config, weight_loader, "lm_head", in_features=32, out_features=64)

    def forward(self, **kwargs):
        fault("forward")
        hidden = self.model(**kwargs)
        if kwargs["is_prefill"]:
            hidden = gather(hidden, 0, kwargs["lm_head_indices"])
        return {"model_out": self.lm_head(hidden)}

    def _update_model_inputs(self, meta):
        fault("step")
        return {}, {}, {}

class Parser(ToolParser):
    name = "faulty"

    def parse(self, text):
        fault("parser")
        return ParsedAnswer(text)

    def feed(self, piece):
        return []

    def finish(self):
        return []

class Place(Source):
    form = "faulty:NAME"

    def claims(self, reference):
        fault("claims")
        return reference.startswith("faulty:")

    def fetch(self, reference, progress):
        fault("fetch")
        return Path(reference)

@click.command("faulty")
def command():
    fault("command")

def run(network):
    fault("pass")
    return network

def matches(path):
    fault("matches")
    return path.suffix == ".faulty"

def opened(path):
    fault("open")
    return Files(path)

class Files(DirectoryCheckpoint):
    def config(self):
        fault("format")
        return {}

    def weights(self, dtype=None):
        fault("weights")

@hookimpl
def atb_features():
    fault("hook")
    return [Quiet]

@hookimpl
def atb_tool_parsers():
    return [Parser]

@hookimpl
def atb_checkpoint_sources():
    return [Place()]

@hookimpl
def atb_cli_commands():
    return [command]

@hookimpl
def atb_fusion_passes():
    return [Pass("Faulty", run)]

@hookimpl
def atb_checkpoint_formats():
    return [CheckpointFormat("Faulty", matches, opened)]
"""


class Panic(BaseException):
    """The exception of an extension in Rust that panics: no `Exception`."""


class Odd(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")


ERRORS: dict[str, tuple[Make, str]] = {
    "an error": (lambda: ZeroDivisionError("nothing to divide"), "ZeroDivisionError: nothing to divide"),
    "an exit": (lambda: SystemExit(0), "SystemExit: 0"),
    "a panic": (lambda: Panic("index out of bounds"), "Panic: index out of bounds"),
    "an error without a text": (Odd, "Odd"),
    "an error of the system": (lambda: PermissionError(13, "Permission denied", "/x"), "PermissionError: [Errno 13]"),
    "escapes": (lambda: ValueError("\x1b]0;title\x07 \u202egnp"), "ValueError: \\x1b]0;title\\x07 \\u202egnp"),
    "a long text": (lambda: ValueError("y" * 1_000_000), "(1000012 characters)"),
}


class Faulty:
    """The family, its checkpoint, and the table of places where it fails."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.faults: dict[str, BaseException] = {}
        self.directory = directory
        self.file = str(site.path / "atb_faulty.py")
        site.family("atb-faulty", "faulty", "2.3", SOURCE)
        entries = "".join(
            f"[atb_core.{group}]\nfaulty = atb_faulty:{name}\n"
            for group, name in {"routers": "Router", "configs": "Config", "models": "Model"}.items()
        )
        (site.path / "atb_faulty-2.3.dist-info/entry_points.txt").write_text(
            entries + "[atb_core.plugins]\nhooks = atb_faulty\n[atb_core.api]\n1 = atb_faulty\n", encoding="utf-8"
        )
        site.scan()

    def fails(self, place: str, error: BaseException) -> None:
        import atb_faulty  # type: ignore[import-not-found]

        atb_faulty.faults[place] = error

    def runner(self, **options: object) -> ModelRunner:
        return ModelRunner(self.directory, load_tokenizer=False, **options)  # type: ignore[arg-type]

    def generate(self) -> None:
        with self.runner() as runner:
            runner.generate([[1, 2, 3]], SamplingParams(max_tokens=2))

    def blamed(self, error: AtbError) -> None:
        """Checks that the message names package, version, file and a line of it."""
        assert "atb-faulty 2.3" in error.message
        assert f"({self.file}, line " in error.message


@pytest.fixture
def faulty(site: Site, tmp_path: Path) -> Iterator[Faulty]:
    directory = tmp_path / "model"
    directory.mkdir()
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    config = {"model_type": "faulty", "torch_dtype": "float32", **sizes, **heads}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    layer = {
        "input_layernorm": (32,), "post_attention_layernorm": (32,), "self_attn.q_proj": (32, 32),
        "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32), "self_attn.o_proj": (32, 32),
        "mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32), "mlp.down_proj": (32, 48),
    }  # fmt: skip
    shapes = {"model.embed_tokens": (64, 32), "model.norm": (32,), "lm_head": (64, 32)}
    shapes |= {f"model.layers.0.{name}": shape for name, shape in layer.items()}
    save_file({f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}, directory / "model.safetensors")
    faulty = Faulty(site, directory)
    faulty.generate()  # without a fault it works
    yield faulty
    sys.modules["atb_faulty"].faults.clear()


OPENING = ("configuration", "router", "get_config", "get_generation_config", "get_model_cls", "constructor")
RUNNING = ("forward", "step")


@pytest.mark.parametrize("place", [*OPENING, *RUNNING])
def test_what_a_family_raises_names_it(faulty: Faulty, place: str) -> None:
    cause = RuntimeError("no good")
    faulty.fails(place, cause)
    with pytest.raises(PluginError, match=r"the plugin atb-faulty 2\.3 failed: RuntimeError: no good") as caught:
        faulty.generate()
    faulty.blamed(caught.value)
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("place", ["router", "forward"])
def test_whatever_it_raises_is_told_in_one_printable_line(faulty: Faulty, place: str, kind: str) -> None:
    make, text = ERRORS[kind]
    faulty.fails(place, make())
    with pytest.raises(PluginError) as caught:
        faulty.generate()
    faulty.blamed(caught.value)
    assert text in caught.value.message
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 5000


def test_a_feature_a_tokenizer_and_a_parser_are_named_too(faulty: Faulty) -> None:
    faulty.fails("feature", RuntimeError("no good"))
    with faulty.runner(features=["quiet"]) as runner, pytest.raises(PluginError) as caught:
        runner.generate([[1]], SamplingParams(max_tokens=1))
    faulty.blamed(caught.value)
    faulty.fails("get_tokenizer", SystemExit(1))
    with pytest.raises(PluginError) as caught:
        ModelRunner(faulty.directory)
    faulty.blamed(caught.value)
    faulty.fails("parser", Panic("unwrap"))
    with faulty.runner() as runner, pytest.raises(PluginError) as caught:
        runner.parse_answer("hello")
    faulty.blamed(caught.value)


def test_its_own_error_for_people_and_an_interrupt_pass(faulty: Faulty) -> None:
    for error in (ConfigError("a window of 7 is not supported"), KeyboardInterrupt()):
        faulty.fails("get_config", error)
        with pytest.raises(type(error)) as caught:
            faulty.generate()
        assert caught.value is error


def test_a_router_is_named_without_a_runner(faulty: Faulty) -> None:
    faulty.fails("get_config", RuntimeError("no good"))
    router = router_of(open_checkpoint(faulty.directory))
    with pytest.raises(PluginError) as caught:
        _ = router.config
    faulty.blamed(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: RuntimeError("no good"), lambda: Panic("no good"), lambda: PermissionError(13, "no good")]
)
def test_a_source_and_a_format_are_named(faulty: Faulty, tmp_path: Path, make: Make) -> None:
    faulty.fails("fetch", make())
    with pytest.raises(ModelNotFoundError, match="no good") as not_found:
        open_checkpoint("faulty:x")
    faulty.blamed(not_found.value)
    assert ("plugin's author" in str(not_found.value)) == (not isinstance(make(), OSError))
    path = tmp_path / "weights.faulty"
    path.write_bytes(b"")
    faulty.fails("format", make())
    with pytest.raises(PluginError, match="no good") as unconfigured:
        router_of(open_checkpoint(path))
    faulty.blamed(unconfigured.value)
    faulty.fails("weights", make())
    with pytest.raises(PluginError, match="no good") as unread:
        open_weights(path)
    faulty.blamed(unread.value)
    faulty.fails("open", make())
    with pytest.raises(WeightsError, match="no good") as unopened:
        open_checkpoint(path)
    faulty.blamed(unopened.value)


@pytest.mark.parametrize("place", ["claims", "matches", "pass"])
@pytest.mark.parametrize(
    "make", [lambda: RuntimeError("no good"), lambda: SystemExit("no good"), lambda: Panic("no good")]
)
def test_what_can_be_left_out_is_left_out_with_a_record(faulty: Faulty, place: str, make: Make) -> None:
    faulty.fails(place, make())
    if place == "pass":
        faulty.generate()
    else:
        with pytest.raises(AtbError):
            open_checkpoint("owner:x" if place == "claims" else _unknown_file(faulty))
    record = records()[-1]
    assert record.distribution == "atb-faulty"
    assert "no good" in record.reason
    assert f"({faulty.file}, line " in record.reason


def _unknown_file(faulty: Faulty) -> Path:
    path = faulty.directory.parent / "weights.other"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind != "an exit"])
def test_a_command_is_named(faulty: Faulty, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    make, text = ERRORS[kind]
    faulty.fails("command", make())
    assert main(["faulty"]) == 1
    said = capsys.readouterr().err
    told = "met an error of the system" if kind == "an error of the system" else "failed"
    assert text in said and f"the plugin atb-faulty 2.3 {told}" in said and faulty.file in said
    assert ("Report it to the plugin's author" in said) == (told == "failed")
    assert "bug in atb" not in said
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize(("code", "status", "said"), [(0, 0, ""), (None, 0, ""), (7, 7, ""), ("tired", 1, "tired")])
def test_a_command_may_end_the_program(
    faulty: Faulty, capsys: pytest.CaptureFixture[str], code: object, status: int, said: str
) -> None:
    faulty.fails("command", SystemExit(code))
    assert main(["faulty"]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "explain", "run"])
@pytest.mark.parametrize("make", [lambda: RuntimeError("no good"), lambda: SystemExit(0), lambda: Panic("no good")])
def test_commands_of_core_name_the_plugin(
    faulty: Faulty, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, make: Make
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    faulty.fails("constructor", make())
    (faulty.directory / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}})
    )
    assert (
        main([command, str(faulty.directory), *(["a", "--raw", "--max-tokens", "1"] if command == "run" else [])]) == 1
    )
    said = capsys.readouterr().err
    assert "the plugin atb-faulty 2.3 failed" in said
    assert "bug in atb" not in said


# The core's own.


def test_a_bug_of_the_core_is_told_as_one(
    faulty: Faulty, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("off by one")

    monkeypatch.setattr("atb_core.models.runtime.weight_loading.plan_loading", broken)
    assert main(["show", str(faulty.directory)]) == 1
    said = capsys.readouterr().err
    assert "IndexError: off by one. This is a bug in atb, not something you did." in said
    assert "--traceback" in said and "atb version" in said


def test_where_a_plugin_called_the_core_both_may_be_at_fault(
    faulty: Faulty, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A function of the core that meets what it does not expect.
    monkeypatch.setattr("atb_core.models.base.modeling_python.RmsNorm", None)
    assert main(["show", str(faulty.directory)]) == 1
    said = capsys.readouterr().err
    assert "TypeError" in said
    assert f"This is a bug in atb, or in the plugin atb-faulty 2.3, which called it ({faulty.file}, line " in said


# Code that belongs to no package.


@pytest.mark.parametrize("mark", [lambda f: staticmethod(hookimpl(f)), lambda f: hookimpl(staticmethod(f))])
def test_hooks_that_a_notebook_registered_have_a_file_and_a_line(site: Site, mark: Callable[..., object]) -> None:
    class Notebook:
        @mark
        def atb_features() -> list[object]:
            raise Panic("no good")

    from atb_core.features import FEATURES

    register_hooks(Notebook, "my-notebook", "0.1")
    FEATURES.all()
    (record,) = [record for record in records() if record.distribution == "my-notebook"]
    assert "my-notebook 0.1 is left out: Panic: no good" in record.reason
    assert f"({__file__}, line " in record.reason


def test_code_without_a_file_is_the_plugins_that_was_called() -> None:
    owner = Owner("atb-compiled", "1.0", module="atb_compiled")
    with pytest.raises(PluginError, match=r"the plugin atb-compiled 1.0 failed: ValueError"), plugin_errors(owner):
        int("x")


def test_what_neither_core_nor_a_plugin_raised_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="invalid literal"), plugin_errors():
        int("x")
    assert plugin_error(ValueError("never raised")) is None
