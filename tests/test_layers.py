"""The floors of docs/architecture.md are those of the code, and importing anything starts no MPI."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mpisgd"
TABLE_ROW = re.compile(r"^\| (\d) \| (.+?) \| (.+) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """An imported name, in full ("mpisgd.svm", "numpy"), and whether importing the module imports it too."""

    name: str
    at_once: bool


def modules() -> dict[str, Path]:
    """Return every module of the package but the two that Python names, as "svm" or "data.prepare"."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__"))
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(paths)}


def page() -> list[tuple[int, str]]:
    """Return (floor, module) from the page's table, such that a module may import those further on."""
    named = []
    for floor, cell, what in TABLE_ROW.findall((ROOT / "docs" / "architecture.md").read_text()):
        names = re.findall(r"`(.+?)`", cell)
        if names == ["data/"]:  # its modules are named in the order of dependency, the lowest first
            names = [f"data.{name}" for name in reversed(re.findall(r"`(.+?)`", what))]
        named += [(int(floor), name) for name in names]
    return named


def imports_of(path: Path) -> set[Import]:
    return set(_imports(ast.parse(path.read_text()), at_once=True))


def _imports(node: ast.AST, *, at_once: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, at_once) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "the package imports by full names"
        assert node.module is not None
        # from mpisgd.data import prepare names a module; from mpisgd.svm import Loss something in one
        yield from (
            Import(f"{node.module}.{alias.name}" if _is_module(node.module, alias.name) else node.module, at_once)
            for alias in node.names
        )
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        inside = True
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, at_once=at_once and not inside)


def _is_module(package: str, name: str) -> bool:
    place = PACKAGE.parent.joinpath(*package.split(".")) / name
    return place.with_suffix(".py").exists() or place.is_dir()


def own_imports_of(module: str) -> set[str]:
    """Return the modules of the package that this one imports, wherever in its text."""
    names = {found.name for found in imports_of(modules()[module])}
    return {name.removeprefix("mpisgd.") for name in names if name.startswith("mpisgd.")}


def imports_package(imported: Import, package: str) -> bool:
    return imported.name.split(".")[0] == package


def test_the_reader_sees_imports_inside_functions_and_those_for_types() -> None:
    channel = Import("mpisgd.channel", at_once=False)
    assert channel in imports_of(modules()["main"])
    assert Import("mpisgd.errors", at_once=True) in imports_of(modules()["main"])
    assert "compiled_loops" in own_imports_of("sparse_rows")  # from mpisgd import compiled_loops


def test_page_and_package_name_the_same_modules_once() -> None:
    named = [name for _, name in page()]
    assert sorted(named) == sorted(modules())


def test_the_page_goes_from_the_top_floor_down() -> None:
    floors = [floor for floor, _ in page()]
    assert floors == sorted(floors, reverse=True)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_stands_below_it(module: str) -> None:
    named = [name for _, name in page()]
    below = set(named[named.index(module) + 1 :])
    assert own_imports_of(module) - below == set()


def test_the_roles_do_not_know_each_other() -> None:
    assert "rank_worker" not in own_imports_of("rank0_server")
    assert "rank0_server" not in own_imports_of("rank_worker")


@pytest.mark.parametrize("module", modules())
def test_mpi_is_imported_by_three_modules_alone_and_never_at_once(module: str) -> None:
    mpi = [found for found in imports_of(modules()[module]) if imports_package(found, "mpi4py")]
    assert bool(mpi) == (module in ("main", "channel", "shared_memory"))
    assert not any(found.at_once for found in mpi)


@pytest.mark.parametrize("module", [name for floor, name in page() if floor <= 1])
def test_the_two_lowest_floors_know_neither_files_nor_mpi(module: str) -> None:
    upper = {name for floor, name in page() if floor >= 2}
    assert own_imports_of(module) & upper == set()
    for package in ("h5py", "mpi4py"):
        assert not any(imports_package(found, package) for found in imports_of(modules()[module]))


def test_importing_every_module_starts_no_mpi() -> None:
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module('mpisgd.' + name)\n"
        "sys.exit('mpi4py.MPI' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, *modules(), "__main__"], check=True)


def test_a_worker_starts_without_what_only_rank_0_needs() -> None:
    program = (
        "import sys, mpisgd.main, mpisgd.rank_worker\n"
        "found = {'scipy', 'h5py', 'msgspec', 'rich', 'simdjson'} & set(sys.modules)\n"
        "sys.exit(', '.join(found) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
