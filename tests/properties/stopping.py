"""When a group was told to stop, and when it certainly was stopping: what several invariants ask of a story."""

from __future__ import annotations

from grouper import ReadyTimeout, Role, StopTimeout
from grouper.signals import STOP_SIGNALS

from .scenarios import KILL
from .stories import By, Fact, Life, Moment, Person, Run, Story


def first(moments: list[Moment]) -> Moment | None:
    return moments[0] if moments else None


def stop_signals(life: Life) -> list[Moment]:
    return [each for each in life.told if each.record.number in STOP_SIGNALS]


def told_to_stop(life: Life) -> Moment | None:
    """The first stop signal from its group, or from a client that removes it: from there on the person is being stopped."""
    return first([each for each in stop_signals(life) if each.record.by is not By.HAND])


def ended_from_outside(story: Story, run: Run) -> list[Moment]:
    """The cancellations that reached a group: its own kill, or that of all."""
    if run.owner is None:
        return story.lives[0].outside
    owner = story.people[run.owner]
    return story.lives[run.owner].killed if owner.run is not None else story.lives[run.owner].outside


def kill_is_due(story: Story, run: Run) -> float | None:
    """The time from which a cancelled group kills its members."""
    moments = ended_from_outside(story, run)
    return moments[0].time + (run.tree.cancel_grace if run.tree is not None else 0.0) if moments else None


def sigkills(story: Story, run: Run) -> list[Moment]:
    """SIGKILL as a signal, which only a root without a process can be sent."""
    return [] if run.owner is None else [each for each in story.lives[run.owner].told if each.record.number == KILL]


def orders(story: Story, run: Run) -> list[Moment]:
    """All that tells a group to stop from outside."""
    told = [] if run.owner is None else stop_signals(story.lives[run.owner])
    return sorted([*told, *sigkills(story, run), *ended_from_outside(story, run)[:1]], key=lambda each: each.index)


def timeouts(story: Story, person: Person, kill: Moment) -> set[type[Exception]]:
    """The timeouts for which the person may have been killed at this moment."""
    life = story.lives[person.number]
    told = told_to_stop(life)
    if told is not None and told.index < kill.index:
        return {StopTimeout} if kill.time == told.time + person.grace else set()
    ready_too_late = not life.entered or kill.index < life.entered[0].index
    if ready_too_late and life.started and kill.time == life.started[0].time + person.spec.ready_within:
        return {ReadyTimeout}
    return set()


def was_removed(life: Life) -> bool:
    """Whether a client removed the person, which nobody was stopping then."""
    stops = [each for each in [*stop_signals(life), *life.killed] if each.record.by is By.GROUP or each.record.fact is Fact.KILLED]
    return any(each.index < life.exited[0].index and all(stop.index > each.index for stop in stops) for each in life.removed)


def stops_its_group(story: Story, run: Run, person: Person) -> bool:
    """Whether the person's exit, as it was, stops a group that is not stopping yet."""
    life = story.lives[person.number]
    error = life.exited[0].record.error
    if error is not None and not isinstance(error, Exception):
        return True
    if run.tree is None or run.tree.termination is None or was_removed(life):
        return False
    return person.role is Role.SERVICE or (person.role is Role.JOB and error is not None)


def stops(story: Story, run: Run) -> list[Moment]:
    """What the group did to its members that it does only when it is stopping."""
    found: list[Moment] = []
    for person in story.members(run):
        life = story.lives[person.number]
        found.extend(each for each in stop_signals(life) if each.record.by is By.GROUP)
        found.extend(each for each in life.killed if each.record.by is By.GROUP and not timeouts(story, person, each))
    return found


def reasons(story: Story, run: Run) -> list[Moment]:
    """The exits of members that stop the group."""
    exited = [person for person in story.members(run) if story.lives[person.number].exited]
    return [story.lives[person.number].exited[0] for person in exited if stops_its_group(story, run, person)]


def stopping_seen(story: Story, run: Run) -> Moment | None:
    """The first moment at which the group certainly was stopping."""
    return min([*stops(story, run), *reasons(story, run)], key=lambda each: each.index, default=None)


def was_stopping(story: Story, run: Run, moment: Moment) -> bool | None:
    """Whether the group was stopping just before the moment; None if the log cannot tell."""
    seen = stopping_seen(story, run)
    if seen is not None and seen.index < moment.index:
        return True
    before = [each for each in orders(story, run) if each.index < moment.index]
    if any(each.time < moment.time for each in before):
        return True
    return None if before else False


def stop_began(story: Story, run: Run) -> float | None:
    """The time at which the group began to stop."""
    seen = stopping_seen(story, run)
    times = [each.time for each in orders(story, run)] + ([] if seen is None else [seen.time])
    return min(times, default=None)


def satisfied_at(story: Story, person: Person) -> Moment | None:
    """When those after the person may start as far as it is concerned: exit beats ready, and so does its kill."""
    life = story.lives[person.number]
    entered, left, exited = first(life.entered), first(life.left), first(life.exited)
    if person.role is Role.JOB:
        return exited if exited is not None and exited.record.error is None and not life.killed else None
    ended = [each.index for each in (left, first(life.killed)) if each is not None]
    if entered is not None and all(entered.index < index for index in ended):
        return entered
    return exited if person.role is Role.OPTIONAL else None
