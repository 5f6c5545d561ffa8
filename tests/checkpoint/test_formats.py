# SPDX-License-Identifier: Apache-2.0
"""A checkpoint format that a plugin brings opens like core's own, from a path to generated tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hook_plugins import Site, failures, install_family, site
from toy_model import CONFIG, tensors, write_model

from atb_core import ModelRunner, SamplingParams
from atb_core.checkpoint import open_checkpoint, open_weights
from atb_core.errors import ModelNotFoundError, PluginError, WeightsError
from atb_core.names import pip_install

__all__ = ["site"]

# Arrays in numpy's archive, the configuration as one of them.
FORMAT = """
    import json
    import numpy as np
    import torch
    from atb_core.errors import WeightsError
    from atb_core.graph.arrays import data_type
    from atb_core.plugins import CheckpointFormat, hookimpl
    from atb_core.checkpoint import DirectoryCheckpoint, WeightLoader

    class Loader(WeightLoader):
        def __init__(self, path):
            self.source = str(path)
            try:
                self.arrays = dict(np.load(path / "weights.foo" if path.is_dir() else path))
            except ValueError as error:
                raise WeightsError(f"{path} is damaged") from error
            self.arrays.pop("config", None)

        source = ""

        def names(self):
            return list(self.arrays)

        def shape(self, name):
            return self.arrays[name].shape

        def dtype(self, name):
            return data_type(self.get(name).dtype)

        def nbytes(self, name):
            return self.arrays[name].nbytes

        def get(self, name):
            if name not in self.arrays:
                raise self.unknown(name)
            return torch.from_numpy(self.arrays[name].copy())

        def get_slice(self, name, dim, start, stop):
            return self.get(name).narrow(dim, start, stop - start).contiguous()

        def close(self):
            pass

    class Archive(DirectoryCheckpoint):
        def weights(self, dtype=None):
            return Loader(self.path)

    class Complete(Archive):
        def read_config(self):
            return json.loads(str(np.load(self.path)["config"]))

    def matches(path):
        return path.suffix == ".foo" or (path / "weights.foo").is_file()

    def files(path):
        return [path.with_name("first.foo"), path] if path.name == "second.foo" else [path]

    @hookimpl
    def atb_checkpoint_formats():
        return [CheckpointFormat("Foo archive", matches, {checkpoint}, (".foo",), files)]
"""
WITH_CONFIG, WITHOUT_CONFIG = FORMAT.replace("{checkpoint}", "Complete"), FORMAT.replace("{checkpoint}", "Archive")


def write_foo(path: Path, **further: object) -> Path:
    with open(path, "wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in tensors().items()}, **further)  # type: ignore[arg-type]
    return path


def generate(model: Path, backend: str = "cpu") -> list[int]:
    runner = ModelRunner(model, backend=backend, load_tokenizer=False)
    (output,) = runner.generate([[3, 1, 4]], SamplingParams(max_tokens=5))
    return output.token_ids


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_file_of_a_plugins_format_generates_as_the_same_weights_in_safetensors(
    site: Site, tmp_path: Path, backend: str
) -> None:
    install_family(site)
    site.install("atb-foo", WITH_CONFIG)
    model = write_foo(tmp_path / "model.foo", config=json.dumps(CONFIG))
    assert generate(model, backend) == generate(write_model(tmp_path / "plain"), backend)


def test_a_format_without_a_configuration_takes_the_file_beside_it(site: Site, tmp_path: Path) -> None:
    install_family(site)
    site.install("atb-foo", WITHOUT_CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    model = write_foo(tmp_path / "model.foo")
    assert open_checkpoint(model).config()["vocab_size"] == CONFIG["vocab_size"]
    assert len(generate(model)) == 5


def test_a_directory_whose_weights_are_of_a_plugins_format_opens(site: Site, tmp_path: Path) -> None:
    install_family(site)
    site.install("atb-foo", WITHOUT_CONFIG)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    write_foo(tmp_path / "model" / "weights.foo")
    assert generate(tmp_path / "model") == generate(write_model(tmp_path / "plain"))


def test_core_s_own_formats_come_first(site: Site, tmp_path: Path) -> None:
    site.install("atb-foo", WITHOUT_CONFIG.replace('path.suffix == ".foo"', "True"))
    with open_weights(write_model(tmp_path / "model")) as loader:
        assert type(loader).__module__ == "atb_core.checkpoint.safetensors"


def test_a_path_that_no_format_claims_names_the_known_ones(site: Site, tmp_path: Path) -> None:
    site.install("atb-foo", WITH_CONFIG)
    (tmp_path / "model.bar").write_bytes(b"bar")
    with pytest.raises(WeightsError, match=r"\.safetensors files, Foo archive \(atb-foo 1\.0\)"):
        open_checkpoint(tmp_path / "model.bar")


def test_a_damaged_file_is_the_formats_error(site: Site, tmp_path: Path) -> None:
    site.install("atb-foo", WITH_CONFIG)
    (tmp_path / "model.foo").write_bytes(b"no archive")
    with pytest.raises(WeightsError, match=r"model\.foo is damaged"):
        open_weights(tmp_path / "model.foo")


ODD = """
    from atb_core.plugins import CheckpointFormat, hookimpl

    @hookimpl
    def atb_checkpoint_formats():
        return [CheckpointFormat("Odd", {matches}, {open})]
