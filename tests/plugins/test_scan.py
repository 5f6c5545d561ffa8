# SPDX-License-Identifier: Apache-2.0
"""The installed packages are read from files alone, and no damaged file stops the scan."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from site_directory import Site

from atb_core.plugins.once import forget
from atb_core.plugins.registry import ROUTERS
from atb_core.plugins.scan import Entry, Environment, installed

ENTRIES = f"[{ROUTERS}]\none = atb_one.router:Router\n[atb_core.api]\n1 = atb_one\n"


def test_a_plugin_is_described_by_its_metadata_and_nothing_is_imported(site: Site) -> None:
    info = site.metadata("atb-one", "1.2", ENTRIES, ["atb-core>=0.1"], "Serves one")
    (site.path / "atb_one").mkdir()
    (site.path / "atb_one" / "__init__.py").write_text("raise RuntimeError('imported')")
    one = site.one()
    assert (one.package, one.summary, one.path) == ("atb-one 1.2", "Serves one", info)
    assert one.entries == (Entry(ROUTERS, "one", "atb_one.router:Router"), Entry("atb_core.api", "1", "atb_one"))
    assert (one.requires, one.api_versions, one.problem, one.shadowed) == (("atb-core>=0.1",), (1,), None, ())
    assert "atb_one" not in sys.modules


def test_distributions_without_our_entry_points_are_left_out(site: Site) -> None:
    site.metadata("numpy", "2.0")
    site.metadata("tool", "2.0", "[console_scripts]\ntool = tool:main\n")
    site.metadata("mentions", "2.0", "[console_scripts]\natb_core.x = tool:main\n")
    site.metadata("atb-helpers", "2.0")
    found = site.scan()
    assert found.installed == ()
    assert (found.version("numpy"), found.version("absent")) == ("2.0", None)


def test_names_are_compared_as_pip_compares_them(site: Site) -> None:
    site.metadata("Atb-Odd.Name", "2.0", ENTRIES)
    found = site.scan()
    assert found.installed[0].key == "atb-odd-name"
    assert found.version("atb_odd-name") == "2.0"
    assert "ATB.odd.name" in found


DAMAGES = {
    "no METADATA": ("METADATA", None, "it has no METADATA"),
    "empty": ("METADATA", b"", "its METADATA has no Name and no Version"),
    "truncated": ("METADATA", b"Metadata-Version: 2.1\nName: atb-one\nVers", "its METADATA has no Version"),
    "no version": ("METADATA", b"Metadata-Version: 2.1\nName: atb-one\n", "its METADATA has no Version"),
    "no name": ("METADATA", b"Metadata-Version: 2.1\nVersion: 1.2\n", "its METADATA has no Name"),
    "headers in latin-1": ("METADATA", b"Name: atb-one\nVersion: 1.2\nAuthor: Ren\xe9\n", "not UTF-8: byte 0xe9"),
    "description in latin-1": ("METADATA", b"Name: atb-one\nVersion: 1.2\n\nRen\xe9\n", "not UTF-8: byte 0xe9"),
    "binary": ("METADATA", bytes(range(256)), "not UTF-8"),
    "entry points in latin-1": ("entry_points.txt", ENTRIES.encode() + b"# Ren\xe9\n", "its entry_points.txt is not"),
    "half a heading": ("entry_points.txt", b"[atb_core.routers\none = a:B\n", "heading without an end"),
    "half a line": ("entry_points.txt", ENTRIES.encode() + b"2 = \n", "no entry point: '2 ='"),
    "no heading": ("entry_points.txt", b"one = atb_core.a:B\n", "no entry point: 'one = atb_core.a:B'"),
    "a line for no module": ("entry_points.txt", ENTRIES.encode() + b"2 = a b\n", "no entry point: '2 = a b'"),
    "a name twice": ("entry_points.txt", ENTRIES.encode() + b"1 = atb_two\n", "two lines for 1 in atb_core.api"),
    "an API that is no number": (
        "entry_points.txt",
        ENTRIES.encode() + b"v2 = atb_one\n",
        "'v2' in atb_core.api is no",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metadata_is_a_problem_of_that_distribution_alone(site: Site, damage: str) -> None:
    file, content, problem = DAMAGES[damage]
    info = site.metadata("atb-one", "1.2", ENTRIES)
    site.metadata("atb-two", "3.0", "[atb_core.routers]\ntwo = atb_two:Router\n")
    (info / file).unlink()
    if content is not None:
        (info / file).write_bytes(content)
    one, two = site.scan().installed
    assert (one.distribution, one.version) == ("atb-one", "1.2")
    assert one.problem is not None and problem in one.problem
    assert one.fix == "pip install --force-reinstall --no-deps atb-one"
    assert (two.package, two.problem) == ("atb-two 3.0", None)


def test_a_damaged_line_leaves_the_others_so_that_the_family_can_be_named(site: Site) -> None:
    site.metadata("atb-one", "1.2", ENTRIES + "broken\n")
    assert [entry.name for entry in site.one().entries] == ["one", "1"]


def test_damage_in_the_groups_of_others_is_no_concern_of_ours(site: Site) -> None:
    site.metadata("atb-one", "1.2", "[console_scripts]\nbroken\n" + ENTRIES)
    assert site.one().problem is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_metadata_is_a_problem(site: Site) -> None:
    info = site.metadata("atb-one", "1.2", ENTRIES)
    (info / "METADATA").chmod(0)
    assert f"cannot open {info / 'METADATA'}: Permission denied" in (site.one().problem or "")


def test_a_directory_in_place_of_a_file_is_a_problem(site: Site) -> None:
    info = site.metadata("atb-one", "1.2", ENTRIES)
    (info / "METADATA").unlink()
    (info / "METADATA").mkdir()
    assert "METADATA is not a regular file" in (site.one().problem or "")


@pytest.mark.parametrize("name", ["METADATA", "entry_points.txt"])
def test_a_file_that_never_ends_or_never_begins_is_not_read(site: Site, name: str) -> None:
    for distribution, make in (("atb-pipe", os.mkfifo), ("atb-zero", lambda path: path.symlink_to("/dev/zero"))):
        path = site.metadata(distribution, "1.2", ENTRIES) / name
        path.unlink()
        make(path)
    pipe, zero = site.scan().installed
    assert f"{name} is not a regular file" in (pipe.problem or "")
    assert f"{name} is not a regular file" in (zero.problem or "")


def test_headers_of_many_spaces_are_read_in_linear_time(site: Site) -> None:
    info = site.metadata("atb-one", "1.2", ENTRIES)
    spaces = " " * 4_000_000
    (info / "METADATA").write_text(f"Name: atb-one\nVersion: 1.2\nSummary: a{spaces}b\nAuthor:{spaces}x\n")
    start = time.process_time()
    assert site.one().version == "1.2"
    assert time.process_time() - start < 5


def test_entry_points_of_any_package_that_are_not_utf_8_are_listed(site: Site) -> None:
    info = site.metadata("somebody-elses", "1.0", b"[console_scripts]\nx = y:z\xff\n")
    found = site.scan()
    assert found.installed == ()
    assert found.undecodable == [info / "entry_points.txt"]


def test_torch_is_imported_beside_entry_points_that_are_not_utf_8(site: Site) -> None:
    site.metadata("somebody-elses", "1.0", b"[console_scripts]\nx = y:z\xff\n")
    code = "from atb_core import ModelRunner; import os; print(os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'])"
    environment = {**os.environ, "PYTHONPATH": str(site.path)}
    environment.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "0\n"
    assert "somebody_elses-1.0.dist-info" in done.stderr


def test_a_source_tree_with_egg_info_is_found(site: Site) -> None:
    info = site.path / "atb_one.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Name: atb-one\nVersion: 0.5.dev1\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (info / "requires.txt").write_text("numpy>=1\n\n[fast]\nnumba\n")
    one = site.one()
    assert (one.package, one.problem) == ("atb-one 0.5.dev1", None)
    assert one.requires == ("numpy>=1", 'numba; extra == "fast"')


def test_an_egg_info_file_gives_a_version_and_no_plugin(site: Site) -> None:
    (site.path / "atb_one-0.7-py3.11.egg-info").write_text("Name: atb-one\nVersion: 0.7\n")
    (site.path / "old-0.8-py3.11.egg-info").write_text("Name: old\nVersion: 0.8\n")
    found = site.scan()
    assert found.installed == ()
    assert (found.version("old"), found.version("atb-one")) == ("0.8", "0.7")


def copies(tmp_path: Path) -> tuple[Site, Site]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return Site(tmp_path / "a"), Site(tmp_path / "b")


def test_of_two_copies_the_first_on_the_path_counts(tmp_path: Path) -> None:
    a, b = copies(tmp_path)
    first, second = a.metadata("atb-one", "1.0", ENTRIES), b.metadata("atb-one", "2.0", ENTRIES)
    (found,) = Environment([str(a.path), str(b.path)]).installed
    assert (found.version, found.path, found.shadowed) == ("1.0", first, (second,))
    (found,) = Environment([str(b.path), str(a.path)]).installed
    assert (found.version, found.shadowed) == ("2.0", (first,))


def test_stale_metadata_without_entry_points_that_hides_a_plugin_is_reported(tmp_path: Path) -> None:
    a, b = copies(tmp_path)
    stale = a.path / "atb_one.egg-info"
    stale.mkdir()
    (stale / "PKG-INFO").write_text("Name: atb-one\nVersion: 0.1\n")
    b.metadata("atb-one", "2.0", ENTRIES)
    (found,) = Environment([str(a.path), str(b.path)]).installed
    assert found.version == "2.0"
    assert f"{stale} comes first on sys.path" in (found.problem or "")
    assert f"Remove {stale}" in (found.fix or "")


def test_one_directory_twice_on_the_path_is_one_copy(site: Site) -> None:
    site.metadata("atb-one", "1.0", ENTRIES)
    (site.path.parent / "link").symlink_to(site.path)
    (found,) = Environment([str(site.path), str(site.path), str(site.path.parent / "link")]).installed
    assert found.shadowed == ()


def test_what_an_interrupted_pip_leaves_is_named_so(site: Site) -> None:
    site.metadata("atb-one", "2.0", ENTRIES)
    info = site.metadata("~tb-one", "1.0", ENTRIES)
    leftover, one = sorted(site.scan().installed, key=lambda found: found.key, reverse=True)
    assert (one.package, one.problem) == ("atb-one 2.0", None)
    assert "interrupted pip" in (leftover.problem or "") and leftover.fix == f"Remove {info}."


def test_places_that_are_no_directories_are_passed_over(site: Site, tmp_path: Path) -> None:
    site.metadata("atb-one", "1.0", ENTRIES)
    (tmp_path / "archive.zip").write_bytes(b"PK")
    paths = [str(tmp_path / "absent"), str(tmp_path / "archive.zip"), str(site.path)]
    assert len(Environment(paths).installed) == 1


def test_a_process_scans_once_until_told_to_forget(site: Site) -> None:
    before = len(installed())
    info = site.metadata("atb-one", "1.0", ENTRIES)
    assert len(installed()) == before
    forget()
    assert len(installed()) == before + 1
    site.remove(info)
    forget()
    assert len(installed()) == before


def test_listing_imports_neither_torch_nor_transformers_nor_a_plugin() -> None:
    code = (
        "import sys; from atb_core.plugins.registry import registry; found = registry().families(); "
        "assert not {'torch', 'transformers'} & set(sys.modules); "
        "assert not {f.objects['atb_core.routers'].split('.')[0] for f in found} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
