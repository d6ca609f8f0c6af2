"""Who may run: the slots of a crew, of which there are `limit`, and who leaves one to others while it waits.

A slot and being active are two things. A job whose body waits for another job has no slot meanwhile, so that parents that fill a
pool can wait for their children; it is active all the time. Nobody has to say so: awaiting a job lets the slot go, and what lets
it go gets one again, before any job that has not begun, when the wait is over. There is no semaphore: a worker that has finished
its job hands its slot to whoever waits for one, and ends.

What counts as the body of a job are also the tasks in nurseries inside it: if any of them waits for a job, the body counts as
waiting. Else a body that waits in a nursery for children that wait would hold the slot that these need. So the limit can be
passed by bodies of several tasks, of which one waits and others go on.

A wait for a slot can be cancelled at once; the body then goes on without waiting, and one slot more than the limit is held until
the job has ended. A cancelled job must not have to wait for others in order to clean up.

`trio.lowlevel` is used to know in which job a task is, and for protection from KeyboardInterrupt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

import trio

from ..errors import CycleError
from .job import Job

__all__ = ["Away", "Slots", "Worker", "enclosing", "refuse_ring"]

WORKERS: Final[dict[trio.lowlevel.Task, Worker]] = {}
"""The tasks in which jobs run now, of all crews and threads."""


class Slots:
    """The slots of one crew, those waiting for one again, and the jobs that may begin."""

    def __init__(self, limit: float) -> None:
        self.limit: float = limit
        self.held: int = 0
        self.coming: bool = False
        self.queue: deque[Job[Any]] = deque()
        self.turns: deque[trio.Event] = deque()
        self.idle: int = 0

    def hire(self) -> None:
        """Have a worker come, which holds a slot from now on."""
        raise NotImplementedError

    def idled(self, by: int) -> None:
        """So many more jobs are idle."""
        raise NotImplementedError

    def release(self) -> None:
        """Give a slot that was held to who waits for it."""
        if self.turns and self.held <= self.limit:
            self.turns.popleft().set()
            return
        self.held -= 1
        if self.queue and not self.coming and self.held < self.limit:
            self.hire()


class Worker:
    """A task that works on jobs, one after the other, in a scope of its own."""

    __slots__ = ("crew", "holds", "idles", "job", "marked", "scope", "waits")

    def __init__(self, crew: Slots) -> None:
        self.crew: Slots = crew
        self.job: Job[Any] | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self.marked: bool = False
        """Whether the scope, or the number of slots, is not to outlast the job."""
        self.holds: bool = True
        self.waits: int = 0
        self.idles: int = 0

    def let_go(self) -> None:
        """Have no slot, now that one more task of the body waits."""
        self.waits += 1
        if self.holds:
            self.holds = False
            self.crew.release()

    async def take_up(self) -> None:
        """Get a slot again, unless another task of the body still waits."""
        crew = self.crew
        if self.waits or self.holds:
            return
        if crew.held < crew.limit:
            crew.held += 1
            self.holds = True
            return
        turn = trio.Event()
        crew.turns.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if not turn.is_set():
                crew.turns.remove(turn)
                crew.held += 1
            self._took()
            self.marked = True
            raise
        self._took()

    def _took(self) -> None:
        """Have the slot, or give it back: meanwhile another task of the body may have got one, or begun to wait."""
        if self.holds or self.waits:
            self.crew.release()
        else:
            self.holds = True


def enclosing(task: trio.lowlevel.Task) -> list[Worker]:
    """Those in whose jobs a task is, from the inside out."""
    found: list[Worker] = []
    here: trio.lowlevel.Task | None = task
    while here is not None:
        worker = WORKERS.get(here)
        if worker is not None and worker.job is not None:
            found.append(worker)
        here = None if here.parent_nursery is None else here.parent_nursery.parent_task
    return found


def involved(workers: Sequence[Worker], crew: Slots | None) -> Sequence[Worker]:
    """Those whose slot is let go to wait for a job of `crew`: the innermost, or all up to one that is of that crew."""
    for place, worker in enumerate(workers, 1):
        if worker.crew is crew:
            return workers[:place]
    return workers[:1]


class Away:
    """A block of code in which workers have no slot: `async with`; with `idle` their jobs are not active either."""

    __slots__ = ("_idle", "_workers")

    def __init__(self, workers: Sequence[Worker], *, idle: bool = False) -> None:
        self._workers = workers
        self._idle = idle

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> None:
        for worker in self._workers:
            worker.let_go()
            worker.idles += self._idle
            if self._idle and worker.idles == 1:
                worker.crew.idled(1)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers:
            worker.waits -= 1
            worker.idles -= self._idle
            if self._idle and worker.idles == 0:
                worker.crew.idled(-1)
        interrupted: BaseException | None = None
        for worker in self._workers:
            try:
                await worker.take_up()
            except BaseException as raised:  # the others are told as well, and then it goes on
                interrupted = raised
        if interrupted is not None:
            raise interrupted


def refuse_ring(workers: Sequence[Worker], target: Job[Any]) -> None:
    """Raises: CycleError if `target` waits, over others or not, for a job in which the caller is."""
    seeds = [worker.job for worker in workers if worker.job is not None]
    came_from: dict[Job[Any], Job[Any] | None] = dict.fromkeys(seeds)
    todo = list(seeds)
    for waited in todo:  # which grows
        if waited is target:
            break
        for waiter in _waiting_for(waited):
            if waiter not in came_from:
                came_from[waiter] = waited
                todo.append(waiter)
    else:
        return
    path = [target]
    while (next_one := came_from[path[-1]]) is not None:
        path.append(next_one)
    raise CycleError([each.name for each in (path[-1], *path)], "job", waiting=True)


def _waiting_for(job: Job[Any]) -> list[Job[Any]]:
    found = [other for other in job._unlocks if other.ended is None]
    if job._more is not None:
        found.extend(waiter for waiters in job._more.awaited_by.values() for waiter in waiters)
        if job._more.next is not None:
            found.append(job._more.next)
    return found
