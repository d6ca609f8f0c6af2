"""What became of the jobs of one run, and what follows from that for others.

The end of a job is one synchronous step: its status, its waiters, those that it unlocks and that are queued, or skipped with it,
and the count of those that have not ended. So the count cannot dip between the end of a job and the beginning of what waited for
it, which is what false quiescence comes from.

`trio.lowlevel` is used to tell those who wait for jobs that were given up after a cancellation has reached all that it is for.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections import deque
from collections.abc import Iterable
from contextvars import Context
from typing import Any, Final, Literal, TypeAlias, get_args

import trio

from ..errors import CycleError
from ..events import Entry, EventRing
from ..member import require_seconds
from .job import SUCCESS, Job, JobEnded, JobEvent, More, Status, When, shown
from .keys import Keys

__all__ = ["Ledger", "OnError"]

logger: logging.Logger = logging.getLogger("grouper")

OnError: TypeAlias = Literal["cancel", "drain", "continue"]
"""What a failure does: cancel the others, begin no more, or nothing."""

NOBODYS: Final = Context()


def told(entry: Entry[Job[Any]]) -> JobEvent:
    """Make the event of what the ring keeps."""
    kind, time, job, _ = entry
    assert issubclass(kind, JobEvent)
    return kind(job.name, time, job)


class Ledger(Keys):
    """The jobs of one run that have not ended, and the failures of those that have."""

    def __init__(self, limit: float, on_error: OnError) -> None:
        super().__init__(limit)
        self.on_error: OnError = on_error
        self.strict: bool = False
        """Whether a job that is not ready has failed."""
        self.unfinished: int = 0
        self.over: bool = False
        self.failures: deque[Job[Any]] = deque()
        self.failed: int = 0
        self.interrupts: list[BaseException] = []
        self.ring: EventRing[Job[Any]] | None = None
        self.stirred: int = 0
        """How often a job has begun to be idle, or has ceased to be."""
        self._threshold: float = 0
        self._mark: float = 0
        self._quiet: trio.Event | None = None
        self._untold: list[More] | None = None

    def running(self) -> Iterable[Job[Any]]:
        """The jobs whose bodies have begun and not ended."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Begin no job any more, and cancel those that run."""
        raise NotImplementedError

    # The count of those that have not ended

    @property
    def active(self) -> int:
        """The jobs that have not ended, but those that are idle."""
        return self.unfinished - self.idle

    def idled(self, by: int) -> None:
        """So many more jobs are idle."""
        super().idled(by)
        self.stirred += 1
        self._mark = self._threshold + self.idle
        self.look()

    async def change(self, threshold: float) -> None:
        """Wait until a job has ended or is idle, and `active` is the threshold or less then."""
        if self._quiet is None:
            self._quiet = trio.Event()
        self._threshold = max(self._threshold, threshold)
        self._mark = self._threshold + self.idle
        await self._quiet.wait()

    def look(self) -> None:
        """Wake those who wait for a change, if it may be there."""
        if self.unfinished <= self._mark and self._quiet is not None:
            self._threshold, self._mark = 0, self.idle
            self._quiet.set()
            self._quiet = None

    def count(self, more: int) -> None:
        """So many more jobs have not ended."""
        self.unfinished += more

    def listened(self) -> EventRing[Job[Any]]:
        """The ring in which events are told, from now on."""
        if self.ring is None:
            self.ring = EventRing(0)
        return self.ring

    # How jobs end

    def end(self, job: Job[Any], status: Status, now: float) -> None:
        """Make the end of a job a fact, and tell those who wait for it. `settle` does what follows for those after it."""
        job.status = status
        job.ended = now
        job._args = ()
        job._context = NOBODYS
        job._running = None
        self.unfinished -= 1
        if self.ring is not None:
            self.ring.publish(JobEnded, now, job)
        if job._more is not None:
            self._end_more(job, job._more, status, now)
        if self.unfinished <= self._mark and self._untold is None:
            self.look()

    def _end_more(self, job: Job[Any], more: More, status: Status, now: float) -> None:
        more.after = ()
        if status is SUCCESS:
            job.error = None  # that of an earlier try
        if self._untold is None:
            more.tell_end()
        else:
            self._untold.append(more)
        for other in more.covers:
            if other.ended is None:
                other.value, other.error, other.started, other.attempts = job.value, job.error, job.started, job.attempts
                self.end(other, status, now)

    def fail(self, job: Job[Any], error: BaseException, now: float) -> None:
        """End a job with an error, and do what `on_error` says."""
        job.error = error
        job._running = job._running or self  # so that it is not swept up with those that are given up
        told = logging.DEBUG if self.strict else logging.INFO if self.on_error == "cancel" else logging.WARNING
        logger.log(told, "job %r failed%s: %s", job.name, f" at try {job.attempts}" if job.attempts > 1 else "", shown(error))
        if self.on_error == "cancel" or not isinstance(error, Exception):
            self.abandon()  # before those who wait for it are told: they are cancelled, and do not fail with it
        elif self.on_error == "drain":
            self.give_up()
        self.failures.append(job)
        self.failed += 1
        if not isinstance(error, Exception):
            self.interrupts.append(error)
        self.end(job, Status.FAILED, now)

    def settle(self, job: Job[Any]) -> None:
        """Let those begin for which a job that has ended was the last they waited for, and skip those that now can never begin."""
        todo = [job]
        while todo:
            done = todo.pop()
            now = done.ended
            if now is None:
                continue
            if done._more is not None and done._more.key is not None:
                self.free(done, done._more.key)
                todo.extend(done._more.covers)
                done._more.covers = []
            skips = not done.ready
            for other in done._unlocks:
                other._left -= 1
                if skips or self.over:
                    if other.ended is None:
                        self._pass_on(done, other, now)
                elif not other._left and other.ended is None:
                    self.may_begin(other, now)
                if other.ended is now:  # by that
                    todo.append(other)
            done._unlocks = ()

    def _pass_on(self, done: Job[Any], other: Job[Any], now: float) -> None:
        """Act on the end, without success, of one that `other` is after."""
        if self.over:
            self.end(other, Status.UNKNOWN, now)
        elif other._more is None or other._more.when is None:
            other.blame = done.blame or done
            self.end(other, Status.SKIPPED, now)
        elif not other._left:
            self.may_begin(other, now)

    def may_begin(self, job: Job[Any], now: float) -> None:
        """Queue a job that is after nobody any more, if its `when` says so, and no other job of its key is before it."""
        more = job._more
        if more is not None:
            if more.when is not None and not self._is_wanted(job, more, more.when, now):
                return
            if self.over:
                self.end(job, Status.UNKNOWN, now)
                return
            if more.key is not None:
                path = self.ring_by(job, more.key)
                if path:
                    self.fail(job, CycleError(path, "job", waiting=True), now)
                else:
                    self.admit(job, more.key)
                return
        self.queue.append(job)

    def _is_wanted(self, job: Job[Any], more: More, when: When, now: float) -> bool:
        try:
            if when(more.after):
                return True
        except BaseException as error:
            note(error, job, "in the `when` of")
            self.fail(job, error, now)
        else:
            job.blame = next((each.blame or each for each in more.after if not each.ready), None)
            self.end(job, Status.SKIPPED, now)
        return False

    def waiting_for(self, job: Job[Any]) -> list[Job[Any]]:
        """The jobs that cannot go on before a job has ended."""
        found = [other for other in job._unlocks if other.ended is None]
        more = job._more
        if more is not None:
            for waiters in (more.awaited_by, more.inserted_by if job.started is None else {}):
                found.extend(waiter for those in waiters.values() for waiter in those)
        return found + self.behind(job)

    def give_up(self) -> None:
        """Begin no job any more: those that have not begun end UNKNOWN, and so do those that were to be tried again."""
        if not self.over:
            self.over = True
            self.sweep()

    def sweep(self) -> None:
        """End all jobs that do not run.

        Where all that runs is being cancelled, those who wait are told a moment later: else they would go on as if it were not.
        """
        if self.cut and self._untold is None:
            self._untold = []
            trio.lowlevel.current_trio_token().run_sync_soon(self.tell)
        now = trio.current_time()
        todo = [*self.queue, *self.handed, *self.asleep, *itertools.chain(*self.keys.values())]
        for job in self.running():
            todo.extend(_after(job))
        self.queue.clear()
        self.handed.clear()
        self.keys.clear()
        sleepers = list(self.asleep.values())
        self.asleep.clear()
        for job in todo:  # which grows
            if job.ended is None and job._running is None:
                todo.extend(_after(job))
                self.end(job, Status.UNKNOWN, now)
                job._unlocks = ()
        for scope in sleepers:
            scope.cancel("no job is tried again")

    def tell(self) -> None:
        """Tell those who wait for what was ended when all was cancelled."""
        untold, self._untold = self._untold or [], None
        for more in untold:
            more.tell_end()
        self.look()


def _after(job: Job[Any]) -> list[Job[Any]]:
    """Those that are after a job, or after one that it covers."""
    covers = () if job._more is None else job._more.covers
    return [*job._unlocks, *(other for covered in covers for other in covered._unlocks)]


def require_bounds(who: str, limit: float, on_error: str, timeout: float) -> None:
    """Raises: TypeError or ValueError that names the argument and the fix."""
    if isinstance(limit, bool) or not (isinstance(limit, int) or limit == math.inf):
        raise TypeError(f"{who}: limit={limit!r} is not a number of jobs: use an int, or math.inf for no bound")
    if limit < 1:
        raise ValueError(f"{who}: limit={limit} would let no job run: use 1 or more")
    if on_error not in get_args(OnError):
        raise ValueError(f'{who}: on_error={on_error!r} is not one of "cancel", "drain", "continue"')
    require_seconds(timeout, f"{who}: timeout")


def note(error: BaseException, job: Job[Any], where: str = "in") -> None:
    """Have the error name the job."""
    with contextlib.suppress(Exception):  # a frozen exception takes no notes; the job's failure is logged by name anyway
        error.add_note(f"{where} job {job.name!r}")
