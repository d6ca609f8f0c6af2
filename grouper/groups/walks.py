"""The two walks of a running graph: what is done to members, without deciding when.

`satisfied` starts those after a member, `done` stops those before it. Both only count on the nodes and follow their references, so
a step costs as much as the node has edges. A node is done when it has exited and all that it had to wait for are done.

`_left` is at any time the number of those a member is after that are not satisfied: what goes down to be restarted counts again.
`_blockers` is what is left of the one stop walk that the node is in: the whole group's, for which the counters are set when the
group is made, or that of a part (see recovery.py); if there was one, the whole group's are counted anew.
"""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from math import inf

import trio

from ..errors import MemberKilled, ReadyTimeout, StopTimeout
from ..events import EventRing, StartEvent
from ..member import Role, grace_of
from ..process import Process
from ..signals import signal_name
from ..snapshot import unstopped
from ..state import REMIND, State
from .deadlines import Deadlines, Due
from .lives import answer, live_again

__all__ = ["Walks"]

logger: logging.Logger = logging.getLogger("grouper")


def is_between(process: Process) -> bool:
    """Whether a process that was started waits for its next life."""
    return process.state is State.BACKOFF or process.state is State.WAITING


def is_leaving(process: Process) -> bool:
    """Whether a process that is to be started again has ended only because of what is around it, and is leaving that."""
    return is_between(process) and process._asking is None and (process._task is not None or process._over)


