# SPDX-License-Identifier: Apache-2.0
"""A shared library built from the public headers alone brings a model of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_decoder import ROOT

import atb_core
from atb_core import ModelTorch, load_native_library
from atb_core.errors import EngineError
from atb_cpp_models import model_names

EXAMPLE = ROOT / "examples" / "native-model"
SAMPLE = EXAMPLE / "model.cpp"
COMPILER = shutil.which("c++") or shutil.which("g++")
CMAKE = shutil.which("cmake")
GENERATOR = shutil.which("ninja") or shutil.which("make")
#: What a library's own code is held to.
WARNINGS = ("-Wall", "-Wextra", "-Werror")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


def built(folder: Path, source: str, name: str, *more: str) -> Path:
    """A shared library of `source`, compiled with the installed headers and linked with nothing of ours."""
    assert COMPILER is not None
    (folder / f"{name}.cpp").write_text(source, encoding="utf-8")
    library = folder / f"{name}.so"
    flags = ["-std=c++20", *WARNINGS, "-shared", "-fPIC", "-isystem", atb_core.get_include(), *more]
    subprocess.run([COMPILER, *flags, str(folder / f"{name}.cpp"), "-o", str(library)], check=True)
    return library


def library_of(folder: Path, name: str, build: str = "", param: str = "", execute: str = "") -> Path:
    """A library with the model `odd_<name>`: what its constructor, its BuildGraph and its Execute do."""
    source = """
    #include <atb_core/model.h>
    namespace odd {
    using namespace atb_core;
    class NAME : public Model {
     public:
      explicit NAME(const std::string& param) : Model("NAME") { static_cast<void>(param); PARAM }
      void Execute(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs,
                   const std::string& param) override {
        EXECUTE
        Model::Execute(inputs, outputs, param);
      }
     protected:
      void BuildGraph(ModelGraph& graph) override { static_cast<void>(graph); BUILD }
    };
    REGISTER_MODEL(odd, NAME);
    }
    ATB_NATIVE_LIBRARY();
    """
    for word, code in (("NAME", name), ("PARAM", param), ("EXECUTE", execute), ("BUILD", build)):
        source = source.replace(word, code)
    return built(folder, source, name)


# Once in a process, which refuses the same names from another file.
@pytest.fixture(scope="session")
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


def test_the_example_is_built_by_its_own_cmake_file(tmp_path: Path) -> None:
    if CMAKE is None or GENERATOR is None:
        pytest.skip("there is no CMake, or nothing that it can write files for")
    generator = "Ninja" if GENERATOR.endswith("ninja") else "Unix Makefiles"
    configure = ["-S", EXAMPLE, "-B", tmp_path, "-G", generator, f"-DATB_INCLUDE={atb_core.get_include()}"]
    subprocess.run([CMAKE, *map(str, configure)], check=True, capture_output=True)
    subprocess.run([CMAKE, "--build", str(tmp_path)], check=True, capture_output=True)
    # In a process of its own: a name is registered once in a process, and this one may have it.
    code = (
        "import sys, torch\nfrom atb_core import ModelTorch, load_native_library\n"
        "print(load_native_library(sys.argv[1]))\nmodel = ModelTorch('sample_PairModel')\nmodel.set_param('{}')\n"
        "model.set_weight([torch.eye(4), torch.ones(4), torch.ones(1, 4)])\n"
        "print(model.execute([torch.tensor([0]), torch.tensor([0])])[0].round().tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "libnative_model.so")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "['sample_PairModel']\n[[2.0]]\n"


def test_the_headers_have_no_warning_for_those_who_compile_them_as_their_own(tmp_path: Path) -> None:
    strict = [f"-W{name}" for name in ("all", "extra", "shadow", "conversion", "error")]
    names = sorted(path.name for path in (Path(atb_core.get_include()) / "atb_core").glob("*.h"))
    assert "model.h" in names
    headers = "".join(f"#include <atb_core/{name}>\n" for name in names)
    source = tmp_path / "headers.cpp"
    source.write_text(headers, encoding="utf-8")
    assert COMPILER is not None
    # Without -isystem, which would hide what they say.
    flags = ["-std=c++20", *strict, "-fsyntax-only", "-I", atb_core.get_include()]
    for file in (source, SAMPLE):
        subprocess.run([COMPILER, *flags, str(file)], check=True)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"param": "throw 42;"}, "Odd1 threw something that is no std::exception"),
        ({"param": 'throw "text";'}, "Odd2 threw something that is no std::exception"),
        ({"param": r'throw std::runtime_error("bad \xff byte");'}, r"Odd3: bad \\xff byte"),
        ({"build": "throw 42;"}, "Odd4 threw something that is no std::exception"),
        ({"build": 'graph.output(Value{}, "y");'}, "Odd5: the output 'y': it is given a Value that was never made"),
        (
            {"build": 'graph.at("top"); graph.linear(graph.input("x", DataType::f32, {}), Value{3});'},
            "Odd6: Linear at top: x has rank 0 where 1 or more is needed",
        ),
        ({"build": "engine().set_weights({});"}, "Odd7: the model Odd7 has no engine yet"),
        (
            {"build": 'graph.input("x", DataType::f32, {}); graph.input("x", DataType::f32, {});'},
            "two inputs, caches or outputs are called 'x'",
        ),
    ],
    ids=["a number", "a text", "no UTF-8", "while building", "no value", "no rank", "no engine", "one name twice"],
)
def test_whatever_a_custom_model_does_wrong_is_an_error_that_names_it(
    tmp_path: Path, request: pytest.FixtureRequest, parts: dict[str, str], message: str
) -> None:
    number = re.search(r"Odd\d", message)
    name = number[0] if number else "Odd8"
    load_native_library(library_of(tmp_path, name, **parts))
    with pytest.raises(EngineError, match=message):
        ModelTorch(f"odd_{name}").set_param("{}")


def test_names_of_tensors_and_labels_that_are_no_utf_8_can_be_read(tmp_path: Path) -> None:
    code = r"""
      const Value x = graph.input("in\xff", DataType::f32, {Size("n")});
      graph.at("layer\xfe");
      graph.output(graph.add(x, graph.weight("w\xfd", DataType::f32, {Size("n")})), "out\xfc");
    """
    load_native_library(library_of(tmp_path, "Bytes", code, execute='if (param != "{}") throw 42;'))
    model = ModelTorch("odd_Bytes")
    model.set_param("{}")
    assert (model.input_names, model.weight_names) == (["in\\xff"], ["w\\xfd"])
    assert model.nodes() == [("Elewise", "layer\\xfe")]
    with pytest.raises(EngineError, match=r"'weight 0, w\\xfd' is float16 where float32 is needed"):
        model.set_weight([torch.ones(2, dtype=torch.float16)])
    model.set_weight([torch.ones(2)])
    assert model.execute([torch.ones(2)])[0].tolist() == [2.0, 2.0]
    with pytest.raises(EngineError, match="odd_Bytes threw something that is no std::exception"):
        model.execute([torch.ones(2)], '{"a": 1}')


TWO = """
#include <atb_core/model.h>
namespace FIRST { struct M : atb_core::Model { explicit M(const std::string&) : Model("M") {} void BuildGraph(
  atb_core::ModelGraph&) override {} }; REGISTER_MODEL(FIRST, M); }
