"""What users of supervisors ask for about a running tree and its end (the table of wishes of the contract of supervision)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import (
    CascadeNeeded,
    EntranceEvent,
    ErrorTrace,
    Exit,
    ExitEvent,
    Graph,
    GroupClosed,
    Member,
    Ordered,
    Parallel,
    Restart,
    RestartEvent,
    Role,
    Signals,
    State,
    Strategy,
)
from tests.groups.transitions import known_transitions

from .supervised import AT_ONCE, SLOWLY, Troupe, at_once, ended, heard, supervised

__all__ = ["known_transitions"]


def errors(exit: Exit) -> list[str]:
    """What the members of a group failed with."""
    assert isinstance(exit.error, ErrorTrace)
    return [str(error) for error in exit.error.exceptions]


@pytest.mark.contract("W3")
async def test_w03_what_is_to_be_stopped_first_says_what_it_depends_on() -> None:
    """The order is one of the graph, for stops of all and for those of a part by hand."""
    troupe = Troupe("abc")
    a, b, c = troupe
    members = [Member("a", a, after=("b", "c")), Member("b", b), Member("c", c, after="b")]
    async with supervised(Graph(members)) as group:
        await troupe.news()
        with pytest.raises(CascadeNeeded) as refused:
            await group.stop("c")
        assert refused.value.names == ("a",)
        await group.stop("c", cascade=True)
        assert await troupe.news() == ["down a", "down c"]
        await group.start("a", cascade=True)
        assert await troupe.news() == ["up c", "up a"]
    assert troupe.log == ["down a", "down c", "down b"]


@pytest.mark.contract("W5")
async def test_w05_members_may_finish_what_they_have_before_they_are_stopped() -> None:
    """They are told to take no new work, all of them, in stop order, and the stop signal comes when the time for that is over."""
    told: list[tuple[str, int, float]] = []

    def listener(name: str) -> Callable[..., Any]:
        async def run(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            async for number in signals:
                told.append((name, number, trio.current_time()))
                if number == signal.SIGTERM:
                    return

        return run

    members = [Member(name, listener(name), restart=SLOWLY) for name in "ab"]
    async with supervised(Ordered(members, drain_signal=signal.SIGUSR1, drain_within=5)) as group:
        group.signal(signal.SIGTERM)
        await trio.sleep(1)
        assert [each.state for each in group.children] == [State.DRAINING, State.DRAINING]
        await ended(group)
    drain, stop = signal.SIGUSR1, signal.SIGTERM
    assert sorted(told[:2]) == [("a", drain, 0), ("b", drain, 0)]
    assert told[2:] == [("b", stop, 5), ("a", stop, 5)]


@pytest.mark.contract("W6")
async def test_w06_ready_is_an_event_and_has_a_deadline() -> None:
    """Each life tells when it is ready; one that is not in time is killed, and that counts as its failure."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(at_once(limit=1), ready_within=5))) as group:
        troupe["a"].opening = 3
        troupe["a"].crash()
        await trio.sleep(4)
        troupe["a"].opening = 6
        troupe["a"].crash()
        await ended(group)
        times = [event.time for event in await heard(group) if isinstance(event, EntranceEvent)]
    assert times == [0, 3]


@pytest.mark.contract("W12")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_w12_what_is_no_exception_is_no_reason_to_restart(error: BaseException) -> None:
    """It stops the tree, in order, and comes out of it."""
    troupe = Troupe("ab")
    go = trio.Event()

    async def interrupted(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        await go.wait()
        raise error

    inner = Ordered([*troupe.members(AT_ONCE), Member("c", interrupted, restart=AT_ONCE, role=Role.OPTIONAL)])
    with pytest.raises(type(error)):
        async with grouper.background(Ordered([Member("inner", inner, restart=AT_ONCE)])) as group:
            await troupe.news()
            go.set()
            await group.wait()
    assert troupe.log == ["down b", "down a"]


@pytest.mark.contract("W13")
async def test_w13_all_failures_are_raised_with_the_names_of_the_members() -> None:
    """Those that came during the stop too."""
    troupe = Troupe("abc")
    a, b, c = troupe.members(at_once(limit=0))
    troupe["a"].deaf = True
    async with supervised(Ordered([("db", Ordered([attrs.evolve(a, grace=1)])), b, c])) as group:
        troupe["c"].crash()
        troupe["b"].crash()
        exit = await ended(group)
    assert isinstance(exit.error, ErrorTrace)
    text = str(exit.error)
    for name in ("db/a", "b", "c"):
        assert name in text


@pytest.mark.contract("W17")
async def test_w17_a_member_is_one_task_that_does_nothing_while_there_is_nothing_to_do() -> None:
    """A policy, a strategy and a thousand seconds cost no task and no step."""

    class Steps(trio.abc.Instrument):
        number = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.number += 1

    troupe = Troupe(map(str, range(100)))
    before = trio.lowlevel.current_statistics().tasks_living
    steps = Steps()
    async with supervised(Parallel(troupe.members(Restart()), strategy=Strategy.ALL, restart=AT_ONCE)):
        tasks = trio.lowlevel.current_statistics().tasks_living - before
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(1000)
        trio.lowlevel.remove_instrument(steps)
    assert tasks <= 100 + 3
    assert steps.number <= 3


@pytest.mark.contract("W9")
async def test_w09_how_a_member_does_can_be_asked_and_heard() -> None:
    """Its state and since when, its restarts, its last error; an event for each fact, with the numbers."""
    troupe = Troupe("a")
    async with supervised(Ordered([("web", Ordered(troupe.members(SLOWLY)))])) as group:
        await trio.sleep(2)
        troupe["a"].crash()
        await trio.sleep(3)
        process = group["web/a"]
        assert (process.state, process.since, process.restarts) == (State.READY, 3, 1)
        assert str(process.last_error) == "a broke"
        events = [event for event in await heard(group) if event.path == "web/a"]
    assert [type(event) for event in events] == [EntranceEvent, ExitEvent, RestartEvent, EntranceEvent]
    (restart,) = [event for event in events if isinstance(event, RestartEvent)]
    assert (restart.time, restart.delay, restart.used) == (2, 1, 1)


@pytest.mark.contract("W4")
async def test_w04_who_had_to_be_killed_is_told_by_path_wherever_it_is() -> None:
    """In the trace of the whole, at any depth: each with its own grace."""
    troupe = Troupe("abc")
    troupe["a"].deaf = troupe["c"].deaf = True
    a, b, c = troupe.members(AT_ONCE)
    deep = Ordered([("x", Ordered([("y", Parallel([attrs.evolve(a, grace=1), b, attrs.evolve(c, grace=2)]))]))])
    async with supervised(deep) as group:
        pass
    assert trio.current_time() == 2
    text = str((await ended(group)).error)
    assert "had not stopped 1 s after SIGTERM" in text
    assert "had not stopped 2 s after SIGTERM" in text


@pytest.mark.contract("W8")
async def test_w08_an_operation_after_the_end_is_refused_and_one_before_it_is_answered() -> None:
    """Nobody waits for what never comes."""
    troupe = Troupe("ab")
    troupe["b"].closing = 5
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        group.signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        with pytest.raises(GroupClosed, match="is stopping"):
            await group.restart("a")
    with pytest.raises(GroupClosed, match="has ended"):
        await group.restart("a")
