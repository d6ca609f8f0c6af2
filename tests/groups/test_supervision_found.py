"""What was found by breaking it: moments in which restarts, operations, and what is around a member met each other."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import (
    Backoff,
    ExitEvent,
    Graph,
    Member,
    MemberKilled,
    Ordered,
    Process,
    Proxy,
    Restart,
    RestartLimitExceeded,
    Role,
    Signals,
    State,
    Strategy,
)
from grouper.narrating import Narrator
from tests.conformance.supervised import AT_ONCE, SLOWLY, Troupe, heard, supervised


@attrs.define(eq=False)
class Lock:
    """What is held around a member, can be lost, and takes a while to leave."""

    log: list[str]
    leaving: float = 0.0
    fails: Exception | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        with trio.CancelScope() as self.scope:
            yield
        with trio.CancelScope(shield=True):
            await trio.sleep(self.leaving)
        self.log.append("left")
        if self.fails is not None and self.scope.cancelled_caught:
            raise self.fails


@pytest.mark.parametrize("by_hand", [False, True])
async def test_delay_that_ends_when_what_is_around_has_been_left_begins_one_life(by_hand: bool, autojump_clock: MockClock) -> None:
    """In whichever order the loop hears of the two, there is one task, and one life at a time."""
    for _ in range(20):
        troupe = Troupe(["web"])
        web, lock = troupe["web"], Lock(troupe.log, leaving=1)
        member = Member("web", web, around=lock.held, restart=Restart(backoff=Backoff.every(2)))
        async with supervised(Ordered([member])) as group:
            web.crash()
            await wait_all_tasks_blocked()
            lock.scope.cancel()  # it is left in a second
            await trio.sleep(1)
            if by_hand:
                with trio.move_on_after(5):
                    await group.restart("web")
            await trio.sleep(5)
            assert len(web.begun) - len(web.ended) == 1
            assert group["web"].state is State.READY
        assert len(web.begun) == len(web.ended)


async def test_lock_that_is_lost_in_the_tick_of_a_crash_costs_no_restart(autojump_clock: MockClock) -> None:
    """Whichever is heard of first, it is one failure, after which the member comes again."""
    for _ in range(20):
        troupe = Troupe(["web"])
        web, lock = troupe["web"], Lock(troupe.log, fails=OSError("lost"))
        web.starts = [None, OSError("at the start")]
        member = Member("web", web, around=lock.held, restart=Restart(backoff=Backoff.every(1), start_errors=True))
        async with supervised(Ordered([member])) as group:
            lock.scope.cancel()
            web.crash()
            await trio.sleep(5)
            assert group["web"].state is State.READY
            assert len(web.begun) == 3


async def test_long_chain_that_waits_for_a_restart_stops(autojump_clock: MockClock) -> None:
    """Five hundred that end without a life, each after the one before, are no recursion."""
    chain = Troupe([f"m{number}" for number in range(500)])
    last = Troupe(["last"])["last"]
    members = [*chain.members(), Member("last", last, restart=Restart())]
    async with supervised(Ordered(members, strategy=Strategy.ALL, restart=SLOWLY)) as group:
        last.crash()
        await wait_all_tasks_blocked()
        group.signal(signal.SIGTERM)
        assert (await group.wait()).ok
        assert trio.current_time() == 0


async def test_those_that_wait_for_what_has_given_up_do_not_hold_a_group_up(autojump_clock: MockClock) -> None:
    """With termination_signal=None it ends when nobody runs any more that they could wait for."""
    troupe = Troupe("ab")
    a, _ = troupe
    a.starts = [None, OSError("gone")]
    members = [Member("a", a, restart=Restart()), Member("b", troupe["b"])]
    once = Restart(backoff=Backoff.every(1), limit=1, period=1000)
    async with supervised(Ordered(members, strategy=Strategy.REST, restart=once, termination_signal=None)) as group:
        a.crash()
        exit = await group.wait()
        assert (trio.current_time(), group["b"].state) == (1, State.EXITED)
        assert isinstance(exit.error, grouper.ErrorTrace)
        assert isinstance(exit.error.exceptions[0], RestartLimitExceeded)


async def test_those_that_wait_for_what_was_stopped_by_hand_do_hold_it_up(autojump_clock: MockClock) -> None:
    """Somebody may start that again, and then they come too."""
    troupe = Troupe("ab")
    a, b = troupe
    b.closing = 3
    members = troupe.members(Restart())
    async with supervised(Ordered(members, strategy=Strategy.REST, restart=AT_ONCE, termination_signal=None)) as group:
        a.crash()
        await trio.sleep(1)
        await group.stop("a", cascade=True)
        await group.start("b", cascade=True)
        assert (group["a"].state, group["b"].state) == (State.READY, State.READY)


async def test_stop_by_hand_waits_for_a_lost_lock_to_be_left(autojump_clock: MockClock) -> None:
    """What is around a member that waits for its restart is part of its exit, by which those it is after are stopped later."""
    troupe = Troupe(["db", "web"])
    db, web = troupe
    lock = Lock(troupe.log, leaving=5)
    members = [Member("db", db), Member("web", web, around=lock.held, restart=Restart(backoff=Backoff.every(50)))]
    async with supervised(Ordered(members)) as group:
        web.crash()
        await wait_all_tasks_blocked()
        lock.scope.cancel()
        await trio.sleep(1)
        await group.stop("db", cascade=True)
        assert troupe.log[-3:] == ["crash web", "left", "down db"]
        assert trio.current_time() == 5


async def test_restart_of_what_is_starting_waits_for_the_next_life(autojump_clock: MockClock) -> None:
    """That the old life says it is ready, on its way down, is not what was asked for."""

    async def slow(signals: Signals, /, *, task_status: trio.TaskStatus[float]) -> None:
        await trio.sleep(2)
        task_status.started(trio.current_time())
        await signals.wait()
        await trio.sleep(3)

    async with supervised(Ordered([("slow", slow)])) as group:
        await trio.sleep(1)
        process = await group.restart("slow")
        assert (process.state, process.value, trio.current_time()) == (State.READY, 7, 7)


async def test_wait_ready_waits_across_a_restart_by_hand(autojump_clock: MockClock) -> None:
    """As documented: where it is being restarted, until it is ready again; also while it is still on its way down."""
    troupe = Troupe(["web"])
    troupe["web"].closing = 3
    async with supervised(Ordered(troupe.members())) as group, trio.open_nursery() as nursery:
        nursery.start_soon(group.restart, "web")
        await trio.sleep(1)
        assert await group["web"].wait_ready() == 2
        assert trio.current_time() == 3


async def test_restart_of_a_finished_job_concerns_nobody_else(autojump_clock: MockClock) -> None:
    """Those after it go on, so they need no cascade."""
    troupe = Troupe(["job", "web"])
    job, web = troupe
    async with supervised(Ordered([Member("job", job, role=Role.JOB), Member("web", web)])) as group:
        job.finish()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.restart, "job")
            await wait_all_tasks_blocked()
            job.finish()
        assert (len(job.begun), len(web.begun)) == (2, 1)
        assert (await group.stop("job")).ok, "it is down already"
        assert group["web"].state is State.READY


async def test_what_was_stopped_before_it_came_back_has_no_second_exit(autojump_clock: MockClock) -> None:
    """A member that was to be started again, and waited for what it is after, has not lived meanwhile."""
    troupe = Troupe("ab")
    a, _ = troupe
    async with supervised(Ordered(troupe.members())) as group:
        await group.stop("a", cascade=True)
        a.opening = 30
        with trio.move_on_after(1):
            await group.start("b", cascade=True)
        exit = await group.stop("b")
        assert exit.ok
        assert (group["b"].state, group["b"].restarts) == (State.STOPPED, 0)
        exits = [event.path for event in await heard(group) if isinstance(event, ExitEvent)]
        assert exits == ["b", "a"]
        await trio.sleep(40)
        await group.start("b")
        assert (group["b"].state, group["b"].restarts, group["a"].restarts) == (State.READY, 1, 1)


async def test_what_was_started_again_by_hand_stops_in_its_old_place(autojump_clock: MockClock) -> None:
    """Also in a group without order, whose members are told in reverse of the list."""
    troupe = Troupe("abc")
    async with supervised(grouper.Parallel(troupe.members())) as group:
        await group.stop("a")
        await group.start("a")
        told: list[str] = []

        def hear(kind: Any, time: float, process: Process, detail: Any) -> None:
            if kind == "signal":
                told.append(process.name)

        group._host.ring.hearers.append(hear)
        group.signal(signal.SIGTERM)
        await group.wait()
    assert told[-3:] == ["c", "b", "a"]


async def test_late_ready_of_an_earlier_life_is_none_of_the_next(autojump_clock: MockClock) -> None:
    """Whoever still has the task status of a life that has ended cannot make the member ready in its delay."""
    troupe = Troupe(["web"])
    kept: list[trio.TaskStatus[Any]] = []

    async def web(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        kept.append(task_status)
        if len(kept) == 2:
            raise OSError("before it was ready")
        await troupe["web"].run(signals, task_status=task_status)

    restart = Restart(backoff=Backoff.every(5), start_errors=True)
    async with supervised(Ordered([Member("web", web, restart=restart)])) as group:
        troupe["web"].crash()
        await trio.sleep(7)
        assert group["web"].state is State.BACKOFF
        kept[1].started("late")
        await wait_all_tasks_blocked()
        assert group["web"].ready_at is None
        await trio.sleep(5)
        assert (group["web"].state, len(kept)) == (State.READY, 3)


async def test_kill_in_the_tick_in_which_a_life_ends_is_reported(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A member that then does not leave what is around it is named in the log and in the snapshot."""
    process: Process | None = None

    @contextlib.asynccontextmanager
    async def around() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    async def web(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        assert process is not None
        process.kill()

    with contextlib.suppress(MemberKilled, grouper.ErrorTrace):
        async with grouper.background(Ordered([Member("web", web, around=around)])) as process:
            await trio.sleep(30)
            assert process["web"].state is State.STOPPING
            assert [late.path for late in process.snapshot().unstopped] == ["web"]
    assert any("member 'web' ignores its kill" in record.getMessage() for record in caplog.records)


async def test_nobody_starts_after_what_is_being_killed_by_hand(autojump_clock: MockClock) -> None:
    """What is after it, and has not started yet, waits until it has come again."""
    troupe = Troupe(["db", "cache", "web"])
    db, cache, web = troupe
    db.deaf = True
    cache.opening = 2

    async def slow_to_die(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        try:
            await db.run(signals, task_status=task_status)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    members = [Member("db", slow_to_die, restart=AT_ONCE), Member("cache", cache), Member("web", web, after=("db", "cache"))]
    async with supervised(Graph(members)) as group:
        await trio.sleep(1)
        group["db"].kill("by the test")
        await trio.sleep(10)
        assert (cache.begun, web.begun, db.begun) == ([0], [6], [0, 6])


async def test_limit_may_be_any_whole_number(autojump_clock: MockClock) -> None:
    """Also one that is larger than any memory."""
    troupe = Troupe(["web"])
    async with supervised(Ordered(troupe.members(Restart(backoff=Backoff(0), limit=10**19)))) as group:
        troupe["web"].crash()
        await trio.sleep(1)
        assert group["web"].state is State.READY


@pytest.mark.parametrize(("start_errors", "tries"), [(False, 1), (True, 6)])
async def test_member_inside_a_wrapper_keeps_its_policy(start_errors: bool, tries: int, autojump_clock: MockClock) -> None:
    """A failed start is not tried again unless it says so, as where it is a member of a group."""
    troupe = Troupe(["web"])
    web = troupe["web"]
    web.starts = [OSError()] * 20
    wrapped = Proxy(Signals(), Member("web", web, restart=Restart(start_errors=start_errors)))
    async with supervised(Ordered([("proxy", wrapped)])) as group:
        await group.wait()
    assert len(web.begun) == tries


async def test_member_inside_a_wrapper_is_healthy_once_it_is_ready(autojump_clock: MockClock) -> None:
    """What it took to get ready does not set back its delays."""
    troupe = Troupe(["web"])
    web = troupe["web"]
    web.opening = 20
    restart = Restart(backoff=Backoff(1, jitter=0), reset_after=10, limit=math.inf)
    async with supervised(Ordered([("proxy", Proxy(Signals(), Member("web", web, restart=restart)))])):
        for _ in range(3):
            await trio.sleep_until(web.begun[-1] + 21)
            web.crash()
            await trio.sleep(5)
        assert web.begun == [0, 22, 45, 70]


async def test_each_signal_that_a_member_is_told_is_in_the_log(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Also those that only pass through, and a second one while it stops."""
    caplog.set_level(logging.INFO, "grouper")
    troupe = Troupe(["web"])
    troupe["web"].closing = 1
    async with supervised(Ordered(troupe.members())) as group:
        group._host.ring.hearers.append(Narrator())
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            group.signal(number)
            await trio.sleep(0.2)
        await group.wait()
    told = [record.getMessage() for record in caplog.records if getattr(record, "fact", "") == "signal"]
    assert [line for line in told if line.startswith("member 'web'")] == [
        "member 'web' is told SIGHUP",
        "member 'web' is told SIGTERM and has 10 s to stop",
        "member 'web' is told SIGINT",
    ]


async def test_one_stop_signal_is_one(autojump_clock: MockClock) -> None:
    """Also where a later sibling waits for its restart, and ends at once: two would mean to a member that it is to hurry."""
    heard_by: list[int] = []

    async def server(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.move_on_after(1):
            async for number in signals:
                heard_by.append(number)  # noqa: PERF401 (it is ended from outside)

    troupe = Troupe(["flaky"])
    async with supervised(Ordered([("server", server), *troupe.members(SLOWLY)])) as group:
        troupe["flaky"].crash()
        await wait_all_tasks_blocked()
        group.signal(signal.SIGTERM)
        await group.wait()
    assert heard_by == [signal.SIGTERM]


async def test_what_belongs_to_a_group_further_down_is_operated_there(autojump_clock: MockClock) -> None:
    """A path in an operation is refused with what to write."""
    troupe = Troupe(["a"])
    async with supervised(Ordered([("web", Ordered(troupe.members()))])) as group:
        with pytest.raises(LookupError, match=r"operate it through its own group, process\['web'\].stop\('a'\)"):
            await group.stop("web/a")
