"""Supervised trees as plain data, and how they are made up: policies, strategies, and what is done to them from outside.

All is taken from one `random.Random`, which is Hypothesis's own where a failing life is to be shrunk. Durations come from small
sets, so that things often happen at the same time.
"""

from __future__ import annotations

import enum
import math
import signal
from collections.abc import Sequence
from random import Random
from typing import Final, TypeVar

import attrs

from grouper import Backoff, Restart, RestartType, Role, Strategy

from .actors import BoomError
from .scenarios import HUP, INT, KILL, TERM, USR1, Kind

__all__ = ["Ending", "Hold", "Leaf", "Life", "Spec", "Tree", "lives_of"]

T = TypeVar("T")


@attrs.frozen
class Leaf:
    """A member that does at random what its `seed` says; a life goes wrong as often as `moody` says (0 to 1)."""

    seed: int
    moody: float = 0.5


@attrs.frozen
class Hold:
    """What is held around a member: how long it takes to enter and to leave, and how often entering fails."""

    enters: float = 0.0
    leaves: float = 0.0
    fails: float = 0.0


@attrs.frozen
class Tree:
    """A group. The members of a Dynamic are those that are inserted and removed while it runs."""

    kind: Kind
    members: tuple[Spec, ...] = ()
    strategy: Strategy = Strategy.ONE
    restart: Restart | None = None
    termination: int | None = TERM
    cancel_grace: float = 0.0
    drain_signal: int | None = None

    @property
    def is_job(self) -> bool:
        """Whether it is a group of jobs alone."""
        return self.kind is not Kind.DYNAMIC and bool(self.members) and all(each.role is Role.JOB for each in self.members)

    def after(self, name: str) -> tuple[str, ...]:
        """The names that a member is directly after."""
        places = {each.name: place for place, each in enumerate(self.members)}
        if self.kind is Kind.GRAPH:
            return self.members[places[name]].after
        if self.kind in (Kind.ORDERED, Kind.QUEUE) and places[name]:
            return (self.members[places[name] - 1].name,)
        return ()

    def dependents(self, name: str) -> set[str]:
        """The names of those that depend on a member, transitively; of a Dynamic nobody does."""
        found: set[str] = set()
        if self.kind is not Kind.DYNAMIC:
            for each in self.members:  # in each kind of group, after those that it is after
                if not found.union([name]).isdisjoint(self.after(each.name)):
                    found.add(each.name)
        return found


@attrs.frozen
class Spec:
    """A member."""

    name: str
    runner: Leaf | Tree
    after: tuple[str, ...] = ()
    role: Role = Role.SERVICE
    restart: Restart | None = None
    around: Hold | None = None
    grace: float | None = None


class Ending(enum.Enum):
    """How all ends."""

    STOP = "a stop signal"
    TWICE = "two stop signals"
    KILL = "SIGKILL"
    CANCEL = "a cancellation from outside"


@attrs.frozen
class Life:
    """A tree, and what happens to it: so many operations at random, then quiet or not, and the end.

    In a `lasting` one nothing happens after which there is no restart.
    """

    root: Tree
    seed: int = 0
    operations: int = 20
    pause: float = 0.5
    quiet: bool = True
    ending: Ending = Ending.STOP
    lasting: bool = False


DRAIN: Final = int(signal.SIGUSR2)
"""What a group tells its members before it stops them."""

LATER: Final = (HUP, HUP, USR1, TERM, INT, KILL)
"""Signals that are sent to members at random."""


def lives_of(random: Random) -> Life:
    """Make up a life."""
    return Life(
        a_tree(random, random.choice([1, 2, 2, 3])),
        random.randrange(2**16),
        random.choice([0, 5, 15, 40]),
        random.choice([0.0, 0.3, 1.0]),
        random.random() < 0.75,
        random.choice([Ending.STOP, Ending.STOP, Ending.TWICE, Ending.KILL, Ending.CANCEL]),
    )