namespace SECOND { struct M : atb_core::Model { explicit M(const std::string&) : Model("M") {} void BuildGraph(
  atb_core::ModelGraph&) override {} }; REGISTER_MODEL(SECOND, M); }
ATB_NATIVE_LIBRARY();
"""


def two_models(folder: Path, name: str, first: str, second: str) -> Path:
    return built(folder, TWO.replace("FIRST", first).replace("SECOND", second), name)


def test_a_library_of_which_one_name_is_taken_adds_none_and_says_so_each_time(tmp_path: Path) -> None:
    owner = two_models(tmp_path, "owner", "atomic_a", "atomic_b")
    other = two_models(tmp_path, "later", "atomic_c", "atomic_b")
    assert load_native_library(owner) == ["atomic_a_M", "atomic_b_M"]
    for _ in range(2):
        message = f"the model 'atomic_b_M' of {other} is already registered by {owner}: give it another name"
        with pytest.raises(EngineError, match=re.escape(message)):
            load_native_library(other)
    assert "atomic_c_M" not in model_names()


def test_a_name_that_a_package_has_is_refused_with_the_package_and_the_next_step(tmp_path: Path) -> None:
    source = TWO.replace("FIRST", "own_name").replace("SECOND", "qwen").replace("M)", "DecoderModel)")
    library = built(tmp_path, source.replace("struct M ", "struct DecoderModel ").replace(" M(", " DecoderModel("), "q")
    with pytest.raises(EngineError) as caught:
        load_native_library(library)
    text = str(caught.value)
    assert f"the model 'qwen_DecoderModel' of {library} is already registered by the package atb-qwen2" in text
    assert "ATB_NO_PLUGINS=atb-qwen2 leaves it out" in text
    assert text.endswith("give it another name")
    assert "own_name_DecoderModel" not in model_names()


def test_a_file_that_crashes_when_it_is_loaded_does_not_end_this_process(tmp_path: Path) -> None:
    throwing = built(
        tmp_path, '#include <stdexcept>\nint x = [] { throw std::runtime_error("no card"); return 1; }();', "t"
    )
    with pytest.raises(
        EngineError, match=r"t\.so cannot be loaded: loading it ends the process with signal 6.*no card"
    ):
        load_native_library(throwing)
    leaving = built(tmp_path, "#include <cstdlib>\nint x = [] { std::exit(3); return 1; }();", "leaving")
    with pytest.raises(EngineError, match=r"leaving\.so cannot be loaded: loading it ends the process with status 3"):
        load_native_library(leaving)
    functions = ("int atb_model_abi() { std::abort(); }", "int atb_models() { return 0; }")
    calling = "#include <cstdlib>\n" + "".join(f'extern "C" {function}\n' for function in functions)
    with pytest.raises(EngineError, match=r"calling\.so cannot be loaded: loading it ends the process with signal 6"):
        load_native_library(built(tmp_path, calling, "calling"))


def test_a_library_that_is_cut_off_anywhere_is_refused_before_it_is_looked_into(tmp_path: Path, sample: Path) -> None:
    whole = sample.read_bytes()
    for kept in (len(whole) // 3, len(whole) - 1):
        cut = tmp_path / f"cut{kept}.so"
        cut.write_bytes(whole[:kept])
        with pytest.raises(EngineError, match=rf"cut{kept}\.so is truncated: it has {kept} of {len(whole)} bytes"):
            load_native_library(cut)
    (tmp_path / "short.so").write_bytes(whole[:40])
    with pytest.raises(EngineError, match=r"cannot load .*short\.so"):
        load_native_library(tmp_path / "short.so")


def test_what_is_no_path_of_a_library_is_told_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.so").symlink_to("loop.so")
    for path, message in (
        (None, "None is no path of a library"),
        (3, "3 is no path of a library"),
        ("a\0b.so", r"'a\\x00b\.so' is no path of a library"),
        ("", "the path of the library is empty"),
        (tmp_path, f"{tmp_path} is a folder"),
        ("gone.so", f"there is no library {tmp_path}/gone.so"),
        ("loop.so", r"loop\.so"),
    ):
        with pytest.raises(EngineError, match=message):
            load_native_library(path)  # type: ignore[arg-type]


def test_a_creator_or_a_list_that_is_missing_is_told(tmp_path: Path) -> None:
    abi = 'extern "C" int atb_model_abi() { return atb_core::kModelAbi; }\n'
    start = f"#include <atb_core/model.h>\n{abi}"
    nothing = built(tmp_path, f'{start}extern "C" const void* atb_models() {{ return nullptr; }}', "nothing")
    with pytest.raises(EngineError, match=r"nothing\.so: atb_models\(\) gives no list"):
        load_native_library(nothing)
    models = 'static const std::vector<atb_core::ModelRegistration> models = {{"odd_Null", CREATE}};\n'
    source = start + models + 'extern "C" const void* atb_models() { return &models; }'
    null = built(tmp_path, source.replace("CREATE", "[](const std::string&) { return nullptr; }"), "null")
    load_native_library(null)
    with pytest.raises(EngineError, match="the creator of the model 'odd_Null' gives none"):
        ModelTorch("odd_Null").set_param("{}")
    empty = built(tmp_path, source.replace("CREATE", "{}").replace("odd_Null", "odd_Empty"), "empty")
    with pytest.raises(EngineError, match=r"a model of .*empty\.so has no creator"):
        load_native_library(empty)


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
        (-2, r"was built with libstdc\+\+ with _GLIBCXX_USE_CXX11_ABI=0, this core with libstdc\+\+ with _GLIBCXX_USE"),
        (1002, r"was built with libstdc\+\+ with _GLIBCXX_DEBUG, this core with libstdc\+\+"),
        (2002, r"was built with libc\+\+, this core with libstdc\+\+"),
    ],
)
def test_a_library_of_another_header_version_is_refused(tmp_path: Path, version: int, message: str) -> None:
    functions = (f"int atb_model_abi() {{ return {version}; }}", "const void* atb_models() { return nullptr; }")
    source = "".join(f'extern "C" {function}\n' for function in functions)
    with pytest.raises(EngineError, match=message):
        load_native_library(built(tmp_path, source, f"other{version}"))


@pytest.mark.parametrize("flag", ["-D_GLIBCXX_DEBUG", "-D_GLIBCXX_USE_CXX11_ABI=0"])
def test_a_library_for_another_standard_library_is_told_by_what_the_compiler_was_told(
    tmp_path: Path, flag: str
) -> None:
    library = built(tmp_path, SAMPLE.read_text(encoding="utf-8"), "custom", flag)
    with pytest.raises(EngineError, match=rf"was built with libstdc\+\+ with {flag[2:]}, this core with libstdc\+\+"):
        load_native_library(library)
