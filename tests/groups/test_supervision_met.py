"""What two things that happen in one step, or in the middle of one, do to each other; a hearer is the log, or a metric."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import (
    Backoff,
    Dynamic,
    ErrorTrace,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartEvent,
    Role,
    Signals,
    StartEvent,
    State,
    Strategy,
)
from tests.conformance.supervised import AT_ONCE, Troupe, at_once, supervised


def hearing(process: Process, what: object, act: Callable[[Process], object]) -> None:
    """Do something in the middle of each step in which such a thing happens."""

    def hear(kind: Any, time: float, source: Process, detail: Any) -> None:
        if kind is what:
            act(source)

    process._host.ring.hearers.append(hear)


async def test_lock_that_is_lost_while_its_member_waits_for_another_is_left_first(autojump_clock: MockClock) -> None:
    """A member that was to start as soon as what it is after is ready has what is around it left, and entered again."""
    troupe = Troupe(["db", "web"])
    db, web = troupe
    held: list[trio.CancelScope] = []
    most: list[int] = []

    @contextlib.asynccontextmanager
    async def lock() -> AsyncGenerator[None]:
        with trio.CancelScope() as scope:
            held.append(scope)
            most.append(len(held))
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                held.remove(scope)

    members = [Member("db", db, restart=AT_ONCE), Member("web", web, restart=AT_ONCE, around=lock)]
    for lost_at in (2.5, 2.0):  # it is left after db is ready again, and in that tick
        async with supervised(Ordered(members)) as group:
            begun = trio.current_time()
            db.opening = 3
            db.crash()
            await wait_all_tasks_blocked()
            web.crash()
            await trio.sleep_until(begun + lost_at)
            states = [group["web"].state]
            held[0].cancel()
            await trio.sleep(5)
            states.append(group["web"].state)
            assert states == [State.WAITING, State.READY]
            assert len(web.begun) - len(web.ended) == 1
            db.opening = 0
        assert not held
    assert max(most) == 1


async def test_crash_without_delay_of_the_last_that_ran_ends_what_waits(autojump_clock: MockClock) -> None:
    """With termination_signal=None, also where that is decided at once."""
    troupe = Troupe("ab")
    a, b = troupe
    a.starts = [None, OSError("cannot start")]
    members = [Member("a", a, restart=at_once(limit=1, period=100)), Member("b", b, restart=AT_ONCE)]
    async with supervised(Ordered(members, termination_signal=None)) as group:
        a.crash()
        await trio.sleep(1)
        assert group["a"].state is State.EXHAUSTED
        b.crash()
        exit = await group.wait()
        assert trio.current_time() == 1
        assert isinstance(exit.error, ErrorTrace)


async def test_hearer_may_kill_what_it_hears_of(autojump_clock: MockClock) -> None:
    """In the middle of the step in which a member is restarted: it is ended in the next."""
    troupe = Troupe(["web", "flaky"])
    flaky = Member("flaky", troupe["flaky"], role=Role.OPTIONAL, restart=at_once(limit=3))
    async with supervised(Ordered([("web", troupe["web"]), flaky])) as group:
        hearing(group, RestartEvent, lambda process: process.kill("that is enough"))
        troupe["flaky"].crash()
        await trio.sleep(1)
        assert group["flaky"].state is State.EXHAUSTED, "a kill is a failure, after which it was restarted, and killed again"
        group.signal(signal.SIGTERM)
        assert (await group.wait()).ended_at == 1


async def test_hearer_may_kill_a_sibling_of_what_it_hears_of(autojump_clock: MockClock) -> None:
    """In the middle of a restart of all: nothing is left behind, and the group can be stopped."""
    troupe = Troupe("abc")
    members = troupe.members(Restart(), role=Role.OPTIONAL)
    async with supervised(Ordered(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
        hearing(group, grouper.ExitEvent, lambda process: group["a"].kill() if process.name == "c" else None)
        troupe["b"].crash()
        await trio.sleep(1)
        group.signal(signal.SIGTERM)
        assert (await group.wait()).ended_at == 1
    assert all(len(each.begun) == len(each.ended) for each in troupe)


async def test_hearer_may_make_room(autojump_clock: MockClock) -> None:
    """Who waits is let in once, also if the capacity is raised when it is heard that it has started."""
    troupe = Troupe("abc")
    group = Dynamic(capacity=1)
    client = group.client()
    async with supervised(group) as process, trio.open_nursery() as nursery:
        hearing(process, StartEvent, lambda _: setattr(client, "capacity", 3))
        client._capacity = 1
        await client.insert(("a", troupe["a"]))
        client._capacity = 1
        nursery.start_soon(client.insert, ("b", troupe["b"]))
        nursery.start_soon(client.insert, ("c", troupe["c"]))
        await wait_all_tasks_blocked()
        troupe["a"].finish()
        await wait_all_tasks_blocked()
        assert [each.name for each in process.children] in (["b", "c"], ["c", "b"])


async def test_job_that_has_returned_when_its_group_is_stopped_is_not_kept(autojump_clock: MockClock) -> None:
    """Also if the loop has not looked at its end yet."""
    for _ in range(20):
        go, returned, crashed = trio.Event(), list[str](), list[str]()

        async def job(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            await go.wait()  # noqa: B023 (it has ended when the next round begins)
            returned.append("job")  # noqa: B023

        async def web(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await wait_all_tasks_blocked()
            if not crashed:  # noqa: B023
                crashed.append("web")  # noqa: B023
                go.set()  # noqa: B023
                await trio.lowlevel.checkpoint()  # the job returns in the same turn of the scheduler, before or after
                raise OSError
            await signals.wait()

        pool = Dynamic(keep_members=True)
        members = [Member("web", web, restart=Restart()), Member("pool", pool)]
        async with supervised(Parallel(members, strategy=Strategy.ALL, restart=AT_ONCE), settled=False):
            await pool.client().insert(Member("job", job, role=Role.JOB))
            await trio.sleep(1)
        assert returned == ["job"]


async def test_stop_signal_that_ends_a_drain_is_told_once(autojump_clock: MockClock) -> None:
    """Also to one that was being stopped before the drain began."""
    heard: list[int] = []

    async def slow(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.move_on_after(5):
            async for number in signals:
                heard.append(number)  # noqa: PERF401 (it is ended from outside)

    group = Dynamic(drain_signal=signal.SIGUSR1, drain_within=20)
    async with supervised(group) as process, trio.open_nursery() as nursery:
        await group.client().insert(("slow", slow))
        await wait_all_tasks_blocked()
        nursery.start_soon(group.client().remove, "slow")
        for _ in range(2):
            await trio.sleep(1)
            process.signal(signal.SIGINT)
    assert heard == [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


async def test_trace_of_five_hundred_that_gave_up_is_short(autojump_clock: MockClock) -> None:
    """Each level has the one below as its cause, which is told without what is in it."""
    troupe = Troupe(["web"])
    tree: Any = Ordered([Member("web", troupe["web"], restart=Restart(limit=0, backoff=Backoff(0)))])
    for _ in range(500):
        tree = Ordered([Member("in", tree, restart=Restart(limit=0, backoff=Backoff(0)))])
    async with supervised(tree) as group:
        troupe["web"].crash()
        exit = await group.wait()
    assert len(str(exit.error)) < 500


async def test_kill_of_what_was_just_started_by_hand_is_that_of_the_new_life(autojump_clock: MockClock) -> None:
    """Also where the task of the life before, of which the end was looked at in the same step, has not gone on yet."""
    for _ in range(20):
        troupe = Troupe(["web"])
        web = troupe["web"]
        web.opening, web.closing = 5, 1
        members = troupe.members(at_once(start_errors=True), role=Role.OPTIONAL)
        async with supervised(Parallel(members)) as group, trio.open_nursery() as nursery:
            nursery.start_soon(group.stop, "web")
            await wait_all_tasks_blocked()
            hearing(group, StartEvent, lambda process: process.kill() if process.restarts == 1 else None)
            await trio.sleep(1)  # it ends now
            with trio.move_on_after(20):
                await group.start("web")
            await trio.sleep(20)
            state, alive = group["web"].state, len(web.begun) - len(web.ended)
            assert alive == (state is State.READY), (state, web.begun, web.ended)
            begun = trio.current_time()
            group.signal(signal.SIGTERM)
            assert (await group.wait()).ended_at <= begun + 1


async def test_kill_in_a_delay_during_a_restart_of_others_keeps_the_order(autojump_clock: MockClock) -> None:
    """What it is after is told to stop when what was around the killed one has been left."""
    troupe = Troupe(["db", "cache", "web"])
    db, cache, web = troupe
    cache.closing = 1

    @contextlib.asynccontextmanager
    async def lock() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            troupe.log.append("left")

    members = [
        Member("db", db, restart=Restart()),
        Member("cache", cache),
        Member("web", web, role=Role.OPTIONAL, restart=Restart(), around=lock),
    ]
    async with supervised(Ordered(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
        troupe.log.clear()
        web.crash()
        await trio.sleep(0.5)
        group["web"].kill()  # it waits for the others to be down
        await trio.sleep(20)
        assert [group[name].state for name in ("db", "cache", "web")] == [State.READY, State.READY, State.EXITED]
    assert troupe.log[:6] == ["crash web", "down cache", "left", "down db", "up db", "up cache"]


@pytest.mark.parametrize("comes_again", [False, True])
async def test_what_waits_for_its_restart_is_stopped_by_hand_in_its_turn(comes_again: bool, autojump_clock: MockClock) -> None:
    """What is around it is left when those that depend on it are down, unless it was started again before that."""
    troupe = Troupe(["db", "web"])
    db, web = troupe
    web.closing = 5

    @contextlib.asynccontextmanager
    async def lock() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            troupe.log.append("left")

    members = [Member("db", db, restart=Restart(backoff=Backoff.every(50)), around=lock), Member("web", web)]
    async with supervised(Ordered(members)) as group, trio.open_nursery() as nursery:
        db.crash()
        await wait_all_tasks_blocked()
        troupe.log.clear()
        nursery.start_soon(lambda: group.stop("db", cascade=True))
        await trio.sleep(1)
        if comes_again:
            await group.start("db")
        await trio.sleep(10)
        states = [group[name].state for name in ("db", "web")]
        assert states == [State.READY if comes_again else State.STOPPED, State.STOPPED]
        assert troupe.log == ["down web", "up db" if comes_again else "left"]


async def test_what_was_stopped_by_hand_in_its_delay_does_not_come_with_a_sibling(autojump_clock: MockClock) -> None:
    """Also while it has yet to leave what is around it, because those that depend on it are still being stopped."""
    troupe = Troupe(["flaky", "db", "web"])
    flaky, db, web = troupe
    web.closing = 5

    @contextlib.asynccontextmanager
    async def lock() -> AsyncGenerator[None]:
        yield

    members = [
        Member("flaky", flaky, restart=Restart()),
        Member("db", db, restart=Restart(), around=lock),
        Member("web", web),
    ]
    async with supervised(Ordered(members, strategy=Strategy.REST, restart=Restart(backoff=Backoff(20, jitter=0)))) as group:
        async with trio.open_nursery() as nursery:
            db.crash()
            await wait_all_tasks_blocked()  # web is on its way down, and db waits for its restart
            nursery.start_soon(lambda: group.stop("db", cascade=True))
            await trio.sleep(1)
            assert group["db"].state is State.BACKOFF
            flaky.crash()
            await trio.sleep(100)
        assert [group[name].state for name in ("flaky", "db", "web")] == [State.READY, State.STOPPED, State.STOPPED]
