"""An auditor of a supervised tree: hears of each step in the order in which it happens, and notes what must not be.

What is expected is worked out from the specs of the members and from what was heard, with rules of its own that are simpler than
the engine's: they need only say what is wrong, not what to do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator
from typing import Any
from unittest import mock

import attrs
import trio

from grouper import (
    DoNotRestart,
    EntranceEvent,
    ExitEvent,
    Member,
    MemberKilled,
    Process,
    RestartEvent,
    RestartLimitExceeded,
    RestartType,
    Role,
    StartEvent,
    State,
    Strategy,
    TerminateTree,
)
from grouper.errors import contains
from grouper.groups.engine import Engine
from grouper.groups.operations import VERBS, Operations
from grouper.restart import Account, Ending
from grouper.snapshot import Snapshot

from .actors import BoomError
from .scenarios import Kind
from .supervised import Leaf, Spec, Tree

__all__ = ["Auditor", "BrokenError"]

BETWEEN = (State.WAITING, State.BACKOFF)
ENDED = (State.EXITED, State.EXHAUSTED, State.STOPPED)


class BrokenError(Exception):
    """An invariant does not hold."""


@attrs.define(eq=False)
class Track:
    """What was heard of one process."""

    starts: int = 0
    is_on: bool = False
    was_told: bool = False
    once_ready: bool = False
    is_held: bool = False
    error: BaseException | None = None
    exits: int = 0
    own_end: bool = False
    due: float | None = None


@attrs.define(eq=False)
class Auditor:
    """One for each play."""

    wrong: list[str] = attrs.field(factory=list[str])
    specs: dict[Member, Spec] = attrs.field(factory=dict[Member, Spec])
    trees: dict[Member, Tree] = attrs.field(factory=dict[Member, Tree])
    tracks: dict[Process, Track] = attrs.field(factory=dict[Process, Track])
    stamps: dict[Account, list[float]] = attrs.field(factory=dict[Account, list[float]])
    parts: dict[Account, list[set[str]]] = attrs.field(factory=dict[Account, "list[set[str]]"])
    granted: dict[Account, int] = attrs.field(factory=dict[Account, int])
    """How many restarts were still to be made when an account was begun anew: these may count."""
    restarts: int = 0
    root: Process | None = None

    def expect(self, right: object, process: Process, otherwise: str) -> None:
        """Note what is wrong."""
        if not right:
            self.wrong.append(f"{trio.current_time():g}: {process!r} {otherwise}")

    def processes(self) -> list[Process]:
        """All that there are, each before its members."""
        found: list[Process] = []
        todo = [] if self.root is None else [self.root]
        while todo:
            each = todo.pop()
            found.append(each)
            todo.extend(reversed(each.children))
        return found

    def hear(self, kind: Any, time: float, process: Any, detail: Any) -> None:
        """Be told of a fact; a hearer's exceptions are only logged."""
        if process.member not in self.specs:
            return
        track = self.tracks.setdefault(process, Track())
        try:
            HEARD[kind](self, process, track, time, detail)
        except Exception as error:
            self.wrong.append(f"the auditor could not hear of {kind}: {error!r}")

    def _start(self, process: Process, track: Track, now: float, _: object) -> None:
        self.expect(not track.is_on, process, "is started while it lives")
        self.expect(now == trio.current_time(), process, f"was started at {now}")
        self.expect(not process._host.stopping, process, "is started while its group stops")  # type: ignore[attr-defined]
        track.starts += 1
        track.is_on, track.was_told, track.own_end = True, False, False
        tree = self.trees[process.member]
        for before in self._named(process, () if tree.kind is Kind.DYNAMIC else tree.after(process.name)):
            settled = before.state in (State.EXITED, State.EXHAUSTED) and (
                self.specs[before.member].role is not Role.SERVICE
                or tree.termination is None
                or self._type(before) is RestartType.TEMPORARY
            )
            crashes = before._killed and before._recovery is None  # by hand, and nobody knows when it will have ended
            self.expect(before.state is State.READY or settled or crashes, process, f"is started, and is after {before!r}")
        self._count(process, track, now)

    def _count(self, process: Process, track: Track, now: float) -> None:
        """No more than `limit` restarts by policy in any `period`."""
        account = self._account(process)
        if account is None:
            return
        if track.due is not None:
            self._stamp(process, account, min(track.due, now))
            track.due = None
        for part in self.parts.get(account, []):
            if process.name in part:
                self.parts[account].remove(part)
                self._stamp(process, account, now)
                break

    def _stamp(self, process: Process, account: Account, when: float) -> None:
        self.restarts += 1
        policy = account.policy
        if policy.limit == math.inf:
            return
        stamps = [each for each in self.stamps.get(account, []) if each >= when - policy.period] + [when]
        self.stamps[account] = stamps
        over = f"is started again at {stamps}: the limit is {policy.limit} in {policy.period}"
        self.expect(len(stamps) <= policy.limit, process, over)

    def _enter(self, process: Process, track: Track, now: float, _: object) -> None:
        given_up = self.specs[process.member].role is Role.JOB  # while it waited for its restart: it is said to be ready
        self.expect(track.is_on or given_up, process, "is ready, and does not live")
        track.once_ready = True

    def _exit(self, process: Process, track: Track, now: float, detail: Any) -> None:
        self.expect(track.is_on or track.exits, process, "ends, and was never started")
        track.is_on = False
        track.exits += 1
        track.error = detail[0]

    def _restart(self, process: Process, track: Track, now: float, detail: Any) -> None:
        _, delay, used, limit = detail
        self.expect(0 < used <= limit, process, f"is restarted as {used} of {limit}")
        account = self._account(process)
        if account is None:
            self.expect(False, process, "is restarted by nobody's account")
        elif account is process._account:
            track.due = now + delay
        else:
            tree = self.trees[process.member]
            all_of_it = process._host.strategy is Strategy.ALL  # type: ignore[attr-defined]
            part = {each.name for each in tree.members} if all_of_it else {process.name} | tree.dependents(process.name)
            apart: list[set[str]] = []
            for other in self.parts.get(account, []):
                if part.isdisjoint(other):
                    apart.append(other)
                else:
                    part |= other
            self.parts[account] = [*apart, part]

    def _signal(self, process: Process, track: Track, now: float, _: object) -> None:
        if process.state is State.STOPPING and not track.was_told:  # else it is sent by hand
            self._expect_dependents_down(process, "is told to stop")
            track.was_told = True
        elif process.state is State.BACKOFF:  # by hand: it ends by that, whoever depends on it
            track.was_told = True

    def _kill(self, process: Process, track: Track, now: float, failure: Exception | None) -> None:
        host: Any = process._host
        killing = bool(host.killing)  # else it is by hand, in a drain
        of_group = (failure is None and killing) or (isinstance(failure, MemberKilled) and "to its group" in str(failure))
        if of_group and not track.was_told:
            self._expect_dependents_down(process, "is killed")
        track.was_told = True

    def _expect_dependents_down(self, process: Process, what: str) -> None:
        tree = self.trees[process.member]
        stopping = process._host.stopping  # type: ignore[attr-defined]
        if tree.kind is Kind.QUEUE:
            names = [each.name for each in tree.members]
            earlier = self._named(process, names[: names.index(process.name)])
            those = [each for each in earlier if stopping or (each._recovery is not None and each._recovery is process._recovery)]
        else:
            those = self._named(process, tree.dependents(process.name))
        for each in those:
            if process._recovery is not None and each._recovery is None and not each.restarts:
                continue  # it waited for a TEMPORARY one that has just ended: it may begin in the middle of a recovery
            lives = each.started_at is not None and each.ended_at is None and each.state not in BETWEEN and not each._over
            self.expect(not lives, process, f"{what} before {each!r} is down")

    # What is decided

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Look at each decision."""
        ended: Any = Engine.ended
        forget = Account.forget

        def spy_ended(engine: Engine, process: Process) -> None:
            recovery: Any = process._recovery
            comes = recovery is not None and recovery.again.get(process, False)
            given_up = process.state is State.BACKOFF  # because a stop signal was sent to it
            stale = not process._over and not given_up  # the report of what had ended, and was started again since
            facts = engine.stopping or given_up, process._held, recovery is not None, process._last
            told = process._signals.received is not None
            by_hand = recovery is not None and not recovery.counted
            own = process.state is not State.STOPPING
            track = self.tracks.get(process)
            exits, starts = (0, 0) if track is None else (track.exits, track.starts)
            ended(engine, process)
            if process.member in self.specs and not engine.stopping and track is not None and not stale:
                error = track.error if track.exits > exits else process._error
                comes_back = process.ended_at is None and (process.state in BETWEEN or track.starts > starts)
                if comes and self._stays_down(process, error, by_hand=by_hand, own=own):
                    comes = False
                self._judge(process, track, facts, comes=comes, comes_back=comes_back, told=told, error=error)

        def spy_forget(account: Account) -> None:
            self.stamps.pop(account, None)
            self.granted[account] = self.granted.get(account, 0) + len(self.parts.pop(account, []))
            for process, track in self.tracks.items():
                if process._account is account:
                    track.due = None
            forget(account)

        verbs = {verb: self._noting(verb, act) for verb, act in VERBS.items()}
        with (
            mock.patch.object(Engine, "ended", spy_ended),
            mock.patch.object(Account, "forget", spy_forget),
            mock.patch.dict(VERBS, verbs),
        ):
            yield

    def _noting(self, verb: str, act: Callable[..., None]) -> Callable[..., None]:
        def noted(group: Operations, process: Process, *, cascade: bool) -> None:
            before, falls = {each: each.member.name in group.running for each in group.processes}, process._held
            open_ = {each: each.ended_at is None for each in group.processes}
            act(group, process, cascade=cascade)
            if process.member not in self.trees or self.trees[process.member].kind is Kind.DYNAMIC:
                return
            tree = self.trees[process.member]
            below = self._named(process, tree.dependents(process.name))
            if verb == "stop":
                for each in (process, *below) if cascade or open_[process] else ():
                    if open_[each] and (each is process or before[each]):
                        self.tracks.setdefault(each, Track()).is_held = True
                return
            for each in (process, *(below if verb == "restart" and before[process] else ())):
                if each is process or before[each]:
                    self.tracks.setdefault(each, Track()).is_held = False
            if cascade and (falls or not before[process]):
                for each in group.processes:
                    if process.name in tree.dependents(each.name):
                        self.tracks.setdefault(each, Track()).is_held = False

        return noted

    def _judge(
        self,
        process: Process,
        track: Track,
        facts: tuple[bool, bool, bool, bool],
        *,
        comes: bool,
        comes_back: bool,
        told: bool,
        error: BaseException | None,
    ) -> None:
        stopping, held, recovers, last = facts
        if stopping or last:
            return
        if held and not recovers:
            self.expect(not comes_back, process, "comes back although it was stopped by hand")
        elif recovers:
            self.expect(comes_back == comes, process, f"comes back: {comes_back}, with its siblings, after {error!r}")
        elif isinstance(error, RestartLimitExceeded):
            self._expect_exceeded(process, track, error)
            track.own_end = True
        else:
            expected = not told and self._should_restart(process, track, error)
            self.expect(comes_back == expected, process, f"comes back: {comes_back}, after {error!r}")
            track.own_end = not comes_back

    def _stays_down(self, process: Process, error: BaseException | None, *, by_hand: bool, own: bool) -> bool:
        """Whether one that is part of a recovery stays down after all; `own` tells that it ended before it was its turn."""
        spec = self.specs[process.member]
        if by_hand or not own:
            return contains(error, TerminateTree) if by_hand else forbids(error)
        if error is None:
            return spec.role is Role.JOB or (spec.restart is not None and spec.restart.type is not RestartType.PERMANENT)
        refused = spec.restart is not None and isinstance(error, Exception) and spec.restart.ending(error) is Ending.REFUSED
        return forbids(error) or refused

    def _expect_exceeded(self, process: Process, track: Track, error: RestartLimitExceeded) -> None:
        self.expect(self._should_restart(process, track, error.__cause__), process, f"has given up after {error.__cause__!r}")
        account = self._account(process)
        if account is not None:
            policy = account.policy
            used = [each for each in self.stamps.get(account, []) if each >= trio.current_time() - policy.period]
            part = {process.name} | self.trees[process.member].dependents(process.name)
            on_their_way = [each for each in self.parts.get(account, []) if part.isdisjoint(each)]
            most = len(used) + len(on_their_way) + self.granted.get(account, 0)
            self.expect(most >= policy.limit, process, f"has given up after {used}: {error}")

    def _should_restart(self, process: Process, track: Track, error: BaseException | None) -> bool:
        spec = self.specs[process.member]
        policy = spec.restart
        if policy is None or policy.type is RestartType.TEMPORARY or forbids(error):
            return False
        if error is None:
            return policy.type is RestartType.PERMANENT and (track.once_ready or policy.start_errors)
        subgroup: Any = getattr(error, "subgroup", None)
        boom = isinstance(error, BoomError) or (subgroup is not None and subgroup(BoomError) is not None)
        counts = boom or BoomError not in policy.on
        return counts and (track.once_ready or policy.start_errors or spec.role is Role.JOB)

    def _named(self, process: Process, names: Any) -> list[Process]:
        """Some of the members of the same group."""
        wanted = set(names)
        return [each for each in process._host.children if each.member.name in wanted]

    def _type(self, process: Process) -> RestartType | None:
        policy = self.specs[process.member].restart
        return None if policy is None else policy.type

    def _account(self, process: Process) -> Account | None:
        host: Any = process._host
        account: Account | None = process._account if host.strategy is Strategy.ONE else host.account
        return account

    # What is so

    def compare(self, snapshot: Snapshot) -> None:
        """A snapshot that was just taken agrees with the processes, and these with what was heard of them."""
        processes = self.processes()
        values = list(snapshot.walk())
        if [each.path for each in values] != [each.path for each in processes]:
            self.wrong.append(f"a snapshot of {[each.path for each in values]} was taken of {processes}")
            return
        for value, process in zip(values, processes, strict=True):
            same = (value.state, value.since, value.restarts) == (process.state, process.since, process.restarts)
            if not (same and value.taken_at == trio.current_time()):
                self.expect(False, process, f"has the snapshot {value}")
            track = self.tracks.get(process)
            if track is None:
                continue
            lives = process.state in (State.STARTING, State.READY, State.DRAINING) or (
                process.state is State.STOPPING and not process._last
            )
            self.expect(track.is_on or not lives, process, "does not live")
            self.expect(not track.is_on or lives or process._last, process, "lives")
            self.expect(not lives or track.starts == process.restarts + 1, process, f"had {track.starts} starts")

    def after_quiet(self) -> None:
        """Long after the last thing has gone wrong, those are up that should be."""
        for process in self.processes():
            if process.member not in self.specs or process._host.stopping:  # type: ignore[attr-defined]
                continue
            track = self.tracks.get(process, Track())
            tree = self.trees[process.member]
            spec = self.specs[process.member]
            below = process.children
            befores = self._named(process, () if tree.kind is Kind.DYNAMIC else tree.after(process.name))
            state = process.state
            if state is State.WAITING:
                right = any(each.state is not State.READY for each in befores)
            elif state is State.STARTING:
                right = isinstance(spec.runner, Tree)
                right = right and (spec.role is Role.JOB or any(each.state is not State.READY for each in below))
            elif state is State.READY:
                right = spec.role is not Role.JOB
                if isinstance(spec.runner, Leaf):
                    actor: Any = process.member.runner
                    right = right and bool(actor.alive)
            elif state is State.STOPPED:
                right = track.is_held
            elif state in ENDED:
                goes_on = spec.role is Role.OPTIONAL or tree.termination is None or (spec.role is Role.JOB and track.error is None)
                right = not track.own_end or goes_on
            else:
                right = False
            self.expect(right, process, f"is {state.value} after quiet; {befores}, {below}")
            self.expect((state is State.STOPPED) == track.is_held or tree.kind is Kind.DYNAMIC, process, "is stopped, or not")

    def after_all(self) -> None:
        """Nobody is left."""
        for process, track in self.tracks.items():
            self.expect(process.ended_at is not None and process.state in ENDED, process, "has not ended")
            self.expect(not track.is_on, process, "lives")


def forbids(error: BaseException | None) -> bool:
    """Whether a failure says that nothing is to be restarted."""
    return contains(error, (DoNotRestart, TerminateTree))


HEARD: dict[Any, Callable[[Auditor, Process, Track, float, Any], None]] = {
    StartEvent: Auditor._start,
    EntranceEvent: Auditor._enter,
    ExitEvent: Auditor._exit,
    RestartEvent: Auditor._restart,
    "signal": Auditor._signal,
    "kill": Auditor._kill,
}
