"""What comes again with its siblings, and what does not; and whose step it is in which that is decided."""

from __future__ import annotations

import contextlib
import contextvars
import math
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import (
    Backoff,
    DoNotRestart,
    Dynamic,
    ErrorTrace,
    ExitedBeforeReady,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartEvent,
    RestartType,
    Role,
    Signals,
    State,
    Strategy,
)
from tests.conformance.supervised import AT_ONCE, Troupe, at_once, heard, supervised


@contextlib.asynccontextmanager
async def around() -> AsyncGenerator[None]:
    """Takes a second to leave."""
    yield
    with trio.CancelScope(shield=True):
        await trio.sleep(1)


async def test_what_finished_before_its_turn_to_stop_stays_down(autojump_clock: MockClock) -> None:
    """A transient member that ends by itself while those after it are stopped has finished: only they come again."""
    troupe = Troupe("abc")
    troupe["c"].closing = 5
    a, b, c = troupe
    members = [
        Member("a", a, restart=Restart()),
        Member("b", b, role=Role.OPTIONAL, restart=Restart(RestartType.TRANSIENT)),
        Member("c", c),
    ]
    async with supervised(Ordered(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
        a.crash()
        await trio.sleep(1)
        b.finish()
        await trio.sleep(10)
        assert group["b"].state is State.EXITED
        assert [len(each.begun) for each in troupe] == [2, 1, 2]


async def test_what_fails_before_its_turn_to_stop_comes_again(autojump_clock: MockClock) -> None:
    """Its failure is told, and is part of the restart that is under way."""
    troupe = Troupe("abc")
    troupe["c"].closing = 5
    a, b, c = troupe
    members = [Member("a", a, restart=Restart()), Member("b", b, restart=Restart(RestartType.TRANSIENT)), Member("c", c)]
    async with supervised(Ordered(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
        a.crash()
        await trio.sleep(1)
        b.crash()
        await trio.sleep(10)
        assert [len(each.begun) for each in troupe] == [2, 2, 2]
        assert len([event for event in await heard(group) if isinstance(event, RestartEvent)]) == 1


async def test_job_that_returns_in_the_tick_of_a_crash_is_done(autojump_clock: MockClock) -> None:
    """Whichever of the two is looked at first: what has returned before it was told is not run again with its siblings."""
    for _ in range(20):
        go, lives = trio.Event(), ["web", "job"]

        async def web(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            if "web" in lives:  # noqa: B023 (it has ended when the next round begins)
                lives.remove("web")  # noqa: B023
                await go.wait()  # noqa: B023
                raise OSError
            task_status.started()
            await signals.wait()

        async def job(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            lives.remove("job")  # noqa: B023
            await go.wait()  # noqa: B023

        members = [Member("job", job, role=Role.JOB), Member("web", web, restart=Restart(start_errors=True))]
        async with supervised(Parallel(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
            go.set()
            await trio.sleep(1)
            assert (group["job"].state, group["web"].state) == (State.EXITED, State.READY)
            assert not lives


async def test_job_that_is_cut_short_and_dropped_has_failed(autojump_clock: MockClock) -> None:
    """A TEMPORARY job that is stopped with its siblings does not come again: nothing starts on half of its work."""
    troupe = Troupe(["web", "job", "after"])
    web, job, after = troupe
    members = [
        Member("web", web, restart=Restart()),
        Member("job", job, role=Role.JOB, restart=Restart(RestartType.TEMPORARY)),
        Member("after", after),
    ]
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.background(Ordered(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
            await wait_all_tasks_blocked()
            web.crash()
            await group.wait()
    [error] = caught.value.exceptions
    assert isinstance(error, ExitedBeforeReady)
    assert str(error).startswith("member 'job' was stopped with its siblings before it had returned, and does not come again")
    assert not after.begun


async def test_job_that_is_cut_short_by_hand_has_not_failed(autojump_clock: MockClock) -> None:
    """Who stops it knows; those after it wait for whoever starts it again."""
    troupe = Troupe(["job", "after"])
    job, after = troupe
    members = [Member("job", job, role=Role.JOB, restart=Restart(RestartType.TEMPORARY)), Member("after", after)]
    async with supervised(Ordered(members)) as group:
        assert (await group.stop("job")).ok
        assert (group["job"].state, group["after"].state) == (State.STOPPED, State.WAITING)


async def test_do_not_restart_is_about_policies(autojump_clock: MockClock) -> None:
    """Who restarts a member by hand has it back, also if it raises that on its way down."""
    lives: list[int] = []

    async def stubborn(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        lives.append(1)
        task_status.started()
        await signals.wait()
        raise DoNotRestart("not again")

    async with supervised(Ordered([Member("web", stubborn, restart=Restart())])) as group:
        process = await group.restart("web")
        assert process.state is State.READY
        assert len(lives) == 2


async def test_restart_in_which_nobody_starts_is_not_counted(autojump_clock: MockClock) -> None:
    """A member that is told to stop while it waits for its restart leaves the limit to the others."""
    troupe = Troupe("ab")
    a, b = troupe
    slowly = Restart(backoff=Backoff.every(1), limit=1, period=100)
    members = troupe.members(Restart(), role=Role.OPTIONAL)
    async with supervised(Parallel(members, strategy=Strategy.REST, restart=slowly)) as group:
        a.crash()
        await wait_all_tasks_blocked()
        group["a"].signal(signal.SIGTERM)
        await trio.sleep(2)
        assert group["a"].state is State.EXITED
        b.crash()
        await trio.sleep(2)
        assert group["b"].state is State.READY
        told = [event for event in await heard(group) if isinstance(event, RestartEvent)]
        assert [(event.path, event.used) for event in told] == [("a", 1), ("b", 1)]


async def test_job_that_was_given_up_may_be_started_again(autojump_clock: MockClock) -> None:
    """It has then returned like any job, although it had been stopped while it waited for its restart."""
    troupe = Troupe(["job", "web"])
    job = troupe["job"]
    job.starts = [OSError()]
    slowly = Restart(RestartType.TRANSIENT, backoff=Backoff.every(9))
    members = [Member("job", job, role=Role.JOB, restart=slowly, around=around), Member("web", troupe["web"])]
    async with supervised(Parallel(members)) as group:
        assert group["job"].state is State.BACKOFF
        await group.stop("job")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.start, "job")
            await wait_all_tasks_blocked()
            job.finish()
        assert group["job"].ready_at == trio.current_time()


async def test_what_has_finished_is_not_kept(autojump_clock: MockClock) -> None:
    """A member whose run is over, and that only leaves what is around it, is not inserted again in the next run."""
    troupe = Troupe(["job", "web"])
    job, web = troupe
    pool = Dynamic(keep_members=True)
    async with supervised(Ordered([("pool", pool)])) as group:
        client = pool.client()
        await client.insert(Member("job", job, role=Role.JOB, around=around))
        await client.insert(Member("web", web))
        await wait_all_tasks_blocked()
        job.finish()
        await wait_all_tasks_blocked()
        await group.restart("pool")
        await wait_all_tasks_blocked()
        assert (len(job.begun), len(web.begun)) == (1, 2)


async def test_removal_takes_nothing_back(autojump_clock: MockClock) -> None:
    """What failed before it was removed, if only by a moment, has stopped the group; what is removed first does not."""
    orders: set[str] = set()
    for _ in range(20):
        order: list[str] = []
        go = trio.Event()

        async def crashes(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await go.wait()  # noqa: B023 (it has ended when the next round begins)
            order.append("crash")  # noqa: B023
            raise OSError

        async def remove(client: Any) -> None:
            await go.wait()  # noqa: B023
            order.append("remove")  # noqa: B023
            await client.remove("web")

        group = Dynamic(termination_signal=signal.SIGTERM)
        async with supervised(group) as process, trio.open_nursery() as nursery:
            await group.client().insert(("web", crashes))
            nursery.start_soon(remove, group.client())
            await wait_all_tasks_blocked()
            go.set()
            await wait_all_tasks_blocked()
            assert (process.exit is not None) == (order[0] == "crash")
            orders.add(order[0])
    assert orders == {"crash", "remove"}


async def test_members_start_in_the_context_of_their_group(autojump_clock: MockClock) -> None:
    """Also if it is another member's task in which it is seen that they may start."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []
    heard_in: set[str] = set()

    async def plain(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        seen.append(whose.get())
        task_status.started()
        await signals.wait()

    async def slow(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        whose.set("slow's")
        task_status.started()
        await signals.wait()
        await trio.sleep(1)

    troupe = Troupe("a")
    members = [*troupe.members(Restart()), Member("plain", plain), Member("slow", slow, restart=Restart())]
    token = whose.set("the group's")
    async with supervised(Parallel(members, strategy=Strategy.ALL, restart=AT_ONCE)) as group:
        whose.reset(token)

        def hear(kind: Any, time: float, process: Process, detail: Any) -> None:
            heard_in.add(whose.get())

        group._host.ring.hearers.append(hear)
        troupe["a"].crash()
        await trio.sleep(2)
    assert seen == ["the group's", "the group's"]
    assert heard_in == {"the group's"}, "what is told is told in it too"


@pytest.mark.parametrize("lasts", [0, 1])
async def test_member_that_fails_again_and_again_at_once_leaves_others_their_turns(lasts: int, autojump_clock: MockClock) -> None:
    """Also without a single checkpoint of its own, without a delay, and without a limit."""
    lives: list[int] = []

    async def hopeless(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        lives.append(1)
        task_status.started()
        for _ in range(lasts):
            await trio.lowlevel.cancel_shielded_checkpoint()
        raise OSError

    group = Parallel([Member("hopeless", hopeless, restart=at_once(limit=math.inf))])
    async with supervised(group, settled=False) as process:
        for _ in range(50):
            await trio.lowlevel.cancel_shielded_checkpoint()
        assert 5 < len(lives) < 60
        process.signal(signal.SIGTERM)
        await process.wait()
