"""How a process ended (`Exit`), and how a group did that failed (`ErrorTrace`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Self

import attrs
import trio

__all__ = ["ErrorTrace", "Exit"]


@attrs.frozen(kw_only=True)
class Exit:
    """How a process ended. Times are those of trio's clock, in seconds."""

    path: str
    error: BaseException | None
    was_ready: bool
    killed: bool
    started_at: float
    ended_at: float

    @property
    def ok(self) -> bool:
        """Whether it ended without an error."""
        return self.error is None

    def raise_for_error(self) -> None:
        """Raise the error, if there is one.

        The exception is one object: raise it in one place. Whoever else wants to know reads `error`.
        """
        if self.error is not None:
            raise self.error


class ErrorTrace(ExceptionGroup[Exception]):
    """What a group raises when members failed: their errors, and the exits of all members that were started.

    `exits` is in exit order; `path` is the group's ("" for the outermost). `except*` and `split` work as with any group. The text
    is an indented tree in which `<- first` marks the cause that was first in time, and a chain of groups with one failure each is
    one path.
    """

    path: str
    exits: tuple[Exit, ...]

    def __new__(cls, message: str, errors: Sequence[Exception], *, path: str = "", exits: Iterable[Exit] = ()) -> Self:
        """Make a trace of errors, one at least."""
        self = super().__new__(cls, message, errors)
        self.path = path
        self.exits = tuple(exits)
        return self

    def __init__(self, message: str, errors: Sequence[Exception], *, path: str = "", exits: Iterable[Exit] = ()) -> None:
        """Take what `__new__` has used."""
        super().__init__(message, errors)

    # An ExceptionGroup is generic in its exceptions, which a trace is not: so the override is narrower.
    def derive(self, errors: Sequence[Exception], /) -> ErrorTrace:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make the trace of a part of the errors (for `split` and `except*`); the exits stay."""
        return ErrorTrace(self.message, errors, path=self.path, exits=self.exits)

    def __str__(self) -> str:
        lines = [f"{self.message}:"]
        first = self._first()
        for depth, label, error in self._lines():
            text = label if isinstance(error, ErrorTrace) else f"{label}: {_one_line(error)}"
            lines.append("  " * (depth + 1) + text + ("  <- first" if error is first else ""))
        return "\n".join(lines)

    def _named(self) -> Iterator[tuple[str, Exception, float]]:
        exits: dict[int, list[Exit]] = {}
        for each in reversed(self.exits):  # one exception may be that of several members
            exits.setdefault(id(each.error), []).append(each)
        for error in self.exceptions:
            named = exits.get(id(error))
            exit = named.pop() if named else None
            path = exit.path if exit is not None else getattr(error, "path", "")
            yield path.rpartition("/")[2] or type(error).__name__, error, exit.ended_at if exit is not None else float("inf")

    def _lines(self) -> Iterator[tuple[int, str, BaseException]]:
        """Depth, label and error of each line; iterative, so that depth has no limit but memory."""
        todo: list[tuple[int, str, BaseException]] = []
        todo.extend([(0, name, error) for name, error, _ in self._named()][::-1])
        while todo:
            depth, label, error = todo.pop()
            names = [label]
            while isinstance(error, ErrorTrace) and len(error.exceptions) == 1:
                name, error, _ = next(error._named())
                names.append(name)
            yield depth, "/".join(names), error
            if isinstance(error, ErrorTrace):
                todo.extend([(depth + 1, name, inner) for name, inner, _ in error._named()][::-1])
            else:
                inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
                todo.extend((depth + 1, "-", inner) for inner in reversed(inside))

    def _first(self) -> BaseException | None:
        """The error that was first in time; of two at the same time, the one that its group saw first."""
        first: BaseException | None = None
        first_at = float("inf")
        todo: list[tuple[float, Exception]] = [(0.0, self)]
        while todo:
            ended_at, error = todo.pop()
            if isinstance(error, ErrorTrace):
                order = {id(exit.error): number for number, exit in enumerate(error.exits)}
                named = sorted(error._named(), key=lambda each: order.get(id(each[1]), len(order)), reverse=True)
                todo.extend((at, inner) for _, inner, at in named)
            elif ended_at < first_at:
                first, first_at = error, ended_at
        return first


def _said(error: BaseException) -> str:
    """What an error says; of a group without what is in it, which may be as deep as the tree."""
    return str(error.message if isinstance(error, BaseExceptionGroup) else error)


def _one_line(error: BaseException) -> str:
    text = f"{type(error).__qualname__}: {_said(error)}"
    if error.__cause__ is not None:
        text += f" (from {type(error.__cause__).__qualname__}: {_said(error.__cause__)})"
    return " ".join(text.rstrip(": ").split("\n"))


def only_cancelled(error: BaseException) -> bool:
    """Whether it is a Cancelled, or a group of nothing else."""
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return all(map(only_cancelled, inside)) if inside else isinstance(error, trio.Cancelled)
