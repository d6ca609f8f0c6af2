"""The engine: workers that take jobs from one queue, at most `limit` at a time.

A worker is a task that takes one job after the other and ends when there is none. A worker comes when there is a job and a slot,
and calls the next one as soon as it has taken a job and sees another: so a thousand jobs that never wait cost two tasks, and a
thousand that do have `limit` tasks at once. A task for each job was rejected, as it costs ten times the rest; so were workers
that park on a channel, which must be woken for each job.

Isolation is as if each job had a task of its own:

- Contextvars: a job has the context of who started it. A worker whose own context differs from that, because of who called it or
  because the job before has set a variable, hands the job to a fresh task in the right context. Values are compared by identity.
- Cancellation: the worker has one scope for many jobs; after a job that was cancelled, or had a deadline, it takes a new one. So a
  cancellation that comes late cannot hit the next job.
- Ctrl-C: the engine is protected, the body of a job is not, one frame below. A KeyboardInterrupt in a body is that body's
  exception.

Jobs that never wait could keep a worker from ever giving way, so it does after 64 jobs or 10 ms.

`trio.lowlevel` is used for that protection, for the checkpoint, and to know in which task a worker is.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, Final, cast

import trio

from ..errors import NotReady
from ..exit import only_cancelled
from ..runner import unprotected
from .job import SUCCESS, Job, JobStarted, JobTimeout, More, Status, shown
from .ledger import OnError, logger, note
from .run import Run
from .slots import WORKERS, Away, Worker, enclosing, involved, refuse_ring

__all__ = ["Crew"]

MISSING: Final = object()
NOT_CALLED: Final = object()

BATCH: Final = 64
"""After how many jobs a worker lets others run, at the latest."""

SPELL: Final = 0.01
"""After how many seconds it does."""


class Crew(Run):
    """The workers of one run."""

    def __init__(self, limit: float, on_error: OnError, timeout: float) -> None:
        super().__init__(limit, on_error, timeout)
        self.workers: dict[trio.lowlevel.Task, Worker] = {}

    def running(self) -> Iterator[Job[Any]]:
        """The jobs whose bodies have begun and not ended."""
        return (job for worker in list(self.workers.values()) if (job := worker.job) is not None)

    def hire(self) -> None:
        """Have a worker come."""
        super().hire()
        self.nursery.start_soon(self._work, None, name="worker")

    def call(self) -> None:
        """Have a worker come for what is in the queue, if there is a slot and none is on the way."""
        if self.queue and self.held < self.limit and not self.coming and self.entered:
            self.hire()

    @trio.lowlevel.enable_ki_protection
    async def _work(self, job: Job[Any] | None) -> None:
        task = trio.lowlevel.current_task()
        worker = Worker(self)
        self.workers[task] = WORKERS[task] = worker
        if job is None:
            self.arrived()
        else:
            self.handed.pop(job, None)
        try:
            while not self.watched and not self.over:
                await trio.lowlevel.cancel_shielded_checkpoint()
            if trio.current_effective_deadline() == -math.inf:  # cancelled before `watch` could be told
                self.cancelled()
            while await self._take_jobs(worker, job) and worker.holds and self.held <= self.limit:
                job = None
                worker.marked = False
                worker.scope = trio.CancelScope()
        finally:
            if worker.job is not None and worker.job.ended is None:  # an error of the engine's own
                self.end(worker.job, Status.UNKNOWN, trio.current_time())
                self.settle(worker.job)
            del self.workers[task], WORKERS[task]
            if worker.holds:
                self.release()
            else:
                self.call()

    async def _take_jobs(self, worker: Worker, job: Job[Any] | None) -> bool:
        """Work on jobs until there are none, or until the scope cannot be used any more: then it is true."""
        queue, turns = self.queue, self.turns
        clock = trio.lowlevel.current_clock().current_time
        with worker.scope:
            now = clock()
            left, until = BATCH, now + SPELL
            while True:
                if job is None:
                    if turns or not (queue or self._fed()):
                        return False
                    job = queue.popleft()
                if (queue or self.feed is not None) and not self.coming and self.held < self.limit:
                    self.hire()
                if job.ended is not None:  # it was cancelled while it was queued
                    job = None
                    continue
                here, wanted = copy_context(), job._context
                if (here or wanted) and not same(here, wanted):
                    self._hand_over(worker, job)
                    return False
                worker.job = job
                job._running = worker
                job.attempts += 1
                if job._more is None:
                    job.started = now
                else:
                    self._begin(worker, job, job._more, now)
                if self.ring is not None:
                    self.ring.publish(JobStarted, now, job)
                awaitable: Any = NOT_CALLED
                try:
                    awaitable = job._fn(*job._args)
                    value = await unprotected(awaitable)
                except BaseException as error:
                    now = clock()
                    cancelled = self._raised(worker, job, awaitable, error, now)
                    worker.job = None
                    if cancelled is not None:
                        raise cancelled from None
                else:
                    now = clock()
                    job.value = value
                    self.end(job, SUCCESS, now)
                    worker.job = None
                    if job._unlocks or job._more is not None:
                        self.settle(job)
                if worker.marked:
                    worker.tidy()
                    return True
                job = None
                left -= 1
                if not left or now > until:
                    await trio.lowlevel.checkpoint()
                    now = clock()
                    left, until = BATCH, now + SPELL
        return True

    def _hand_over(self, worker: Worker, job: Job[Any]) -> None:
        """Have a fresh worker in the job's context go on with the job, and with the slot."""
        worker.holds = False
        self.handed[job] = None
        job._context.run(self.nursery.start_soon, self._work, job)

    def _begin(self, worker: Worker, job: Job[Any], more: More, now: float) -> None:
        if job.started is None:
            job.started = now
        if more.began is None:
            more.began = now
        for each in (more, *(covered._extra() for covered in more.covers)):
            if each.begun is not None:
                each.begun.set()
        if more.timeout != math.inf:
            worker.scope.deadline = now + more.timeout
            worker.marked = True

    # What a body raised

    def _raised(self, worker: Worker, job: Job[Any], awaitable: Any, error: BaseException, now: float) -> BaseException | None:
        """Settle how a job has ended, or that it is tried again. Returns a cancellation that is not the job's own."""
        not_async = None if awaitable is NOT_CALLED or inspect.isawaitable(awaitable) else type(awaitable).__name__
        if isinstance(awaitable, CoroutineType):
            awaitable.close()  # Ctrl-C can come before its first line
        cancelled, rest = parted(error)
        more = job._more
        if worker.marked and (cancelled is not None or while_cancelled(error)) and worker.scope.cancel_called:
            cancelled = None
            if more is not None and not more.stopped and worker.scope.deadline <= self.cut_at:
                late = JobTimeout(f"job {job.name!r} was not done within {more.timeout:g} s and was cancelled")
                late.__cause__, rest = rest, late
        if isinstance(rest, TypeError) and not_async:
            rest = TypeError(f"job {job.name!r}: its function returned a {not_async}, which is not awaitable: make it `async def`")
        if rest is None:
            self.end(job, Status.UNKNOWN, now)
        else:
            not_ready = None if self.strict else only_not_ready(rest)
            rest = rest if not_ready is None else not_ready
            if more is not None and not more.stopped and self._again(job, more, rest, now):
                return cancelled
            if not_ready is None:
                note(rest, job)
                self.fail(job, rest, now)
            else:
                job.error = rest
                self.end(job, Status.NOT_READY, now)
        self.settle(job)
        return cancelled

    def _again(self, job: Job[Any], more: More, error: BaseException, now: float) -> bool:
        """Have a job tried again after a delay, in which it has no slot; False if it is not to be."""
        if more.retry is None or more.began is None or not isinstance(error, Exception):
            return False
        delay = more.retry.next(error, job.attempts - more.tried_before, now - more.began)
        if delay is None or (self.over and not self.stopping):
            return False
        job.error = error
        if self.stopping:  # as its group is: it was to be tried again, so it has not failed
            self.end(job, Status.UNKNOWN, now)
            self.settle(job)
            return True
        job._running = None
        if more.key is not None and self.cover_next(job, more.key):
            self.queue.append(job)
            return True
        logger.info("job %r is tried again in %.3g s: %s", job.name, delay, shown(error))
        self.asleep[job] = scope = trio.CancelScope()
        self.nursery.start_soon(self._sleep, job, scope, now + delay, name=f"{job.name} is tried again")
        return True

    @trio.lowlevel.enable_ki_protection
    async def _sleep(self, job: Job[Any], scope: trio.CancelScope, until: float) -> None:
        with scope:
            await trio.sleep_until(until)
        if self.asleep.get(job) is scope:
            del self.asleep[job]
            self.queue.append(job)
            self.call()

    # What a job can be asked

    @trio.lowlevel.enable_ki_protection
    def cancel(self, job: Job[Any]) -> None:
        """Cancel a job, wherever it is."""
        if job.ended is not None:
            return
        worker = job._running
        if isinstance(worker, Worker):
            job._extra().stopped = True
            worker.marked = True
            worker.scope.cancel(f"job {job.name!r} was cancelled")
            worker.wake()
            return
        scope = self.asleep.pop(job, None)
        self.handed.pop(job, None)
        if job._more is not None and job._more.covers:
            self.bequeath(job, job._more.key)
        self.end(job, Status.UNKNOWN, trio.current_time())
        self.settle(job)
        self.call()
        if scope is not None:
            scope.cancel("its job was cancelled")

    @trio.lowlevel.enable_ki_protection
    async def wait_for(self, job: Job[Any], *, begun: bool = False) -> None:
        """Wait until a job has ended, or only begun. Raises: CycleError if it waits for one in which the caller is."""
        more = job._extra()
        task = trio.lowlevel.current_task()
        workers = enclosing(task)
        event = more.begun if begun else more.ended
        if event is None:
            event = trio.Event()
            if begun:
                more.begun = event
            else:
                more.ended = event
        if not workers:
            await event.wait()
            return
        refuse_ring(workers, job)
        waiting = more.inserted_by if begun else more.awaited_by
        waiting[task] = [worker.job for worker in workers if worker.job is not None]
        try:
            async with Away(involved(workers, self)):
                await event.wait()
        finally:
            del waiting[task]


def same(one: Context, other: Context) -> bool:
    """Whether two contexts have the same values, by identity: what is equal can still be somebody else's."""
    if len(one) != len(other):
        return False
    for variable, value in one.items():  # noqa: SIM110 (a generator would double what most jobs cost here)
        if other.get(variable, MISSING) is not value:
            return False
    return True


def parted(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What of an error is cancellation, and the rest."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(trio.Cancelled)
    return None, error


def while_cancelled(error: BaseException) -> bool:
    """Whether it was raised where a cancellation was being handled, in whose place it came."""
    context = error.__context__
    while context is not None and not only_cancelled(context):
        context = context.__context__
    return context is not None


def only_not_ready(error: BaseException) -> NotReady | None:
    """The NotReady that an error is, or that a group has nothing else of: a nursery in a body wraps it."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        found = None if group.split(NotReady)[1] is not None else group.exceptions[0]
        return None if found is None else only_not_ready(found)
    return error if isinstance(error, NotReady) else None
