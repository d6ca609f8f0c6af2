"""Runners that do what the test says, and one log of what happened to them, in order."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper.signals import STOP_SIGNALS, signal_name


@attrs.define(eq=False)
class Actor:
    """A runner that is ready, and exits, when the test says so.

    One that is `ready` is so at once; one that is `polite` exits at the first stop signal. What happens goes to the log, as
    "NAME starts", "NAME SIGTERM" (it was told), "NAME exits" or "NAME is killed".
    """

    name: str
    log: list[str]
    ready: bool = False
    polite: bool = False
    runs: int = attrs.field(default=0, init=False)
    heard: list[int] = attrs.field(factory=list[int], init=False)
    _status: trio.TaskStatus[Any] = attrs.field(default=trio.TASK_STATUS_IGNORED, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _error: BaseException | None = attrs.field(default=None, init=False)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        self.runs += 1
        self._status, self._over, self._error = task_status, trio.Event(), None
        self._note("starts")
        if self.ready:
            task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, signals)
            try:
                await self._over.wait()
            except trio.Cancelled:
                self._note("is killed")
                raise
            nursery.cancel_scope.cancel()
        self._note("exits")
        if self._error is not None:
            raise self._error

    async def _listen(self, signals: grouper.Signals) -> None:
        async for number in signals:
            self.heard.append(number)
            self._note(signal_name(number))
            if self.polite and number in STOP_SIGNALS:
                self._over.set()

    def _note(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")

    def make_ready(self, value: object = None) -> None:
        self._status.started(value)

    def exit(self, error: BaseException | None = None) -> None:
        self._error = error
        self._over.set()


class Stage:
    """The actors of a test, by name, and their log."""

    def __init__(self, names: str = "", *, ready: bool = False, polite: bool = False) -> None:
        self.log: list[str] = []
        self.actors: dict[str, Actor] = {}
        for name in names:
            self.add(name, ready=ready, polite=polite)

    def add(self, name: str, *, ready: bool = False, polite: bool = False) -> Actor:
        self.actors[name] = Actor(name, self.log, ready, polite)
        return self.actors[name]

    def __getitem__(self, name: str) -> Actor:
        return self.actors[name]

    def __iter__(self) -> Iterator[Actor]:
        return iter(self.actors.values())

    def members(self, **policy: Any) -> list[grouper.Member]:
        return [grouper.Member(name, actor, **policy) for name, actor in self.actors.items()]

    async def news(self) -> list[str]:
        """What was logged since the last call, once nobody has anything left to do."""
        await wait_all_tasks_blocked()
        news = self.log[:]
        self.log.clear()
        return news

    async def set_out(self) -> None:
        """Let all come up, and forget how they did."""
        await self.news()


@contextlib.asynccontextmanager
async def watched(runner: grouper.Runner, seconds: float = 3600) -> AsyncGenerator[grouper.Process]:
    """Run a runner beside the block. Its failure is not raised: the test looks at `process.exit`.

    A test that waits for what does not come fails after so many seconds, which pass at once under the mock clock.
    """
    process: grouper.Process | None = None
    try:
        async with grouper.background(runner) as process:
            with trio.fail_after(seconds):
                yield process
    except Exception as error:
        if process is None or process.exit is None or process.exit.error is not error:
            raise


async def ended(process: grouper.Process) -> grouper.Exit:
    """How a process ended, which it must have done by itself."""
    await wait_all_tasks_blocked()
    assert process.exit is not None, f"{process} has not ended"
    return process.exit


def names(exits: tuple[grouper.Exit, ...]) -> list[str]:
    """The last parts of the paths."""
    return [exit.path.rpartition("/")[2] for exit in exits]


def trace_of(exit: grouper.Exit) -> grouper.ErrorTrace:
    """The trace with which a group ended."""
    assert isinstance(exit.error, grouper.ErrorTrace)
    return exit.error
