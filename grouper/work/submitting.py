"""What a pool does with a job that is submitted: what it waits for, and which of those queued it joins.

`trio.lowlevel` is used to know from which job a call comes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

import trio

from ..backoff import Backoff
from .crew import Crew
from .job import Job, Status, When, all_ok, require_job, title
from .ledger import OnError
from .slots import Away, Worker, enclosing

__all__ = ["PoolClosed", "PoolCrew"]

T = TypeVar("T")

FAILURES_KEPT: Final = 1_000
"""How many failed jobs a pool remembers: it may run for months."""


class PoolClosed(Exception):  # noqa: N818 (what happened, like GroupClosed)
    """The pool takes no more jobs: it is closed, over, or not open yet."""


class PoolCrew(Crew):
    """The crew of an open pool."""

    def __init__(self, limit: float, on_error: OnError, timeout: float) -> None:
        super().__init__(limit, on_error, timeout)
        self.failures: deque[Job[Any]] = deque(maxlen=FAILURES_KEPT)
        self.ending: trio.Event = trio.Event()
        self.serial: int = 0
        self.last: Context = copy_context()
        """The context of the job that was started last: a thousand jobs from one place share one."""

    def give_up(self) -> None:
        """Begin no job any more."""
        super().give_up()
        self.ending.set()

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
            last = self.last_of(key)
        except TypeError:
            raise TypeError(f"job {known!r}: key={key!r} cannot be hashed: use a string or a tuple") from None
        if last is not None and not befores and when is all_ok:
            self.adopt(last, fn, args, copy_context(), retry, timeout)
            last._name = name or last._name
            self.call()
            return last
        self.serial += 1
        self.count(1)
        job = Job(self, name or self.serial, fn, args, copy_context())
        more = job._extra()
        more.key, more.retry, more.timeout = key, retry, timeout
        more.after, more.when = befores, None if when is all_ok else when
        self._tie(job, befores)
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

    def _tie(self, job: Job[Any], befores: tuple[Job[Any], ...]) -> None:
        """Have a job wait for others; queue it if it has nobody to wait for, and skip it if one of them has it never begin."""
        now = trio.current_time()
        for other in befores:
            if other.ended is None:
                job._left += 1
                if other._unlocks:
                    other._unlocks.append(job)
                else:
                    other._unlocks = [job]
            elif not other.ready and job._more is not None and job._more.when is None:
                job.blame = other.blame or other
                self.end(job, Status.SKIPPED, now)
                return
        if not job._left:
            self.may_begin(job, now)

    # Waiting for the crew as a whole

    async def until_drained(self, workers: Sequence[Worker]) -> None:
        """Wait until there is no job, whether idle or not. `workers` are those in whose jobs the caller is."""
        async with Away(workers):
            await trio.lowlevel.checkpoint()
            while self.unfinished:
                await self.change(0)

    def _behind_idle(self) -> set[Job[Any]]:
        """The jobs that cannot go on before one has ended that is idle, which they would keep from ever seeing quiet."""
        idle = [worker.job for worker in self.workers.values() if worker.idles and worker.job is not None]
        todo, found = [*idle], set[Job[Any]]()
        while todo:
            for job in self.waiting_for(todo.pop()):
                if job not in found and job._host is self and job not in idle:
                    found.add(job)
                    todo.append(job)
        return found

    async def until_quiescent(self, n: int, workers: Sequence[Worker]) -> None:
        """Wait until so many jobs are active. `workers` are those in whose jobs the caller is."""
        async with Away(workers):
            await trio.lowlevel.checkpoint()
            while True:
                while self.active - len(self._behind_idle()) > n:
                    await self.change(math.inf if self.idle else n)
                seen = self.serial, self.stirred
                if self.idle:
                    await trio.lowlevel.checkpoint()
                    await trio.lowlevel.checkpoint()
                if self.active - len(self._behind_idle()) <= n and seen == (self.serial, self.stirred):
                    return
