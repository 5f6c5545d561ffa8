# SPDX-License-Identifier: Apache-2.0
"""A shared library built from the public headers alone brings a model of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import atb_core
from atb_core import ModelTorch, load_native_library
from atb_core.errors import EngineError

SAMPLE = Path(__file__).resolve().parents[2] / "examples" / "native-model" / "model.cpp"
COMPILER = shutil.which("c++") or shutil.which("g++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


def built(folder: Path, source: str, name: str) -> Path:
    """A shared library of `source`, compiled with the installed headers and linked with nothing of ours."""
    assert COMPILER is not None
    (folder / f"{name}.cpp").write_text(source, encoding="utf-8")
    library = folder / f"{name}.so"
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-isystem", atb_core.get_include()]
    subprocess.run([COMPILER, *flags, str(folder / f"{name}.cpp"), "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("native"), SAMPLE.read_text(encoding="utf-8"), "sample")


def test_the_sample_runs_and_is_loaded_once(sample: Path) -> None:
    assert load_native_library(sample) == ["sample_PairModel"]
    assert load_native_library(sample) == ["sample_PairModel"]
    model = ModelTorch("sample_PairModel")
    model.set_param("{}")
    table, scale, matrix = torch.randn(9, 16), torch.rand(16), torch.randn(5, 16)
    model.set_weight([table, scale, matrix])
    first, second = torch.tensor([0, 3, 8]), torch.tensor([1, 1, 2])
    (scores,) = model.execute([first, second])
    x = table[first] + table[second]
    expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale @ matrix.T
    assert torch.allclose(scores, expected, atol=1e-5)
    with pytest.raises(EngineError, match="PairModel takes no parameters"):
        model.set_param('{"a": 1}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ATB_NATIVE_LIBRARY();", ""), r"is no library of models: it lacks ATB_NATIVE_LIBRARY\(\)"),
        (("REGISTER_MODEL(sample, PairModel);", ""), "registers no model"),
        (("ATB_NATIVE_LIBRARY();", "ATB_NATIVE_LIBRARY();"), "'sample_PairModel' of .* is already registered by"),
    ],
    ids=["no entry", "no model", "a name that is taken"],
)
def test_a_library_that_cannot_be_used_is_named(
    tmp_path: Path, sample: Path, change: tuple[str, str], message: str
) -> None:
    load_native_library(sample)
    library = built(tmp_path, SAMPLE.read_text(encoding="utf-8").replace(*change), "other")
    with pytest.raises(EngineError, match=message):
        load_native_library(library)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (999, r"was built for version 999 of atb_core/model\.h, this core has version 2"),
        (-2, r"was built for the other ABI of libstdc\+\+ .* -D_GLIBCXX_USE_CXX11_ABI=1"),
    ],
)
def test_a_library_of_another_header_version_is_refused(tmp_path: Path, version: int, message: str) -> None:
    functions = (f"int atb_model_abi() {{ return {version}; }}", "const void* atb_models() { return nullptr; }")
    source = "".join(f'extern "C" {function}\n' for function in functions)
    with pytest.raises(EngineError, match=message):
        load_native_library(built(tmp_path, source, f"other{version}"))
