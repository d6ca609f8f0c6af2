"""What must hold in every story: each invariant is one function, which raises `BrokenError` with what was seen.

They take nothing from the engine but what it did. Where two things happened at the same time, and the log cannot tell which of them
the group looked at first, both outcomes are allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import trio

from grouper import (
    EntranceEvent,
    ErrorTrace,
    Event,
    ExitedBeforeReady,
    ExitEvent,
    MemberKilled,
    ReadyTimeout,
    Role,
    StartEvent,
    State,
)
from grouper.signals import STOP_SIGNALS

from .scenarios import KILL, TERM, Entry, Kind, Tree
from .stopping import (
    ended_from_outside,
    first,
    kill_is_due,
    orders,
    reasons,
    satisfied_at,
    sigkills,
    stop_began,
    stop_signals,
    stopping_seen,
    stops,
    stops_its_group,
    timeouts,
    told_to_stop,
    was_stopping,
)
from .stories import By, Fact, Moment, Person, Run, Story


class BrokenError(AssertionError):
    """An invariant does not hold."""


def require(holds: object, message: str) -> None:
    if not holds:
        raise BrokenError(message)


def inner(error: BaseException) -> tuple[BaseException, ...]:
    """What is in a group that is no ExceptionGroup; nothing is in what is none."""
    group = isinstance(error, BaseExceptionGroup) and not isinstance(error, ExceptionGroup)
    return cast("BaseExceptionGroup[BaseException]", error).exceptions if group else ()


def it_ends(story: Story) -> None:
    """What can be stopped or killed has ended, long before the watchdog."""
    require(not story.hung, "the run hung: it had to be ended by force")


def nothing_is_left_running(story: Story) -> None:
    """1: all that was begun has ended when the root's run ends."""
    for person in story.people:
        life = story.lives[person.number]
        require(len(life.began) <= 1, f"{person} was run {len(life.began)} times")
        require(len(life.left) == len(life.began), f"{person} was begun and did not end")
        require(not life.left or life.left[0].index < story.end.index, f"{person} was still running when the root's run had ended")


def members_start_when_all_before_them_are_satisfied(story: Story) -> None:
    """2: nobody starts before those it is after are ready (a job: returned; an optional one: settled)."""
    for person in story.people:
        for started in story.lives[person.number].started:
            for before in story.befores(person):
                satisfied = satisfied_at(story, before)
                ok = satisfied is not None and satisfied.index < started.index
                require(ok, f"{person} started before {before} ({before.role.name}), which it is after, was satisfied")


def members_start_at_once(story: Story) -> None:
    """2: who is not after anybody left starts in the same moment, unless the group is stopping."""
    for run, owner, tree in story.groups():
        began = stop_began(story, run)
        if tree.kind is Kind.DYNAMIC or not story.lives[owner.number].began:
            continue
        for person in story.members(run):
            satisfied = [satisfied_at(story, before) for before in story.befores(person)]
            times = [story.lives[owner.number].began[0].time, *(each.time for each in satisfied if each is not None)]
            if all(satisfied) and (began is None or began > max(times)):
                life = story.lives[person.number]
                ok = life.started and life.started[0].time == max(times)
                require(ok, f"{person} could have started at {max(times)}, and {'was late' if life.started else 'never did'}")


def nobody_starts_while_stopping(story: Story) -> None:
    """2: once stopping began, nobody starts."""
    for run in story.runs:
        for person in story.members(run):
            for started in story.lives[person.number].started:
                require(was_stopping(story, run, started) is not True, f"{person} was started while its group was stopping")
                if run.owner is not None:
                    owner = story.lives[run.owner]
                    told = [each for each in stop_signals(owner) if each.index < owner.began[0].index]
                    require(not told, f"{person} was started, though its group had been told to stop before it began")


def groups_stop_only_for_a_reason(story: Story) -> None:
    """3: a group stops its members when it was told to, or cancelled, or when the table says that an exit stops it."""
    for run in story.runs:
        acts = stops(story, run)
        if run.tree is None or not acts:
            continue
        act = min(acts, key=lambda each: each.index)
        found = [each for each in [*orders(story, run), *reasons(story, run)] if each.index < act.index]
        require(found, f"{story.people[act.record.who]} was stopped at {act.time}, and nothing had stopped its group")


