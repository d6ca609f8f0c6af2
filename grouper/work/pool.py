"""A pool: jobs are started one by one, and at most `limit` of them run at a time.

`trio.lowlevel` is used to know from which job a call comes, and for protection from KeyboardInterrupt.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import attrs
import trio

from ..backoff import Backoff
from ..events import EventStream
from ..exit import only_cancelled
from ..signals import Signals
from .crew import same
from .job import Job, JobError, JobEvent, Status, When, all_ok, title
from .ledger import OnError, require_bounds
from .slots import Away, Worker, enclosing
from .submitting import PoolClosed, PoolCrew

__all__ = ["DEFAULT_LIMIT", "Pool", "PoolClosed", "open_pool"]

DEFAULT_LIMIT: Final = 4 * (os.cpu_count() or 1)
"""How many jobs run at a time unless it is said: 4 times the number of CPUs. Without a bound, `math.inf`, is for who asks for
it."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@attrs.define(eq=False)
class Pool:
    """Jobs that are started one by one, of which at most `limit` run at a time. Open it with `open_pool`, or as a member of a
    group.

    As a member it is ready at once. A stop signal closes it: what was started is done, within the member's grace, but nothing that
    has raised is tried again; a kill cancels.
    `start` works while it is open, and works for the jobs of a closed pool until they have ended, as in a nursery.

    `on_error` is what the failure of a job does: "cancel" the other jobs and the block, "drain": begin no other job, or "continue".
    In any case the failures are raised at the end, in one ExceptionGroup: the last 1,000 of them. `timeout`: seconds after which
    all is cancelled and `trio.TooSlowError` is raised.

    Raises: TypeError or ValueError for a limit below 1, a negative timeout, another `on_error`.
    """

    limit: float = attrs.field(default=DEFAULT_LIMIT, kw_only=True)
    on_error: OnError = attrs.field(default="cancel", kw_only=True)
    timeout: float = attrs.field(default=math.inf, kw_only=True)
    _crew: PoolCrew | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        require_bounds("Pool", self.limit, self.on_error, self.timeout)

    # Submitting

    @trio.lowlevel.enable_ki_protection
    def start(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        after: Job[Any] | Iterable[Job[Any]] = (),
        key: Hashable | None = None,
        retry: Backoff | None = None,
        timeout: float = math.inf,
        when: When = all_ok,
    ) -> Job[T]:
        """Start a job: queue it, and return its handle at once. It runs in the caller's context (contextvars).

        `after`: jobs of this pool that must have succeeded first; if one does not, it is skipped, or `when` decides once all have
        ended. `retry`: what has raised is tried again after a delay, in which it has no slot. `timeout`: seconds that each try
        may take (also waiting for other jobs); one that takes longer fails with JobTimeout.

        `key`: of the jobs with the same key one runs at a time. A call is covered by a run that has not begun, or that is to be
        tried again, which it then is at once; the run does what the freshest call said, and what it comes to is what all of
        them come to. If one runs, another will run after it, from the end of the queue, for all calls meanwhile. **No call is
        lost**, also when the one that runs fails or is cancelled: what fails again and again is run as often as it was started.
        A call with `after` counts from when it could begin.

        Raises: PoolClosed; TypeError or ValueError that names the job and the fix.
        """
        crew = self._crew
        if crew is None or crew.closed or crew.over:
            crew = self._require_open(name or (title(fn) if callable(fn) else repr(fn)))
        if after or key is not None or retry is not None or timeout != math.inf or when is not all_ok or not callable(fn):
            return crew.submit(fn, args, name, after, key, retry, timeout, when)
        context = copy_context()
        if (context or crew.last) and not same(context, crew.last):
            crew.last = context
        crew.serial += 1
        crew.unfinished += 1
        job = Job(crew, name or crew.serial, fn, args, crew.last)
        crew.queue.append(job)
        if not crew.coming and crew.held < crew.limit:
            crew.hire()
        return job

    def _require_open(self, name: str) -> PoolCrew:
        if self._crew is None:
            fix = "use `async with open_pool() as pool`, or run it as a member and start jobs when it is ready"
            raise PoolClosed(f"job {name!r} was not started: its pool is not open: {fix}")
        self._crew.require_open(name)
        return self._crew

    async def insert(
        self,
        fn: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        after: Job[Any] | Iterable[Job[Any]] = (),
        key: Hashable | None = None,
        retry: Backoff | None = None,
        timeout: float = math.inf,
        when: When = all_ok,
    ) -> Job[T]:
        """Start a job as `start` does, and wait until it has begun: who inserts is held back while the pool is full.

        If the wait is cancelled the job does not run, unless it has a `key`. A job that inserts leaves its slot to others
        meanwhile. Raises: as `start`; CycleError if what is inserted waits for the job that inserts it.
        """
        job = self.start(fn, *args, name=name, after=after, key=key, retry=retry, timeout=timeout, when=when)
        try:
            if job.started is None and job.ended is None:
                await job._host.wait_for(job, begun=True)
            else:
                await trio.lowlevel.checkpoint()
        except BaseException:
            if job.started is None and key is None:
                job.cancel()
            raise
        return job

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Take no more jobs, but from those that run. Returns at once; it can be called again."""
        if self._crew is not None:
            self._crew.close()

    # Looking: safe from any thread

    @property
    def active(self) -> int:
        """How many jobs were started and have not ended, but those in `idle()`: running, queued and waiting ones."""
        return 0 if self._crew is None else self._crew.active

    @property
    def running(self) -> tuple[Job[Any], ...]:
        """The jobs whose bodies have begun and not ended."""
        return () if self._crew is None else tuple(self._crew.running())

    @property
    def failures(self) -> tuple[Job[Any], ...]:
        """The jobs that have failed, in time order: the last 1,000 of this run, or of the last one."""
        return () if self._crew is None else tuple(self._crew.failures)

    def events(self) -> EventStream[Job[Any], JobEvent]:
        """A stream of the jobs that begin and end from now on, and ends with the pool: `async with pool.events() as stream`.

        Raises: PoolClosed if the pool is not open.
        """
        crew = self._crew
        if crew is None:
            raise PoolClosed("there are no events: the pool is not open")
        return crew.events()

    # Waiting

    async def drained(self) -> None:
        """Wait until every job has ended, also those started meanwhile.

        Raises: RuntimeError in a job of the pool, which would wait for itself.
        """
        crew = self._crew
        if crew is None:
            await trio.lowlevel.checkpoint()
            return
        workers = enclosing(trio.lowlevel.current_task())
        for worker in workers:
            if worker.crew is crew and worker.job is not None:
                raise RuntimeError(f"job {worker.job.name!r} waits for its own pool to drain: await the jobs that it needs")
        await crew.until_drained(workers)

    async def quiescent(self, n: int = 0) -> None:
        """Wait until `active` is `n` or less: nothing can become ready any more but by those `n`, or from outside.

        Exact where jobs wait for jobs. A job in `idle()` waits for something else, of which the pool cannot know when it comes:
        while there are such jobs it must stay quiet for two turns of trio's scheduler, in which one who was woken by the last
        job can come back. What waits for a job in `idle()` does not count either. In a job it counts the caller. Raises:
        ValueError for a negative `n`; RuntimeError where the caller itself would keep it from ever returning.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"quiescent({n!r}): it is told a number of jobs")
        if n < 0:
            raise ValueError(f"quiescent({n}) would never return: there cannot be less than 0 active jobs")
        crew = self._crew
        if crew is None:
            await trio.lowlevel.checkpoint()
            return
        workers = enclosing(trio.lowlevel.current_task())
        own = [worker for worker in workers if worker.crew is crew and not worker.idles]
        if len(own) > n and own[0].job is not None:
            fix = "do it in `async with pool.idle()`"
            raise RuntimeError(f"job {own[0].job.name!r} is active itself while it waits for {n} active jobs: {fix}")
        await crew.until_quiescent(n, workers)

    def yielding(self) -> AbstractAsyncContextManager[None]:
        """Leave the slot to others in a block in which the job waits for something: `async with pool.yielding()`.

        Not needed to await a job. The job stays active. Raises: RuntimeError outside a job of the pool.
        """
        return Away(self._here("yielding"))

    def idle(self) -> AbstractAsyncContextManager[None]:
        """As `yielding`, and the job is not active in the block: it waits for what may never come. See `quiescent`."""
        return Away(self._here("idle"), idle=True)

    def _here(self, what: str) -> list[Worker]:
        workers = enclosing(trio.lowlevel.current_task())
        if self._crew is None or not workers or workers[0].crew is not self._crew:
            raise RuntimeError(f"pool.{what}() was called outside of a job of this pool: only a job has a slot that it can leave")
        return workers[:1]

    # Running

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Pool]) -> None:
        """Be open until a stop signal, then close, and return when all jobs have ended. The value is the pool."""
        if signals.received is not None:
            return
        async with Opened(self):
            task_status.started(self)
            with signals.cancelling() as told:
                await crew_of(self).ending.wait()
            if told.cancelled_caught:
                crew_of(self).stop()


