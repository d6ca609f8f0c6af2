"""The properties notice: deliberate mistakes in the engine, each caught by some random tree."""

from __future__ import annotations

import contextlib
import gc
import signal
from collections.abc import Callable, Generator
from random import Random
from typing import Any
from unittest import mock

import pytest
import trio

from grouper import Process, Role, State
from grouper.errors import StopTimeout
from grouper.events import ExitEvent
from grouper.graph import Edges
from grouper.groups import verdict
from grouper.groups.engine import Engine
from grouper.groups.inbox import Inbox, Item
from grouper.groups.verdict import AFTER_EXIT, After
from grouper.groups.walks import Walks
from grouper.signals import STOP_SIGNALS

from .invariants import BrokenError, check
from .playing import play
from .scenarios import INT, TERM, Action, Kind, Leaf, Scenario, Spec, Tree, What, scenario

SCENARIOS = 250

SURE = (
    Scenario(
        Tree(Kind.ORDERED, (Spec(Leaf(stop_delay=2.0)), Spec(Leaf(stop_delay=2.0)))),
        actions=(Action(3.0, 0, What.SIGNAL, INT), Action(3.0, 0, What.SIGNAL, TERM)),
    ),
    Scenario(
        Tree(Kind.PARALLEL, (Spec(Leaf(life=1.0), role=Role.JOB), Spec(Leaf()))), actions=(Action(3.0, 0, What.SIGNAL, TERM),)
    ),
    Scenario(
        Tree(Kind.ORDERED, (Spec(Leaf()), Spec(Leaf(life=1.0), role=Role.JOB), Spec(Leaf()))),
        actions=(Action(3.0, 0, What.SIGNAL, TERM),),
    ),
)


@pytest.fixture(scope="module")
def pool() -> list[Scenario]:
    """The scenarios in which a mistake is looked for, the same for each."""
    return [*SURE, *(scenario(Random(seed)) for seed in range(SCENARIOS))]


Mutation = Callable[[], contextlib.AbstractContextManager[object]]
MUTATIONS: dict[str, Mutation] = {}


def mutation(make: Mutation) -> Mutation:
    MUTATIONS[make.__name__] = make
    return make


@mutation
def no_shield() -> contextlib.AbstractContextManager[object]:
    made = Process.__init__

    def mutant(process: Process, *args: Any) -> None:
        made(process, *args)
        process._scope = trio.CancelScope(shield=False)

    return mock.patch.object(Process, "__init__", mutant)


@mutation
def stop_forwards() -> contextlib.AbstractContextManager[object]:
    link = Edges.link

    def mutant(edges: Edges, nodes: Any) -> None:
        link(Edges(edges.after, not edges.forwards), nodes)

    return mock.patch.object(Edges, "link", mutant)


@mutation
def ready_beats_exit() -> contextlib.AbstractContextManager[object]:
    entered = Engine.entered

    def mutant(engine: Engine, process: Process) -> None:
        entered(engine, process)
        if process._over and process.state is State.STARTING and process.member.role is Role.SERVICE:
            process.state = State.READY
            engine._satisfied(process)

    return mock.patch.object(Engine, "entered", mutant)


@mutation
def stop_first_to_last() -> contextlib.AbstractContextManager[object]:
    def mutant(walks: Walks) -> None:
        for process in list(walks.running.values()):
            if not process._blockers:
                walks.stop(process)

    return mock.patch.object(Walks, "stop_those_free", mutant)


@mutation
def stop_all_at_once() -> contextlib.AbstractContextManager[object]:
    def mutant(walks: Walks) -> None:
        for process in reversed(list(walks.running.values())):
            walks.stop(process)

    return mock.patch.object(Walks, "stop_those_free", mutant)


@mutation
def start_all_at_once() -> contextlib.AbstractContextManager[object]:
    link = Edges.link

    def mutant(edges: Edges, nodes: Any) -> None:
        link(edges, nodes)
        for node in nodes:
            node._left = 0
            node._unlocks = []

    return mock.patch.object(Edges, "link", mutant)


@mutation
def start_while_stopping() -> contextlib.AbstractContextManager[object]:
    satisfied = Walks.satisfied

    def mutant(walks: Walks, process: Process) -> None:
        stopping, walks.stopping = walks.stopping, False
        satisfied(walks, process)
        walks.stopping = stopping

    return mock.patch.object(Walks, "satisfied", mutant)


@mutation
def exits_not_collected() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Engine, "ended", return_value=None)


