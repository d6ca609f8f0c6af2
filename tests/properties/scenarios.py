"""What can happen to a tree, as plain data, and the strategies that make it up.

Durations come from a small set, so that things often happen at the same time: that is where the order of reports matters.
Everything here ends by itself, by a signal or by a kill: what ignores its kill for ever, nothing can end.
"""

from __future__ import annotations

import enum
import math
import signal
from typing import Final

import attrs
from hypothesis import strategies as st

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


DURATIONS: Final = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])
TERMINATIONS: Final[st.SearchStrategy[int | None]] = st.sampled_from([TERM, TERM, INT, None])
ENDS: Final = st.sampled_from([End.RETURN, End.RETURN, End.RETURN, End.FAIL, End.FAIL, End.INTERRUPT, End.EXIT])
STOP_ENDS: Final = st.sampled_from([End.RETURN] * 8 + [End.FAIL] * 3 + [End.INTERRUPT])
CLEANUP_ENDS: Final = st.sampled_from([End.CANCELLED] * 7 + [End.RETURN] * 2 + [End.FAIL] * 3 + [End.EXIT])


def _mostly(usual: bool, times: int = 9) -> st.SearchStrategy[bool]:
    return st.sampled_from([usual] * times + [not usual])


leaves: st.SearchStrategy[Leaf] = st.builds(
    Leaf,
    setup=DURATIONS,
    ready=_mostly(True),
    life=st.sampled_from([math.inf] * 7 + [0.0, 0.5, 1.0, 2.0, 3.0]),
    end=ENDS,
    stop_delay=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 4.0, None]),
    stop_end=STOP_ENDS,
    cleanup=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 5.0]),
    cleanup_end=CLEANUP_ENDS,
    late_ready=_mostly(False, 6),
    ready_elsewhere=_mostly(False, 12),
)


@st.composite
def specs(draw: st.DrawFn, depth: int, after: st.SearchStrategy[tuple[int, ...]] | None = None) -> Spec:
    runner = draw(trees(depth - 1)) if depth > 1 and draw(st.integers(0, 9)) < 3 + depth else draw(leaves)
    return Spec(
        runner,
        after=() if after is None else draw(after),
        role=draw(st.sampled_from([Role.SERVICE, Role.SERVICE, Role.SERVICE, Role.JOB, Role.OPTIONAL])),
        grace=draw(st.sampled_from([None, None, 0.0, 0.5, 1.0, 3.0, math.inf])),
        ready_within=draw(st.sampled_from([math.inf] * 4 + [0.5, 1.0, 2.0])),
    )


@st.composite
def steps(draw: st.DrawFn, depth: int) -> Step:
    doing = draw(st.sampled_from([Doing.INSERT] * 5 + [Doing.INSERT_NOWAIT, Doing.REMOVE, Doing.REMOVE, Doing.CLOSE]))
    inserts = doing in (Doing.INSERT, Doing.INSERT_NOWAIT)
    return Step(
        draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])),
        doing,
        draw(st.sampled_from("abcd")) if doing is not Doing.CLOSE else "a",
        draw(specs(depth)) if inserts else Spec(Leaf()),
    )


@st.composite
def trees(draw: st.DrawFn, depth: int) -> Tree:
    kind = draw(st.sampled_from([Kind.ORDERED, Kind.QUEUE, Kind.PARALLEL, Kind.GRAPH, Kind.GRAPH, Kind.DYNAMIC]))
    termination = draw(TERMINATIONS)
    cancel_grace = draw(st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0]))
    most = 5 if depth >= 3 else 4 if depth == 2 else 3
    if kind is Kind.DYNAMIC:
        return Tree(
            kind,
            termination=termination,
            cancel_grace=cancel_grace,
            buffer=draw(st.sampled_from([1000, 1000, 2, 0])),
            capacity=draw(st.sampled_from([None, None, 1, 2])),
            steps=tuple(draw(st.lists(steps(depth), min_size=1, max_size=most + 1))),
        )
    count = draw(st.integers(0 if depth < 4 else 1, most))
    members: list[Spec] = []
    for place in range(count):
        earlier: st.SearchStrategy[tuple[int, ...]] | None = None
        if kind is Kind.GRAPH and place:
            earlier = st.sets(st.integers(0, place - 1), max_size=3).map(lambda found: tuple(sorted(found)))
        members.append(draw(specs(depth, earlier)))
    return Tree(kind, tuple(members), termination, cancel_grace)


actions: st.SearchStrategy[Action] = st.builds(
    Action,
    at=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0]),
    ticks=st.integers(0, 6),
    what=st.sampled_from([What.SIGNAL] * 5 + [What.TELL] * 3 + [What.KILL] * 3 + [What.CANCEL] * 2),
    number=st.sampled_from([TERM, TERM, TERM, INT, INT, HUP, HUP, USR1, KILL]),
    target=st.integers(0, 12),
)


def scenarios() -> st.SearchStrategy[Scenario]:
    return st.builds(
        Scenario,
        root=st.integers(2, 4).flatmap(trees),
        entry=st.sampled_from([Entry.BARE, Entry.BARE, Entry.BACKGROUND, Entry.INVOKE]),
        actions=st.lists(actions, max_size=4).map(tuple),
        seed=st.integers(0, 2**16),
        waiters=st.booleans(),
    )
