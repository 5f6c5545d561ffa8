# SPDX-License-Identifier: Apache-2.0
"""Files of packed weights: written once, mapped from then on, and refused if anything about them is not right."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.engine.base import Engine
from atb_core.engine.cpu import CpuBackend
from atb_core.engine.extension import load_extension
from atb_core.errors import EngineError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.models.runtime.packed_weights import PackedWeights, packed_folder, stored_files
from atb_core.nn.functional import gather, linear

N, K = 70, 96


class Case:
    """A checkpoint with a matrix and a vector, and a network that uses them: rows, a product and a sum."""

    def __init__(self, directory: Path) -> None:
        self.file, self.folder = directory / "model.safetensors", directory / "packed"
        self.options: Any = None
        self.quantization: str | None = None
        self.isa: str | None = None
        save_file({"matrix": torch.randn(N, K).bfloat16(), "vector": torch.randn(N).bfloat16()}, self.file)

    def open(self, sources: Sequence[object] = ()) -> tuple[list[np.ndarray[Any, Any]], bool]:
        """Returns what the network computes, and whether its weights were mapped."""
        engine = self.engine()
        checkpoint: Any = SimpleNamespace(path=self.file, config=lambda: {"model_type": "none"})
        with SafetensorsLoader(self.file, [self.file]) as loader:
            layout = engine.store.backend.packed_layout
            packed = PackedWeights(self.folder, layout, checkpoint, self.options, sources)
            mapped = packed.load(engine.store, loader)
            if not mapped:
                self.set_weights(engine, loader)
                packed.save(engine.store, loader)
        assert bool(engine.store.handle.mapped_bytes) == mapped
        results = engine.forward({"ids": np.arange(N), "x": np.ones((3, K), numpy_bf16())})
        return [results[name].tobytes() for name in ("rows", "y")], mapped

    def engine(self) -> Any:
        with Network("case") as net:
            matrix = Tensor("matrix", (N, K), DataType.BF16)
            net.mark_output(gather(matrix, 0, Tensor("ids", (Dim("rows"),), DataType.INT64)), "rows")
            vector = Tensor("vector", (N,), DataType.BF16)
            product = linear(Tensor("x", (Dim("tokens"), K), DataType.BF16), matrix, None, False, True)
            net.mark_output(product + vector, "y")
        net.weights_keys |= {"matrix", "vector"}
        return CpuBackend(isa=self.isa).build(net)

    def set_weights(self, engine: Engine, loader: SafetensorsLoader) -> None:
        engine.set_weights({"vector": loader.get("vector")})
        if self.quantization is None:
            engine.set_weights({"matrix": loader.get("matrix")})
        else:
            engine.quantize_weight("matrix", loader.get("matrix"), self.quantization)

    @property
    def packed(self) -> Path:
        (path,) = stored_files(self.folder)
        return path


def numpy_bf16() -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("isa", load_extension().supported_isas())
def test_mapped_weights_give_the_same_bits(case: Case, isa: str, quantization: str | None) -> None:
    case.isa, case.quantization = isa, quantization
    plain, mapped = case.open()
    assert not mapped
    assert case.open() == (plain, True)


def test_a_file_is_shared_by_instruction_sets_with_one_layout_alone(case: Case) -> None:
    isas = load_extension().supported_isas()
    layouts = {isa: CpuBackend(isa=isa).packed_layout for isa in isas}
    opened = []
    for case.isa in isas:
        opened.append(case.open()[1])
    assert opened.count(False) == len(set(layouts.values())) == len(stored_files(case.folder))


def test_the_mapping_is_shared_and_read_only(case: Case) -> None:
    case.open()
    assert (case.folder.stat().st_mode & 0o777, case.packed.stat().st_mode & 0o777) == (0o700, 0o600)
    engine = case.engine()
    descriptor = os.open(case.packed, os.O_RDONLY)
    key = case.packed.read_bytes()[40:104].decode()
    assert engine.store.load(descriptor, case.packed.stat().st_size, key)
    os.close(descriptor)
    (line,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(case.packed) in line]
    assert line.split()[1] == "r--s"
    # A file may be removed, and a mapped weight set again, while an engine has them.
    before = engine.forward({"ids": np.arange(N), "x": np.ones((3, K), numpy_bf16())})
    shutil.rmtree(case.folder)
    engine.set_weights({"vector": np.zeros(N, numpy_bf16())})
    after = engine.forward({"ids": np.arange(N), "x": np.ones((3, K), numpy_bf16())})
    assert (before["rows"] == after["rows"]).all()
    assert not (before["y"] == after["y"]).all()


def test_each_choice_of_options_has_a_file_of_its_own(case: Case) -> None:
    for case.options in (["bfloat16", {}], ["bfloat16", {"quantization": "int8"}]):
        assert not case.open()[1]
    assert len(stored_files(case.folder)) == 2


def test_changed_weights_are_not_served_from_the_old_file(case: Case) -> None:
    before, _ = case.open()
    status, data = case.file.stat(), bytearray(case.file.read_bytes())
    data[-64:] = bytes(64)
    case.file.write_bytes(data)
    os.utime(case.file, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = case.file.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (status.st_ino, status.st_size, status.st_mtime_ns)
    after, mapped = case.open()
    assert (after != before, mapped) == (True, False)
    assert case.open() == (after, True)
    assert len(stored_files(case.folder)) == 1


def test_a_description_beside_the_weights_that_changes_packs_anew(case: Case) -> None:
    description = case.file.with_name("quant_model_description.json")
    plain, _ = case.open()
    for text in ("{}", '{"matrix": "W8A8"}'):
        description.write_text(text)
        assert case.open() == (plain, False)
        assert case.open() == (plain, True)


def test_weights_that_change_while_they_are_read_are_not_kept(
    case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_weights = case.set_weights

    def change(engine: Engine, loader: SafetensorsLoader) -> None:
        set_weights(engine, loader)
        os.utime(case.file)

    monkeypatch.setattr(case, "set_weights", change)
    case.open()
    assert f"packed weights are not kept: it is not known that {case.file} did not change" in caplog.text
    assert not case.folder.exists()


def test_other_code_packs_anew(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "family_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("class Family: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import family_of_a_test  # type: ignore[import-not-found]

    sources = [family_of_a_test.Family()]
    plain, _ = case.open(sources)
    assert case.open(sources) == (plain, True)
    (package / "modeling.py").write_text("scale = 2\n")
    assert case.open(sources) == (plain, False)
    assert case.open(sources) == (plain, True)
    assert len(stored_files(case.folder)) == 1


def test_another_network_does_not_get_the_weights(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.open()
    monkeypatch.setattr(f"{__name__}.K", 64)
    engine = case.engine()
    descriptor = os.open(case.packed, os.O_RDONLY)
    with pytest.raises(EngineError, match="its weight 'matrix' is not the one that the model has"):
        engine.store.load(descriptor, case.packed.stat().st_size, case.packed.read_bytes()[40:104].decode())
    os.close(descriptor)
    assert engine.store.nbytes == 0


def flip(file: Path, offset: int, bits: int = 64) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        (value,) = opened.read(1)
        opened.seek(offset)
        opened.write(bytes([value ^ bits]))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "has 4096 bytes and was written with": lambda file: os.truncate(file, 4096),
    "is too short": lambda file: os.truncate(file, 20),
    "cannot be mapped": lambda file: os.truncate(file, 0),
    "is no file of packed weights": lambda file: file.write_bytes(b"{}" * 5000),
    "table is damaged": lambda file: flip(file, 110),
    "others may write": lambda file: file.chmod(0o666),
    "symbolic link": lambda file: file.symlink_to(file.rename(file.with_suffix(".other"))),
    "it is no file": lambda file: (file.unlink(), file.mkdir(0o700)),
}


@pytest.mark.parametrize("cause", DAMAGE)
def test_a_file_that_is_not_as_it_was_written_is_refused(
    case: Case, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain, _ = case.open()
    file = case.packed
    DAMAGE[cause](file)
    assert case.open() == (plain, False)
    assert f"{file} is not used" in caplog.text
    assert cause in caplog.text
    if not file.is_dir():
        assert case.open() == (plain, True)


def checksum(header_and_table: bytes) -> bytes:
    """FNV-1a over header and table, with zeros for the checksum itself."""
    state = 0xCBF29CE484222325
    for value in header_and_table[:32] + bytes(8) + header_and_table[40:]:
        state = (state ^ value) * 0x100000001B3 % (1 << 64)
    return state.to_bytes(8, "little")


@pytest.mark.parametrize("forged", [False, True], ids=["damaged", "with a checksum that fits"])
def test_no_damage_of_header_and_table_is_a_crash(case: Case, forged: bool) -> None:
    case.open()
    intact, engine = case.packed.read_bytes(), case.engine()
    end = 104 + int.from_bytes(intact[24:32], "little")
    assert intact[32:40] == checksum(intact[:end])
    with case.packed.open("r+b", buffering=0) as file:
        for offset in range(end):
            head = bytearray(intact[:end])
            head[offset] ^= 1 << offset % 8
            if forged:
                head[32:40] = checksum(head)
            os.pwrite(file.fileno(), head, 0)
            try:
                loaded = engine.store.load(file.fileno(), len(intact), intact[40:104].decode())
            except EngineError:
                continue
            # What may pass is another place of data in the file.
            assert not loaded or forged
            if loaded:
                engine.forward({"ids": np.arange(N), "x": np.ones((3, K), numpy_bf16())})


def test_a_folder_that_others_may_write_to_is_not_used(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.folder.mkdir()
    case.folder.chmod(0o777)
    assert not case.open()[1]
    assert f"packed weights are not kept in {case.folder}: others may write to it" in caplog.text
    assert not [*case.folder.iterdir()]


@pytest.fixture
def small_files(case: Case) -> Iterator[None]:
    """Lets no file of this process grow beyond 10,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_file_that_cannot_be_written_is_a_warning(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    assert not case.open()[1]
    assert "MB of packed weights to" in caplog.text
    assert "it cannot be written: File too large" in caplog.text
    assert not [*case.folder.iterdir()]


def test_what_a_killed_process_left_is_removed(case: Case) -> None:
    case.folder.mkdir(0o700)
    old, new = case.folder / "a.1.partial", case.folder / "b.2.partial"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    case.open()
    assert new in stored_files(case.folder)
    assert not old.exists()


def test_the_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packed_folder(True) == tmp_path / "atb" / "packed"
    assert packed_folder(False) is None
    assert packed_folder("~/x") == Path("~/x").expanduser()
