"""The house: who may import whom, and what a module may be."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import grouper
from grouper.graph import find_cycle

ROOT: Final = Path(grouper.__file__).parent

LAYERS: Final = (
    {"errors", "exit", "events"},
    {"signals", "runner"},
    {"graph", "backoff", "restart"},
    {"process", "member", "snapshot", "state"},
    {"groups"},
    {"main", "narrating"},
    {"metrics"},
    {"work"},
    {"runners"},
    {"readiness"},
    {"coordination"},
    {"cli", "__main__"},
    {"testing"},
)
"""Modules and packages, line by line: each imports from its own line and from those above."""

ALLOWED: Final = {"trio", "attrs"}
EXTRAS: Final = {
    "metrics": {"prometheus_client"},
    "runners": {"hypercorn"},
    "readiness": {"httpx2"},
    "coordination": {"httpx2", "inotify_simple"},
    "cli": {"rich"},
    "snapshot": {"rich"},
    "testing": {"pytest", "pytest_trio"},
}
"""What a package may import beside the core's dependencies."""


def modules() -> dict[str, Path]:
    """Every module of the package but its face, by its name within it: `groups.engine`; a package is `groups.__init__`."""
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
    del found["__init__"]
    return found


MODULES: Final = modules()
each_module = pytest.mark.parametrize("module", MODULES)


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def own_imports(module: str) -> Iterator[str]:
    """The modules of the package that a module imports anywhere in it."""
    package = module.split(".")[:-1]
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "grouper":
                    yield as_module(alias.name.split(".")[1:])
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif node.module is not None and node.module.split(".")[0] == "grouper":
                base = []
            else:
                continue
            parts = [*base, *(node.module or "").split(".")] if node.level else (node.module or "").split(".")[1:]
            parts = [part for part in parts if part]
            for alias in node.names:
                longer = as_module([*parts, alias.name])
                yield longer if longer in MODULES else as_module(parts)


def as_module(parts: list[str]) -> str:
    """The name under which `MODULES` has it; "" for the face."""
    name = ".".join(parts)
    return f"{name}.__init__" if f"{name}.__init__" in MODULES else name


def outside_imports(module: str) -> set[str]:
    """The distributions, or modules of the standard library, that a module imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found - {"grouper"}


def line_of(module: str) -> int:
    top = module.split(".", maxsplit=1)[0]
    return next(number for number, names in enumerate(LAYERS) if top in names)


@each_module
def test_every_module_has_its_line(module: str) -> None:
    """A new module is a decision about the house: it belongs in the table."""
    assert any(module.split(".", maxsplit=1)[0] in names for names in LAYERS)


@each_module
def test_module_imports_from_its_own_line_and_those_above(module: str) -> None:
    """Also under TYPE_CHECKING and inside functions; the face, which knows all, is imported by nobody."""
    wrong = [other for other in own_imports(module) if other not in MODULES or line_of(other) > line_of(module)]
    assert wrong == []


def test_no_import_circle() -> None:
    """Not even among the modules of one line."""
    imports = {module: sorted(set(own_imports(module)) & set(MODULES)) for module in MODULES}
    assert find_cycle(imports) == []


def test_imports_are_seen() -> None:
    """The walk finds relative imports of either kind, at any depth: else the tests above would show nothing."""
    assert {"errors", "groups.inbox", "process"} <= set(own_imports("groups.engine"))
    assert "trio" in outside_imports("groups.engine")


@each_module
def test_module_that_uses_lowlevel_says_why(module: str) -> None:
    """Its head mentions `trio.lowlevel`."""
    tree = parsed(module)
    uses = any(
        (isinstance(node, ast.Attribute) and node.attr == "lowlevel")
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trio.lowlevel"))
        for node in ast.walk(tree)
    )
    assert not uses or "`trio.lowlevel`" in (ast.get_docstring(tree) or "")


@each_module
def test_module_is_short(module: str) -> None:
    """400 lines at most."""
    assert len(MODULES[module].read_text().splitlines()) <= 400


def test_engine_is_one_page_more_or_less() -> None:
    """The one loop, under 300 lines."""
    assert len(MODULES["groups.engine"].read_text().splitlines()) < 300


@each_module
def test_module_has_a_head(module: str) -> None:
    """Every module that is not empty says what it is for."""
    tree = parsed(module)
    assert not tree.body or ast.get_docstring(tree)


@each_module
def test_core_needs_trio_and_attrs_alone(module: str) -> None:
    """Beside the standard library; a package for extras may import its own."""
    allowed = sys.stdlib_module_names | ALLOWED | EXTRAS.get(module.split(".", maxsplit=1)[0], set())
    assert outside_imports(module) <= allowed


LINUX_ONLY: Final = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog"}


@each_module
def test_module_can_be_imported_anywhere(module: str) -> None:
    """No module of the standard library that only Unix has is imported at module level."""
    found = {alias.name for node in parsed(module).body if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in parsed(module).body if isinstance(node, ast.ImportFrom) and not node.level}
    assert not found & LINUX_ONLY