class Walks:
    """The members of one run of a group, and where they are."""

    spawn: Callable[..., None]
    drain_signal: int | None = None
    drain_within: float = 0.0

    def __init__(self, ring: EventRing[Process], stop_signal: int, alarm: Callable[[], None]) -> None:
        self.ring: EventRing[Process] = ring
        self.now: float = 0.0
        self.processes: Sequence[Process] = ()
        self.running: dict[str, Process] = {}
        self.unsatisfied: int = 0
        self.recount: bool = False
        self.passing: set[Process] = set()
        self.unfinished: set[Process] = set()
        self.backed_off: bool = False
        self.is_disordered: bool = False
        self.walking: list[Process] | None = None
        self.stopping: bool = False
        self.draining: bool = False
        self.is_drained: bool = False
        self.killing: bool = False
        self.killed_by_hand: bool = False
        self.stop_signal: int = stop_signal
        self.deadlines: Deadlines = Deadlines(alarm)

    def look_at_clock(self) -> None:
        """Take the time for what is done next."""
        self.now = trio.current_time()

    def spawn_with(self, spawn: Callable[..., None]) -> None:
        """Start tasks with this, in the context of the group, whoever's step it is in which that is done."""
        self.spawn = functools.partial(contextvars.copy_context().run, spawn)

    def await_more(self, number: int) -> None:
        """Have so many more to wait for before the group is ready."""
        self.unsatisfied += number

    def in_order(self) -> list[Process]:
        """Those that run, in start order; one that was started again by hand in its old place."""
        if self.is_disordered:
            self.is_disordered = False
            there = self.running
            self.running = {each.member.name: each for each in self.processes if each.member.name in there}
        return list(self.running.values())

    def send(self, process: Process, number: int) -> None:
        """Send a process a signal, and tell."""
        if self.ring.hearers:
            self.ring.tell("signal", self.now, process, number)
        process._signals.send(number)

    def start(self, process: Process) -> None:
        """Start a process whose dependencies are satisfied."""
        process.state = State.STARTING
        process.restarts += process.started_at is not None
        process.started_at = process.since = self.now
        member = process.member
        if self.recount and member.name not in self.running and self.processes:  # those of a Dynamic have no other places
            self.is_disordered = True
        self.running[member.name] = process
        self.ring.publish(StartEvent, self.now, process)
        if member.ready_within != inf:
            self.expect(process, member.ready_within)
        if not member._lives:
            self.spawn(process._live, name=member.name)
        elif process._asking is not None:
            answer(process, again=True)
        else:
            self.spawn(live_again, process, name=member.name)

    def satisfied(self, process: Process) -> None:
        """Start those that waited for `process` alone; one that has ended, and was satisfied by that, is so again."""
        todo = [process]
        for process in todo:  # which grows
            process._satisfied = True
            self.unsatisfied -= 1
            if not self.stopping:
                for other in process._unlocks:
                    other._left -= 1
                    if not other._left:
                        if other.state is State.WAITING:
                            if not is_leaving(other):  # else it reports when it has
                                self.start(other)
                        elif other in self.passing:
                            self.passing.remove(other)
                            todo.append(other)

    def no_more_satisfied(self, process: Process) -> None:
        """Have those after `process` that are still to start wait for it again, also where what has ended is between."""
        todo = [process] if process._satisfied else []
        for process in todo:  # which grows
            if not process._satisfied:  # it is reached by two ways
                continue
            process._satisfied = False
            self.unsatisfied += 1
            for other in process._unlocks:
                other._left += 1
                if other._satisfied and other.ended_at is not None:
                    self.passing.add(other)
                    todo.append(other)

    def done(self, process: Process, *, finally_: bool = False) -> None:
        """Go on with the stop: `process` has exited, and so have all that it had to wait for."""
        if self.walking is not None:  # to stop one that waits for its restart is to end it: the walk below goes on with that
            self.walking.append(process)
            return
        self.walking = todo = [process]
        try:
            while todo:
                node = todo.pop()
                for other in node._frees:
                    other._blockers -= 1
                    if not other._blockers:
                        if other.ended_at is not None or (self.stopping and other.member.name not in self.running):
                            todo.append(other)
                        elif self.stopping and (not self.draining or is_between(other)):
                            self.stop(other)
                if self.stopping or finally_:  # else it may be started again by hand
                    node._frees = node._unlocks = ()
        finally:
            self.walking = None

    def stop_all(self, number: int) -> None:
        """Begin the stop, or go on with it: those that are told from here on get this signal."""
        self.stop_signal = number
        if not self.stopping or self.is_drained:
            self.begin_stop()
            self.draining = self.is_drained = False
            if self.drain_signal is None or not self.running:
                self.stop_those_free()
            else:
                self.drain(self.drain_signal)
                self.expect(self.end_drain, self.drain_within)
        elif self.draining:
            self.end_drain()

    def drain_with_parent(self, number: int) -> None:
        """Drain because the group that this one is a member of does: until that sends its stop signal."""
        self.is_drained = True
        self.begin_stop()
        self.drain(number)

    def drain(self, number: int) -> None:
        """Tell all to take no new work, in stop order; what waits for a restart stops now."""
        self.draining = True
        for process in reversed(self.in_order()):
            if is_between(process):
                if not process._blockers:
                    self.stop(process)
            elif not process._over:
                if process.state is not State.STOPPING:
                    process.state = State.DRAINING
                    process.since = self.now
                    process._deadline = inf
                self.send(process, number)

    def end_drain(self) -> None:
        """Send the stop signal."""
        if self.draining:
            self.draining = False
            self.stop_those_free()

    def kill_all(self, *, by_hand: bool = False) -> None:
        """Go on with the stop, or begin it, by killing; what nobody was stopping has failed, if it is by hand."""
        self.killed_by_hand = self.killed_by_hand or (by_hand and not self.stopping)
        self.killing = True
        self.draining = self.is_drained = False
        self.begin_stop()
        self.stop_those_free()

    def begin_stop(self) -> None:
        """Start nobody any more."""
        if not self.stopping:
            if self.recount:
                self.count_all()
            else:
                self.forget_waiting()
            self.stopping = True
            for process in self.running.values() if self.backed_off else ():
                if process.state is State.BACKOFF:  # it does not come again, also where it is not its turn to end
                    process._deadline = inf
            self.closing()

    def count_all(self) -> None:
        """Count who has to stop before whom in the whole group, where counters were used for a part of it."""
        for process in self.processes:
            process._recovery = None
        up = set(self.running.values())
        self.count(dict.fromkeys(self.processes), up)
        for process in self.processes:
            if process not in up and not process._blockers:
                process._frees = process._unlocks = ()  # it is done

    def count(self, part: Mapping[Process, object], up: Container[Process]) -> None:
        """Count, within a part of the group, who has to stop before whom; those that are down are out of the way."""
        for process in part:
            process._blockers = 0
        for process in part:
            for other in process._frees:
                if other in part:
                    other._blockers += 1
        for process in [each for each in part if each not in up and not each._blockers]:
            for _ in self.freed(process, part, up):
                pass

    def freed(self, process: Process, part: Container[Process], up: Container[Process]) -> Iterator[Process]:
        """Take one that is down, and those down before it, out of the way; return those up that are free to stop now."""
        todo = [process]
        while todo:
            for other in todo.pop()._frees:
                if other in part:
                    other._blockers -= 1
                    if not other._blockers:
                        if other in up:
                            yield other
                        else:
                            todo.append(other)

    def closing(self) -> None:
        """Be told that nobody is started from here on."""

    def forget_waiting(self) -> None:
        """Take those that were not started, and now never will be, out of the way of the stop."""
        if len(self.running) < len(self.processes):
            for process in self.processes:
                if process.ended_at is None and process.member.name not in self.running:
                    self.done(process, finally_=True)

    def stop_those_free(self) -> None:
        """Stop those that nobody else has to stop before."""
        for process in [each for each in reversed(self.in_order()) if not each._blockers]:  # those that get free are told by `done`
            self.stop(process)

    def told_again(self) -> list[Process]:
        """Those that are being stopped and hear a further stop signal; after a drain those that are free hear it as all do."""
        stopping = [each for each in reversed(self.in_order()) if each.state is State.STOPPING] if self.stopping else []
        return [each for each in stopping if each._blockers or not self.draining]

    def stop(self, process: Process) -> None:
        """Tell a process to stop, or kill it where the group is being killed; end one that waits for its restart."""
        if is_between(process):
            self.give_up_restart(process)
        elif self.killing:
            by_hand = self.killed_by_hand and process.state is not State.STOPPING
            self.kill(process, MemberKilled(f"{process.title} was killed by SIGKILL to its group") if by_hand else None)
        elif not process._over:
            if process.state is not State.STOPPING:  # it is where somebody removes it: then it hears the group's signal too
                process.state = State.STOPPING
                process.since = self.now
                self.expect(process, grace_of(process.member))
            self.send(process, self.stop_signal)

    def give_up_restart(self, process: Process, *, own: bool = False) -> None:
        """End a process that is between two lives."""
        raise NotImplementedError

    def kill(self, process: Process, failure: Exception | None) -> None:
        """Cancel a process; the failure is its error, None if it was to stop anyway."""
        if process._over and process._asking is not None and process.member.around is not None:
            process._killed, process._failure = True, failure  # its life is over, but what was around it is not left
        if process._over or process._killed or process.state is State.EXITED:
            return
        process._killed = True
        process._failure = failure
        process._scope.cancel(None if failure is None else str(failure))
        if process.state is not State.WAITING:
            process.state = State.STOPPING
            process.since = self.now
            self.expect(process, REMIND)
        if self.ring.hearers:
            self.ring.tell("kill", self.now, process, failure)

    def due_again(self, process: Process) -> None:
        """Start a process whose delay is over."""
        raise NotImplementedError

    def expect(self, due: Due, seconds: float) -> None:
        """Look again in so many seconds at a process, or take a step then."""
        self.deadlines.expect(due, self.now + seconds, self.spawn)

    def overdue(self, process: Process) -> None:
        """Act on a process that is late: to become ready, to stop, or to end although it was killed."""
        member = process.member
        if process.state is State.BACKOFF:
            self.due_again(process)
        elif process._over:  # the report is on its way
            if member.around is not None:  # which it may still have to leave
                self.expect(process, REMIND)
        elif process._killed:
            self.remind(process)
            self.expect(process, REMIND)
        elif process.state is State.STOPPING:
            said = signal_name(process._signals.received or self.stop_signal)
            self.kill(process, StopTimeout(f"{process.title} had not stopped {grace_of(member):g} s after {said} and was killed"))
        elif not process._said_ready or member.role is Role.JOB:  # else the report is on its way; a job is ready when it returns
            self.kill(process, ReadyTimeout(f"{process.title} was not ready within {member.ready_within:g} s and was killed"))

    def remind(self, process: Process) -> None:
        """Tell of a process that ignores its kill: in full once, then in a line."""
        late = unstopped(process, self.now, in_full=not process._reported)
        if late is not None:  # else the group inside tells of the one that does not end
            facts = {"member": late.path, "fact": "unstopped", "seconds": late.seconds}
            logger.warning("%s", late.summary if process._reported else late, extra=facts)
            process._reported = True
