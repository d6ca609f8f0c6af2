"""What became of the jobs of one run, and what follows from that for others.

The end of a job is one synchronous step: its status, its waiters, those that it unlocks and that are queued, or skipped with it,
and the count of those that have not ended. So the count cannot dip between the end of a job and the beginning of what waited for
it, which is what false quiescence comes from.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Hashable, Iterable
from contextvars import Context
from typing import Any, Final, Literal, TypeAlias, get_args

import trio

from ..events import Event, EventRing
from ..member import require_seconds
from .job import Job, JobEnded, JobEvent, Status
from .slots import Slots

__all__ = ["Ledger", "OnError"]

logger: logging.Logger = logging.getLogger("grouper")

OnError: TypeAlias = Literal["cancel", "drain", "continue"]
"""What a failure does: cancel the others, begin no more, or nothing."""

NOBODYS: Final = Context()

FAILURES_KEPT: Final = 1_000
"""How many failed jobs a pool remembers: it may run for months."""


def told(entry: tuple[type[Event], float, Job[Any]]) -> JobEvent:
    """Make the event of what the ring keeps."""
    kind, time, job = entry
    assert issubclass(kind, JobEvent)
    return kind(job.name, time, job)


class Ledger(Slots):
    """The jobs of one run that have not ended, and the failures of those that have."""

    def __init__(self, limit: float, on_error: OnError) -> None:
        super().__init__(limit)
        self.on_error: OnError = on_error
        self.unfinished: int = 0
        self.over: bool = False
        self.keys: dict[Hashable, Job[Any]] = {}
        self.asleep: dict[Job[Any], trio.CancelScope] = {}
        self.handed: set[Job[Any]] = set()
        self.failures: deque[Job[Any]] = deque(maxlen=FAILURES_KEPT)
        self.failed: int = 0
        self.interrupts: list[BaseException] = []
        self.ring: EventRing[Job[Any]] | None = None
        self.stirred: int = 0
        """How often a job has begun to be idle, or has ceased to be."""
        self._threshold = 0
        self._mark = 0
        self._quiet: trio.Event | None = None

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
        self.idle += by
        self.stirred += 1
        self._mark = self._threshold + self.idle
        self.look()

    async def change(self, threshold: int) -> None:
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
            job._more.tell_end()
            if job._more.key is not None and self.keys.get(job._more.key) is job:
                del self.keys[job._more.key]
        if self.unfinished <= self._mark:
            self.look()

    def fail(self, job: Job[Any], error: BaseException, now: float) -> None:
        """End a job with an error, and do what `on_error` says."""
        job.error = error
        logger.warning("job %r failed at try %d: %r", job.name, job.attempts, error)
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
            if done._more is not None and done._more.next is not None:
                todo.append(self._follow(done._more.next, now))
                done._more.next = None

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
        """Queue a job that has nothing left to wait for, if its `when` says so."""
        more = job._more
        if more is not None and more.when is not None:
            try:
                wanted = more.when(more.after)
            except Exception as error:
                note(error, job, "in the `when` of")
                self.fail(job, error, now)
                return
            if not wanted:
                job.blame = next((each.blame or each for each in more.after if not each.ready), None)
                self.end(job, Status.SKIPPED, now)
                return
        self.queue.append(job)

    def _follow(self, job: Job[Any], now: float) -> Job[Any]:
        """Let a job begin that waited for the one before it of the same key."""
        if job.ended is None:
            job._left -= 1
            if self.over:
                self.end(job, Status.UNKNOWN, now)
                return job
            if job._more is not None:
                self.keys[job._more.key] = job
            if not job._left:
                self.may_begin(job, now)
        return job

    def give_up(self) -> None:
        """Begin no job any more: those that have not begun end UNKNOWN, and so do those that were to be tried again."""
        if self.over:
            return
        self.over = True
        now = trio.current_time()
        todo = [*self.queue, *self.handed, *self.asleep]
        for job in self.running():
            todo.extend(_behind(job))
        self.queue.clear()
        self.handed.clear()
        sleepers = list(self.asleep.values())
        self.asleep.clear()
        for job in todo:  # which grows
            if job.ended is None and job._running is None:
                todo.extend(_behind(job))
                self.end(job, Status.UNKNOWN, now)
                job._unlocks = ()
        for scope in sleepers:
            scope.cancel("no job is tried again")


def require_bounds(who: str, limit: float, on_error: str, timeout: float) -> None:
    """Raises: TypeError or ValueError that names the argument and the fix."""
    if isinstance(limit, bool) or not (isinstance(limit, int) or limit == math.inf):
        raise TypeError(f"{who}: limit={limit!r} is not a number of jobs: use an int, or math.inf for no bound")
    if limit < 1:
        raise ValueError(f"{who}: limit={limit} would let no job run: use 1 or more")
    if on_error not in get_args(OnError):
        raise ValueError(f'{who}: on_error={on_error!r} is not one of "cancel", "drain", "continue"')
    require_seconds(timeout, f"{who}: timeout")


def _behind(job: Job[Any]) -> list[Job[Any]]:
    """Those that wait for the end of a job before they may begin."""
    following = None if job._more is None else job._more.next
    return [*job._unlocks] if following is None else [*job._unlocks, following]


def note(error: BaseException, job: Job[Any], where: str = "in") -> None:
    """Have the error name the job."""
    with contextlib.suppress(Exception):  # a frozen exception takes no notes; the job's failure is logged by name anyway
        error.add_note(f"{where} job {job.name!r}")