def groups_are_ready_when_their_members_are(story: Story) -> None:
    """2: a group is ready in the moment in which all its members are satisfied, and never while it is stopping."""
    for run, owner, tree in story.groups():
        life = story.lives[owner.number]
        satisfied = [] if tree.kind is Kind.DYNAMIC else [satisfied_at(story, person) for person in story.members(run)]
        require(len(life.said) <= 1, f"{owner} said more than once that it was ready")
        if life.said:
            ok = all(each is not None and each.index < life.said[0].index for each in satisfied)
            require(ok, f"{owner} said that it was ready before all its members were")
            require(was_stopping(story, run, life.said[0]) is not True, f"{owner} said that it was ready while it was stopping")
        elif life.began and all(satisfied):
            when = max([life.began[0].time, *(each.time for each in satisfied if each is not None)])
            began = stop_began(story, run)
            require(began is not None and began <= when, f"{owner} was never ready, though all its members were at {when}")


def members_are_stopped_in_order(story: Story) -> None:
    """3: nobody is told to stop, or killed, by its group before all that depend on it have exited (in a queue: those before it)."""
    for person in story.people:
        life = story.lives[person.number]
        acts = [each for each in [*stop_signals(life), *life.killed] if each.record.by is By.GROUP]
        for act in acts:
            if life.killed and act.index > life.killed[0].index:
                continue  # it may hear more signals; that changes nothing
            if act.record.fact is Fact.KILLED and ReadyTimeout in timeouts(story, person, act):
                continue
            for other in story.blockers[person.number]:
                theirs = story.lives[other.number]
                if theirs.started and theirs.started[0].index < act.index:
                    ok = theirs.exited and theirs.exited[0].index < act.index
                    what = "killed" if act.record.fact is Fact.KILLED else "told to stop"
                    require(ok, f"{person} was {what} at {act.time} before {other} had exited")


def members_without_an_order_are_stopped_last_first(story: Story) -> None:
    """3: in a Parallel or Dynamic group, those stopped together are told in the reverse of the order in which they started."""
    for run in story.runs:
        if run.tree is None or run.tree.kind not in (Kind.PARALLEL, Kind.DYNAMIC):
            continue
        acts: list[tuple[int, int]] = []
        for person in story.members(run):
            life = story.lives[person.number]
            told = [each for each in stop_signals(life) if each.record.by is not By.HAND]
            act = min([*told, *life.killed], key=lambda each: each.index, default=None)
            if act is None or (act.record.fact is Fact.KILLED and timeouts(story, person, act)):
                continue
            if act.record.by is By.GROUP and life.started:
                acts.append((act.index, life.started[0].index))
        started = [place for _, place in sorted(acts)]
        require(started == sorted(started, reverse=True), f"the members of run {run.number} were not stopped last first")


def only_its_group_cancels_a_member(story: Story) -> None:
    """3: no cancellation reaches a member but through its own scope."""
    for person in story.people:
        life = story.lives[person.number]
        for cancelled in life.cancelled:
            ok = life.killed and life.killed[0].index < cancelled.index
            require(ok, f"{person} was cancelled at {cancelled.time}, and its group had not killed it")


def members_are_stopped_promptly(story: Story) -> None:
    """3: in a group that is stopping a member is told when all that depend on it have exited; in one being killed it is killed."""
    for run in story.runs:
        began, due = stop_began(story, run), kill_is_due(story, run)
        if kills := sigkills(story, run):
            due = kills[0].time if due is None else min(due, kills[0].time)
        for person in story.members(run):
            life = story.lives[person.number]
            if not life.exited or not life.started:
                continue
            blockers = [story.lives[other.number] for other in story.blockers[person.number]]
            free = max([0.0, *(other.exited[0].time for other in blockers if other.exited)])
            told = told_to_stop(life)
            killed = first(life.killed)
            if began is not None and life.exited[0].time > max(began, free):
                times = [each.time for each in (told, killed) if each is not None]
                ok = times and min(times) <= max(began, free)
                require(ok, f"{person} should have been told to stop at {max(began, free)}")
            if due is not None and life.exited[0].time > max(due, free):
                ok = killed is not None and killed.time <= max(due, free)
                require(ok, f"{person} should have been killed at {max(due, free)}")
            if told is not None and life.exited[0].time > told.time + person.grace:
                ok = killed is not None and killed.time <= told.time + person.grace
                require(ok, f"{person} was told to stop at {told.time}, and not killed when its grace of {person.grace} s was over")
            late = life.started[0].time + person.spec.ready_within
            settled = [each.time for each in (first(life.entered), told) if each is not None]
            if life.exited[0].time > late and not any(time <= late for time in settled):
                ok = killed is not None and killed.time <= late
                require(ok, f"{person} was not ready within {person.spec.ready_within} s, and not killed")


