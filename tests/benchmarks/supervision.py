"""What supervision costs: restarts, snapshots, events."""

from __future__ import annotations

import contextlib
import functools
import gc
import statistics
import time
from typing import Any
from unittest import mock

import attrs
import trio

import grouper
from grouper import Backoff, Member, Parallel, Restart, Signals
from grouper.events import EventRing
from grouper.snapshot import Snapshot

from .measuring import ratio, show

COUNTED = Restart(backoff=Backoff(0, jitter=0), limit=10_000_000, period=1e9)
"""Restarts at once, each of them kept in the window."""


class CrashError(Exception):
    """What the children raise."""


class Crashing:
    """A child that says that it runs, waits until it is told to crash, and does."""

    def __init__(self) -> None:
        self.waiting: trio.lowlevel.Task | None = None
        self.driver: trio.lowlevel.Task | None = None

    async def live(self) -> None:
        """One life."""
        self.waiting = trio.lowlevel.current_task()
        if self.driver is not None:
            driver, self.driver = self.driver, None
            trio.lowlevel.reschedule(driver)
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        raise CrashError

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self.waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """The same as a runner."""
        task_status.started()
        await self.live()

    async def loop(self) -> None:
        """The same by hand: it loops in its own task."""
        while True:
            with contextlib.suppress(CrashError):
                await self.live()

    async def crash(self, times: int) -> float:
        """Have it crash, and wait until it runs again, so many times; seconds of CPU time for each."""
        await self.up()
        gc.collect()
        before = time.process_time()
        for _ in range(times):
            await self.again()
        return (time.process_time() - before) / times

    async def up(self) -> None:
        """Wait until it runs."""
        if self.waiting is None:
            self.driver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async def again(self) -> None:
        """Have it crash, and wait until it runs again."""
        assert self.waiting is not None
        self.driver = trio.lowlevel.current_task()
        trio.lowlevel.reschedule(self.waiting)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


async def by_hand(times: int) -> float:
    """A child that loops in its own task."""
    child = Crashing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.loop)
        each = await child.crash(times)
        nursery.cancel_scope.cancel()
    return each


async def supervised(times: int, members: int = 1, before: int = 0) -> float:
    """A member of a group that restarts it at once, beside others, after so many restarts in the window."""
    child = Crashing()
    others = [(f"m{number}", Crashing()) for number in range(members - 1)]
    group = Parallel([Member("child", child, restart=COUNTED), *(Member(name, other, restart=COUNTED) for name, other in others)])
    found = 0.0
    async with trio.open_nursery() as nursery:
        await nursery.start(group.run, Signals())
        if before:
            await child.crash(before)
        found = await child.crash(times)
        nursery.cancel_scope.cancel()
    return found


def restarts(quick: bool) -> None:
    """From a crash to running again."""
    times, pairs = (2_000, 3) if quick else (20_000, 7)
    turns = [(trio.run(supervised, times), trio.run(by_hand, times)) for _ in range(pairs)]
    found = statistics.median([ours / theirs for ours, theirs in turns])
    show("crash to running again / a child by hand that loops in its own task", f"{found:.2f}", "at most 2.0")
    window, crowd = (2_000, 500) if quick else (50_000, 10_000)
    for what, more in (
        (f"the same after {window:,} restarts in the window / after none", functools.partial(supervised, times, 1, window)),
        (f"the same among {crowd:,} members / alone", functools.partial(supervised, times, crowd)),
    ):
        turns = [(trio.run(more), trio.run(supervised, times)) for _ in range(pairs)]
        show(what, f"{statistics.median([ours / theirs for ours, theirs in turns]):.2f}", "at most 1.2")


def snapshots(quick: bool) -> None:
    """A snapshot against a bare walk that builds the same objects."""
    n, times = (1_000, 3) if quick else (10_000, 15)

    async def main() -> float:
        async with grouper.invoke(Parallel([(f"m{number}", idle) for number in range(n)])) as process:
            sample = process.snapshot()
            first = sample.children[0]
            values: dict[str, Any] = {
                each.alias: getattr(first, each.name) for each in attrs.fields(Snapshot) if each.init and each.alias
            }

            def bare() -> Snapshot:
                children = tuple([Snapshot(**values) for _ in process.children])
                root: dict[str, Any] = {**values, "children": children}
                return Snapshot(**root)

            found: list[float] = []
            for _ in range(times):
                gc.collect()
                begin = time.process_time()
                bare()
                middle = time.process_time()
                process.snapshot()
                found.append((time.process_time() - middle) / (middle - begin))
            return statistics.median(found)

    show(f"a snapshot of {n:,} members / a bare walk that builds the same objects", f"{trio.run(main):.2f}", "at most 3")


async def idle(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
    """Be ready, and wait for the end."""
    task_status.started()
    await signals.wait()


def nothing(*_: object) -> None:
    """Tell nobody."""


def events(quick: bool) -> None:
    """What events cost where nobody listens."""
    n, pairs = (1_000, 3) if quick else (10_000, 7)

    async def start_stop() -> None:
        async with grouper.invoke(Parallel([(f"m{number}", idle) for number in range(n)])):
            pass

    async def without() -> None:
        with mock.patch.object(EventRing, "publish", nothing):
            await start_stop()

    found = ratio(start_stop, without, pairs)
    show(f"events with no listener: start and stop of {n:,} / the same without", f"{found:.2f}", "at most 1.1")


PARTS = (restarts, snapshots, events)
"""What there is to measure."""
