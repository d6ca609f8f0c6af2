"""Draining: members are told to take no new work before they are told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import grouper
from grouper import (
    Dynamic,
    GroupClosed,
    Member,
    Ordered,
    Parallel,
    Restart,
    RunnerLike,
    Signals,
    State,
    Strategy,
)

DRAIN = signal.SIGUSR1
TERM = signal.SIGTERM


def worker(log: list[str], name: str, drains_in: float) -> RunnerLike:
    """Told to drain, it finishes in so many seconds; told to stop, at once."""

    async def run(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        async for number in signals:
            log.append(f"{name} {signal.Signals(number).name} {trio.current_time():g}")
            if number != DRAIN:
                return
            with signals.cancelling() as scope:
                await trio.sleep(drains_in)
            if not scope.cancelled_caught:
                return

    return run


async def test_all_are_told_in_stop_order_before_anyone_is_stopped(autojump_clock: MockClock) -> None:
    """Those that take longer than the phase are stopped then, in stop order."""
    log: list[str] = []
    group = Ordered([(name, worker(log, name, 60)) for name in ("db", "web")], drain_signal=DRAIN, drain_within=5)
    async with grouper.invoke(group) as process:
        process.signal(TERM)
        await process.wait()
    assert log == ["web SIGUSR1 0", "db SIGUSR1 0", "web SIGTERM 5", "db SIGTERM 5"] or log == [
        "db SIGUSR1 0",
        "web SIGUSR1 0",
        "web SIGTERM 5",
        "db SIGTERM 5",
    ]  # who of two that were told together runs first is the scheduler's


async def test_a_member_that_is_being_drained_says_so(autojump_clock: MockClock) -> None:
    """Its state is DRAINING until it is told to stop."""
    group = Ordered([("web", worker([], "web", 60))], drain_signal=DRAIN, drain_within=5)
    async with grouper.invoke(group) as process:
        process.signal(TERM)
        await trio.sleep(1)
        assert process["web"].state is State.DRAINING


async def test_the_phase_ends_when_all_have(autojump_clock: MockClock) -> None:
    """Nobody is waited for who has finished; ending is no failure, and ends nothing else."""
    log: list[str] = []
    group = Parallel([("a", worker(log, "a", 1)), ("b", worker(log, "b", 2))], drain_signal=DRAIN, drain_within=30)
    async with grouper.invoke(group) as process:
        process.signal(TERM)
        assert (await process.wait()).ok
        assert trio.current_time() == 2
    assert sorted(log) == ["a SIGUSR1 0", "b SIGUSR1 0"]


async def test_a_second_stop_signal_ends_the_phase(autojump_clock: MockClock) -> None:
    """All are told to stop at once."""
    log: list[str] = []
    group = Parallel([("a", worker(log, "a", 60))], drain_signal=DRAIN, drain_within=30)
    async with grouper.invoke(group) as process:
        process.signal(TERM)
        await trio.sleep(1)
        process.signal(signal.SIGINT)
        await process.wait()
    assert log == ["a SIGUSR1 0", "a SIGINT 1"] or trio.current_time() == 1


def by_signal(process: grouper.Process) -> None:
    process.signal(signal.SIGKILL)


@pytest.mark.parametrize("kill", [grouper.Process.kill, by_signal])
async def test_a_kill_ends_the_draining_of_a_member(kill: Callable[[grouper.Process], None], autojump_clock: MockClock) -> None:
    """It was being stopped, so it has not failed."""
    group = Parallel([("a", worker([], "a", 60))], drain_signal=DRAIN, drain_within=30)
    async with grouper.invoke(group) as process:
        process.signal(TERM)
        await trio.sleep(1)
        kill(process["a"])
        assert (await process.wait()).ok
        assert trio.current_time() == 1


async def test_nobody_is_restarted_while_draining(autojump_clock: MockClock) -> None:
    """A crash in that phase is an end, and one that waits for its restart ends at once."""

    async def crashes(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise OSError

    group = Parallel(
        [Member("bad", crashes, restart=Restart(backoff=grouper.Backoff(100, jitter=0, cap=100)))],
        drain_signal=DRAIN,
        drain_within=30,
    )
    async with grouper.invoke(group) as process:
        await trio.sleep(2)
        assert process["bad"].state is State.BACKOFF
        process.signal(TERM)
        assert (await process.wait()).ok
        assert trio.current_time() == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_drain_signal_does_not_stop(number: int) -> None:
    """It is refused where the group is made."""
    with pytest.raises(ValueError, match="would stop the members"):
        Ordered([], drain_signal=number)


def test_a_drain_takes_no_negative_time() -> None:
    """It is refused where the group is made."""
    with pytest.raises(ValueError, match="drain_within=-1"):
        Dynamic(drain_signal=DRAIN, drain_within=-1)


async def test_a_dynamic_group_is_drained_by_its_client(autojump_clock: MockClock) -> None:
    """It takes nobody more, waits, then stops who is left."""
    group = Dynamic()
    log: list[str] = []
    async with grouper.background(group):
        client = group.client()
        await client.insert(("long", worker(log, "long", 60)))
        await client.insert(("short", grouper.Startable(trio.sleep, 2)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.drain, 5)
            await trio.sleep(1)
            with pytest.raises(GroupClosed):
                await client.insert(("late", worker(log, "late", 1)))
        assert trio.current_time() == 5
    assert log == ["long SIGTERM 5"]


async def test_a_drain_ends_with_the_last_member(autojump_clock: MockClock) -> None:
    """Nobody is told to stop then."""
    group = Dynamic()
    async with grouper.background(group):
        await group.client().insert(("short", grouper.Startable(trio.sleep, 2)))
        await group.client().drain(5)
        assert trio.current_time() == 2


async def test_there_is_nothing_to_drain_in_what_does_not_run() -> None:
    """That is said."""
    with pytest.raises(RuntimeError, match="does not run"):
        await Dynamic().client().drain()


async def test_capacity_can_be_raised_while_inserters_wait(autojump_clock: MockClock) -> None:
    """Those that wait have their turn at once."""
    group = Dynamic(1)
    client = group.client()
    async with grouper.background(group), trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(client.insert, (name, worker([], name, 0)))
        await trio.sleep(1)
        assert client.get("c") is None or client.get("a") is None
        client.capacity = None
        await trio.sleep(1)
        assert all(client.get(name) for name in "abc")


async def test_capacity_can_be_lowered_below_what_runs(autojump_clock: MockClock) -> None:
    """Nobody is stopped, and nobody is let in until there is room."""
    group = Dynamic(3)
    client = group.client()
    async with grouper.background(group):
        for name in "abc":
            await client.insert((name, worker([], name, 0)))
        client.capacity = 1
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(("d", worker([], "d", 0)))
        await client.remove("a")
        await client.remove("b")
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(("d", worker([], "d", 0)))
        await client.remove("c")
        client.insert_nowait(("d", worker([], "d", 0)))


def test_capacity_of_nobody_is_refused() -> None:
    """When it is set, as when the group is made."""
    client = Dynamic(3).client()
    with pytest.raises(ValueError, match="capacity=0"):
        client.capacity = 0
    assert client.capacity == 3


@pytest.mark.parametrize("keep", [True, False])
async def test_members_are_kept_across_a_restart_of_their_group(keep: bool, autojump_clock: MockClock) -> None:
    """With `keep_members` those that ran are there again; without they are gone."""
    inner = Dynamic(keep_members=keep)
    begun: list[str] = []

    async def noted(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        begun.append("begun")
        task_status.started()
        await signals.wait()

    async def crashes(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        if not begun[1:]:
            await trio.sleep(5)
            begun.append("crash")
            raise OSError
        await signals.wait()

    tree = Ordered([Member("bad", crashes, restart=Restart()), Member("jobs", inner)], strategy=Strategy.REST)
    async with grouper.invoke(tree) as process:
        await inner.client().insert(("one", noted))
        await trio.sleep(10)
        assert (inner.client().get("one") is not None) is keep
        assert process["jobs"].restarts == 1
    assert begun == ["begun", "crash", *(["begun"] if keep else [])]


@pytest.mark.parametrize("restart", [None, Restart()])
async def test_a_group_inside_drains_with_the_one_around_it(restart: Restart | None, autojump_clock: MockClock) -> None:
    """Who has finished there stops nobody else, and does not come again; the others have the whole phase."""
    log: list[str] = []
    inner = Parallel([Member("quick", worker(log, "quick", 1), restart=restart), ("slow", worker(log, "slow", 60))])
    async with grouper.invoke(Ordered([("inner", inner)], drain_signal=DRAIN, drain_within=5)) as process:
        process.signal(TERM)
        await trio.sleep(2)
        states = [process[path].state for path in ("inner", "inner/quick", "inner/slow")]
        assert states == [State.DRAINING, State.EXITED, State.DRAINING]
        await process.wait()
    assert sorted(log) == ["quick SIGUSR1 0", "slow SIGTERM 5", "slow SIGUSR1 0"]


async def test_a_group_inside_with_a_drain_of_its_own_has_that_then(autojump_clock: MockClock) -> None:
    """Its phase begins when the one around it would stop it; a second stop signal ends that."""
    log: list[str] = []
    inner = Parallel([("web", worker(log, "web", 60))], drain_signal=DRAIN, drain_within=20)
    async with grouper.invoke(Ordered([("inner", inner)], drain_signal=DRAIN, drain_within=5)) as process:
        process.signal(TERM)
        await trio.sleep(15)
        assert process["inner/web"].state is State.DRAINING
        process.signal(signal.SIGINT)
        await process.wait()
    assert log == [
        "web SIGUSR1 0",
        "web SIGUSR1 15",
        "web SIGINT 15",
    ]  # the second was sent at 5, and is read when the first is done


async def test_a_dynamic_inside_takes_no_more_members_in_the_phase(autojump_clock: MockClock) -> None:
    """It ends when those it has have finished."""
    log: list[str] = []
    pool = Dynamic()
    async with grouper.invoke(Ordered([("pool", pool)], drain_signal=DRAIN, drain_within=5)) as process:
        await pool.client().insert(("a", worker(log, "a", 1)))
        process.signal(TERM)
        await trio.sleep(0.5)
        with pytest.raises(GroupClosed):
            await pool.client().insert(("b", worker(log, "b", 1)))
        await process.wait()
        assert trio.current_time() == 1
    assert log == ["a SIGUSR1 0"]