def a_tree(random: Random, depth: int) -> Tree:
    """Make up a group with at most so many levels."""
    kind = random.choice([Kind.ORDERED, Kind.ORDERED, Kind.PARALLEL, Kind.QUEUE, Kind.GRAPH, Kind.GRAPH, Kind.DYNAMIC])
    termination = random.choice([TERM, TERM, TERM, INT, None])
    cancel_grace = random.choice([0.0, 0.0, 0.5])
    drain = random.choice([None, None, None, DRAIN])
    if kind is Kind.DYNAMIC:
        members = [a_spec(random, name, depth, Strategy.ONE, ()) for name in "abcd"]
        return Tree(kind, tuple(members), termination=termination, cancel_grace=cancel_grace, drain_signal=drain)
    strategy = random.choice([Strategy.ONE, Strategy.ONE, Strategy.ALL, Strategy.REST, Strategy.REST])
    names = "abcde"[: random.choice([1, 2, 3, 3, 4, 5])]
    specs: list[Spec] = []
    for place, name in enumerate(names):
        after = () if kind is not Kind.GRAPH else tuple(other for other in names[:place] if random.random() < 0.5)
        specs.append(a_spec(random, name, depth, strategy, after))
    if not any(each.restart is not None and each.restart.type is not RestartType.TEMPORARY for each in specs):
        strategy = Strategy.ONE  # where nobody restarts, another would mean nothing
        specs = [attrs.evolve(each, restart=each.restart and a_policy(random, strategy, job=True)) for each in specs]
    restart = None if strategy is Strategy.ONE or random.random() < 0.2 else a_limit(random)
    return Tree(kind, tuple(specs), strategy, restart, termination, cancel_grace, drain)


def a_spec(random: Random, name: str, depth: int, strategy: Strategy, after: tuple[str, ...]) -> Spec:
    """Make up a member."""
    moody = random.choice([0.0, 0.2, 0.5, 0.5, 0.7])
    inside = depth > 1 and random.random() < 0.35
    runner = a_tree(random, depth - 1) if inside else Leaf(random.randrange(2**16), moody)
    role = random.choice([Role.SERVICE, Role.SERVICE, Role.SERVICE, Role.JOB, Role.OPTIONAL, Role.OPTIONAL])
    if isinstance(runner, Tree) and runner.is_job and role is Role.SERVICE:
        role = Role.JOB
    # A group that is started again whenever it has ended could go on for ever.
    restart = a_policy(random, strategy, job=role is Role.JOB or inside) if random.random() < 0.85 else None
    around = None
    if random.random() < 0.3:
        around = Hold(random.choice([0.0, 0.0, 0.2]), random.choice([0.0, 0.0, 0.3]), random.choice([0.0, 0.0, 0.2]))
    return Spec(name, runner, after, role, restart, around, random.choice([None, 0.0, 0.5, 3.0]) if not inside else None)


def a_policy(random: Random, strategy: Strategy, *, job: bool) -> Restart:
    """Make up a member's policy."""
    types = [RestartType.TRANSIENT, RestartType.TRANSIENT, RestartType.TEMPORARY]
    type_ = random.choice(types if job else [RestartType.PERMANENT] * 3 + types)
    on = random.choice([(Exception,), (Exception,), (Exception,), (BoomError,)])
    start_errors = random.random() < 0.8
    owner = a_limit(random) if strategy is Strategy.ONE else Restart()
    return attrs.evolve(owner, type=type_, on=on, start_errors=start_errors)


def a_limit(random: Random) -> Restart:
    """Make up how soon and how often somebody is started again."""
    return Restart(
        backoff=Backoff(random.choice([0.0, 0.0, 0.1, 0.5]), cap=2.0, jitter=random.choice([0.0, 0.5])),
        limit=pick(random, [0, 1, 3, 10, 50, math.inf, math.inf]),
        period=random.choice([0.5, 2.0, 10.0]),
        reset_after=random.choice([0.0, 1.0, 10.0]),
    )


def pick(random: Random, those: Sequence[float]) -> float:
    """One of several numbers."""
    return random.choice(list(those))
