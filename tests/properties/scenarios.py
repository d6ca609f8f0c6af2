"""What can happen to a tree, as plain data, and what makes it up.

Durations come from a small set, so that things often happen at the same time: that is where the order of reports matters.
Everything here ends by itself, by a signal or by a kill: what ignores its kill for ever, nothing can end.
"""

from __future__ import annotations

import enum
import math
import signal
from random import Random
from typing import Final

import attrs

from grouper import Role

TERM: Final = int(signal.SIGTERM)
INT: Final = int(signal.SIGINT)
HUP: Final = int(signal.SIGHUP)
USR1: Final = int(signal.SIGUSR1)
KILL: Final = int(signal.SIGKILL)


class End(enum.Enum):
    """How a member ends; CANCELLED passes the cancellation on, and is a clean return where there is none."""

    RETURN = "return"
    FAIL = "fail"
    INTERRUPT = "KeyboardInterrupt"
    EXIT = "SystemExit"
    CANCELLED = "Cancelled"


@attrs.frozen
class Leaf:
    """A member's behaviour, in seconds. 0 is without a checkpoint.

    It sets up, is ready (or never), lives, and ends by itself, unless `life` is infinite. Told to stop, it ends after `stop_delay`;
    None is deaf to signals. Cancelled, it cleans up under a shield. `late_ready` says ready only then. `ready_elsewhere` has
    `started()` called by another task.
    """

    setup: float = 0.0
    ready: bool = True
    life: float = math.inf
    end: End = End.RETURN
    stop_delay: float | None = 0.0
    stop_end: End = End.RETURN
    cleanup: float = 0.0
    cleanup_end: End = End.CANCELLED
    late_ready: bool = False
    ready_elsewhere: bool = False


class Kind(enum.Enum):
    ORDERED = "Ordered"
    QUEUE = "QueueOrdered"
    PARALLEL = "Parallel"
    GRAPH = "Graph"
    DYNAMIC = "Dynamic"


@attrs.frozen
class Tree:
    """A group. The members of a Dynamic are those that its `steps` insert."""

    kind: Kind
    members: tuple[Spec, ...] = ()
    termination: int | None = TERM
    cancel_grace: float = 0.0
    buffer: int = 1000
    capacity: int | None = None
    steps: tuple[Step, ...] = ()


@attrs.frozen
class Spec:
    """A member; `after` are positions before its own."""

    runner: Leaf | Tree
    after: tuple[int, ...] = ()
    role: Role = Role.SERVICE
    grace: float | None = None
    ready_within: float = math.inf


class Doing(enum.Enum):
    INSERT = "insert"
    INSERT_NOWAIT = "insert_nowait"
    REMOVE = "remove"
    CLOSE = "close"


@attrs.frozen
class Step:
    """What the client of a Dynamic does next."""

    delay: float
    doing: Doing
    name: str = "a"
    spec: Spec = Spec(Leaf())


class What(enum.Enum):
    SIGNAL = "signal the root"
    TELL = "signal some process"
    KILL = "kill some process"
    CANCEL = "cancel from outside"


@attrs.frozen
class Action:
    """What is done from outside, at a time and some checkpoints later."""

    at: float
    ticks: int
    what: What
    number: int = TERM
    target: int = 0


class Entry(enum.Enum):
    BARE = "group.run(Signals())"
    BACKGROUND = "background()"
    INVOKE = "invoke()"


@attrs.frozen
class Scenario:
    root: Tree
    entry: Entry = Entry.BARE
    actions: tuple[Action, ...] = ()
    seed: int = 0
    waiters: bool = True


