"""The pages docs/conformance*.md and the tests of this package say the same."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest

HERE: Final = Path(__file__).parent
DOCS: Final = HERE.parent.parent / "docs"
STATES: Final = ("kept", "deviates", "fixed", "no counterpart")


@attrs.frozen
class Page:
    """A page, the numbers that it has a row for, in order, and what a test's marker has before a number of this page."""

    name: str
    numbers: tuple[str, ...]
    prefix: str = ""

    @property
    def text(self) -> str:
        return (DOCS / self.name).read_text()


def numbered(**last: int) -> tuple[str, ...]:
    """`A1` to `A` and the last number, for each letter."""
    return tuple(f"{letter}{number}" for letter, end in last.items() for number in range(1, end + 1))


IFRIT: Final = Page("conformance.md", (*map(str, range(1, 81)), *numbered(B=29, C=5)))
WORK: Final = Page("conformance-work.md", numbered(S=23, C=11, D=28, L=8, R=9, G=6), "work ")
WAITGROUP: Final = Page("conformance-waitgroup.md", numbered(K=26, M=12), "waitgroup ")
SUPERVISION: Final = Page("conformance-supervision.md", numbered(V=49, W=18))
PAGES: Final = (IFRIT, WORK, WAITGROUP, SUPERVISION)


@attrs.frozen
class Row:
    """A number on a page: what holds, how it is with it here, and its tests or the reason why there are none."""

    page: Page
    number: str
    fact: str
    state: str
    last: str

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`(test_\w+)`", self.last)

    @property
    def marker(self) -> str:
        """What the tests are marked with."""
        return self.page.prefix + self.number


@cache
def rows(page: Page) -> list[Row]:
    cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in page.text.splitlines()]
    return [Row(page, *each) for each in cells if re.fullmatch(r"[A-Z]?\d+", each[0])]


ROWS: Final = [row for page in PAGES for row in rows(page)]


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


def explained(page: Page) -> list[str]:
    """The numbers in the section of the deviations."""
    section = page.text.partition("\n## Deviations\n")[2].partition("\n## ")[0]
    return [number for numbers in re.findall(r"^\* \*\*(.+?)\*\*: \S", section, re.MULTILINE) for number in numbers.split(", ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_has_one_row(page: Page) -> None:
    """No fact of the contract is missing from its page, and none is there twice."""
    assert tuple(row.number for row in rows(page)) == page.numbers


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.marker)
def test_a_row_says_what_holds_and_who_shows_it(row: Row) -> None:
    """A row has a fact, a known state, and either exactly the tests that carry its number or a reason why there are none."""
    assert row.fact
    assert row.state in STATES
    if row.state == "no counterpart":
        assert row.last
        assert row.marker not in marked()
    else:
        assert row.tests
        assert sorted(row.tests) == sorted(marked().get(row.marker, []))


def test_no_test_carries_a_number_that_is_on_no_page() -> None:
    """A marker with a wrong number would make its test count for nothing."""
    assert set(marked()) <= {row.marker for row in ROWS}


def test_tests_are_named_by_their_number() -> None:
    """The name begins with the number that the marker has."""
    for marker, tests in marked().items():
        kind, digits = re.fullmatch(r"([a-z]?)(\d+)", marker.rpartition(" ")[2].lower()).groups()  # type: ignore[union-attr]
        for test in tests:
            assert test.startswith(f"test_{kind}{int(digits):02}_"), test


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_deviation_has_its_reason(page: Page) -> None:
    """The numbers that deviate are those that the section of the deviations explains, each once."""
    assert sorted(explained(page)) == sorted(row.number for row in ROWS if row.page is page and row.state == "deviates")
