"""What happened in one play of a scenario, as plain data that the invariants look at."""

from __future__ import annotations

import enum
import functools
import math
from typing import TYPE_CHECKING

import attrs

from grouper import Event, Exit, Process, Role, State

from .scenarios import Kind, Leaf, Scenario, Spec, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fact(enum.Enum):
    STARTED = "its group published StartEvent"
    ENTERED = "its group published EntranceEvent"
    EXITED = "its group published ExitEvent"
    BEGAN = "its runner was called"
    SAID = "started() is called"
    LEFT = "its runner has ended"
    CANCELLED = "its runner saw Cancelled"
    REMOVED = "a client asks for its removal"
    TOLD = "was sent a signal"
    KILLED = "its scope was cancelled"
    OUTSIDE = "all was cancelled from outside"
    OVER = "the run of the root has ended"


class By(enum.Enum):
    GROUP = "the group"
    HAND = "the scenario's actions"
    CLIENT = "a client's remove()"


@attrs.frozen(eq=False)
class Record:
    fact: Fact
    who: int
    time: float
    by: By = By.GROUP
    number: int = 0
    error: BaseException | None = None


@attrs.define(eq=False)
class Person:
    """A process, or the root that has none (`run` is None then). `seal` copies what the process is at the end."""

    number: int
    name: str
    run: int | None
    position: int
    spec: Spec
    process: Process | None
    path: str = ""
    state: State = State.EXITED
    exit: Exit | None = None
    value: object = None

    def seal(self) -> None:
        if self.process is not None:
            process = self.process
            self.path, self.state, self.exit, self.value = process.path, process.state, process.exit, process.value

    @property
    def tree(self) -> Tree | None:
        return self.spec.runner if isinstance(self.spec.runner, Tree) else None

    @property
    def role(self) -> Role:
        return role_of(self.spec)

    @property
    def grace(self) -> float:
        if self.spec.grace is not None:
            return self.spec.grace
        return 10.0 if isinstance(self.spec.runner, Leaf) else math.inf

    def __str__(self) -> str:
        return f"#{self.number} {self.path!r}"


def role_of(spec: Spec) -> Role:
    """The role that holds: a group of jobs alone is a job where it was given as a service."""
    members = spec.runner.members if isinstance(spec.runner, Tree) else ()
    jobs_alone = bool(members) and all(role_of(each) is Role.JOB for each in members)
    return Role.JOB if jobs_alone and spec.role is Role.SERVICE else spec.role


@attrs.define(eq=False)
class Run:
    """A run of a group. `owner` is the person that it is; None for the engine around the root (`tree` is None then too)."""

    number: int
    owner: int | None
    tree: Tree | None
    members: list[int] = attrs.field(factory=list[int])


@attrs.frozen(eq=False)
class Moment:
    """A record with its place in the log."""

    index: int
    record: Record

    @property
    def time(self) -> float:
        return self.record.time


@attrs.define(eq=False)
class Life:
    """The records about one person."""

    started: list[Moment] = attrs.field(factory=list[Moment])
    entered: list[Moment] = attrs.field(factory=list[Moment])
    exited: list[Moment] = attrs.field(factory=list[Moment])
    began: list[Moment] = attrs.field(factory=list[Moment])
    said: list[Moment] = attrs.field(factory=list[Moment])
    left: list[Moment] = attrs.field(factory=list[Moment])
    cancelled: list[Moment] = attrs.field(factory=list[Moment])
    removed: list[Moment] = attrs.field(factory=list[Moment])
    told: list[Moment] = attrs.field(factory=list[Moment])
    killed: list[Moment] = attrs.field(factory=list[Moment])
    outside: list[Moment] = attrs.field(factory=list[Moment])
    over: list[Moment] = attrs.field(factory=list[Moment])


@attrs.define(eq=False)
class Story:
    scenario: Scenario
    people: list[Person]
    runs: list[Run]
    log: list[Record]
    raised: BaseException | None
    hung: bool = False
    waiting: list[str] = attrs.field(factory=list[str])
    wrong: list[str] = attrs.field(factory=list[str])
    streamed: list[Event] = attrs.field(factory=list[Event])

    @functools.cached_property
    def lives(self) -> list[Life]:
        lives = [Life() for _ in self.people]
        for index, record in enumerate(self.log):
            getattr(lives[record.who], record.fact.name.lower()).append(Moment(index, record))
        return lives

    @functools.cached_property
    def below(self) -> dict[int, Run]:
        """The run of the group that a person is."""
        return {run.owner: run for run in self.runs if run.owner is not None}

    @functools.cached_property
    def end(self) -> Moment:
        return self.lives[0].over[0]

    def run_of(self, person: Person) -> Run | None:
        return None if person.run is None else self.runs[person.run]

    def members(self, run: Run) -> list[Person]:
        return [self.people[number] for number in run.members]

    def groups(self) -> Iterator[tuple[Run, Person, Tree]]:
        """The runs of the scenario's groups, with the person that each is."""
        for run in self.runs:
            if run.owner is not None and run.tree is not None:
                yield run, self.people[run.owner], run.tree

    def befores(self, person: Person) -> list[Person]:
        """Those that the person is directly after."""
        run = self.run_of(person)
        if run is None or run.tree is None:
            return []
        if run.tree.kind in (Kind.ORDERED, Kind.QUEUE):
            places: tuple[int, ...] = (person.position - 1,) if person.position else ()
        elif run.tree.kind is Kind.GRAPH:
            places = person.spec.after
        else:
            places = ()
        return [other for other in self.members(run) if other.position in places]

    @functools.cached_property
    def ancestors(self) -> list[set[int]]:
        """For each person those that it is after, transitively."""
        found: list[set[int]] = [set() for _ in self.people]
        for run in self.runs:
            for person in sorted(self.members(run), key=lambda each: each.position):
                for before in self.befores(person):
                    found[person.number] |= {before.number} | found[before.number]
        return found

    @functools.cached_property
    def blockers(self) -> list[list[Person]]:
        """For each person those that must have exited before it is stopped."""
        found: list[list[Person]] = [[] for _ in self.people]
        for run in self.runs:
            forwards = run.tree is not None and run.tree.kind is Kind.QUEUE
            for number in run.members:
                for before in self.ancestors[number]:
                    stopped_later, first = (number, before) if forwards else (before, number)
                    found[stopped_later].append(self.people[first])
        return found

    def text(self) -> str:
        """The log, to read."""
        lines = [repr(self.scenario)]
        lines.extend(
            f"{index:4} {record.time:6g} {self.people[record.who]!s:12} {record.fact.name}"
            + (f" {record.number}" if record.number else "")
            + (f" by {record.by.name}" if record.fact in (Fact.TOLD, Fact.KILLED) else "")
            + (f" {record.error!r}" if record.error is not None else "")
            for index, record in enumerate(self.log)
        )
        return "\n".join(lines)
