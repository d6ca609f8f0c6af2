"""The two walks of a running graph: what is done to members, without deciding when.

`satisfied` starts those after a member, `done` stops those before it. Both only count down on the nodes and follow their
references, so a step costs as much as the node has edges. A node is done when it has exited and all that it had to wait for are
done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import trio

from ..errors import MemberKilled, ReadyTimeout, StopTimeout
from ..events import EventRing, StartEvent
from ..member import Role, grace_of
from ..process import Process, State
from ..signals import signal_name
from .deadlines import Deadlines

__all__ = ["Walks"]

logger: logging.Logger = logging.getLogger("grouper")

REMIND: Final = 2.0
"""Seconds after which, again and again, a member that ignores its kill is named in the log."""


class Walks:
    """The members of one run of a group, and where they are."""

    spawn: Callable[..., None]

    def __init__(self, ring: EventRing[Process], stop_signal: int, alarm: Callable[[], None]) -> None:
        self.ring: EventRing[Process] = ring
        self.now: float = 0.0
        self.processes: Sequence[Process] = ()
        self.running: dict[str, Process] = {}
        self.unsatisfied: int = 0
        self.stopping: bool = False
        self.killing: bool = False
        self.killed_by_hand: bool = False
        self.stop_signal: int = stop_signal
        self.deadlines: Deadlines = Deadlines(alarm)

    def look_at_clock(self) -> None:
        """Take the time for what is done next."""
        self.now = trio.current_time()

    def spawn_with(self, spawn: Callable[..., None]) -> None:
        """Start tasks with this."""
        self.spawn = spawn

    def await_more(self, number: int) -> None:
        """Have so many more to wait for before the group is ready."""
        self.unsatisfied += number

    def start(self, process: Process) -> None:
        """Start a process whose dependencies are satisfied."""
        process.state = State.STARTING
        process.started_at = self.now
        self.running[process.member.name] = process
        self.ring.publish(StartEvent, self.now, process)
        if process.member.ready_within != inf:
            self.expect(process, process.member.ready_within)
        self.spawn(process._live, name=process.member.name)

    def satisfied(self, process: Process) -> None:
        """Start those that waited for `process` alone."""
        process._satisfied = True
        self.unsatisfied -= 1
        if not self.stopping:
            for other in process._unlocks:
                other._left -= 1
                if not other._left:
                    self.start(other)

    def done(self, process: Process) -> None:
        """Go on with the stop: `process` has exited, and so have all that it had to wait for."""
        todo = [process]
        while todo:
            node = todo.pop()
            for other in node._frees:
                other._blockers -= 1
                if not other._blockers:
                    if other.state is State.EXITED:
                        todo.append(other)
                    elif self.stopping and other.state is not State.WAITING:
                        self.stop(other)
            node._frees = node._unlocks = ()

    def stop_all(self, number: int) -> None:
        """Begin the stop, or go on with it: those that are told from here on get this signal."""
        self.stop_signal = number
        if not self.stopping:
            self.begin_stop()
            self.stop_those_free()

    def kill_all(self, *, by_hand: bool = False) -> None:
        """Go on with the stop, or begin it, by killing; what nobody was stopping has failed, if it is by hand."""
        self.killed_by_hand = self.killed_by_hand or (by_hand and not self.stopping)
        self.killing = True
        self.begin_stop()
        self.stop_those_free()

    def begin_stop(self) -> None:
        """Start nobody any more."""
        if not self.stopping:
            self.forget_waiting()
            self.stopping = True
            self.closing()

    def closing(self) -> None:
        """Be told that nobody is started from here on."""

    def forget_waiting(self) -> None:
        """Take those that were not started, and now never will be, out of the way of the stop."""
        if len(self.running) < len(self.processes):
            for process in self.processes:
                if process.state is State.WAITING:
                    self.done(process)

    def stop_those_free(self) -> None:
        """Stop those that nobody else has to stop before."""
        for process in reversed(self.running.values()):
            if not process._blockers:
                self.stop(process)

    def stop(self, process: Process) -> None:
        """Tell a process to stop, or kill it where the group is being killed."""
        if self.killing:
            by_hand = self.killed_by_hand and process.state is not State.STOPPING
            self.kill(process, MemberKilled(f"{process.title} was killed by SIGKILL to its group") if by_hand else None)
        elif not process._over:
            if process.state is not State.STOPPING:  # it is where somebody removes it: then it hears the group's signal too
                process.state = State.STOPPING
                self.expect(process, grace_of(process.member))
            process._signals.send(self.stop_signal)

    def kill(self, process: Process, failure: Exception | None) -> None:
        """Cancel a process; the failure is its error, None if it was to stop anyway."""
        if process._over or process._killed or process.state is State.EXITED:
            return
        process._killed = True
        process._failure = failure
        process._scope.cancel(None if failure is None else str(failure))
        if process.state is not State.WAITING:
            process.state = State.STOPPING
            self.expect(process, REMIND)

    def expect(self, process: Process | None, seconds: float) -> None:
        """Look again in so many seconds at a process, or (None) at the group itself."""
        self.deadlines.expect(process, self.now + seconds, self.spawn)

    def overdue(self, process: Process) -> None:
        """Act on a process that is late: to become ready, to stop, or to end although it was killed."""
        member = process.member
        if process._killed:
            if all(
                child.state is State.EXITED for child in process.children
            ):  # else the group inside names the one that does not end
                logger.warning("%s ignores its kill; it sits at\n%s", process.title, process._where())
            self.expect(process, REMIND)
        elif process.state is State.STOPPING:
            said = signal_name(process._signals.received or self.stop_signal)
            self.kill(process, StopTimeout(f"{process.title} had not stopped {grace_of(member):g} s after {said} and was killed"))
        elif not process._said_ready or member.role is Role.JOB:  # else the report is on its way; a job is ready when it returns
            self.kill(process, ReadyTimeout(f"{process.title} was not ready within {member.ready_within:g} s and was killed"))