"""


def test_a_format_that_fails_to_look_at_a_file_keeps_no_other_from_it(site: Site, tmp_path: Path) -> None:
    site.install("atb-odd", ODD.format(matches="lambda path: 1 / 0", open="print"))
    site.install("atb-foo", WITH_CONFIG)
    with open_weights(write_foo(tmp_path / "model.foo")) as loader:
        assert "lm_head.weight" in loader.names()
    (record,) = failures()
    assert "the checkpoint format 'Odd', asked about" in record.reason
    assert "ZeroDivisionError" in record.reason


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("lambda path: 1 / 0", WeightsError, r"'Odd' of atb-odd 1\.0 failed: ZeroDivisionError"),
        ("lambda path: None", PluginError, r"'Odd' of atb-odd 1\.0 returned None for .*, which is no Checkpoint"),
    ],
)
def test_a_format_that_opens_nothing_is_named(
    site: Site, tmp_path: Path, function: str, kind: type[Exception], message: str
) -> None:
    site.install("atb-odd", ODD.format(matches="lambda path: True", open=function))
    (tmp_path / "model.odd").write_bytes(b"odd")
    with pytest.raises(kind, match=message):
        open_weights(tmp_path / "model.odd")


def test_two_formats_that_claim_a_path_are_both_named(site: Site, tmp_path: Path) -> None:
    site.install("atb-a", ODD.format(matches="lambda path: True", open="print"))
    site.install("atb-b", ODD.format(matches="lambda path: True", open="print"))
    (tmp_path / "model.odd").write_bytes(b"odd")
    with pytest.raises(PluginError, match=r"comes from several plugins: atb-a 1\.0 and atb-b 1\.0"):
        open_weights(tmp_path / "model.odd")


def test_files_of_a_format_are_found_in_a_directory_by_their_suffix(site: Site, tmp_path: Path) -> None:
    site.install("atb-foo", WITH_CONFIG)
    second = write_foo(tmp_path / "second.foo")
    assert open_checkpoint(tmp_path).path == second, "the part before it is not there"
    first = write_foo(tmp_path / "first.foo")
    assert open_checkpoint(tmp_path).path == first, "both are one model"
    write_foo(tmp_path / "third.FOO")
    with pytest.raises(ModelNotFoundError, match=r"2 models: first\.foo, third\.FOO"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("fields", ["1, print", "print, print, ('.FOO',)", "print, print, '.foo'"])
def test_a_format_with_faulty_fields_is_left_out(site: Site, tmp_path: Path, fields: str) -> None:
    source = """
        from atb_core.plugins import CheckpointFormat, hookimpl

        @hookimpl
        def atb_checkpoint_formats():
            return [CheckpointFormat("Odd", {fields})]
    """
    site.install("atb-odd", source.format(fields=fields))
    site.install("atb-foo", WITH_CONFIG)
    assert open_checkpoint(write_foo(tmp_path / "model.foo")).path.name == "model.foo"
    (record,) = failures()
    assert " 'Odd' " in record.reason


GGUF = b"GGUF" + bytes(20)


@pytest.mark.parametrize("directory", [False, True])
def test_a_file_whose_package_is_not_installed_names_it(site: Site, tmp_path: Path, directory: bool) -> None:
    (tmp_path / "model.gguf").write_bytes(GGUF)
    with pytest.raises(WeightsError, match=r"model\.gguf is read by the package atb-gguf") as caught:
        open_checkpoint(tmp_path if directory else tmp_path / "model.gguf")
    assert caught.value.hint == f"{pip_install('atb-gguf')}; `atb plugins list` says what is left out."


SCHEME = """
    from atb_core.plugins import QuantScheme, hookimpl

    @hookimpl
    def atb_quant_schemes():
        return [QuantScheme("odd", lambda stored, settings, dtype: {result})]
"""


def write_quantised(directory: Path, method: str) -> Path:
    config = {**CONFIG, "quantization_config": {"quant_method": method}}
    (write_model(directory) / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("result", "kind", "message"),
    [
        ("1 / 0", WeightsError, r"quantisation scheme 'odd' of atb-odd 1\.0 failed: ZeroDivisionError"),
        ("None", PluginError, r"'odd' of atb-odd 1\.0 returned None for .*, which is no WeightLoader"),
        ("stored", PluginError, r"'odd' of atb-odd 1\.0 opened a loader of None"),
    ],
)
def test_a_scheme_that_opens_nothing_is_named_as_a_format_is(
    site: Site, tmp_path: Path, result: str, kind: type[Exception], message: str
) -> None:
    site.install("atb-odd", SCHEME.format(result=result))
    with pytest.raises(kind, match=message):
        open_weights(write_quantised(tmp_path / "model", "odd"))


def test_a_scheme_whose_package_is_not_installed_names_it(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"'gptq' of .* needs the package atb-quant") as caught:
        open_weights(write_quantised(tmp_path / "model", "gptq"))
    assert str(caught.value.hint).startswith(pip_install("atb-quant"))
    assert str(caught.value.hint).endswith("Or use the model's unquantised checkpoint.")
