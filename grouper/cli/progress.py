"""The progress of a graph of jobs, or of a pool, in a terminal.

It is drawn by a task beside the block and not by the thread that rich has for it: what is drawn is then one moment's, with nothing
changing meanwhile, and nothing is left running when the block has ended. The task is a luxury: whatever goes wrong with it is
logged, and neither ends the block nor outlives it. So its nursery wraps nothing.

`trio.lowlevel` is used to keep a KeyboardInterrupt, which is the block's, out of what draws.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import sys
from collections import Counter
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

import attrs
import trio

from ..work import Job, JobEnded, Pool, PoolClosed, Report
from ..work.drawing import counted, one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["show_progress"]

logger: logging.Logger = logging.getLogger("grouper")

INTERVAL: Final = 0.1
"""How many seconds there are between two pictures, at least."""

LINES: Final = 10
"""How many of the running jobs have a line."""

BAR: Final = 30
"""How wide the bar is, in characters, in a terminal that is three times as wide."""

ENDED_BADLY: Final[tuple[str, ...]] = ("failed", "not ready", "skipped", "cancelled", "unknown")


def show_progress(source: Report | Pool, *, console: Console | None = None) -> AbstractAsyncContextManager[None]:
    """Show in a terminal how far a graph of jobs or a pool is, beside a block.

        async with show_progress(jobs.report):
            await jobs.execute()

    A bar, how many jobs have ended and how many of these badly, and the jobs that run longest, with the time since they were
    started. It is drawn at most 10 times a second, when it has changed; the last picture stays. Of a pool it is inside the pool's
    block, and shows how many of the jobs that were started have ended; `await pool.drained()` in it to see them all end.

    Without a terminal nothing is written. `console` is a `rich.console.Console`; the default is one for stderr. What is printed in
    the block comes above the bar if it goes to the same terminal.

    The block ends as it would without: what it raises, and a cancellation, come out as they are, and the terminal is restored. If
    drawing fails, that is logged and the block goes on. Needs the extra `cli`. Raises, when it is called: ImportError without
    rich; TypeError for another source; PoolClosed for a pool that is not open.
    """
    try:
        import rich.console
    except ImportError as error:
        raise ImportError("show_progress() needs rich: pip install 'trio-grouper[cli]'") from error
    if isinstance(source, Report):
        watched: _Watched = _OfReport(source)
    elif not isinstance(source, Pool):
        raise TypeError(f"show_progress({source!r}): there is nothing to show: give the report of a Jobs, or a Pool")
    elif source._crew is None:
        raise PoolClosed("there is no progress: the pool is not open: use show_progress(pool) in the block of open_pool()")
    else:
        watched = _OfPool(source)
    if console is None:
        console = rich.console.Console(stderr=True, force_terminal=sys.stderr.isatty())
    return _View(watched, console)


class _Watched(Protocol):
    """What is watched."""

    @property
    def source(self) -> Report | Pool: ...
    def note(self, job: Job[Any], /) -> None:
        """Count a job that has ended."""
        ...

    def count(self) -> tuple[int, int, dict[str, int]]:
        """How many have ended, of how many, and how many there are in each state that is a bad end."""
        ...


@attrs.define(eq=False)
class _OfReport:
    source: Report

    def note(self, job: Job[Any], /) -> None:
        pass

    def count(self) -> tuple[int, int, dict[str, int]]:
        counts = self.source.counts()
        badly = {state: counts[state] for state in ENDED_BADLY if state in counts}
        return counts.get("success", 0) + sum(badly.values()), len(self.source), badly


class _OfPool:
    def __init__(self, source: Pool) -> None:
        assert source._crew is not None
        self.source: Pool = source
        self._crew = source._crew
        self._badly: Counter[str] = Counter()

    def note(self, job: Job[Any], /) -> None:
        if job.state in ENDED_BADLY:
            self._badly[job.state] += 1

    def count(self) -> tuple[int, int, dict[str, int]]:
        crew = self._crew
        return crew.serial - crew.unfinished, crew.serial, {**self._badly, "failed": crew.failed}


@attrs.frozen
class _Picture:
    """What can be seen: as long as it is the same, nothing is drawn."""

    done: int
    total: int
    badly: str
    lines: tuple[str, ...]


class _View:
    """A block beside which something is watched."""

    def __init__(self, watched: _Watched, console: Console) -> None:
        self._watched = watched
        self._console = console
        self._entered = False
        self._live: Live | None = None
        self._nursery: trio.Nursery | None = None
        self._picture: _Picture | None = None
        self._until = math.inf
        self._changed = trio.Event()
        self._over = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> None:
        if self._entered:
            raise RuntimeError("what show_progress() returns is entered once: call it again")
        self._entered = True
        if not (self._console.is_terminal and self._console.is_interactive):
            return
        self._stream = self._watched.source.events()
        self._begin()
        self._draw()
        if self._live is None:
            return
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        await self._stream.__aenter__()
        self._nursery.start_soon(self._follow, name="events of the jobs")
        self._nursery.start_soon(self._refresh, name="progress of the jobs")

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._nursery is None:
            return
        raised: list[BaseException] = []
        self._nursery.cancel_scope.shield = True  # so that a Cancelled in the tasks is this nursery's own, and wraps nothing
        self._nursery.cancel_scope.cancel("the block beside the progress has ended")
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # a KeyboardInterrupt that came meanwhile
            raised.extend(group.exceptions)
        self._catch_up()
        await self._stream.__aexit__(None, None, None)
        self._draw(last=True)
        if len(raised) > 1:
            raise BaseExceptionGroup("the progress of jobs was interrupted", raised)
        for each in raised:
            raise each

    @trio.lowlevel.enable_ki_protection
    async def _follow(self) -> None:
        async for event in self._stream:
            if isinstance(event, JobEnded):
                self._watched.note(event.job)
            self._catch_up()
            self._changed.set()
        self._over = True
        self._changed.set()

    def _catch_up(self) -> None:
        """Note all that has ended by now: read one by one, the events of jobs that never wait come faster than they are read."""
        stream, ring = self._stream, self._stream._ring
        unread = min(ring.total - stream.position, len(ring.entries))
        for kind, _, job, _ in ring.entries[len(ring.entries) - unread :]:
            if kind is JobEnded:
                self._watched.note(job)
        stream.position = ring.total

    @trio.lowlevel.enable_ki_protection
    async def _refresh(self) -> None:
        over = False
        while not over and self._live is not None:
            await trio.sleep(INTERVAL)
            with trio.move_on_at(self._until):
                await self._changed.wait()
            self._changed = trio.Event()
            over = self._over
            self._draw()

    def _begin(self) -> None:
        from rich.live import Live

        console = self._console
        redirects = [_is_same_terminal(stream, console) for stream in (sys.stdout, sys.stderr)]
        live = Live(console=console, auto_refresh=False, redirect_stdout=redirects[0], redirect_stderr=redirects[1])
        self._live = live
        try:
            live.start()
        except Exception as error:  # with an older rich also another one in the same console
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        logger.warning("the progress of jobs is not shown: %r", error)
        self._end()

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with contextlib.suppress(Exception):  # the terminal is gone
                live.stop()

    def _draw(self, *, last: bool = False) -> None:
        """Draw what there is to see, if it has changed. What goes wrong is logged, and nothing is drawn any more."""
        live = self._live
        if live is None:
            return
        try:
            picture = self._look()
            if picture != self._picture:
                self._picture = picture
                live.update(_rendered(picture, self._console.width), refresh=not last)
        except Exception as error:
            self._fail(error)
        if last:
            self._end()

    def _look(self) -> _Picture:
        now = trio.current_time()
        running = self._watched.source.running
        first = heapq.nsmallest(LINES, [(job.started, place, job) for place, job in enumerate(running) if job.started is not None])
        lines: list[str] = []
        self._until = math.inf
        for started, _, job in first:
            seconds = int(now - started + 1e-6)  # woken at a full second, it has passed
            self._until = min(self._until, started + seconds + 1)
            again = f" (try {job.attempts})" if job.attempts > 1 else ""
            lines.append(f"{_clock(seconds):>8}  {one_line(job.name)}{again}")
        if len(running) > len(first):
            lines.append(f"{'':>8}  and {len(running) - len(first)} more")
        done, total, badly = self._watched.count()
        return _Picture(done, total, counted(badly), tuple(lines))


def _is_same_terminal(stream: TextIO, console: Console) -> bool:
    """Whether what is printed there would be in the way: what goes to a file must not be shown instead."""
    return stream.isatty() and console.file.isatty()


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _rendered(picture: _Picture, width: int) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = ProgressBar(total=picture.total or 1, completed=picture.done if picture.total else 1, width=min(BAR, width // 3))
    head = Table.grid(padding=(0, 2))
    for _ in range(3):
        head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_row(bar, Text(f"{picture.done} of {picture.total} done"), Text(picture.badly, style="red"))
    return Group(head, *[Text(line, no_wrap=True, overflow="ellipsis") for line in picture.lines])