def is_same(error: BaseException | None, raised: BaseException) -> bool:
    """Whether it is the same error; a cancel scope that was cancelled makes a copy of a group that goes through it."""
    if isinstance(error, BaseExceptionGroup) and isinstance(raised, BaseExceptionGroup):
        mine = cast("BaseExceptionGroup[BaseException]", error).exceptions
        theirs = cast("BaseExceptionGroup[BaseException]", raised).exceptions
        return len(mine) == len(theirs) and all(map(is_same, mine, theirs))
    return error is raised


def allowed_failures(story: Story, run: Run, person: Person) -> set[type[Exception] | None]:
    """The failures that a killed person may have, by the reason for which it may have been killed."""
    life = story.lives[person.number]
    kill = life.killed[0]
    told = told_to_stop(life)
    being_stopped = told is not None and told.index < kill.index
    if kill.record.by is By.HAND:
        return {None} if being_stopped else {MemberKilled}
    if kill.record.by is By.CLIENT:
        return {None}
    found: set[type[Exception] | None] = set()
    found |= timeouts(story, person, kill)
    due = kill_is_due(story, run)
    if due is not None and due <= kill.time:
        found.add(None)
    for sigkill in sigkills(story, run):
        if sigkill.index < kill.index:
            stopping = was_stopping_before_sigkill(story, run, sigkill)
            found |= {None} if being_stopped or stopping else {MemberKilled} if stopping is False else {None, MemberKilled}
    return found


def was_stopping_before_sigkill(story: Story, run: Run, sigkill: Moment) -> bool | None:
    seen = stopping_seen(story, run)
    if seen is not None and seen.time < sigkill.time:
        return True
    before = [each for each in orders(story, run) if each.index < sigkill.index]
    if any(each.time < sigkill.time for each in before):
        return True
    return None if before or (seen is not None and seen.time == sigkill.time) else False


def exits_are_what_happened(story: Story) -> None:
    """4: each exit has the member's own error, or the reason for which it was killed or counts as failed; nothing else."""
    for person in story.people:
        run = story.run_of(person)
        life = story.lives[person.number]
        if run is None or person.exit is None or not life.exited:
            continue
        error = person.exit.error
        require(error is life.exited[0].record.error, f"the exit of {person} has {error!r}, and its event had another")
        require(person.exit.killed == bool(life.killed), f"the exit of {person} has killed={person.exit.killed}")
        require(person.exit.was_ready == bool(life.entered), f"the exit of {person} has was_ready={person.exit.was_ready}")
        require(person.exit.path == person.path, f"the exit of {person} has the path {person.exit.path!r}")
        raised = life.left[0].record.error if life.left else None
        if raised is not None and not isinstance(raised, Exception | trio.Cancelled):
            require(is_same(error, raised), f"{person} raised {raised!r}, and its exit has {error!r}")
            continue
        if isinstance(raised, trio.Cancelled):
            raised = None
        failures = allowed_failures(story, run, person) if life.killed else {None}
        require(failures, f"{person} was killed at {life.killed[0].time if life.killed else 0} for no reason")
        if type(error) in failures:
            assert error is not None
            require(error.__cause__ is raised, f"{person} raised {raised!r} when killed, which is not the cause of {error!r}")
            continue
        require(None in failures, f"{person} has {error!r}, and not one of {failures}")
        if raised is not None:
            require(error is raised, f"{person} raised {raised!r}, and its exit has {error!r}")
            continue
        said = any(not life.left or each.index < life.left[0].index for each in life.said)
        told = any(each.index < life.exited[0].index for each in stop_signals(life))
        excused = said or told or life.killed or person.role is not Role.SERVICE
        stopping = was_stopping(story, run, life.exited[0])
        allowed = {True} if excused or stopping is True else {False} if stopping is False else {True, False}
        clean = error is None
        require(clean in allowed, f"{person} has {error!r} though it {'was never ready' if clean else 'ended well'}")
        require(clean or isinstance(error, ExitedBeforeReady), f"{person} ended well, and its exit has {error!r}")