def leaf(random: Random) -> Leaf:
    """A random member that has none of its own."""
    pick = random.choice
    ends = [End.RETURN, End.RETURN, End.RETURN, End.FAIL, End.FAIL, End.INTERRUPT, End.EXIT]
    return Leaf(
        setup=pick([0.0, 0.0, 0.5, 1.0, 2.0]),
        ready=random.randrange(10) > 0,
        life=pick([math.inf] * 7 + [0.0, 0.5, 1.0, 2.0, 3.0]),
        end=pick(ends),
        stop_delay=pick([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 4.0, None]),
        stop_end=pick([End.RETURN] * 8 + [End.FAIL] * 3 + [End.INTERRUPT]),
        cleanup=pick([0.0, 0.0, 0.0, 0.5, 1.0, 5.0]),
        cleanup_end=pick([End.CANCELLED] * 7 + [End.RETURN] * 2 + [End.FAIL] * 3 + [End.EXIT]),
        late_ready=random.randrange(7) == 0,
        ready_elsewhere=random.randrange(13) == 0,
    )


def spec(random: Random, depth: int, after: tuple[int, ...] = ()) -> Spec:
    """A random member, with groups in it down to a depth."""
    pick = random.choice
    return Spec(
        tree(random, depth - 1) if depth > 1 and random.randrange(10) < 3 + depth else leaf(random),
        after=after,
        role=pick([Role.SERVICE, Role.SERVICE, Role.SERVICE, Role.JOB, Role.OPTIONAL]),
        grace=pick([None, None, 0.0, 0.5, 1.0, 3.0, math.inf]),
        ready_within=pick([math.inf] * 4 + [0.5, 1.0, 2.0]),
    )


def step(random: Random, depth: int) -> Step:
    """What a random client does next."""
    pick = random.choice
    doing = pick([Doing.INSERT] * 5 + [Doing.INSERT_NOWAIT, Doing.REMOVE, Doing.REMOVE, Doing.CLOSE])
    return Step(
        pick([0.0, 0.0, 0.5, 1.0]),
        doing,
        pick("abcd") if doing is not Doing.CLOSE else "a",
        spec(random, depth) if doing in (Doing.INSERT, Doing.INSERT_NOWAIT) else Spec(Leaf()),
    )


def tree(random: Random, depth: int) -> Tree:
    """A random group."""
    pick = random.choice
    kind = pick([Kind.ORDERED, Kind.QUEUE, Kind.PARALLEL, Kind.GRAPH, Kind.GRAPH, Kind.DYNAMIC])
    termination = pick([TERM, TERM, INT, None])
    cancel_grace = pick([0.0, 0.0, 0.0, 0.5, 2.0])
    most = 5 if depth >= 3 else 4 if depth == 2 else 3
    if kind is Kind.DYNAMIC:
        return Tree(
            kind,
            termination=termination,
            cancel_grace=cancel_grace,
            buffer=pick([1000, 1000, 2, 0]),
            capacity=pick([None, None, 1, 2]),
            steps=tuple([step(random, depth) for _ in range(random.randint(1, most + 1))]),
        )
    members: list[Spec] = []
    for place in range(random.randint(0 if depth < 4 else 1, most)):
        earlier = range(place) if kind is Kind.GRAPH else ()
        after = tuple(sorted(random.sample(earlier, random.randint(0, min(3, len(earlier))))))
        members.append(spec(random, depth, after))
    return Tree(kind, tuple(members), termination, cancel_grace)


def action(random: Random) -> Action:
    """Something that is done at random."""
    pick = random.choice
    return Action(
        at=pick([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]),
        ticks=random.randint(0, 6),
        what=pick([What.SIGNAL] * 5 + [What.TELL] * 3 + [What.KILL] * 3 + [What.CANCEL] * 2),
        number=pick([TERM, TERM, TERM, INT, INT, HUP, HUP, USR1, KILL]),
        target=random.randint(0, 12),
    )


def scenario(random: Random) -> Scenario:
    """A random life of a random tree."""
    return Scenario(
        root=tree(random, random.randint(2, 4)),
        entry=random.choice([Entry.BARE, Entry.BARE, Entry.BACKGROUND, Entry.INVOKE]),
        actions=tuple([action(random) for _ in range(random.randint(0, 4))]),
        seed=random.randrange(2**16),
        waiters=random.random() < 0.5,
    )
