"""Something unexpected at one executed line of chosen functions, one line at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Where = Callable[[FrameType], bool]
Line = tuple[str, int]


class Injector:
    """Calls `strike` before the n-th line that is executed where `where` says, and keeps the lines that were."""

    def __init__(self, where: Where, at: int | None = None, strike: Callable[[], None] = lambda: None) -> None:
        self._where = where
        self._at = at
        self._strike = strike
        self.lines: list[Line] = []

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if self._where(frame) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.lines) - 1 == self._at:
                self._strike()
        return self._line

    @property
    def struck(self) -> str | None:
        """The line before which it struck."""
        if self._at is None or self._at >= len(self.lines):
            return None
        file, line = self.lines[self._at]
        return f"{file.rpartition('/')[2]}:{line}"

    @contextmanager
    def watching(self) -> Generator[None]:
        """Trace for the time of the block."""
        before = sys.gettrace()
        sys.settrace(self._call)
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


def beneath(where: Where, function: str, *, but: frozenset[str]) -> Where:
    """Frames that are also called, at any depth, by a function of that name; those of functions in `but` excepted."""

    def matches(frame: FrameType) -> bool:
        if not where(frame) or frame.f_code.co_name in but:
            return False
        outer: FrameType | None = frame
        while outer is not None:
            if outer.f_code.co_name == function:
                return True
            outer = outer.f_back
        return False

    return matches
