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
from collections.abc import Callable, Collection
from math import inf

import attrs

from ..errors import ExitedBeforeReady, RestartLimitExceeded, TerminateTree, contains
from ..events import ExitEvent, RestartEvent
from ..exit import ErrorTrace
from ..member import Role, grace_of
from ..process import Process
from ..restart import Account, Ending, Restart, Strategy, forbids_restart
from ..state import REMIND, State
from .inbox import Inbox, Item, nothing
from .lives import answer
from .verdict import judge
from .walks import Walks, is_between, is_leaving

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

    owner: Process | None
    post: Callable[[Item], None]
    _inbox: Inbox
    strategy: Strategy = Strategy.ONE
    account: Account | None = None
    held: int = 0
    pending: int = 0

    @property
    def path(self) -> str:
        """The path of the group; putting it together takes as long as the tree is deep."""
        return "" if self.owner is None else self.owner.path

    @property
    def title(self) -> str:
        """What messages call the group."""
        return f"the group {path!r}" if (path := self.path) else "the group"

    def hold(self, more: int) -> None:
        """Count those that were stopped by hand: they hold the group up."""
        self.held += more

    def finish(self, process: Process, error: BaseException | None, *, quiet: bool = False) -> None:
        """End a process for good."""
        raise NotImplementedError

    def report(self, process: Process) -> None:
        """Have the end of a life looked at; at once, if the loop waits, which saves a restart two turns of the scheduler.

        Only that of a life that was ready: a runner that fails at once, without a checkpoint, would keep all others from running.
        """
        if process.ready_at is None:
            self.post(process)
        else:
            self._inbox.take_now(process, self._ended_now)

    def _ended_now(self, process: Process) -> None:
        self.look_at_clock()
        self.ended(process)
        if process.ended_at is not None or process.state is State.WAITING:  # it may have been the last for whom others could wait
            self.post(nothing)

    def is_stuck(self) -> bool:
        """Whether all that are left wait for others, and nobody runs, or is to run, for whom they could."""
        if not self.backed_off or self.stopping or self.held or not self.running:
            return False
        return all(process.state is State.WAITING for process in self.running.values())

    def ended(self, process: Process) -> None:
        """Act on the end of a life."""
        if process.ended_at is not None:  # it was reported twice
            return
        if not process._over:
            if process.state is State.BACKOFF and process._signals.received is not None:
                self.give_up_restart(process, own=True)
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
            if recovery is not None and not self._stays_down(process, recovery, error):
                if recovery.again[process] and (process._held or not process._last):
                    self._ended_life(process, error)
                    self.left(process, recovery)
                    return
                if process.state is State.STOPPING and not recovery.again[process]:  # else it is an exit of its own
                    quiet = quiet or not self._is_cut_short(process)
            elif recovery is None and not process._last and not quiet and self._restarts(process, error):
                return
        if process._asking is not None:
            answer(process, again=False)
            if process.member.around is not None:  # it reports again when it has left that
                if not process._killed:
                    process._failure = None  # it was judged by that
                process._over = False  # until then it can be told, and killed
                if process._killed and process.state is not State.STOPPING:  # in the tick in which its life ended
                    process.state = State.STOPPING
                    process.since = self.now
                    self.expect(process, REMIND)
                told = not process._blockers and (not self.draining if self.stopping else quiet)
                if told and (process.state is not State.STOPPING or (self.killing and not process._killed)):
                    self.stop(process)  # who told it came while its life was over
                return
        self.finish(process, process._error, quiet=quiet)

    def _is_cut_short(self, process: Process) -> bool:
        """Whether one that was stopped with its siblings, and is dropped, was to do something: that has failed."""
        if process.member.role is not Role.JOB or process._held:
            return False
        if process not in self.unfinished:
            self.unfinished.add(process)
            failure = ExitedBeforeReady(
                f"{process.title} was stopped with its siblings before it had returned, and does not come again, being TEMPORARY: "
                "use RestartType.TRANSIENT, or no restart of its own"
            )
            failure.__cause__ = process._error
            process._error = failure
        return True

    def _stays_down(self, process: Process, recovery: Recovery, error: Exception | None) -> bool:
        """Whether one that was to come again has ended so that it does not; what it raises when it was told to stop says little."""
        if not recovery.counted:  # somebody said so by hand
            return contains(error, TerminateTree)
        policy = process.member.restart
        if process.state is State.STOPPING:
            return forbids_restart(error)
        if error is None:  # by itself, before it was its turn to stop: it may have finished
            return process.member.role is Role.JOB or (policy is not None and not policy.restarts(Ending.CLEAN))
        return forbids_restart(error) if policy is None else policy.ending(error) is Ending.REFUSED

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
        alone = self.strategy is Strategy.ONE
        part = () if alone else self._restarted_with(process)
        if not account.grants(self.now, healthy, 0 if alone else self._pending_beside(part)):
            process._error = account.exceeded(self._owner_of_limit(process), self.now, error)
            return False
        self._ended_life(process, error)
        delay = account.delay
        self.ring.publish(RestartEvent, self.now, process, (error, delay, account.used + 1, account.policy.limit))
        if not alone:
            self.recover(part, again=True, not_before=self.now + delay, counted=True)
        elif delay:
            self.expect(process, delay)
        else:
            self.due_again(process)
        return True

    def _restarted_with(self, process: Process) -> Collection[Process]:
        """Those that the strategy restarts with a process, itself included."""
        return self.processes if self.strategy is Strategy.ALL else self.dependents(process)

    def _pending_beside(self, part: Collection[Process]) -> int:
        """How many counted recoveries are under way that one of this part would not become one with."""
        merged = {each._recovery for each in part if each._recovery is not None and each._recovery.counted}
        return self.pending - len(merged)

    def _account(self, process: Process, policy: Restart) -> Account:
        account = self.account if self.strategy is not Strategy.ONE else process._account
        if account is None:  # the member's, which is the owner of the limit
            account = process._account = Account(policy)
        return account

    def _owner_of_limit(self, process: Process) -> str:
        if self.strategy is Strategy.ONE:
            return process.title
        return f"{self.title}, whose {process.title} failed again,"

    def _ended_life(self, process: Process, error: BaseException | None) -> None:
        self.ring.publish(ExitEvent, self.now, process, process._ends(self.now))
        process.last_error = error or process.last_error
        self._no_more_held(process)
        self.no_more_satisfied(process)
        self.backed_off = True
        process._renew()
        process.state = State.BACKOFF
        process.since = self.now

    def _no_more_held(self, process: Process) -> None:
        """Tell who stopped it by hand, and waits for that, of its end: it was started or restarted by hand since."""
        if process._held:
            process._held = False
            process._tell_waiters(process._exit_as(process._ending))

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
        self.unfinished.discard(process)
        self._no_more_held(process)
        process._recovery = None
        process._deadline = inf
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
                if process in asked:
                    # With a sibling does not come what was stopped by hand, nor a TEMPORARY one, unless also started by hand.
                    with_siblings = is_between(process) or self._comes_with_siblings(process)
                    comes = not counted or (with_siblings and not process._held)
                    recovery.again[process] = again and (comes or recovery.again.get(process, False))
                process._recovery = recovery
                if not is_between(process):
                    recovery.up.add(process)
                    self.no_more_satisfied(process)
                    continue
                if process.state is State.WAITING:
                    self._back_off(process)
                process._deadline = inf
                if not recovery.again[process] and self.holds(process):  # which is left when it is its turn
                    recovery.up.add(process)
        self.count(whole, recovery.up)
        for process in reversed([each for each in whole if each in recovery.up and not each._blockers]):
            self._tell(process)
        self.resume(recovery)

    def holds(self, process: Process) -> bool:
        """Whether a process that waits for its next life has something held around it meanwhile."""
        return process.member.around is not None and process._task is not None

    def _back_off(self, process: Process) -> None:
        """Have one that was about to be started wait again."""
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
        those = [process for process, again in recovery.again.items() if again and is_between(process)]
        if those and recovery.counted and self.account is not None:
            self.account.spend(self.now)
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
        """Give a process its grace for leaving what is around it; it reports then, and those that it is after stop later."""
        self.unfinished.add(process)
        recovery: Recovery | None = process._recovery
        if recovery is not None and not self.stopping and process not in recovery.up:
            recovery.up.add(process)
            self.count(recovery.part, recovery.up)
        process.state = State.STOPPING
        process.since = self.now
        self.expect(process, REMIND if process._killed else grace_of(process.member))


def gave_up(error: BaseException | None) -> bool:
    """Whether it is, or a group raised, that a limit of restarts was exceeded."""
    inside: tuple[object, ...] = error.exceptions if isinstance(error, ErrorTrace) else (error,)
    return any(isinstance(each, RestartLimitExceeded) for each in inside)
