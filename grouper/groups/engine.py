"""The one loop that runs every group.

The signals sent to a group and the reports of its members come into one inbox, in one total order, and `_loop` takes them one by
one; where it waits, so that nothing came before, a member's task takes the end of its own life at once. Nothing else decides: what
a signal and an exit at the same moment mean depends on which came first, and never on which of several waits woke up first (ifrit's
groups select among channels at random).

Members run under shields (see process.py), so a cancellation from outside reaches only the loop, which takes it as one more thing
in the inbox (see inbox.py), kills the members in stop order, and lets it go on after the last has ended. Whatever else leaves the
loop, be it an error in this very file: `_end` kills, with no await in between, all that is left.

`trio.lowlevel` is used for the protection from KeyboardInterrupt, without which it could strike between any two of these lines.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence
from math import inf
from typing import Any

import trio

from ..errors import TerminateTree, contains
from ..events import EntranceEvent, EventRing, ExitEvent
from ..member import Role
from ..process import Process
from ..signals import KILL, STOP_SIGNALS, TERMINATE, Signals
from ..state import State
from .inbox import Inbox, Item
from .lives import answer
from .operations import Operations
from .recovery import gave_up
from .verdict import AFTER_EXIT, After, judge, trace, unready

__all__ = ["Engine"]


class Engine(Operations):
    """One run of one group."""

    anonymous: bool = False

    def __init__(
        self,
        signals: Signals,
        task_status: trio.TaskStatus[Any],
        *,
        termination_signal: int | None,
        cancel_grace: float,
        event_buffer: int,
        drain_signal: int | None = None,
        drain_within: float = 0.0,
    ) -> None:
        self.owner: Process | None = signals._owner
        ring: EventRing[Process] = EventRing(event_buffer) if self.owner is None else self.owner._host.ring
        super().__init__(ring, termination_signal or TERMINATE, lambda: self.post(self._on_alarm))
        self.signals: Signals = signals
        self.task_status: trio.TaskStatus[Any] = task_status
        self.termination_signal: int | None = termination_signal
        self.cancel_grace: float = cancel_grace
        self.drain_signal: int | None = drain_signal
        self.drain_within: float = drain_within
        self.exited: MutableSequence[Process] = []
        self.failed: MutableSequence[Process] = []
        self.ended_by: Process | None = None
        self.ready: bool = False
        self._inbox: Inbox = Inbox(self._interrupted)
        self.post: Callable[[Item], None] = self._inbox.post

    @property
    def children(self) -> Sequence[Process]:
        """The group's processes, in start order, those still waiting included."""
        return self.processes

    @trio.lowlevel.enable_ki_protection
    async def run(self, processes: Sequence[Process]) -> None:
        """Run the processes, whose nodes are linked, to the end of the group, and raise what the group raises."""
        await self.supervise(processes)
        self.conclude()

    @trio.lowlevel.enable_ki_protection
    async def supervise(self, processes: Sequence[Process]) -> None:
        """Run as `run` does, but leave the raising to `conclude`."""
        self.signals._attach(self.post)
        try:
            if self.owner is not None:
                self.owner._inner = self
            self.processes = processes
            async with trio.open_nursery() as nursery:
                self.spawn_with(nursery.start_soon)
                try:
                    self.begin()
                    await self._loop()
                except BaseException as error:
                    self._inbox.interrupts.append(error)
                finally:
                    self._end()
        except BaseExceptionGroup as group:  # a KeyboardInterrupt that came while the nursery closed
            self._inbox.interrupts.extend(group.exceptions)
        finally:
            try:
                self.settle()
            finally:
                self.signals._detach(self.unread(self._inbox.take()))

    def begin(self) -> None:
        """Start those that are after nobody; nobody at all if the group was told to stop already."""
        self.look_at_clock()
        self.await_more(len(self.processes))
        if self.signals.received is not None:
            self.stop_all(self.signals.received)
            return
        for process in self.processes:
            if not process._left:
                self.start(process)
        self._ready_if_satisfied()

    async def _loop(self) -> None:
        while True:
            batch = self._inbox.take()
            if batch:
                self.look_at_clock()
                for item in batch:
                    if isinstance(item, Process):
                        self._look_at(item)
                    elif isinstance(item, int):
                        self._signalled(item)
                    else:
                        item()
            elif self.is_over():
                return
            elif self.is_stuck():
                self._stop_once(self.termination_signal or TERMINATE)
            else:
                await self._inbox.wait()

    def is_over(self) -> bool:
        """Whether the group has ended: an empty static one, and one of which a member was stopped by hand, stay up until told."""
        return not self.running and (self.stopping or (len(self.processes) > 0 and not self.held))

    def _end(self) -> None:
        self.deadlines.end()
        for process in reversed(self.running.values()):  # none, unless an error left the loop
            process._killed = process._last = True
            process._scope.cancel("the engine of its group failed")
            if process._asking is not None:
                answer(process, again=False)

    def settle(self) -> None:
        """Once all tasks have ended: leave no process without its end, and nobody waiting for it."""
        self.begin_stop()
        for process in list(self.running.values()):  # none, unless an error left the loop
            self.record(process, judge(process, stopping=True))
        for process in self.processes if len(self.exited) < len(self.processes) else ():
            if process.state is State.WAITING:
                process.state = State.EXITED
                process._ends(self.now)
                process.ended_at = process.since = self.now
                process._tell_waiters()
            process._frees = process._unlocks = ()
        self.ring.wake()

    def conclude(self) -> None:
        """Raise what the group raises once it has ended."""
        self._inbox.conclude(self.error())

    def error(self) -> Exception | None:
        """What the group failed with, if it did."""
        ended_by = None if self.ready else self.ended_by
        if self.failed:
            return trace(self.summary(), self.path, self.failed, self.exited, ended_by)
        return None if ended_by is None else unready(self.path, ended_by)

    def summary(self) -> str:
        """The headline of the trace."""
        return f"{len(self.failed)} of {len(self.exited)} members failed"

    def _look_at(self, process: Process) -> None:
        if process.ready_at is not None or not process._said_ready or process.member.role is Role.JOB:
            self.ended(process)
            return
        self.entered(process)
        if not process._comes_again:  # else those who wait do so for its next life
            process._tell_waiters()
        if process.state is State.STARTING and not process._over:  # exit beats ready: the report of its end is on its way
            process.state = State.READY
            process.since = self.now
            process._deadline = inf
            self._satisfied(process)

    def entered(self, process: Process) -> None:
        """Note that a process is ready, and publish it."""
        process.ready_at = self.now
        process._once_ready = True
        self.ring.publish(EntranceEvent, self.now, process)

    def _satisfied(self, process: Process) -> None:
        self.satisfied(process)
        self._ready_if_satisfied()

    def _ready_if_satisfied(self) -> None:
        if not self.unsatisfied and not self.ready and not self.stopping:
            self.ready = True
            self.task_status.started()

    def finish(self, process: Process, error: BaseException | None, *, quiet: bool = False) -> None:
        """Act on the end of a process, as the table says; quietly where it was stopped and the group goes on."""
        own = not self.stopping and not quiet and self.propagates(process)
        recovery = process._recovery
        after = self.record(process, error, quiet=quiet)
        if not isinstance(error, Exception | None) or (error is not None and contains(error, TerminateTree)):
            self._stop_once(self.termination_signal or TERMINATE)
        elif own and after.stops and self.termination_signal is not None:
            self.ended_by = process
            self._stop_once(self.termination_signal)
        elif process._held:
            self.no_more_satisfied(process)
        elif (after.satisfies or quiet) and not process._satisfied:
            if process._left and not self.stopping:
                self.passing.add(process)  # what it is after is on its way down, or up
            else:
                self._satisfied(process)
        if recovery is not None and not self.stopping:
            del recovery.again[process]
            self.left(process, recovery)
        elif process._frees and not process._blockers and (self.stopping or not self.recount):
            self.done(process)

    def propagates(self, process: Process) -> bool:
        """Whether the table holds for the process's exit."""
        return True

    def record(self, process: Process, error: BaseException | None, *, quiet: bool = False) -> After:
        """Make the end of a process a fact: its error, its state, the event."""
        member = process.member
        if error is not None and not isinstance(error, Exception):
            self._inbox.interrupts.append(error)
        if member.role is Role.JOB and self.has_returned(process, error):
            self.entered(process)
            process._tell_waiters()
        del self.running[member.name]
        process._deadline = inf
        ending = process._ends(self.now)
        process.ended_at = process.since = self.now
        process._recovery = None
        process.last_error = error or process.last_error
        if process._held:
            process.state = State.STOPPED
            self.hold(1)
        else:
            process.state = State.EXITED if error is None or not gave_up(error) else State.EXHAUSTED
        after = AFTER_EXIT[member.role, error is None]
        self.exited.append(process)
        if isinstance(error, Exception) and ((after.raised and not quiet) or contains(error, TerminateTree)):
            self.failed.append(process)
        self.ring.publish(ExitEvent, self.now, process, ending)
        process._tell_waiters()
        return after

    def _signalled(self, number: int) -> None:
        self.signals._taken(number)
        if number == KILL:
            self.kill_all(by_hand=True)
        elif number not in STOP_SIGNALS:
            if self.owner is not None and self.owner.state is State.DRAINING and not self.stopping:
                self.drain_with_parent(number)
                return
            for process in self.in_order():
                self.send(process, number)
        else:
            told = self.told_again()
            self.stop_all(number)
            for process in told:
                self.send(process, number)

    def _stop_once(self, number: int) -> None:
        if not self.stopping:
            self.stop_all(number)

    def _interrupted(self) -> None:
        """Act on a cancellation from outside, or a KeyboardInterrupt; the second time with no grace any more."""
        grace, self.cancel_grace = self.cancel_grace, 0.0
        if grace <= 0:
            self.kill_all()
        else:
            self._stop_once(self.termination_signal or TERMINATE)
            self.expect(self.kill_all, grace)

    def abort(self) -> None:
        """Kill all members, in stop order; nobody has failed by that. The caller is protected from KeyboardInterrupt."""
        self.post(self.kill_all)

    def _on_alarm(self) -> None:
        for due in self.deadlines.expired(self.now):
            if isinstance(due, Process):
                self.overdue(due)
            else:
                due()
