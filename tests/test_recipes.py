"""docs/recipes.md: each block does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

TEXT: Final = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
RECIPES: Final = {
    title: re.findall(r"```(?:python|text)\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
}


@pytest.mark.parametrize("title", RECIPES)
async def test_a_recipe_prints_what_stands_below_it(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole of it, and in that order."""
    code, expected = RECIPES[title]
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(code, f"recipe {title!r}", "exec"), names)
    await names["main"]()
    assert capsys.readouterr().out.splitlines() == [line.rstrip() for line in expected.splitlines()]


def test_all_recipes_are_found() -> None:
    """A heading has one program and what it prints."""
    assert len(RECIPES) >= 12
    assert {len(blocks) for blocks in RECIPES.values()} == {2}
