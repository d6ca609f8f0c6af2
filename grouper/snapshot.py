"""A running tree as it is at one moment: as values, as text, as JSON.

A snapshot is taken in one synchronous step, so it is consistent: nothing in it was before or after the rest. It refers to nothing
that runs: what it has are facts, and the `value` that each runner gave. What makes, walks or shows it is iterative: it may be as
deep as the tree is.

Two snapshots are never equal (`eq=False`), and a `repr` tells only how many are beneath: both would recurse.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import trio

from .errors import RestartLimitExceeded
from .exit import ErrorTrace
from .member import Member, Role
from .runner import MOST_WRAPPERS
from .state import REMIND, State, where

if TYPE_CHECKING:
    from rich.style import Style

__all__ = ["Snapshot", "Unstopped"]

MOST_TEXT: Final = 200
"""How many characters of an error's text are kept."""


class Inner(Protocol):
    """What is needed of the run of a group."""

    @property
    def children(self) -> Sequence[Source]: ...


class Source(Protocol):
    """What is needed of a process."""

    member: Member
    state: State
    since: float | None
    restarts: int
    last_error: BaseException | None
    value: Any
    ended_at: float | None
    _deadline: float
    _killed: bool
    _over: bool
    _recovery: Any
    _task: Any

    @property
    def path(self) -> str: ...
    @property
    def _inner(self) -> Inner | None: ...


@attrs.frozen
class Unstopped:
    """A member that was killed and still runs, `seconds` after it; `stack` tells where its tasks sit.

    As text: the full report.
    """

    path: str
    seconds: float
    stack: str = attrs.field(repr=False)

    @property
    def summary(self) -> str:
        """The report in one line, without the stack."""
        who = f"member {self.path!r}" if self.path else "the root"
        return f"{who} ignores its kill and still runs {lasting(self.seconds)} after it"

    def __str__(self) -> str:
        return f"{self.summary}; it sits at\n{self.stack}"


@attrs.frozen(eq=False)
class Snapshot:
    """A process, and all beneath it, as they were at `taken_at`. Times are those of trio's clock, in seconds.

    `path` is relative to the root of the whole tree, whose own is "". `kind` is the runner's class, or the function's name; of
    wrappers that of the innermost runner. `since` is when `state` last changed, None if never. `restart_at` is when a member in
    BACKOFF is due to be started again; with a strategy not before those affected are down. `last_error` is one line of text.
    `value` is the object that the runner gave to `started()`. `children` are in start order; of a `Dynamic` those that run.
    """

    name: str
    path: str
    kind: str
    role: Role
    state: State
    since: float | None
    restarts: int
    last_error: str | None
    value: Any = attrs.field(repr=lambda value: shown(value))  # noqa: PLW0108 (it is defined below)
    restart_at: float | None
    taken_at: float
    children: tuple[Snapshot, ...] = attrs.field(repr=lambda children: f"<{len(children)} members>")
    _stack: str | None = attrs.field(default=None, repr=False)

    @property
    def seconds(self) -> float | None:
        """How long it has been in its state; None if that never changed."""
        return None if self.since is None else self.taken_at - self.since

    @property
    def unstopped(self) -> tuple[Unstopped, ...]:
        """Those, of it and all beneath, that were killed 2 s ago or more and still run; of a group only the innermost."""
        return tuple(
            Unstopped(each.path, each.taken_at - (each.since or 0.0), each._stack)
            for each in self.walk()
            if each._stack is not None
        )

    def walk(self) -> Iterator[Snapshot]:
        """It and all beneath, in start order, each before its children."""
        return (each for each, _ in self._with_depth())

    def _with_depth(self) -> Iterator[tuple[Snapshot, int]]:
        todo: list[tuple[Snapshot, int]] = [(self, 0)]
        while todo:
            each, depth = todo.pop()
            yield each, depth
            todo.extend([(child, depth + 1) for child in reversed(each.children)])

    def as_dicts(self) -> list[dict[str, Any]]:
        """It and all beneath as a flat list for JSON, in the order of `walk`, each with its `depth` (0 for the first).

        A `value` that is none of JSON's simple ones is told by its repr. `stack` is None but for those `unstopped`.
        """
        return [
            {
                "path": each.path,
                "name": each.name,
                "depth": depth,
                "kind": each.kind,
                "role": each.role.value,
                "state": each.state.value,
                "since": each.since,
                "seconds": each.seconds,
                "restarts": each.restarts,
                "last_error": each.last_error,
                "value": plain(each.value),
                "restart_at": each.restart_at,
                "stack": each._stack,
                "taken_at": each.taken_at,
            }
            for each, depth in self._with_depth()
        ]

    def render(self, *, color: bool | None = None) -> str:
        """An indented tree: name, state, for how long, kind, and what there is to tell; no line break at the end.

        With `color=True` it is coloured for a terminal, if `rich` is installed; with None if also the standard output is one.
        """
        paint = Paint(color=color)
        rows = [("  " * depth + clean(each.name if depth else each.path or each.name), each) for each, depth in self._with_depth()]
        width = min(MOST_WIDTH, max(len(label) for label, _ in rows))
        lines: list[str] = []
        for label, each in rows:
            seconds = "" if each.seconds is None else lasting(each.seconds)
            state = paint(f"{each.state.value:<9}", STYLES[each.state])
            lines.append(f"{label:<{width}}  {state}  {seconds:>8}  {clean(each.kind)}{each._details(paint)}")
        return "\n".join(lines)

    def _details(self, paint: Paint) -> str:
        text = ""
        if self._stack is not None:
            text += ", " + paint("ignores its kill", HANGS)
        if self.restarts:
            text += f", {self.restarts} restart{'' if self.restarts == 1 else 's'}"
        if self.restart_at is not None:
            left = self.restart_at - self.taken_at
            text += f", next in {lasting(left)}" if left > 0 else ", next due"
        if self.last_error is not None:
            text += f", last error {paint(clean(self.last_error), FAILED)}"
        return text


