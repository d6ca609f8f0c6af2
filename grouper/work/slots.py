"""Who may run: the slots of a crew, of which there are `limit`, and who leaves one to others while it waits.

A slot and being active are two things. A job whose body waits for another job has no slot meanwhile, so that parents that fill a
pool can wait for their children; it is active all the time. Nobody has to say so: awaiting a job lets the slot go, and what lets it
go gets one again, before any job that has not begun, when the wait is over. There is no semaphore: a worker that has finished its
job hands its slot to whoever waits for one, and ends.

What counts as the body of a job are also the tasks in nurseries inside it: if any of them waits for a job, the body counts as
waiting. Else a body that waits in a nursery for children that wait would hold the slot that these need. So the limit can be
passed by bodies of several tasks, of which one waits and others go on.

The wait for a slot ends at once if the job is cancelled, or its time is over: it must not have to wait for others in order to clean
up, and one slot more than the limit is held until it has ended. A cancel scope inside the body, such as a timeout around an await,
does not let the body go on without a slot: like `trio.Condition.wait`, it gets its slot again first.

`trio.lowlevel` is used to know in which job a task is, and for protection from KeyboardInterrupt.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

import trio

from ..errors import CycleError
from ..exit import only_cancelled
from .job import Job

__all__ = ["Away", "Slots", "Worker", "enclosing", "refuse_ring", "ring"]

WORKERS: Final[dict[trio.lowlevel.Task, Worker]] = {}
"""The tasks in which jobs run now, of all crews and threads."""


class Turn:
    """The place of a worker among those that wait for a slot; `given` once it has one."""

    __slots__ = ("given", "woken")

    def __init__(self) -> None:
        self.given: bool = False
        self.woken: trio.Event = trio.Event()


class Slots:
    """The slots of one crew, those waiting for one again, and the jobs that may begin."""

    def __init__(self, limit: float) -> None:
        self.limit: float = limit
        self.held: int = 0
        self.coming: bool = False
        self.queue: deque[Job[Any]] = deque()
        self.turns: deque[Turn] = deque()
        self.idle: int = 0
        self.cut: bool = False
        self.cut_at: float = math.inf
        """Whether all that runs is cancelled, and since when."""

    def hire(self) -> None:
        """Have a worker come, which holds a slot from now on."""
        self.held += 1
        self.coming = True

    def arrived(self) -> None:
        """Note that the worker that was to come is there."""
        self.coming = False

    def idled(self, by: int) -> None:
        """So many more jobs are idle."""
        self.idle += by

    def release(self) -> None:
        """Give a slot that was held to who waits for it."""
        if self.turns and self.held <= self.limit:
            turn = self.turns.popleft()
            turn.given = True
            turn.woken.set()
            return
        self.held -= 1
        if self.queue and not self.coming and self.held < self.limit:
            self.hire()

    def cut_short(self) -> None:
        """Let nobody wait for a slot any more: all that runs is cancelled."""
        if not self.cut:
            self.cut = True
            self.cut_at = trio.current_time()
        for turn in self.turns:
            turn.woken.set()


class Worker:
    """A task that works on jobs, one after the other, in a scope of its own."""

    __slots__ = ("crew", "holds", "idles", "job", "marked", "scope", "turn", "waits")

    def __init__(self, crew: Slots) -> None:
        self.crew: Slots = crew
        self.job: Job[Any] | None = None
        self.scope: trio.CancelScope = trio.CancelScope()
        self.marked: bool = False
        """Whether there is something to put right when the job has ended: the scope was used, or the slot was let go."""
        self.holds: bool = True
        self.waits: int = 0
        self.idles: int = 0
        self.turn: Turn | None = None

    def let_go(self) -> None:
        """Have no slot, now that one more task of the body waits."""
        self.marked = True
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
        turn = self.turn
        if turn is None:
            turn = self.turn = Turn()
            crew.turns.append(turn)
        try:
            await turn.woken.wait()
        except trio.Cancelled:
            if not crew.cut and not self.scope.cancel_called:
                with trio.CancelScope(shield=True, deadline=self.scope.deadline):
                    await turn.woken.wait()
            raise
        finally:
            self._took(turn)

    def wake(self) -> None:
        """Have the job not wait for a slot any more: it was cancelled."""
        if self.turn is not None:
            self.turn.woken.set()

    def _took(self, turn: Turn) -> None:
        """Have the slot, or one more than there are; but give it back if another task of the body waits by now."""
        if self.turn is not turn:  # another task of the body was first
            return
        self.turn = None
        if not turn.given:
            self.crew.turns.remove(turn)
            self.crew.held += 1
        if self.waits:
            self.crew.release()
        else:
            self.holds = True

    def tidy(self) -> None:
        """Put right what a body has left: a generator that was not closed can still be in a block without a slot."""
        self.waits = 0
        if self.idles:
            self.idles = 0
            self.crew.idled(-1)


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


def involved(workers: Sequence[Worker], crew: object) -> Sequence[Worker]:
    """Those whose slot is let go to wait for a job of `crew`: up to the one that is of that crew, else all.

    What is waited for may need a slot of any of them, if it is not of a crew inside.
    """
    for place, worker in enumerate(workers, 1):
        if worker.crew is crew:
            return workers[:place]
    return workers


class Away:
    """A block of code in which workers have no slot: `async with`; with `idle` their jobs are not active either."""

    __slots__ = ("_idle", "_jobs", "_workers")

    def __init__(self, workers: Sequence[Worker], *, idle: bool = False) -> None:
        self._workers = workers
        self._jobs = [worker.job for worker in workers]
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
        left = [worker for worker, job in zip(self._workers, self._jobs, strict=True) if worker.job is job]
        for worker in left:
            worker.waits -= 1
            worker.idles -= self._idle
            if self._idle and worker.idles == 0:
                worker.crew.idled(-1)
        interrupted: BaseException | None = None
        for worker in left:
            try:
                await worker.take_up()
            except BaseException as raised:  # the others are told as well, and then it goes on
                interrupted = raised
        if interrupted is not None and (error is None or only_cancelled(error) or not isinstance(interrupted, trio.Cancelled)):
            raise interrupted


def refuse_ring(workers: Sequence[Worker], target: Job[Any]) -> None:
    """Raises: CycleError if `target` waits, over others or not, for a job in which the caller is."""
    running = target._running
    if isinstance(running, Worker) and not running.waits and all(running is not worker for worker in workers):
        return
    if running is None and not target._left and (target._more is None or target._more.key is None):
        return
    path = ring([worker.job for worker in workers if worker.job is not None], target)
    if path:
        raise CycleError(path, "job", waiting=True)


def ring(seeds: list[Job[Any]], target: Job[Any]) -> list[str]:
    """A path of names from one of the seeds, over `target`, back to it, if `target` waits for it; each waits for the next."""
    came_from: dict[Job[Any], Job[Any] | None] = dict.fromkeys(seeds)
    todo = list(seeds)
    for waited in todo:  # which grows
        if waited is target:
            break
        for waiter in waited._host.waiting_for(waited):
            if waiter not in came_from:
                came_from[waiter] = waited
                todo.append(waiter)
    else:
        return []
    path = [target]
    while (next_one := came_from[path[-1]]) is not None:
        path.append(next_one)
    return [each.name for each in (path[-1], *path)]
