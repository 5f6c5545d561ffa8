# SPDX-License-Identifier: Apache-2.0
"""`atb dump` and `atb compare` find a wrong kernel, a wrong pass and a wrong layer at their own nodes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hook_plugins import Site, families, site
from safetensors.torch import load_file, save_file

from atb_cli.app import main
from atb_core.errors import AtbError, RequestError
from atb_testing import open_model, tiny_checkpoint
from atb_testing.compare import Comparison, compare
from atb_testing.dump import DumpError, dump

__all__ = ["families", "site"]
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
DOWN = "model.layers.0.mlp.down:Linear:0"

# An op whose kernel for the C++ engine forgets a part of its definition, put in the place of SwiGLU.
WRONG_KERNEL = """
from dataclasses import dataclass
from atb_core.engine.kernels import CpuKernel
from atb_core.graph.custom_ops import OpContribution
from atb_core.graph.network import record
from atb_core.graph.op import Op
from atb_core.graph.passes import Fusion, Pass
from atb_core.nn.functional import ActType, activation
from atb_core.plugins import hookimpl


@dataclass(frozen=True)
class Gate(Op, namespace="wrong_kernel"):
    input_dtypes = ("float",)

    def infer_shapes(self, *shapes):
        return ((*shapes[0][:-1], shapes[0][-1] // 2),)

    def reference(self, *inputs):
        import torch
        gate, up = inputs[0].float().chunk(2, -1)
        return ((torch.nn.functional.silu(gate) * up).to(inputs[0].dtype),)


def kernel(call):
    x, y = call.inputs[0].array(), call.outputs[0].array()
    half = x.shape[-1] // 2
    part = call.share(len(y))
    y[part] = x[part, :half] * x[part, half:]  # no SiLU


@hookimpl
def atb_ops():
    return [OpContribution(Gate, kernels={"cpu": CpuKernel.from_python(kernel)})]


@hookimpl
def atb_fusion_passes():
    def pattern(x):
        return activation(x, ActType.SWIGLU)

    def replacement(x):
        return record(Gate(), (x,))[0]

    return [Pass("Gate", Fusion(pattern, replacement))]
"""
WRONG_PASS = """
from atb_core.graph.passes import Fusion, Pass
from atb_core.nn.functional import ActType, activation, neg
from atb_core.plugins import hookimpl


@hookimpl
def atb_fusion_passes():
    def pattern(x):
        return activation(x, ActType.SWIGLU)

    def replacement(x):
        return neg(activation(x, ActType.SWIGLU))

    return [Pass("Negate", Fusion(pattern, replacement, lambda match: True))]
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random model of the type qwen2 in float32."""
    return tiny_checkpoint(tmp_path_factory.mktemp("model"), "qwen2")


def dumped(checkpoint: Path, directory: Path, backend: str = "cpu", **options: Any) -> Path:
    """Dumps a run of all tokens; options of the configuration are those that `dump` does not have."""
    own = {name: options.pop(name) for name in ("patterns", "leave_out", "decoded") if name in options}
    dump(open_model(checkpoint, backend, **options), TOKENS, directory, **own)
    return directory


def both(first: Path, second: Path, **options: Any) -> Comparison:
    result = compare(first, second, **options)
    assert result.compared
    return result


def test_runs_of_one_engine_are_equal(checkpoint: Path, tmp_path: Path) -> None:
    result = both(dumped(checkpoint, tmp_path / "a"), dumped(checkpoint, tmp_path / "b"), tolerance=0)
    assert result.first is None
    assert result.equal == result.compared
    assert result.alone == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"backend": "reference"}, {"backend": "cpu"}),
        ({"backend": "reference"}, {"backend": "cpu", "torch_dtype": "bfloat16"}),
        ({"leave_out": ["All"]}, {}),
    ],
    ids=["backends", "dtypes", "fused and unfused"],
)
def test_rounding_is_no_difference(
    checkpoint: Path, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    result = both(dumped(checkpoint, tmp_path / "a", **first), dumped(checkpoint, tmp_path / "b", **second))
    assert result.first is None, str(result.first)


def test_a_run_with_fused_operations_of_ascend_is_dumped(tmp_path: Path) -> None:
    pytest.importorskip("atb_sim")
    model = tiny_checkpoint(tmp_path / "model", "qwen2", torch.float16)
    result = both(dumped(model, tmp_path / "a"), dumped(model, tmp_path / "b", "atb-sim"))
    assert result.first is None, str(result.first)
    assert result.compared > 50


def test_a_model_of_several_processes_is_compared_with_one_of_one(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("atb_parallel")
    for name, options in (("one", []), ("two", ["--tp", "2"])):
        arguments = ["--token-ids", "3,1,4,1,5", "-o", str(tmp_path / name), *options]
        assert main(["dump", str(checkpoint), *arguments]) == 0
    for first, second in (("one", "two"), ("two", "one")):
        result = compare(tmp_path / first, tmp_path / second)
        assert result.first is None, str(result.first)
        assert result.compared > 30
    # The sum of both parts, not a part, is what one process computes in one product.
    values = json.loads((tmp_path / "one" / "dump.json").read_text())["variants"]["prefill"]
    assert "model.layers.0.mlp.down:Linear:0" in {value["key"] for value in values}
    file = tmp_path / "two" / "step-0000-prefill.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down:atb_parallel.AllReduce:0"] += 0.5
    save_file(tensors, file)
    found = compare(tmp_path / "one", tmp_path / "two").first
    assert found is not None
    assert found.value["key"] == "model.layers.1.mlp.down:Linear:0"


def test_what_nothing_reads_is_not_dumped(checkpoint: Path, tmp_path: Path) -> None:
    directory = dumped(checkpoint, tmp_path / "a")
    values = json.loads((directory / "dump.json").read_text())["variants"]["prefill"]
    unread = {value["key"] for value in values if not value["kept"]}
    assert "model.layers.0.post_attention_layernorm:AddRmsNorm:1" in unread
    assert not unread & load_file(directory / "step-0000-prefill.safetensors").keys()


def test_a_dump_that_fails_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    for options in ({"patterns": ["nowhere"]}, {"leave_out": ["NoPass"]}):
        with pytest.raises(AtbError):
            dumped(checkpoint, tmp_path / "a", **options)
        assert not (tmp_path / "a").exists()
    with pytest.raises(RequestError, match="has 8 tokens, too few for a prefill and 8 steps"):
        dumped(checkpoint, tmp_path / "a", decoded=8)
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be made: Not a directory"):
        dumped(checkpoint, tmp_path / "file" / "a")


def test_a_wrong_kernel_is_found_at_its_node(site: Site, families: None, checkpoint: Path, tmp_path: Path) -> None:
    site.install("wrong-kernel", WRONG_KERNEL)
    result = both(dumped(checkpoint, tmp_path / "a", "reference"), dumped(checkpoint, tmp_path / "b", "cpu"))
    assert result.first is not None
    assert (result.first.value["op"], result.first.value["module"]) == ("wrong_kernel.Gate", "model.layers.0.mlp")
    assert (result.first.step, result.first.variant) == (0, "prefill")
    assert "the last value that agrees is model.layers.0.mlp.gate_up:Linear:0" in str(result.first)


def test_a_wrong_pass_is_found_with_the_node_that_it_made(
    site: Site, families: None, checkpoint: Path, tmp_path: Path
) -> None:
    site.install("wrong-pass", WRONG_PASS)
    right = dumped(checkpoint, tmp_path / "a", leave_out=["Negate"])
    result = both(right, dumped(checkpoint, tmp_path / "b"))
    assert result.first is not None
    assert result.first.value["module"] == "model.layers.0.mlp.down"
    assert [key.rpartition(":")[0] for key in result.first.between] == ["model.layers.0.mlp:Elewise"]


def test_a_wrong_layer_is_found_in_the_layer(checkpoint: Path, tmp_path: Path) -> None:
    right = dumped(checkpoint, tmp_path / "a", decoded=2)
    model = open_model(checkpoint, "cpu")
    model.model.layers[1].post_attention_layernorm.eps = 0.5
    dump(model, TOKENS, tmp_path / "b", decoded=2)
    result = both(right, tmp_path / "b")
    assert result.first is not None
    assert result.first.value["module"] == "model.layers.1.post_attention_layernorm"


def test_patterns_choose_modules_with_all_below_them(checkpoint: Path, tmp_path: Path) -> None:
    directory = dumped(checkpoint, tmp_path / "a", patterns=["model.layers.*.self_attn"])
    values = load_file(directory / "step-0000-prefill.safetensors")
    modules = {key.partition(":")[0] for key in values}
    assert {"model.layers.0.self_attn.qkv", "model.layers.1.self_attn"} <= modules
    assert all(".self_attn" in module for module in modules)


def test_errors_of_nodes_that_are_not_dumped_are_not_blamed_on_later_ones(checkpoint: Path, tmp_path: Path) -> None:
    only = {"patterns": ["model.layers.1.mlp"]}
    first = dumped(checkpoint, tmp_path / "a", "reference", **only)
    assert both(first, dumped(checkpoint, tmp_path / "b", "cpu", torch_dtype="bfloat16", **only)).first is None


def test_what_is_not_a_number_in_one_run_only_parts(checkpoint: Path, tmp_path: Path) -> None:
    first, second = dumped(checkpoint, tmp_path / "a"), dumped(checkpoint, tmp_path / "b")
    file = second / "step-0000-prefill.safetensors"
    values = load_file(file)
    values["model.layers.0.mlp.down:Linear:0"][2, 3] = float("nan")
    save_file(values, file)
    result = compare(first, second)
    assert result.first is not None
    assert (result.first.value["key"], result.first.errors.row) == ("model.layers.0.mlp.down:Linear:0", 2)


def test_a_pattern_without_nodes_is_refused_with_modules_that_exist(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no node is in a module 'model.layer.0'") as error:
        dumped(checkpoint, tmp_path / "a", patterns=["model.layer.0"])
    assert "model.layers.0" in str(error.value.hint)


def test_a_directory_that_is_not_empty_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(RequestError, match="is not empty"):
        dumped(checkpoint, tmp_path)


VALUE = {"key": "a:B:0", "op": "B", "module": "a", "source": "", "inputs": [], "leaves": []}


def _changed(directory: Path, **changes: Any) -> None:
    index = json.loads((directory / "dump.json").read_text())
    (directory / "dump.json").write_text(json.dumps({**index, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "a dump of schema 99"),
        ({"tokens": [1, 2]}, "are of different tokens"),
        ({"variants": []}, "is damaged"),
        ({"steps": [{"file": "../../etc/passwd", "variant": "prefill", "tokens": 1}]}, "a step's file is"),
        ({"steps": [{"file": "", "variant": "prefill", "tokens": 1}]}, "a step's file is ''"),
        ({"steps": [{"file": "x", "variant": [], "tokens": 1}]}, "a step has no variant"),
        ({"steps": [{"file": "x", "variant": "prefill", "tokens": True}]}, "a step has no number of tokens"),
        ({"tokens": [{}]}, "a token is no number"),
        ({"variants": {"prefill": [{"key": 1}], "decode": []}}, "not described as one"),
        ({"variants": {"prefill": [VALUE, VALUE], "decode": []}}, "two values have the same key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_dumps_are_refused(checkpoint: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    first = dumped(checkpoint, tmp_path / "a")
    second = dumped(checkpoint, tmp_path / "b")
    _changed(second, **changes)
    with pytest.raises(DumpError, match=message):
        compare(first, second)


def test_a_damaged_file_of_values_is_named(checkpoint: Path, tmp_path: Path) -> None:
    first, second = dumped(checkpoint, tmp_path / "a"), dumped(checkpoint, tmp_path / "b")
    (second / "step-0000-prefill.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(DumpError, match=r"step-0000-prefill\.safetensors cannot be read"):
        compare(first, second)
    (second / "step-0000-prefill.safetensors").unlink()
    os.mkfifo(second / "step-0000-prefill.safetensors")
    with pytest.raises(DumpError, match="is not a regular file"):
        compare(first, second)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x.to(torch.complex64), "a tensor of torch.complex64"),
        (lambda x: x.to(torch.float8_e4m3fn), "the first to part"),
        (lambda x: x / 0, "relative error inf"),
    ],
    ids=["complex", "float8", "infinite"],
)
def test_values_of_any_type_are_compared_or_refused(
    checkpoint: Path, tmp_path: Path, change: Any, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = dumped(checkpoint, tmp_path / "a"), dumped(checkpoint, tmp_path / "b")
    file = second / "step-0000-prefill.safetensors"
    values = load_file(file)
    values[DOWN] = change(values[DOWN])
    save_file(values, file)
    assert main(["compare", str(first), str(second), "--json"]) == 1
    out, err = capsys.readouterr()
    assert text in err
    for constant in ("Infinity", "NaN"):
        assert constant not in out


def test_the_commands_write_and_compare(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, options in (("a", ["--backend", "reference"]), ("b", ["--leave-out", "All"])):
        arguments = ["--token-ids", "3,1,4,1", "-o", str(tmp_path / name), *options]
        assert main(["dump", str(checkpoint), *arguments]) == 0
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out, _ = capsys.readouterr()
    assert "values compared" in out
    assert main(["compare", str(tmp_path / "a"), str(checkpoint)]) != 0
    assert "has no dump.json" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--tolerance", "nan"]) != 0
    assert "nan is not finite" in capsys.readouterr().err
    for ids in ("3,-1", f"{1 << 70},1", "3;4", ""):
        assert main(["dump", str(checkpoint), "-o", str(tmp_path / "c"), "--token-ids", ids]) != 0
        assert "write numbers with commas" in capsys.readouterr().err


def test_the_command_fails_and_names_the_node(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = dumped(checkpoint, tmp_path / "a")
    second = dumped(checkpoint, tmp_path / "b")
    file = second / "step-0001-decode.safetensors"
    values = load_file(file)
    values["lm_head:Linear:0"] += torch.full_like(values["lm_head:Linear:0"], 0.5)
    save_file(values, file)
    assert main(["compare", str(first), str(second)]) == 1
    assert "Linear in lm_head at" in capsys.readouterr().err