def groups_raise_what_their_members_did(story: Story) -> None:
    """4: a group raises exactly the failures that count, in exit order, BaseExceptions as they are; else its cancellation."""
    for run, owner, tree in story.groups():
        life = story.lives[owner.number]
        if life.left:
            _check_raised(story, run, owner, tree, life.left[0])


def _check_raised(story: Story, run: Run, owner: Person, tree: Tree, left: Moment) -> None:
    raised = left.record.error
    ends = {each: story.lives[each.number].exited[0] for each in story.members(run) if story.lives[each.number].exited}
    exited = sorted(ends, key=lambda each: ends[each].index)
    errors = [(each, ends[each].record.error) for each in exited]
    others = [error for _, error in errors if error is not None and not isinstance(error, Exception)]
    failed = [error for each, error in errors if isinstance(error, Exception) and each.role is not Role.OPTIONAL]
    if tree.kind is Kind.DYNAMIC:
        kept = max(1, tree.buffer)
        failed, exited = failed[-kept:], exited[-kept:]
    enders: list[Person | None] = []
    if not story.lives[owner.number].said:
        enders = ended_by(story, run)
    trace: BaseException | None = raised
    if others:
        if len(others) == 1 and not failed and (not enders or None in enders) and raised is others[0]:
            return
        require(raised is not None and inner(raised), f"{owner} raised {raised!r}, where members raised {others} and {failed}")
        assert raised is not None
        heads, rest = inner(raised)[: len(others)], inner(raised)[len(others) :]
        require(list(map(id, heads)) == list(map(id, others)), f"{owner} raised {raised!r}, not first {others}")
        require(len(rest) <= 1, f"{owner} raised {raised!r}, which is more than happened")
        trace = rest[0] if rest else None
    if failed:
        require(isinstance(trace, ErrorTrace), f"{owner} raised {trace!r}, where members failed with {failed}")
        assert isinstance(trace, ErrorTrace)
        same = list(map(id, trace.exceptions)) == list(map(id, failed))
        require(same, f"{owner} raised {trace!r}, where members failed with {failed}")
        exits = list(map(id, trace.exits))
        if tree.kind is Kind.DYNAMIC:  # a failure that is kept has its exit in the trace, also when that is older than the last
            exits = exits[-len(exited) :]
        require(exits == [id(each.exit) for each in exited], f"the trace of {owner} has other exits than its members had")
        require(trace.path == owner.path, f"the trace of {owner} has the path {trace.path!r}")
        causes = [None if each is None else ends[each].record.error for each in enders] or [None]
        cause = trace.__cause__
        require(any(cause is each for each in causes), f"the cause of {owner}'s trace is {cause!r}, not one of {causes}")
    elif isinstance(trace, ExitedBeforeReady):
        require(any(enders), f"{owner} raised {trace!r}, but no exit had ended it before it was ready")
    else:
        require(not enders or None in enders, f"{owner} was never ready, ended by {enders}, and raised {trace!r}")
        if others:
            require(trace is None, f"{owner} raised {trace!r}, which no member did")
            return
        cancelled = [each for each in ended_from_outside(story, run) if each.index < left.index]
        allowed = {False} if not cancelled else {True} if cancelled[0].time < left.time else {True, False}
        ok = isinstance(raised, trio.Cancelled) if raised is not None else False
        require(raised is None or ok, f"{owner} raised {raised!r}, which no member did")
        require(ok in allowed, f"{owner} {'raised Cancelled' if ok else 'returned'}, and it was cancelled: {bool(cancelled)}")


def ended_by(story: Story, run: Run) -> list[Person | None]:
    """Whose exit stopped the group, as the table says; more than one where the log cannot tell, None for nobody's."""
    found: list[Person | None] = []
    for person in sorted(story.members(run), key=lambda each: each.number):
        life = story.lives[person.number]
        if not life.exited or not stops_its_group(story, run, person):
            continue
        error = life.exited[0].record.error
        stopping = was_stopping(story, run, life.exited[0])
        if stopping is True or (error is not None and not isinstance(error, Exception)):
            continue
        found.append(person)
        if stopping is None:
            found.append(None)
    return found


