"""Each invariant can fail: a story in which one thing was changed by hand breaks it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import attrs
import pytest

from grouper import Role, State
from grouper.signals import STOP_SIGNALS

from . import invariants
from .actors import BoomError
from .invariants import INVARIANTS, BrokenError, check
from .playing import play
from .scenarios import HUP, INT, TERM, Action, End, Entry, Kind, Leaf, Scenario, Spec, Tree, What
from .stories import By, Fact, Record, Story

ROOT = Tree(
    Kind.ORDERED,
    (
        Spec(Leaf(setup=0.5)),
        Spec(Leaf(life=1.0), role=Role.JOB),
        Spec(Tree(Kind.PARALLEL, (Spec(Leaf(stop_delay=2.0, stop_end=End.FAIL)), Spec(Leaf(stop_delay=1.0))))),
    ),
)
ACTIONS = (
    Action(3.0, 0, What.SIGNAL, HUP),
    Action(4.0, 0, What.SIGNAL, TERM),
    Action(4.5, 0, What.SIGNAL, INT),
)


@functools.cache
def told(entry: Entry) -> Story:
    story = play(Scenario(ROOT, entry, ACTIONS))
    check(story)
    return story


Change = Callable[[Story, list[Record]], None]


def place(story: Story, log: Sequence[Record], fact: Fact, path: str, which: int = 0) -> int:
    """Where a record about somebody is; of the signals, a stop signal."""
    return [
        index
        for index, each in enumerate(log)
        if each.fact is fact and story.people[each.who].path == path and (fact is not Fact.TOLD or each.number in STOP_SIGNALS)
    ][which]


def drop(fact: Fact, path: str, which: int = 0) -> Change:
    return lambda story, log: log.__delitem__(place(story, log, fact, path, which))


def move(fact: Fact, path: str, where: int) -> Change:
    """To this place in the log, at the time that it has there."""

    def change(story: Story, log: list[Record]) -> None:
        record = log.pop(place(story, log, fact, path))
        log.insert(where % (len(log) + 1), attrs.evolve(record, time=log[where].time))

    return change


def add(fact: Fact, path: str, like: Fact) -> Change:
    """After another record about the same member, at the same time."""

    def change(story: Story, log: list[Record]) -> None:
        where = place(story, log, like, path)
        log.insert(where + 1, attrs.evolve(log[where], fact=fact, by=By.GROUP))

    return change


def err(fact: Fact, path: str, error: BaseException | None) -> Change:
    def change(story: Story, log: list[Record]) -> None:
        where = place(story, log, fact, path)
        log[where] = attrs.evolve(log[where], error=error)

    return change


def swap(fact: Fact, path: str, other: str) -> Change:
    def change(story: Story, log: list[Record]) -> None:
        here, there = place(story, log, fact, path), place(story, log, fact, other)
        log[here], log[there] = log[there], log[here]

    return change


def hang(story: Story, log: list[Record]) -> None:
    story.hung = True


def never_exit(story: Story, log: list[Record]) -> None:
    story.people[1] = attrs.evolve(story.people[1], state=State.READY)


def leave_waiting(story: Story, log: list[Record]) -> None:
    story.waiting.append("somebody")


def raise_nothing(story: Story, log: list[Record]) -> None:
    story.raised = None


def lose_an_event(story: Story, log: list[Record]) -> None:
    del story.streamed[3]


def lose_a_hup(story: Story, log: list[Record]) -> None:
    log[:] = [each for each in log if not (each.number == HUP and story.people[each.who].path == "m2")]


def tell_nobody(story: Story, log: list[Record]) -> None:
    log[:] = [each for each in log if not (each.fact is Fact.TOLD and each.who == 0)]


@pytest.mark.parametrize(
    ("invariant", "change"),
    [
        (invariants.it_ends, hang),
        (invariants.nothing_is_left_running, drop(Fact.LEFT, "m0")),
        (invariants.nothing_is_left_running, move(Fact.LEFT, "m0", -1)),
        (invariants.members_start_when_all_before_them_are_satisfied, move(Fact.STARTED, "m1", 3)),
        (invariants.members_start_when_all_before_them_are_satisfied, move(Fact.STARTED, "m2", 6)),
        (invariants.members_start_at_once, drop(Fact.STARTED, "m2")),
        (invariants.nobody_starts_while_stopping, move(Fact.STARTED, "m0", -3)),
        (invariants.groups_are_ready_when_their_members_are, drop(Fact.SAID, "m2")),
        (invariants.groups_are_ready_when_their_members_are, move(Fact.SAID, "m2", 12)),
        (invariants.groups_stop_only_for_a_reason, tell_nobody),
        (invariants.members_are_stopped_in_order, swap(Fact.EXITED, "m2", "m0")),
        (invariants.members_without_an_order_are_stopped_last_first, swap(Fact.TOLD, "m2/m0", "m2/m1")),
        (invariants.only_its_group_cancels_a_member, add(Fact.CANCELLED, "m0", Fact.TOLD)),
        (invariants.members_are_stopped_promptly, move(Fact.TOLD, "m2/m0", -4)),
        (invariants.exits_are_what_happened, err(Fact.LEFT, "m2/m1", BoomError("lost"))),
        (invariants.exits_are_what_happened, add(Fact.KILLED, "m0", Fact.TOLD)),
        (invariants.groups_raise_what_their_members_did, err(Fact.EXITED, "m2/m1", BoomError("lost"))),
        (invariants.groups_raise_what_their_members_did, err(Fact.EXITED, "m2/m0", None)),
        (invariants.events_are_what_happened, drop(Fact.ENTERED, "m0")),
        (invariants.events_are_what_happened, add(Fact.EXITED, "m0", Fact.EXITED)),
        (invariants.events_are_what_happened, lose_an_event),
        (invariants.all_have_exited_and_waiters_are_released, never_exit),
        (invariants.all_have_exited_and_waiters_are_released, leave_waiting),
        (invariants.groups_raise_only_their_kinds, err(Fact.LEFT, "m2", ValueError("of the engine"))),
        (invariants.the_whole_raises_what_the_root_did, raise_nothing),
        (invariants.signals_reach_the_members, lose_a_hup),
        (invariants.signals_reach_the_members, drop(Fact.TOLD, "m2/m0", 1)),
    ],
    ids=lambda value: value.__name__ if value in INVARIANTS else "",
)
def test_an_invariant_sees_one_thing_that_is_wrong(invariant: Callable[[Story], None], change: Change) -> None:
    """An invariant that holds for a story fails for the same story with one thing changed."""
    story = told(Entry.BACKGROUND)
    log = list(story.log)
    changed = attrs.evolve(story, log=log, people=list(story.people), waiting=list(story.waiting), streamed=list(story.streamed))
    change(changed, log)
    with pytest.raises(BrokenError):
        invariant(changed)


def test_every_invariant_is_shown_to_fail() -> None:
    """The table above has all invariants."""
    marks = test_an_invariant_sees_one_thing_that_is_wrong.pytestmark  # type: ignore[attr-defined]  # pyright: ignore
    assert {invariant for invariant, _ in marks[0].args[1]} == set(INVARIANTS)