def crew_of(pool: Pool) -> PoolCrew:
    """The crew of an open pool."""
    assert pool._crew is not None
    return pool._crew


def open_pool(*, limit: float = DEFAULT_LIMIT, on_error: OnError = "cancel", timeout: float = math.inf) -> Opened:
    """A pool beside a block, the end of which waits for all jobs.

        async with open_pool(limit=16) as pool:
            pool.start(fetch, url)

    See `Pool` for what is given and `Pool.start` for the rest. Raises, at the end: an ExceptionGroup of what jobs raised, with
    the job's name as a note on each; in one group with the block's own exception if both failed; `trio.TooSlowError`. If the
    block is cancelled or fails, the jobs are cancelled.
    """
    return Opened(Pool(limit=limit, on_error=on_error, timeout=timeout))


class Opened:
    """A block in which a pool is open."""

    def __init__(self, pool: Pool) -> None:
        self.pool: Pool = pool

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Pool:
        pool = self.pool
        if pool._crew is not None and not pool._crew.gone:
            raise RuntimeError("a pool is opened once at a time: make another one, with open_pool()")
        pool._crew = PoolCrew(pool.limit, pool.on_error, pool.timeout)
        await pool._crew.enter()
        pool._crew.beside(pool._crew.watch)
        return pool

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        crew = crew_of(self.pool)
        raised = [each for each in await crew.leave(kind, error, tb) if not _is_told(each, crew)]
        failed = [job.error for job in crew.failures if isinstance(job.error, Exception)]
        others = [*(each for each in raised if not only_cancelled(each)), *crew.interrupts]
        if crew.timed_out_after is not None:
            others.append(trio.TooSlowError(f"the pool was not done within {crew.timeout:g} s"))
        if failed and not others:
            raise ExceptionGroup(f"{crew.failed} {'job' if crew.failed == 1 else 'jobs'} failed", failed)
        if len(others) + len(failed) > 1:
            raise BaseExceptionGroup("a pool was ended by more than its jobs", [*others, *failed])
        for each in others or raised:
            if each is error:
                return False
            raise each
        return True


def _is_told(error: BaseException, crew: PoolCrew) -> bool:
    """Whether a block failed by waiting for a job whose own error is raised anyway."""
    return isinstance(error, JobError) and error.job.status is Status.FAILED and error.job._host is crew