def events_are_what_happened(story: Story) -> None:
    """5: start, entrance and exit are told once each, in order, when they happen; the stream of the root tells the same."""
    for wrong in story.wrong:
        require(False, wrong)
    for person in story.people:
        life = story.lives[person.number]
        if person.run is None:
            continue
        for moments in (life.started, life.entered, life.exited):
            require(len(moments) <= 1, f"{person}: an event was told {len(moments)} times")
        require(len(life.started) == len(life.exited), f"{person} has {len(life.started)} start and {len(life.exited)} exit events")
        require(life.started or not life.entered, f"{person} has an entrance and was never started")
        require(life.started or not life.began, f"{person} was run and no start was told")
        require(life.began or not life.started or life.killed, f"{person}: a start was told and it was never run")
        order = [each.index for moments in (life.started, life.began, life.entered, life.exited) for each in moments]
        require(order == sorted(order), f"{person}: not in the order start, entrance, exit")
        if not life.exited:
            continue
        left, exited = first(life.left), life.exited[0]
        require(life.began == [] or life.began[0].time == life.started[0].time, f"{person} did not begin when its start was told")
        on_time = left is None or (left.index < exited.index and left.time == exited.time)
        require(on_time, f"{person} did not end when its exit was told")
        if person.role is Role.JOB:
            ready = exited.record.error is None and not life.killed
            when: Moment | None = exited
        else:
            when = first(life.said)
            ready = when is not None and (left is None or when.index < left.index)
        require(bool(life.entered) == ready, f"{person} has {'an' if life.entered else 'no'} entrance event, and ready was {ready}")
        require(not ready or (when is not None and life.entered[0].time == when.time), f"{person}: its entrance was told late")
        run = story.below.get(person.number)
        for child in [] if run is None else story.members(run):
            theirs = story.lives[child.number]
            ok = all(life.started[0].index < each.index < exited.index for each in [*theirs.started, *theirs.exited])
            require(ok, f"{child} started or ended outside of its group's life")
    _check_stream(story)


def _check_stream(story: Story) -> None:
    if story.scenario.entry is Entry.BARE:
        return
    kinds: dict[Fact, type[Event]] = {Fact.STARTED: StartEvent, Fact.ENTERED: EntranceEvent, Fact.EXITED: ExitEvent}
    wanted = [(kinds[each.fact], story.people[each.who].path, each.time) for each in story.log if each.fact in kinds and each.who]
    seen = [(type(each), each.path, each.time) for each in story.streamed]
    require(seen == wanted, f"the stream of the root told {seen}, where {wanted} happened")


def all_have_exited_and_waiters_are_released(story: Story) -> None:
    """6: at the end every process is EXITED and has an exit, and nobody waits any more."""
    for person in story.people:
        if person.process is None:
            continue
        require(person.state is State.EXITED, f"{person} is {person.state} when all is over")
        exit = person.exit
        if exit is None:
            raise BrokenError(f"{person} has no exit when all is over")
        require(exit.started_at <= exit.ended_at, f"{person} ended before it was started")
        said = person.role is not Role.JOB and bool(story.lives[person.number].entered) and person.tree is None
        require(not said or person.value == f"value {person.number}", f"{person} has the value {person.value!r}")
    require(not story.waiting, f"still waiting when all is over: {story.waiting}")


def groups_raise_only_their_kinds(story: Story) -> None:
    """7: what leaves a group is an ErrorTrace, ExitedBeforeReady, Cancelled, a member's BaseException, or a group of those."""
    for _, owner, _ in story.groups():
        for left in story.lives[owner.number].left:
            if left.record.error is not None:
                _check_kind(left.record.error, str(owner))
    if story.raised is not None:
        error = story.raised
        if story.scenario.entry is not Entry.BARE and isinstance(error, MemberKilled):
            return
        _check_kind(error, "the whole")


