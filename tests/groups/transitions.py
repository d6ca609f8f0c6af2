"""A look at every change of a process's state: any that `TRANSITIONS` does not have fails the test.

`from tests.groups.transitions import known_transitions` in a test module, or a conftest, is all that is needed: the fixture is used
by each test that sees it. `watched_transitions()` is the same as a context manager, which also tells which transitions there were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, TypeAlias

import pytest

from grouper import Process, State
from grouper.state import TRANSITIONS

__all__ = ["Transition", "known_transitions", "watched_transitions"]

Transition: TypeAlias = tuple[State | None, State]
"""From which state to which; None before the first."""


@contextlib.contextmanager
def watched_transitions() -> Generator[set[Transition]]:
    """Look at all processes while the block runs; the set has all transitions so far. Raises: AssertionError at the end."""
    slot: Any = vars(Process)["state"]
    seen: set[Transition] = set()
    wrong: list[str] = []

    def get(process: Process) -> State:
        state: State = slot.__get__(process, Process)
        return state

    def change(process: Process, new: State) -> None:
        try:
            old = get(process)
        except AttributeError:
            old = None
        if old is not new:
            seen.add((old, new))
            if new not in (TRANSITIONS[old] if old is not None else {State.WAITING}):
                wrong.append(f"{process.member.name}: {old} -> {new}")
        slot.__set__(process, new)

    setattr(Process, "state", property(get, change))  # noqa: B010 (it is a slot, which the type checkers know)
    try:
        yield seen
    finally:
        setattr(Process, "state", slot)  # noqa: B010
    assert not wrong, f"transitions that the table does not have: {wrong}"


@pytest.fixture(autouse=True)
def known_transitions() -> Generator[set[Transition]]:
    """Let the test fail if a process changes from one state to another as the table does not allow."""
    with watched_transitions() as seen:
        yield seen
