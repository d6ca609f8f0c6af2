"""The names that `grouper` and `grouper.coordination` give: one list in three forms, imported when first used."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import grouper
import grouper.coordination

FACES = {face.__name__: face for face in (grouper, grouper.coordination)}
each_face = pytest.mark.parametrize("face", FACES)
each_name = pytest.mark.parametrize(("face", "name"), [(name, each) for name, face in FACES.items() for each in face.__all__])


def places(face: str) -> dict[str, str]:
    """Each name, and the module that it is imported from."""
    return {name: f"{face}.{place}" for place, names in FACES[face]._PLACES.items() for name in names}


def typed_imports(face: str) -> dict[str, str]:
    """What a type checker sees: the name and the module of each import under `if TYPE_CHECKING`."""
    source = ast.parse(Path(inspect.getfile(FACES[face])).read_text())
    (block,) = (node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "only `import X as X` is a re-export"
            assert alias.name not in found
            found[alias.name] = f"{face}.{node.module}"
    return found


def printed(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@each_face
def test_all_is_what_has_a_place(face: str) -> None:
    """`__all__` lists each name of the table once, sorted."""
    assert FACES[face].__all__ == sorted(places(face))


@each_face
def test_type_checkers_see_the_same(face: str) -> None:
    """The imports under TYPE_CHECKING are those that `__getattr__` does."""
    assert typed_imports(face) == places(face)


@each_face
def test_dir_lists_all(face: str) -> None:
    """For those who look around in an interpreter; what is not there is an AttributeError that names it."""
    assert set(FACES[face].__all__) <= set(dir(FACES[face]))
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'nothing'"):
        getattr(FACES[face], "nothing")  # noqa: B009 (an attribute that a type checker would miss)


@each_name
def test_name_is_its_modules(face: str, name: str) -> None:
    """Each name is the object of its place, and public there."""
    module = importlib.import_module(places(face)[name])
    assert getattr(FACES[face], name) is getattr(module, name)
    assert name in module.__all__


@each_name
def test_name_has_a_docstring(face: str, name: str) -> None:
    """What is public says what it is."""
    assert (inspect.getdoc(getattr(FACES[face], name)) or "").strip()


@each_face
def test_import_alone_is_light(face: str) -> None:
    """It imports neither trio nor attrs, nor any module of its own."""
    loaded = printed(f"import {face}, sys; print(*sys.modules)").split()
    assert [name for name in loaded if name.split(".")[0] in ("trio", "attr", "attrs") or name.startswith(f"{face}.")] == []


@each_face
@pytest.mark.parametrize("name", ["hypercorn", "h11", "h2", "httpx2", "inotify_simple", "rich"])
def test_no_name_needs_an_extra(name: str, face: str) -> None:
    """All names can be had where the core's dependencies alone are installed."""
    assert printed(f"import sys; sys.modules[{name!r}] = None; from {face} import *; print('here')") == "here"


def test_name_is_imported_once() -> None:
    """After the first use a name is an ordinary attribute."""
    assert (
        printed("import grouper; grouper.Ordered; print('Ordered' in vars(grouper), 'Parallel' in vars(grouper))") == "True False"
    )


def test_star_import_gives_all() -> None:
    """`from grouper import *` is `__all__`."""
    assert printed("import grouper; names = grouper.__all__; from grouper import *; print(set(names) <= set(globals()))") == "True"


def test_unknown_name_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match=r"^module 'grouper' has no attribute 'Ordred'"):
        getattr(grouper, "Ordred")  # noqa: B009 (a type checker would refuse the attribute)


def test_unknown_name_cannot_be_imported() -> None:
    """`from grouper import X` says so too."""
    with pytest.raises(ImportError, match="cannot import name 'Ordred'"):
        exec("from grouper import Ordred")


def test_dir_lists_all_names() -> None:
    """Also those that were not imported yet, and the version."""
    names = printed("import grouper; print(' '.join(dir(grouper)))").split()
    assert {*grouper.__all__, "__version__"} <= set(names)
    assert names == sorted(names)