def _check_kind(error: BaseException, who: str) -> None:
    kinds = (ErrorTrace, ExitedBeforeReady, trio.Cancelled, KeyboardInterrupt, SystemExit)
    for each in inner(error):
        require(not isinstance(each, trio.Cancelled), f"{who} raised {error!r}, with a Cancelled in it")
        _check_kind(each, who)
    require(inner(error) or isinstance(error, kinds), f"{who} raised {error!r}")


def the_whole_raises_what_the_root_did(story: Story) -> None:
    """7: running, invoking or having a root in the background raises its error itself, else the cancellation, else nothing."""
    if story.scenario.entry is Entry.BARE:
        error = story.lives[0].left[0].record.error if story.lives[0].left else None
        require(story.raised is error, f"the root raised {error!r}, and all was ended with {story.raised!r}")
        return
    error = None if story.people[0].exit is None else story.people[0].exit.error
    if error is not None:
        require(story.raised is error, f"the root's error is {error!r}, and what was raised {story.raised!r}")
    else:
        ok = story.raised is None or (isinstance(story.raised, trio.Cancelled) and story.lives[0].outside)
        require(ok, f"the root has no error, and {story.raised!r} was raised")


def signals_reach_the_members(story: Story) -> None:
    """8: pass-through signals reach the members that run, stop signals those being stopped, and the newest of them the others."""
    for run, owner, tree in story.groups():
        life = story.lives[owner.number]
        if not life.began:
            continue
        lasted = [each for each in life.told if not life.left or each.index < life.left[0].index]
        for person in story.members(run):
            if story.lives[person.number].exited:
                _check_told(story, run, tree, lasted, person)


def _check_told(story: Story, run: Run, tree: Tree, sent: list[Moment], person: Person) -> None:
    life = story.lives[person.number]
    started, exited = life.started[0].time, life.exited[0].time
    mine = [each for each in life.told if each.record.by is By.GROUP]
    passed = {(each.time, each.record.number) for each in sent if each.record.number not in STOP_SIGNALS | {KILL}}
    got = {(each.time, each.record.number) for each in mine if each.record.number not in STOP_SIGNALS}
    lost = {each for each in passed - got if started < each[0] < exited}
    queued_before = {each for each in lost if any(told.record.number == each[1] and told.time <= each[0] for told in life.told)}
    require(not lost - queued_before, f"{person} was running, and not sent {lost}")
    begun = story.lives[story.runs[run.number].owner or 0].began[0].time
    early = {(begun, number) for time, number in passed if time <= begun}
    require(got <= passed | early, f"{person} was sent {got - passed}, which nobody sent")
    stops = [each for each in sent if each.record.number in STOP_SIGNALS]
    told = told_to_stop(life)
    if told is None:
        return
    if told.record.by is By.GROUP:
        newest = [each.record.number for each in stops if each.time < told.time][-1:] or [tree.termination or TERM]
        allowed = {*newest, *(each.record.number for each in stops if each.time == told.time)}
        require(told.record.number in allowed, f"{person} was told {told.record.number} to stop, not one of {allowed}")
    for time in {each.time for each in stops if told.time < each.time < exited}:
        wanted = [each.record.number for each in stops if each.time == time]
        heard = [each.record.number for each in mine if each.time == time and each.record.number in STOP_SIGNALS]
        require(heard == wanted, f"{person} was being stopped, and of the stop signals {wanted} at {time} was told {heard}")


INVARIANTS: Final[tuple[Callable[[Story], None], ...]] = (
    it_ends,
    nothing_is_left_running,
    only_its_group_cancels_a_member,
    members_start_when_all_before_them_are_satisfied,
    nobody_starts_while_stopping,
    members_start_at_once,
    groups_stop_only_for_a_reason,
    groups_are_ready_when_their_members_are,
    members_are_stopped_in_order,
    members_without_an_order_are_stopped_last_first,
    events_are_what_happened,
    members_are_stopped_promptly,
    exits_are_what_happened,
    groups_raise_what_their_members_did,
    the_whole_raises_what_the_root_did,
    groups_raise_only_their_kinds,
    signals_reach_the_members,
    all_have_exited_and_waiters_are_released,
)


def check(story: Story) -> None:
    """All invariants. Raises: BrokenError, with the name of the invariant and the log."""
    for invariant in INVARIANTS:
        try:
            invariant(story)
        except BrokenError as broken:
            raise BrokenError(f"{invariant.__name__}: {broken}\n{story.text()}") from None
