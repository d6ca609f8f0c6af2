"""Operations on the members of a running group: start, stop, restart, because somebody said so.

An operation is one more thing in the inbox: it is done in one step of the loop, in order with signals and exits, and refused there
if the group has begun to stop, or afterwards if the loop has ended before it came to it. Whoever asked waits for a change of the
process that was set down in that step, so that nothing that happens in between is missed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, MutableSequence, Sequence
from typing import Final

import attrs
import trio

from ..errors import CascadeNeeded, GroupClosed, MemberKilled, listed
from ..graph import Edges
from ..process import Process
from ..state import Change, State
from .inbox import Item, nothing
from .recovery import Recoveries
from .walks import is_between, is_leaving

__all__ = ["Operation", "Operations"]


@attrs.define(eq=False)
class Operation:
    """One operation: a step for the inbox."""

    group: Operations
    verb: str
    name: str
    cascade: bool
    decided: trio.Event = attrs.field(factory=trio.Event)
    result: tuple[Process, Change] | None = None
    error: Exception | None = None

    def __call__(self) -> None:
        """Do it."""
        try:
            process = self.group.named(self.name, self.verb)
            change = process._watch()
            VERBS[self.verb](self.group, process, cascade=self.cascade)
            self.result = process, change
            up = process.state is State.READY and process._recovery is None  # else it is on its way down
            if (process.ended_at is not None) if self.verb == "stop" else up:
                process._tell_waiters()  # it was so before
        except Exception as error:
            self.error = error
        self.decided.set()

    def refuse(self) -> None:
        """Let it fail: there is nobody who could do it."""
        self.error = self.group.refusal(self.name, self.verb)
        self.decided.set()


class Operations(Recoveries):
    """The part of an engine that users operate."""

    exited: MutableSequence[Process]
    failed: MutableSequence[Process]
    edges: Edges | None = None
    is_closed: bool = False

    async def operate(self, verb: str, name: str, cascade: bool) -> tuple[Process, Change]:
        """Start, stop or restart a member; return what to wait for. Raises: as `Process.start`."""
        operation = Operation(self, verb, name, cascade)
        if self.is_closed:
            operation.refuse()
        else:
            self.post(operation)
        await operation.decided.wait()
        if operation.error is not None:
            raise operation.error
        assert operation.result is not None
        return operation.result

    def unread(self, items: Sequence[Item]) -> list[int]:
        """The signals among what was not acted on; operations are refused from here on."""
        self.is_closed = True
        for item in items:
            if isinstance(item, Operation):
                item.refuse()
        return [item for item in items if isinstance(item, int)]

    def kill_by_hand(self, process: Process, reason: str | None) -> None:
        """Kill a process because a user said so: a failure, unless it was being stopped."""
        if self.ring.is_telling:  # who hears of a step says so in the middle of it
            self.post(functools.partial(self.kill_by_hand, process, reason))
            return
        failure = None
        self.look_at_clock()
        if process.state is not State.STOPPING and process.state is not State.DRAINING:
            failure = MemberKilled(f"{process.title} was killed" + (f": {reason}" if reason else ""))
        if process.member.name in self.running and is_between(process):
            process._failure = failure
            self.give_up_restart(process)
            self.post(nothing)
        else:
            if process.member.restart is not None and process.state is State.READY and not self.stopping:
                self.no_more_satisfied(process)  # it may come again: who has not started yet waits for that
            self.kill(process, failure)

    def named(self, name: str, verb: str) -> Process:
        """The member to operate on. Raises: GroupClosed, LookupError."""
        if self.stopping:
            raise self.refusal(name, verb)
        for process in self.members():
            if process.member.name == name:
                return process
        known = listed(each.member.name for each in self.members())
        if "/" in name:
            group, _, last = name.rpartition("/")
            known = f"operate it through its own group, process[{group!r}].{verb}({last!r})"
        raise LookupError(f"cannot {verb} {name!r}: {self.title} has no such member; {known}")

    def members(self) -> Iterable[Process]:
        """Those that can be operated on."""
        return self.processes

    def refusal(self, name: str, verb: str) -> GroupClosed:
        """Why nothing is done any more."""
        return GroupClosed(f"cannot {verb} {name!r}: {self.title} {'has ended' if self.is_closed else 'is stopping'}")

    def start_by_hand(self, process: Process, *, cascade: bool) -> None:
        """Start what has ended, and with `cascade` first what it is after; at once what waits for its restart."""
        if process.member.name in self.running and not is_between(process) and not process._held:
            return
        down = [each for each in self._after(process) if self._is_down(each)]
        if down and not cascade:
            names = [each.member.name for each in down]
            raise CascadeNeeded(
                f"cannot start {process.title}: it is after {_joined(names)}, not up: start these first, or use cascade=True", names
            )
        those = [*reversed(down), process]
        for each in those:
            self._rearm_account(each)
            if each.ended_at is not None:
                self._revive(each)
        if any(each.state is State.BACKOFF or each._held or is_leaving(each) for each in those):  # these are on their way down
            self.recover([each for each in those if each.member.name in self.running], again=True, not_before=self.now)
        for each in those:
            if each.state is State.WAITING and not each._left:
                self.start(each)

    def stop_by_hand(self, process: Process, *, cascade: bool) -> None:
        """Stop a member for as long as nobody starts it, and with `cascade` first what depends on it."""
        if process.ended_at is not None and not cascade:
            return  # it is down already: nobody has to stop for that
        those = self._with_dependents(process, "stop", cascade=cascade)
        for each in those:
            if each.ended_at is None and (each is process or each.member.name in self.running):
                each._held = True
        self.recover(those, again=False, not_before=self.now)
        for each in reversed(those):
            if each._held and each.ended_at is None and is_between(each) and not self.holds(each):
                self._stop_waiting(each)

    def restart_by_hand(self, process: Process, *, cascade: bool) -> None:
        """Stop a member and start it again, and with `cascade` what depends on it."""
        was_up = process.member.name in self.running
        those = self._with_dependents(process, "restart", cascade=cascade or not was_up)
        if process._held or not was_up:
            self.start_by_hand(process, cascade=cascade)
        if not was_up:
            return
        for each in those:
            self._rearm_account(each)
        self.recover(those, again=True, not_before=self.now)

    def _stop_waiting(self, process: Process) -> None:
        if process.member.name in self.running:
            self.give_up_restart(process)
            return
        process.state = State.STOPPED  # it was never started
        process._over = True
        process.ended_at = process.since = self.now
        process._ends(self.now)
        self.hold(1)
        process._tell_waiters()

    def _with_dependents(self, process: Process, verb: str, *, cascade: bool) -> list[Process]:
        those = list(self.dependents(process))
        names = [each.member.name for each in those[1:] if each.member.name in self.running]
        if names and not cascade:
            raise CascadeNeeded(
                f"cannot {verb} {process.title} alone: {_joined(names)} would have to {verb} with it: use cascade=True", names
            )
        return those

    def _after(self, process: Process) -> list[Process]:
        """All that a member is after, transitively, the nearest first."""
        if self.edges is None:
            return []
        places = {each: place for place, each in enumerate(self.processes)}
        found: dict[Process, None] = {}
        todo = [process]
        for each in todo:  # which grows
            for place in self.edges.after[places[each]]:
                before = self.processes[place]
                if before not in found:
                    found[before] = None
                    todo.append(before)
        return sorted(found, key=places.__getitem__, reverse=True)

    def _is_down(self, process: Process) -> bool:
        """Whether those after a process cannot start before somebody starts it: it has ended, or is being stopped by hand."""
        if process.ended_at is not None:
            return not process._satisfied and process not in self.passing
        recovery = process._recovery
        return process._held and (recovery is None or not recovery.again.get(process, False))

    def _rearm_account(self, process: Process) -> None:
        account = self.account or process._account
        if account is not None:
            account.forget()

    def _revive(self, process: Process) -> None:
        """Take back a process that has ended, in its place."""
        self.recount = True
        if process.state is State.STOPPED:
            self.hold(-1)
        for those in (self.exited, self.failed):
            if process in those:
                those.remove(process)
        self.passing.discard(process)
        self.unfinished.discard(process)
        self.no_more_satisfied(process)
        process._renew()
        process._held = False
        process.state = State.WAITING
        process.since = self.now


def _joined(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:10]))
    return f"{shown}, ..." if len(names) > 10 else shown


VERBS: Final = {
    "start": Operations.start_by_hand,
    "stop": Operations.stop_by_hand,
    "restart": Operations.restart_by_hand,
}
