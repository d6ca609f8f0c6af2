"""What a pool does with a job that is submitted: what it waits for, and which of those queued it joins.

`trio.lowlevel` is used to know from which job a call comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any, TypeVar

import trio

from ..backoff import Backoff
from .crew import Crew
from .job import Job, Status, When, all_ok, require_job, title
from .ledger import OnError
from .slots import Away, Worker, enclosing

__all__ = ["PoolClosed", "PoolCrew"]

T = TypeVar("T")


class PoolClosed(Exception):  # noqa: N818 (what happened, like GroupClosed)
    """The pool takes no more jobs: it is closed, over, or not open yet."""


class PoolCrew(Crew):
    """The crew of an open pool."""

    def __init__(self, limit: float, on_error: OnError, timeout: float) -> None:
        super().__init__(limit, on_error, timeout)
        self.serial: int = 0
        self.last: Context = copy_context()
        """The context of the job that was started last: a thousand jobs from one place share one."""

    def require_open(self, name: str) -> None:
        """Raises: PoolClosed, unless the caller is a job of this crew that has not been given up."""
        if self.over:
            why = "its pool is over, because a job failed, or it was cancelled or has ended"
        elif any(worker.crew is self for worker in enclosing(trio.lowlevel.current_task())):
            return
        else:
            why = "its pool is closed, and takes jobs only from those that run"
        raise PoolClosed(f"job {name!r} was not started: {why}")

    def submit(
        self,
        fn: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        name: str | None,
        after: Job[Any] | Iterable[Job[Any]],
        key: Hashable | None,
        retry: Backoff | None,
        timeout: float,
        when: When,
    ) -> Job[T]:
        """Start a job that is more than a function and its arguments."""
        known = name or (title(fn) if callable(fn) else repr(fn))
        require_job(fn, known, retry, timeout, when)
        befores = self._befores(known, after)
        try:
            current = self.keys.get(key)
        except TypeError:
            raise TypeError(f"job {known!r}: key={key!r} cannot be hashed: use a string or a tuple") from None
        if current is None:
            job = self._new(fn, args, name)
            if key is not None:
                self.keys[key] = job
        elif current._running is None and current not in self.handed and not (befores and current in self.asleep):
            return self._join(current, fn, args, name, befores, retry, timeout, when)
        else:
            following = current._extra().next
            if following is not None and following.ended is None:
                return self._join(following, fn, args, name, befores, retry, timeout, when)
            job = current._extra().next = self._new(fn, args, name)
            job._left = 1
        more = job._extra()
        more.key = key
        self._policy(job, befores, retry, timeout, when)
        if job.ended is None and not job._left:
            self.may_begin(job, trio.current_time())
        if job.ended is not None:
            self.settle(job)
        self.call()
        return job

    def _befores(self, known: str, after: Job[Any] | Iterable[Job[Any]]) -> tuple[Job[Any], ...]:
        befores = (after,) if isinstance(after, Job) else tuple(dict.fromkeys(after))
        for other in befores:
            if not isinstance(other, Job):
                raise TypeError(f"job {known!r}: after={other!r} is no job: give what `pool.start` returned")
            if other._host is not self:
                raise ValueError(
                    f"job {known!r} is after {other.name!r}, a job of another pool or run: await that one in its function"
                )
        return befores

    def _new(self, fn: Callable[..., Awaitable[T]], args: tuple[Any, ...], name: str | None) -> Job[T]:
        self.serial += 1
        self.unfinished += 1
        return Job(self, name or self.serial, fn, args, copy_context())

    def _join(
        self,
        job: Job[Any],
        fn: Callable[..., Awaitable[T]],
        args: tuple[Any, ...],
        name: str | None,
        befores: tuple[Job[Any], ...],
        retry: Backoff | None,
        timeout: float,
        when: When,
    ) -> Job[T]:
        """Have a job of the same key that was not begun do what is wanted now."""
        queued = not job._left and job not in self.asleep
        job._fn, job._args, job._context, job._name = fn, args, copy_context(), name or job._name
        self._policy(job, befores, retry, timeout, when)
        if queued and (job._left or job.ended is not None):
            self.queue.remove(job)
        if job.ended is not None:
            self.settle(job)
        return job

    def _policy(self, job: Job[Any], befores: tuple[Job[Any], ...], retry: Backoff | None, timeout: float, when: When) -> None:
        """Note what a job was given, and have it wait for others; it is skipped at once if one of these has it never begin."""
        more = job._extra()
        more.retry, more.timeout, more.when = retry, timeout, None if when is all_ok else when
        more.after = (*more.after, *befores)
        for other in befores:
            if other.ended is None:
                job._left += 1
                if other._unlocks:
                    other._unlocks.append(job)
                else:
                    other._unlocks = [job]
            elif more.when is None and not other.ready:
                job.blame = other.blame or other
                self.end(job, Status.SKIPPED, trio.current_time())
                return

    # Waiting for the crew as a whole

    async def until_drained(self, workers: Sequence[Worker]) -> None:
        """Wait until there is no job, whether idle or not. `workers` are those in whose jobs the caller is."""
        async with Away(workers[:1]):
            await trio.lowlevel.checkpoint()
            while self.unfinished:
                await self.change(0)

    async def until_quiescent(self, n: int, workers: Sequence[Worker]) -> None:
        """Wait until so many jobs are active. `workers` are those in whose jobs the caller is."""
        async with Away(workers[:1]):
            await trio.lowlevel.checkpoint()
            while True:
                while self.active > n:
                    await self.change(n)
                seen = self.serial, self.stirred
                if self.idle:
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                if self.active <= n and seen == (self.serial, self.stirred):
                    return
