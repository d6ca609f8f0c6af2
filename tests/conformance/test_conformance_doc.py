"""The page docs/conformance.md and the tests of this package say the same."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import attrs
import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "conformance.md"
NUMBERS = [*map(str, range(1, 81)), *(f"B{number}" for number in range(1, 30)), *(f"C{number}" for number in range(1, 6))]
STATES = ("kept", "deviates", "fixed", "no counterpart")


@attrs.frozen
class Row:
    """A number on the page: what holds, how it is with it here, and its tests or the reason why there are none."""

    number: str
    fact: str
    state: str
    last: str

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`(test_\w+)`", self.last)


@cache
def rows() -> list[Row]:
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return [Row(*each) for each in cells if re.fullmatch(r"[BC]?\d+", each[0])]


@cache
def marked() -> dict[str, list[str]]:
    """The names of the tests that carry each number."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ():
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.contract":
                    (number,) = map(ast.literal_eval, decorator.args)
                    found.setdefault(number, []).append(getattr(node, "name", ""))
    return found


def explained() -> set[str]:
    """The numbers in the section of the deviations."""
    section = PAGE.read_text().partition("\n## Deviations\n")[2].partition("\n## ")[0]
    return {number for numbers in re.findall(r"^\* \*\*(.+?)\*\*: \S", section, re.MULTILINE) for number in numbers.split(", ")}


def test_every_number_has_one_row() -> None:
    """No fact of the contract is missing from the page, and none is there twice."""
    assert [row.number for row in rows()] == NUMBERS


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.number)
def test_a_row_says_what_holds_and_who_shows_it(row: Row) -> None:
    """A row has a fact, a known state, and either exactly the tests that carry its number or a reason why there are none."""
    assert row.fact
    assert row.state in STATES
    if row.state == "no counterpart":
        assert row.last
        assert row.number not in marked()
    else:
        assert row.tests
        assert sorted(row.tests) == sorted(marked().get(row.number, []))


def test_no_test_carries_a_number_that_is_not_on_the_page() -> None:
    """A marker with a wrong number would make its test count for nothing."""
    assert set(marked()) <= {row.number for row in rows()}


def test_tests_are_named_by_their_number() -> None:
    """The name begins with the number that the marker has."""
    for number, tests in marked().items():
        kind, digits = number.rstrip("0123456789").lower(), number.lstrip("BC")
        for test in tests:
            assert test.startswith(f"test_{kind}{int(digits):02}_"), test


def test_every_deviation_has_its_reason() -> None:
    """The numbers that deviate are those that the section of the deviations explains."""
    assert {row.number for row in rows() if row.state == "deviates"} == explained()
