"""One run of jobs, from the opening of its nursery to its end, whatever ends it.

A cancellation from outside must stop the queue in the very step in which it is made, before any worker takes another job. So one
task of the run is parked where trio tells it synchronously, through its abort function (`watch`). `trio.lowlevel` is used for that.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Final

import trio

from ..events import EventStream
from .job import Job, JobEvent, Status
from .ledger import Ledger, OnError, told

__all__ = ["Run"]

AHEAD: Final = 64
"""How many jobs are made of a feed at a time."""


class Run(Ledger):
    """The life of a run: it is entered, may be closed or abandoned, and is left."""

    def __init__(self, limit: float, on_error: OnError, timeout: float) -> None:
        super().__init__(limit, on_error)
        self.timeout: float = timeout
        self.timed_out_after: int | None = None
        """How many jobs had failed when the time was over."""
        self.closed: bool = False
        self.entered: bool = False
        self.gone: bool = False
        self.abandoned: bool = False
        self.stopping: bool = False
        """Whether what has raised is not tried again."""
        self.feed: Iterator[Job[Any]] | None = None
        self.watched: bool = False
        """Whether a cancellation is seen at once: no worker begins before."""
        self._watching: trio.lowlevel.Task | None = None

    async def enter(self) -> None:
        """Begin the run: from now on there can be workers."""
        self._manager = trio.open_nursery()
        self.nursery: trio.Nursery = await self._manager.__aenter__()
        self.entered = True
        self.nursery.cancel_scope.deadline = trio.current_time() + self.timeout

    def beside(self, fn: Callable[..., Awaitable[object]], *args: object) -> None:
        """Have something done in a task beside the workers."""
        self.nursery.start_soon(fn, *args)

    def events(self) -> EventStream[Job[Any], JobEvent]:
        """A stream of what begins and ends from now on."""
        return EventStream(self.listened(), told, lambda: self.gone)

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> list[BaseException]:
        """Wait for the end of all jobs. Returns what there is to raise that is no failure of a job; `error` is the block's."""
        if error is None:
            self.close()
        else:
            if self.nursery.cancel_scope.cancel_called:  # which `watch` does not see any more if all jobs have ended
                self.cancelled()
            self.abandon()
        raised: list[BaseException] = []
        try:
            if not await self._manager.__aexit__(kind, error, tb) and error is not None:
                raised.append(error)
        except BaseExceptionGroup as group:  # the nursery's
            raised.extend(group.exceptions)
        except BaseException as alone:
            raised.append(alone)
        self.give_up()
        self.sweep()  # of what an error of the engine's own has left
        self.tell()
        self.gone = True
        if self.ring is not None:
            self.ring.wake()
        return raised

    def close(self) -> None:
        """Take no more jobs, but from those that run."""
        self.closed = True
        self.look()

    def stop(self) -> None:
        """Take no more jobs, but from those that run, and try none again: what was to be tried again ends UNKNOWN."""
        self.stopping = True
        now = trio.current_time()
        while self.asleep:
            job, scope = self.asleep.popitem()
            self.end(job, Status.UNKNOWN, now)
            self.settle(job)
            scope.cancel("no job is tried again")
        self.call()
        self.close()

    def call(self) -> None:
        """Have a worker come for what is in the queue."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Begin no job any more, and cancel those that run."""
        self.abandoned = True
        self.cut_short()
        self.give_up()
        self.nursery.cancel_scope.cancel("a job of the run has failed, or its block has")

    @trio.lowlevel.enable_ki_protection
    async def watch(self) -> None:
        """Return when the run is closed and all jobs have ended. A cancellation stops the queue in the moment it is made."""
        self.watched = True
        while not self.closed or self.unfinished:
            self._watching = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._cancelled)

    def _cancelled(self, raise_cancel: object) -> trio.lowlevel.Abort:
        self._watching = None
        self.cancelled()
        return trio.lowlevel.Abort.SUCCEEDED

    def cancelled(self) -> None:
        """Act on a cancellation of the whole run, by its timeout or from outside."""
        in_time = self.abandoned or trio.current_time() < self.nursery.cancel_scope.deadline
        if not in_time and self.timed_out_after is None:
            self.timed_out_after = self.failed
        self.cut_short()
        self.give_up()

    def look(self) -> None:
        """Wake those who wait for a change, and `watch`, if it may be there."""
        super().look()
        if self.closed and not self.unfinished and self._watching is not None:
            trio.lowlevel.reschedule(self._watching)
            self._watching = None

    # Jobs that are made when there is a slot for them

    def feed_from(self, jobs: Iterator[Job[Any]]) -> None:
        """Take jobs from an iterator too, some at a time, when there is nothing else to do."""
        self.feed = jobs
        self.count(1)  # for those that will come
        self.hire()

    def _fed(self) -> bool:
        if self.feed is None:
            return False
        try:
            jobs = list(itertools.islice(self.feed, AHEAD))
        except BaseException as error:
            self.interrupts.append(error)
            self.abandon()
            return False
        if self.over:
            return False
        self.count(len(jobs))
        self.queue.extend(jobs)
        if not jobs:
            self._starve()
        return bool(jobs)

    def _starve(self) -> None:
        if self.feed is not None:
            self.feed = None
            self.count(-1)
            self.look()

    def give_up(self) -> None:
        """Begin no job any more."""
        super().give_up()
        self._starve()
