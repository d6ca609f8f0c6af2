"""Jobs of the same key: one runs at a time, and a call is covered by a run that has not begun.

A run covers what was called for before it begins, and does what the freshest of those calls said. That is decided when a job could
begin: it joins the last of its key if that has not begun, or is to be tried again, and ends with it and as it does. One that is to
be tried again then tries at once: what it failed with is out of date. While one runs, the next waits for its end. So there are
never more than two of a key, no call is lost, and none that is stale runs last.

Rejected: a job of its own for each call, which runs as often as it was called; the first call's function for all, after which the
last caller's words are lost; to leave what is tried again to its delay, which keeps a fresh call waiting for a stale one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context
from typing import Any

import trio

from ..backoff import Backoff
from .job import Job
from .slots import Slots, Worker, ring

__all__ = ["Keys"]


class Keys(Slots):
    """The jobs of each key that could begin, and where those are that have not begun."""

    def __init__(self, limit: float) -> None:
        super().__init__(limit)
        self.keys: dict[Hashable, deque[Job[Any]]] = {}
        """In the order in which they run: the first is queued, runs, or is to be tried again."""
        self.asleep: dict[Job[Any], trio.CancelScope] = {}
        self.handed: dict[Job[Any], None] = {}
        """Those on the way into the queue, or to a worker."""

    def last_of(self, key: Hashable) -> Job[Any] | None:
        """The job that covers a call with the key that comes now. Raises: TypeError for a key that cannot be hashed."""
        those = self.keys.get(key)
        last = None if those is None else those[-1]
        return None if last is None or last.ended is not None or last._running is not None or last in self.handed else last

    def adopt(
        self,
        job: Job[Any],
        fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        context: Context,
        retry: Backoff | None,
        timeout: float,
    ) -> None:
        """Have a job that has not begun, or is to be tried again, do what the freshest call says; its tries count anew."""
        more = job._extra()
        job._fn, job._args, job._context = fn, args, context
        more.retry, more.timeout, more.began, more.tried_before = retry, timeout, None, job.attempts
        scope = self.asleep.pop(job, None)
        if scope is not None:
            self.queue.append(job)
            scope.cancel("there is a fresher call")

    def admit(self, job: Job[Any], key: Hashable) -> None:
        """Queue a job that could begin, or have it wait for the one of its key that runs, or be covered by one that does not."""
        last = self.last_of(key)
        if last is not None:
            self._cover(last, job)
            return
        those = self.keys.setdefault(key, deque())
        those.append(job)
        if len(those) == 1:
            self.queue.append(job)

    def ring_by(self, job: Job[Any], key: Hashable) -> list[str]:
        """The path of a ring, if the job of the key that runs waits for `job`, which would have to wait for it."""
        those = self.keys.get(key)
        running = None if those is None else those[0]._running
        return ring([job], those[0]) if those is not None and isinstance(running, Worker) and running.waits else []

    def _cover(self, job: Job[Any], other: Job[Any]) -> None:
        its = other._extra()
        self.adopt(job, other._fn, other._args, other._context, its.retry, its.timeout)
        job._extra().covers += [other, *its.covers]
        its.covers = []

    def cover_next(self, job: Job[Any], key: Hashable) -> bool:
        """Have a job that is to be tried again cover the next one of its key; False if there is none."""
        those = self.keys.get(key, deque())
        for other in itertools.islice(those, 1, None):
            if other.ended is None:
                those.remove(other)
                self._cover(job, other)
                return True
        return False

    def bequeath(self, job: Job[Any], key: Hashable) -> None:
        """Have one of those that a job covers take its place, which is cancelled and has not begun: their calls are not lost."""
        more = job._extra()
        heirs, more.covers = [each for each in more.covers if each.ended is None], []
        those = self.keys.get(key)
        if not heirs or those is None or job not in those:
            return
        heir = heirs[0]
        self.adopt(heir, job._fn, job._args, job._context, more.retry, more.timeout)
        heir._extra().covers = heirs[1:]
        place = those.index(job)
        those[place] = heir
        if not place:
            self.queue.append(heir)

    def free(self, job: Job[Any], key: Hashable) -> None:
        """Let the next job of a key begin, if this one, which has ended, was before it."""
        those = self.keys.get(key)
        if those is None or those[0] is not job:
            return
        while those and those[0].ended is not None:
            those.popleft()
        if those:
            self.queue.append(those[0])
        else:
            del self.keys[key]

    def behind(self, job: Job[Any]) -> list[Job[Any]]:
        """Those of its key that cannot go on before a job has ended."""
        more = job._more
        if more is None or more.key is None:
            return []
        after = itertools.dropwhile(lambda each: each is not job, self.keys.get(more.key, ()))
        return [*itertools.islice(after, 1, None), *more.covers]