def taken(process: Source) -> Snapshot:
    """Take the snapshot of a process and all beneath it. Raises: RuntimeError outside of trio, unless the process has ended."""
    try:
        now = trio.current_time()
    except RuntimeError:
        if process.ended_at is None:
            raise
        now = process.ended_at
    processes = [process]
    paths = [process.path]
    ends: list[int] = []  # those of one group are next to each other
    for each in processes:  # which grows
        inner = each._inner
        if inner is not None:
            path = paths[len(ends)]
            before = f"{path}/" if path else ""
            children = inner.children
            processes.extend(children)
            paths.extend([before + child.member.name for child in children])
        ends.append(len(processes))
    made: list[Snapshot] = []  # the last first: children before their parents
    total = len(processes)
    for number in range(total - 1, -1, -1):
        each = processes[number]
        start, end = ends[number - 1] if number else 1, ends[number]
        member = each.member
        error = each.last_error
        made.append(
            Snapshot(
                member.name,
                paths[number],
                kind_of(member.runner),
                member.role,
                each.state,
                each.since,
                each.restarts,
                None if error is None else one_line(error),
                each.value,
                restart_at(each) if each.state is State.BACKOFF else None,
                now,
                tuple(made[total - end : total - start][::-1]) if end > start else (),
                where(each._task) if each._killed and hangs(each, now) else None,
            )
        )
    return made[-1]


def hangs(process: Source, now: float) -> bool:
    """Whether a process was killed long ago and runs, and no member of it is to blame."""
    if not process._killed or process._over or process.state is not State.STOPPING or process.since is None:
        return False
    inner = process._inner
    return now >= process.since + REMIND and (inner is None or all(child.ended_at is not None for child in inner.children))


def unstopped(process: Source, now: float, *, in_full: bool = True) -> Unstopped | None:
    """The report of a process that ignores its kill, if it does; without its stack where that is not to be told."""
    if process.since is None or not hangs(process, now):
        return None
    return Unstopped(process.path, now - process.since, where(process._task) if in_full else "")


def restart_at(process: Source) -> float | None:
    """When a process in BACKOFF is to be started again; None where nobody will."""
    due: float = process._deadline if process._recovery is None else process._recovery.not_before
    return None if due == math.inf else due


def kind_of(runner: object) -> str:
    """What a runner, or the innermost one that its wrappers run, is called."""
    for _ in range(MOST_WRAPPERS):
        if type(runner) is FunctionType:
            return runner.__qualname__
        inner = getattr(runner, "runner", None)
        if inner is None:
            break
        runner = inner
    if isinstance(runner, functools.partial):
        return kind_of(runner.func)
    return str(getattr(runner, "__qualname__", None) or type(runner).__qualname__)


def one_line(error: BaseException) -> str:
    """An error as one line of text, of a bearable length, with what came first in a trace, and with the cause of giving up."""
    text = _named(error)
    if isinstance(error, ErrorTrace) and (first := error._first()) is not None:
        text += f", first {_named(first)}"
        error = first
    if isinstance(error, RestartLimitExceeded) and error.__cause__ is not None:
        text += f" (from {_named(error.__cause__)})"
    return text


def _named(error: BaseException) -> str:
    name = type(error).__qualname__
    try:
        text = str(error.message if isinstance(error, BaseExceptionGroup) else error)
    except Exception:
        text = "<it cannot be shown>"
    words = " ".join(text[: 10 * MOST_TEXT].split())
    words = f"{words[: MOST_TEXT - 3]}..." if len(words) > MOST_TEXT else words
    return f"{name}: {words}" if words else name


def plain(value: object) -> object:
    """A value as JSON can have it."""
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return shown(value)


def shown(value: object) -> str:
    """The repr of what others have made."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__qualname__} that cannot be shown>"


def clean(text: str) -> str:
    """Text with nothing in it that a terminal would act on."""
    return text if text.isprintable() else "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def lasting(seconds: float) -> str:
    """A duration for people: `0.3 s`, `5m12s`, `2d3h`."""
    if seconds < 60:
        return f"{math.floor(seconds * 10 + 1e-6) / 10:.1f} s"
    whole = int(seconds)
    for unit, name, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // part}{small}"
    return f"{whole // 60}m{whole % 60}s"


MOST_WIDTH: Final = 40
"""How wide the column of names may be; a longer one pushes its line to the right."""

STYLES: Final = {
    State.WAITING: "dim",
    State.STARTING: "cyan",
    State.READY: "green",
    State.DRAINING: "yellow",
    State.STOPPING: "yellow",
    State.BACKOFF: "magenta",
    State.EXITED: "dim",
    State.STOPPED: "dim",
    State.EXHAUSTED: "bold red",
}
HANGS: Final = "bold red"
FAILED: Final = "red"


class Paint:
    """Colours text, where that was asked for and is possible."""

    def __init__(self, *, color: bool | None) -> None:
        self._styles: dict[str, Style] = {}
        if color is False or (color is None and (sys.stdout is None or not sys.stdout.isatty())):
            return
        try:
            from rich.console import Console
            from rich.style import Style
        except ImportError:
            return
        if color is None:
            console = Console()  # it knows what the environment says: NO_COLOR, TERM
            if console.no_color or console.color_system is None:
                return
        self._styles = {style: Style.parse(style) for style in (*STYLES.values(), HANGS, FAILED)}

    def __call__(self, text: str, style: str) -> str:
        """The text with its colour."""
        return self._styles[style].render(text) if style in self._styles else text
