"""Something unexpected at one executed line of chosen functions, one line at a time."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import trio

Where = Callable[[FrameType], bool]
Line = tuple[str, int]


class Injector(trio.abc.Instrument):
    """Calls `strike` before the n-th line that is executed where `where` says, and keeps the lines that were.

    To trace takes several times as long as to run. Given the run that was `watched`, which must have gone the same way, and as an
    instrument of trio, it traces only the step of a task, or what is between two, in which it strikes.
    """

    def __init__(
        self,
        where: Where,
        at: int | None = None,
        strike: Callable[[], None] = lambda: None,
        watched: Injector | None = None,
    ) -> None:
        self._where = where
        self._at = at
        self._strike = strike
        self._step = 0
        self._only: int | None = None
        self._expected: Line | None = None
        if watched is not None and at is not None:
            self._only, self._expected = watched.steps[at], watched.lines[at]
            self._at = at - bisect_left(watched.steps, self._only)
        self.lines: list[Line] = []
        self.steps: list[int] = []
        """The step of each line."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step begins."""
        self._step += 1
        if self._only is not None and self._step - 1 <= self._only <= self._step:
            sys.settrace(self._call if self._step == self._only else None)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """What is between two steps begins."""
        self.before_task_step(task)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if self._where(frame) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            self.steps.append(self._step)
            if len(self.lines) - 1 == self._at:
                self._strike()
        return self._line

    @property
    def struck(self) -> str | None:
        """The line before which it struck."""
        if self._at is None or self._at >= len(self.lines):
            return None
        file, line = self.lines[self._at]
        assert self._expected in (None, (file, line)), "the run went another way than the one that was watched"
        return f"{file.rpartition('/')[2]}:{line}"

    @contextmanager
    def watching(self) -> Generator[None]:
        """Trace for the time of the block."""
        before = sys.gettrace()
        sys.settrace(self._call if not self._only else None)
        try:
            yield
        finally:
            sys.settrace(before)


def moments(lines: list[Line], times: int) -> list[int]:
    """Where in a run to strike: at each line the first `times` times that it is executed, and the last."""
    places: dict[Line, list[int]] = {}
    for place, line in enumerate(lines):
        places.setdefault(line, []).append(place)
    return sorted({place for found in places.values() for place in (*found[:times], found[-1])})


def in_modules(*names: str) -> Where:
    """Frames of functions that are written in these modules."""
    return lambda frame: frame.f_globals.get("__name__") in names


def beneath(where: Where, *functions: str, but: frozenset[str]) -> Where:
    """Frames that are also called, at any depth, by a function of those names; those of functions in `but` excepted."""

    def matches(frame: FrameType) -> bool:
        if not where(frame) or frame.f_code.co_name in but:
            return False
        outer: FrameType | None = frame
        while outer is not None:
            if outer.f_code.co_name in functions:
                return True
            outer = outer.f_back
        return False

    return matches
