"""What is started again, with whom, and when.

A crash under ONE concerns one process: it waits for its delay and starts again, in its place. Everything else that stops some of
the members of a group that goes on, be it a strategy or an operation by hand, is a `Recovery`: a part of the graph whose members
are stopped in stop order, by counters of that part alone, and of which those that are to come again start in start order once all
are down and the delay is over. Two recoveries that touch each other become one, so a failure on the way starts over with what it
concerns, a crash of one that is being stopped anyway is part of it, and unrelated parts do not wait for each other.

All of it is steps of the group's loop and deadlines: nothing here waits, so the group hears signals and operations at any time.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from math import inf

import attrs

from ..errors import RestartLimitExceeded
from ..events import ExitEvent, RestartEvent
from ..exit import ErrorTrace
from ..member import Role, grace_of
from ..process import Process
from ..restart import Account, Ending, Restart, Strategy, forbids_restart
from ..state import REMIND, State
from .lives import answer
from .verdict import judge
from .walks import Walks, is_between

__all__ = ["Recoveries", "Recovery", "gave_up"]


@attrs.define(eq=False)
class Recovery:
    """A part of a group that is being stopped, and what comes again when all of it is down."""

    part: dict[Process, None]
    again: dict[Process, bool]
    not_before: float
    counted: bool = False
    up: set[Process] = attrs.field(factory=set[Process])
    is_armed: bool = False
    is_over: bool = False


class Recoveries(Walks):
    """The part of an engine that starts members again."""

    strategy: Strategy = Strategy.ONE
    account: Account | None = None
    held: int = 0
    pending: int = 0

    def hold(self, more: int) -> None:
        """Count those that were stopped by hand: they hold the group up."""
        self.held += more

    def finish(self, process: Process, error: BaseException | None, *, quiet: bool = False) -> None:
        """End a process for good."""
        raise NotImplementedError

    def ended(self, process: Process) -> None:
        """Act on the end of a life."""
        if process.ended_at is not None:  # it was reported twice
            return
        if not process._over:
            if process.state is State.BACKOFF:
                self.give_up_restart(process, own=True)  # it was sent a stop signal
            return
        error = judge(process, stopping=self.stopping or process._held)
        if process.member._lives or process._recovery is not None or process._held:
            self.life_ended(process, error)
        else:
            self.finish(process, error)

    def life_ended(self, process: Process, error: BaseException | None) -> None:
        """Act on the end of a life of a process that may have more: start another, or end it."""
        quiet = process._held
        if not self.stopping and isinstance(error, Exception | None):
            recovery: Recovery | None = process._recovery
            if recovery is not None and not self._refuses(process, error):
                if recovery.again[process] and (process._held or not process._last):
                    self._ended_life(process, error)
                    self.left(process, recovery)
                    return
                told = process.state is State.STOPPING  # else it is an exit of its own, of one that does not come again
                quiet = quiet or (told and not recovery.again[process])
            elif recovery is None and not process._last and not quiet and self._restarts(process, error):
                return
        if process._asking is not None:
            answer(process, again=False)
            if process.member.around is not None:  # it reports again when it has left that
                if not process._killed:
                    process._failure = None  # it was judged by that
                process._over = False  # until then it can be told, and killed
                told = not process._blockers and (not self.draining if self.stopping else quiet)
                if told and (process.state is not State.STOPPING or (self.killing and not process._killed)):
                    self.stop(process)  # who told it came while its life was over
                return
        self.finish(process, process._error, quiet=quiet)

    def _refuses(self, process: Process, error: Exception | None) -> bool:
        """Whether one that is part of a recovery has ended so that it may not come again; what it raises when told says little."""
        policy = process.member.restart
        if policy is None or process.state is State.STOPPING:
            return forbids_restart(error)
        return policy.ending(error) is Ending.REFUSED

    def _comes_with_siblings(self, process: Process) -> bool:
        policy = process.member.restart
        return policy is None or policy.restarts(Ending.SIBLING)

    def _restarts(self, process: Process, error: Exception | None) -> bool:
        """Restart by the policy, if it says so."""
        policy = process.member.restart
        if policy is None or process._signals.received is not None or not policy.restarts(policy.ending(error)):
            return False
        if not (process._once_ready or policy.start_errors or process.member.role is Role.JOB):
            return False
        account = self._account(process, policy)
        healthy = 0.0 if process.ready_at is None else self.now - process.ready_at
        part: Collection[Process] = ()
        if self.strategy is not Strategy.ONE:
            part = self.processes if self.strategy is Strategy.ALL else self.dependents(process)
        merged = {each._recovery for each in part if each._recovery is not None and each._recovery.counted}
        if not account.grants(self.now, healthy, self.pending - len(merged)):
            process._error = account.exceeded(self._owner_of_limit(process), self.now, error)
            return False
        self._ended_life(process, error)
        limit = account.policy.limit
        self.ring.publish(RestartEvent, self.now, process, (error, account.delay, account.used + 1, limit))
        if self.strategy is Strategy.ONE:
            if account.delay:
                self.expect(process, account.delay)
            else:
                self.due_again(process)
        else:
            self.recover(part, again=True, not_before=self.now + account.delay, counted=True)
        return True

    def _account(self, process: Process, policy: Restart) -> Account:
        account = self.account if self.strategy is not Strategy.ONE else process._account
        if account is None:  # the member's, which is the owner of the limit
            account = process._account = Account(policy)
        return account

    def _owner_of_limit(self, process: Process) -> str:
        if self.strategy is Strategy.ONE:
            return process.title
        owner = process._host.owner
        path = "" if owner is None else owner.path
        return f"{f'the group {path!r}' if path else 'the group'}, whose {process.title} failed again,"

    def _ended_life(self, process: Process, error: BaseException | None) -> None:
        self.ring.publish(ExitEvent, self.now, process, process._ends(self.now))
        process.last_error = error or process.last_error
        if process._held:  # who stopped it by hand waits for that; it was started or restarted by hand since
            process._held = False
            process._tell_waiters(process._exit_as(process._ending))
        self.no_more_satisfied(process)
        self.backed_off = True
        process._renew()
        process.state = State.BACKOFF
        process.since = self.now

    def due_again(self, process: Process) -> None:
        """Start a process whose delay is over; one that still leaves what was around it reports when it has."""
        if self.stopping or is_leaving(process):
            return
        if process._account is not None:
            process._account.spend(self.now)
        self._wait_again(process)
        if not process._left:
            self.start(process)

    def _wait_again(self, process: Process) -> None:
        process._recovery = None
        process._deadline = inf
        process.restarts += 1
        process.state = State.WAITING
        process.since = self.now

    def satisfied(self, process: Process) -> None:
        """Start those that waited for `process` alone; what is on its way down satisfies nobody."""
        if process._recovery is None:
            super().satisfied(process)

    def dependents(self, process: Process) -> dict[Process, None]:
        """A process and all that depend on it, transitively."""
        found = {process: None}
        todo = [process]
        while todo:
            for other in todo.pop()._unlocks:
                if other not in found:
                    found[other] = None
                    todo.append(other)
        return found

    def recover(self, part: Collection[Process], *, again: bool, not_before: float, counted: bool = False) -> None:
        """Stop a part of the group, and have it come again, or not, with all that is being stopped and touches it."""
        self.recount = True
        whole = dict.fromkeys(part)
        old: dict[Recovery, None] = {}
        todo = list(whole)
        for process in todo:  # which grows
            found: Recovery | None = process._recovery
            if found is not None and found not in old:
                old[found] = None
                todo.extend([each for each in found.part if each not in whole])
                whole.update(found.part)
        recovery = Recovery(whole, {}, not_before, counted or any(each.counted for each in old))
        for each in old:
            each.is_over = True
            self.pending -= each.counted
            if again and not counted:  # by hand: at once, and the account begins anew
                each.not_before = not_before
                recovery.counted = False
            recovery.not_before = max(recovery.not_before, each.not_before)
            recovery.again.update(each.again)
        self.pending += recovery.counted
        asked = dict.fromkeys(part)
        for process in whole:
            if process.member.name in self.running and (process in asked or process._recovery is not None):
                if (
                    process in asked
                ):  # with a sibling does not come what is TEMPORARY or stopped by hand, unless also started by hand
                    comes = not counted or is_between(process) or (self._comes_with_siblings(process) and not process._held)
                    recovery.again[process] = again and (comes or recovery.again.get(process, False))
                process._recovery = recovery
                if not is_between(process):
                    recovery.up.add(process)
                    self.no_more_satisfied(process)
                elif process.state is State.WAITING:
                    self._back_off(process)
                process._deadline = process._deadline if process in recovery.up else inf
        self.count(whole, recovery.up)
        for process in reversed([each for each in whole if each in recovery.up and not each._blockers]):
            self._tell(process)
        self.resume(recovery)

    def _back_off(self, process: Process) -> None:
        """Have one that was about to be started wait again: that was no restart."""
        process.restarts -= 1
        process.state = State.BACKOFF
        process.since = self.now

    def _tell(self, process: Process) -> None:
        if process.state is not State.STOPPING and not process._over:
            self.stop(process)

    def left(self, process: Process, recovery: Recovery) -> None:
        """Go on with a recovery: one of those that it stops is down."""
        if process in recovery.up:
            recovery.up.remove(process)
            if not process._blockers:
                for other in list(self.freed(process, recovery.part, recovery.up)):
                    self._tell(other)
        self.resume(recovery)

    def resume(self, recovery: Recovery) -> None:
        """Start again what is to come, if all are down and it is time."""
        if recovery.is_over or recovery.up or self.stopping or any(map(is_leaving, recovery.again)):
            return
        if self.now < recovery.not_before:
            if not recovery.is_armed:
                recovery.is_armed = True
                self.expect(functools.partial(self._rearm, recovery), recovery.not_before - self.now)
            return
        recovery.is_over = True
        self.pending -= recovery.counted
        if recovery.counted and self.account is not None:
            self.account.spend(self.now)
        those = [process for process, again in recovery.again.items() if again and is_between(process)]
        for process in those:
            self._wait_again(process)
        for process in those:
            if not process._left and process.state is State.WAITING:
                self.start(process)

    def _rearm(self, recovery: Recovery) -> None:
        recovery.is_armed = False
        self.resume(recovery)

    def give_up_restart(self, process: Process, *, own: bool = False) -> None:
        """End a process that is between two lives: its last failure was told, so it ends cleanly."""
        if process.state is State.WAITING:
            self._back_off(process)
        process._deadline = inf
        process._last = True
        if process._asking is not None:
            process._killed = process._killed or self.killing
            answer(process, again=False)
            if process.member.around is not None:
                self._wait_left(process)
                return
        elif process._task is not None:  # what is around it has ended it; it is leaving that
            self._wait_left(process)
            return
        process._over = True  # who goes on with the stop may come by once more
        process._error = process._failure
        self.finish(process, process._error, quiet=process._failure is None and not own)

    def has_returned(self, process: Process, error: BaseException | None) -> bool:
        """Whether a process that ends has done what it was to do: it was not stopped, nor is its restart given up."""
        given_up = process in self.unfinished or is_between(process)
        return error is None and not process._killed and not process._held and not given_up

    def _wait_left(self, process: Process) -> None:
        """Give a process its grace for leaving what is around it; it reports then."""
        self.unfinished.add(process)
        process.state = State.STOPPING
        process.since = self.now
        self.expect(process, REMIND if process._killed else grace_of(process.member))


def is_leaving(process: Process) -> bool:
    """Whether a process that is to be started again has ended only because of what is around it, and is leaving that."""
    return process.state is State.BACKOFF and process._asking is None and process._task is not None


def gave_up(error: BaseException | None) -> bool:
    """Whether it is, or a group raised, that a limit of restarts was exceeded."""
    inside: tuple[object, ...] = error.exceptions if isinstance(error, ErrorTrace) else (error,)
    return any(isinstance(each, RestartLimitExceeded) for each in inside)
