"""docs/supervision.md: each block does what it says, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest

from grouper import Restart, RestartType, State, narrating
from grouper.metrics import Collector
from grouper.restart import RESTARTS, Ending
from grouper.state import TRANSITIONS

DOCS: Final = Path(__file__).parent.parent / "docs"
TEXT: Final = (DOCS / "supervision.md").read_text()
SECTIONS: Final = dict(re.findall(r"^##+ (.*?)\n(.*?)(?=^##+ |\Z)", TEXT, re.DOTALL | re.MULTILINE))
PRELUDE: Final = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)[0]
PROGRAMS: Final = [
    (title, code, prints)
    for title, body in SECTIONS.items()
    for code, prints in re.findall(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
]


def table(title: str, *, first: str) -> list[list[str]]:
    """The rows of the table of a section whose head begins with that."""
    body = SECTIONS[title]
    (found,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\| ---.*\n((?:\|.*\n)+)", body, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found.splitlines()]


@pytest.mark.parametrize(("title", "code", "prints"), PROGRAMS, ids=[title for title, _, _ in PROGRAMS])
async def test_a_program_prints_what_stands_below_it(
    title: str, code: str, prints: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole of it, and in that order."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(PRELUDE, names)
    exec(compile(code, f"supervision {title!r}", "exec"), names)
    await names["main"]()
    assert capsys.readouterr().out.splitlines() == [line.rstrip() for line in prints.splitlines()]


def test_all_programs_are_found() -> None:
    """None is left that nobody runs, beside what all begin with."""
    assert len(PROGRAMS) + 1 == TEXT.count("```python\n") >= 7


def test_the_table_of_exits_is_that_of_the_code() -> None:
    """A row for each kind of exit, a column for each type."""
    kinds = list(Ending)
    rows = table("When a member is started again", first="its exit")
    assert [row[0].partition(":")[0] for row in rows] == [
        kind.name.lower() if kind is Ending.REFUSED else kind.value for kind in kinds
    ]
    for kind, row in zip(kinds, rows, strict=True):
        assert [cell == "again" for cell in row[1:]] == [RESTARTS[each, kind] for each in RestartType]


def test_the_table_of_states_is_that_of_the_code() -> None:
    """Each state, and all that can follow it."""
    told = {State(row[0]): {State(name) for name in row[2].split(", ")} for row in table("States", first="state")}
    assert told == {state: set(following) for state, following in TRANSITIONS.items()}


def test_the_defaults_are_those_of_the_code() -> None:
    """The numbers of a policy that says nothing."""
    policy = Restart()
    told = {row[0]: row[1] for row in table("When a member is started again", first="argument")}
    assert told["`backoff`"] == f"`Backoff({policy.backoff.first}, cap={policy.backoff.cap})`"
    assert told["`limit`, `period`"] == f"{policy.limit:g} in {policy.period:g} s"
    assert told["`reset_after`"] == f"{policy.reset_after:g} s"
    assert (told["`on`"], told["`start_errors`"]) == (f"`{policy.on[0].__name__}`", f"`{policy.start_errors}`")


def test_each_key_of_the_log_is_told() -> None:
    """Those that the head of the module lists."""
    keys = re.findall(r"^    (\w+)(?:  |$)", narrating.__doc__ or "", re.MULTILINE)
    assert {"fact", "member", "limit"} <= set(keys)
    assert not [key for key in keys if f"`{key}`" not in SECTIONS["The log"]]


def test_each_metric_is_told() -> None:
    """By its name."""
    names = re.findall(r"`(grouper_\w+)\{", Collector.__doc__ or "")
    assert len(names) == 5
    assert not [name for name in names if name not in SECTIONS["Metrics"]]


def test_what_the_page_refers_to_is_there() -> None:
    """The page, and the heading in it."""
    for target, heading in re.findall(r"\]\(([\w.-]*)#?([\w-]*)\)", TEXT):
        headings = re.findall(r"^#+ (.*)$", (DOCS / (target or "supervision.md")).read_text(), re.MULTILINE)
        assert not heading or heading in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