@mutation
def stop_signal_swallowed_while_stopping() -> contextlib.AbstractContextManager[object]:
    signalled = Engine._signalled

    def mutant(engine: Engine, number: int) -> None:
        if not (engine.stopping and number in STOP_SIGNALS):
            signalled(engine, number)

    return mock.patch.object(Engine, "_signalled", mutant)


@mutation
def newest_first() -> contextlib.AbstractContextManager[object]:
    take = Inbox.take

    def mutant(inbox: Inbox) -> list[Item]:
        return take(inbox)[::-1]

    return mock.patch.object(Inbox, "take", mutant)


@mutation
def pass_through_signals_lost() -> contextlib.AbstractContextManager[object]:
    signalled = Engine._signalled

    def mutant(engine: Engine, number: int) -> None:
        if number in STOP_SIGNALS or number == signal.SIGKILL:
            signalled(engine, number)

    return mock.patch.object(Engine, "_signalled", mutant)


@mutation
def always_sigterm() -> contextlib.AbstractContextManager[object]:
    stop_all = Walks.stop_all

    def mutant(walks: Walks, number: int) -> None:
        stop_all(walks, signal.SIGTERM)

    return mock.patch.object(Walks, "stop_all", mutant)


@mutation
def no_grace_is_kept() -> contextlib.AbstractContextManager[object]:
    overdue = Walks.overdue

    def mutant(walks: Walks, process: Process) -> None:
        if process._killed or process.state is not State.STOPPING:
            overdue(walks, process)

    return mock.patch.object(Walks, "overdue", mutant)


@mutation
def stop_timeouts_not_told() -> contextlib.AbstractContextManager[object]:
    kill = Walks.kill

    def mutant(walks: Walks, process: Process, failure: Exception | None) -> None:
        kill(walks, process, None if isinstance(failure, StopTimeout) else failure)

    return mock.patch.object(Walks, "kill", mutant)


@mutation
def optional_failures_raised() -> contextlib.AbstractContextManager[object]:
    key = Role.OPTIONAL, False
    return mock.patch.dict(AFTER_EXIT, {key: AFTER_EXIT[key]._replace(raised=True)})


@mutation
def jobs_stop_their_group() -> contextlib.AbstractContextManager[object]:
    key = Role.JOB, True
    return mock.patch.dict(AFTER_EXIT, {key: AFTER_EXIT[key]._replace(stops=True)})


@mutation
def only_the_first_failure_raised() -> contextlib.AbstractContextManager[object]:
    trace = verdict.trace

    def mutant(headline: str, path: str, failed: Any, *rest: Any) -> object:
        return trace(headline, path, list(failed)[:1], *rest)

    return mock.patch("grouper.groups.engine.trace", mutant)


@mutation
def cancellation_lost() -> contextlib.AbstractContextManager[object]:
    conclude = Inbox.conclude

    def mutant(inbox: Inbox, error: Exception | None) -> None:
        inbox._cancel = None
        conclude(inbox, error)

    return mock.patch.object(Inbox, "conclude", mutant)


@mutation
def cancel_grace_ignored() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Engine, "_interrupted", Engine.kill_all)


@mutation
def waiters_not_released() -> contextlib.AbstractContextManager[object]:
    tell = Process._tell_waiters

    def mutant(process: Process) -> None:
        if process.started_at is not None:
            tell(process)

    return mock.patch.object(Process, "_tell_waiters", mutant)


@mutation
def exit_events_twice() -> contextlib.AbstractContextManager[object]:
    record = Engine.record

    def mutant(engine: Engine, process: Process, error: BaseException | None, *, quiet: bool = False) -> After:
        after = record(engine, process, error, quiet=quiet)
        engine.ring.publish(ExitEvent, engine.now, process, process._ending)
        return after

    return mock.patch.object(Engine, "record", mutant)


def breaks(life: Scenario) -> bool:
    try:
        check(play(life))
    except BrokenError:
        return True
    except Exception:  # a mistake may well make the engine itself fall over
        return True
    return False


def ignore(_: object) -> None:
    """Nothing."""


@pytest.fixture(autouse=True)
def quiet() -> Generator[None, None, None]:
    """What was thrown away after a hang complains when it is collected, here; that is not what is looked at."""
    with mock.patch("sys.unraisablehook", new=ignore):
        yield
        for _ in range(5):  # a coroutine that complains is alive once more
            gc.collect()


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_in_the_engine_is_caught(name: str, pool: list[Scenario]) -> None:
    """Some random tree breaks an invariant with the mistake, and breaks none without it."""
    for life in pool:
        with MUTATIONS[name]():
            broken = breaks(life)
        if broken and not breaks(life):
            return
    pytest.fail(f"{len(pool)} scenarios saw nothing wrong with {name}")
