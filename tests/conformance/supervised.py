"""Members for the facts about supervision: what each of their lives does, what happened in which order, and when."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Backoff, Event, Exit, Member, Process, Restart, RestartType, Signals, StartEvent
from grouper.runner import RunnerLike

__all__ = ["AT_ONCE", "SLOWLY", "Player", "Troupe", "at_once", "ended", "heard", "supervised"]

AT_ONCE = Restart(backoff=Backoff(0, jitter=0), limit=math.inf)
"""Without delay and without limit."""

SLOWLY = Restart(backoff=Backoff.every(1), limit=math.inf)
"""A second after each exit."""


def at_once(type: RestartType = RestartType.PERMANENT, **more: Any) -> Restart:
    """Without delay."""
    return Restart(type, backoff=Backoff(0, jitter=0), **more)


@attrs.define(eq=False)
class Player:
    """Is ready, after `opening` seconds, until it is told to stop, which takes `closing` seconds, or until the test says so.

    `starts` says of the next lives what they raise before they are ready; None, or no more of them, is a life that gets ready.
    """

    name: str
    log: list[str]
    starts: list[Exception | None] = attrs.field(factory=list["Exception | None"])
    opening: float = 0.0
    closing: float = 0.0
    deaf: bool = False
    begun: list[float] = attrs.field(factory=list[float])
    ended: list[float] = attrs.field(factory=list[float])
    error: Exception | None = None
    act: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        self.begun.append(trio.current_time())
        try:
            await self._live(signals, task_status)
        finally:
            self.ended.append(trio.current_time())

    async def _live(self, signals: Signals, task_status: trio.TaskStatus[Any]) -> None:
        failure = self.starts.pop(0) if self.starts else None
        if failure is not None:
            self.log.append(f"start_failed {self.name}")
            raise failure
        self.act = trio.Event()
        self.error = None
        with trio.CancelScope() if self.deaf else signals.cancelling() as scope:
            try:
                await trio.sleep(self.opening)
                self.log.append(f"up {self.name}")
                task_status.started(len(self.begun))
                await self.act.wait()
            except trio.Cancelled:
                if not scope.cancel_called:
                    self.log.append(f"killed {self.name}")
                raise
        if scope.cancelled_caught:
            await trio.sleep(self.closing)
            self.log.append(f"down {self.name}")
        else:
            self.log.append(f"{'done' if self.error is None else 'crash'} {self.name}")
            if self.error is not None:
                raise self.error

    def crash(self, error: Exception | None = None) -> None:
        """Fail."""
        self.error = error or OSError(f"{self.name} broke")
        self.act.set()

    def finish(self) -> None:
        """Return."""
        self.act.set()


class Troupe:
    """Players with one log."""

    def __init__(self, names: Iterable[str]) -> None:
        self.log: list[str] = []
        self.players = {name: Player(name, self.log) for name in names}

    def __getitem__(self, name: str) -> Player:
        return self.players[name]

    def __iter__(self) -> Iterator[Player]:
        return iter(self.players.values())

    def members(self, restart: Restart | None = None, **more: Any) -> list[Member]:
        """All of them, with the same policy."""
        return [Member(player.name, player, restart=restart, **more) for player in self]

    async def news(self) -> list[str]:
        """What was logged since the last call, once all tasks wait."""
        await wait_all_tasks_blocked()
        news, self.log[:] = self.log[:], []
        return news


@contextlib.asynccontextmanager
async def supervised(runner: RunnerLike, *, settled: bool = True) -> AsyncGenerator[Process]:
    """Run a group beside the block, which begins when all tasks wait and then stops it; how it ended is not raised."""
    process: Process | None = None
    try:
        async with grouper.background(runner) as process:
            if settled:
                await wait_all_tasks_blocked()
            with trio.fail_after(100_000):
                yield process
    except Exception as error:
        if process is None or process.exit is None or process.exit.error is not error:
            raise


async def heard(process: Process) -> list[Event]:
    """The events that were told so far, but for the starts."""
    events: list[Event] = []

    async def listen() -> None:
        async with process.events() as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 (it is ended from outside, and what it has by then is to be had)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return [event for event in events if not isinstance(event, StartEvent)]


async def ended(process: Process) -> Exit:
    """How a process ends."""
    with trio.fail_after(100_000):
        return await process.wait()
