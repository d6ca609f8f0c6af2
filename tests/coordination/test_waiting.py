"""A wait group as a member of a tree: ready when the group is Done."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Member, Ordered, Process, Role, Signals, State
from grouper.coordination import (
    Deleted,
    InvalidName,
    NotFound,
    Phase,
    Status,
    Unavailable,
    WaitGroup,
    WaitGroupDone,
    WaitGroupError,
)
from grouper.coordination.following import Outage
from grouper.coordination.waiting import until
from tests.groups.members import Cast, service, trace_of, watched

from .faulty import GONE, FaultyStore
from .meeting import Meeting


async def faulty_group(count: int = 0) -> tuple[FaultyStore, WaitGroup]:
    store = FaultyStore()
    group = store.waitgroup("batch")
    await group.create(count=count)
    return store, group


def waiting(process: Process) -> bool:
    return process.state is State.STARTING


async def test_it_is_ready_when_the_group_is_done(meeting: Meeting) -> None:
    """Its value is the status of that moment; then it stays until it is told to stop."""
    group = await meeting.group(count=2)
    async with watched(WaitGroupDone(meeting.handle(), "batch")) as process:
        await group.done()
        assert waiting(process)
        await group.done()
        status: Status = await process.wait_ready()
        assert (status.name, status.phase, status.counter, status.lost) == ("batch", Phase.DONE, 0, 0)
        await group.add()
        assert process.state is State.READY
        process.signal(15)
        assert (await process.wait()).ok


async def test_what_comes_after_it_starts_when_the_group_is_done() -> None:
    """`Ordered([("migrated", WaitGroupDone(...)), ("api", api)])`."""
    store, group = await faulty_group(1)
    cast = Cast("x")
    async with watched(Ordered([("migrated", WaitGroupDone(store, "batch")), *cast.pairs()])) as process:
        assert cast.log == []
        await group.done()
        await wait_all_tasks_blocked()
        assert cast.log == ["+x"]
        assert process.state is State.READY


async def test_job_returns_when_the_group_is_done() -> None:
    """As a JOB it has done its work then; the group goes on without it."""
    store, group = await faulty_group(1)
    members = [Member("migrated", WaitGroupDone(store, "batch"), role=Role.JOB), Member("api", service)]
    async with watched(Ordered(members)) as process:
        assert waiting(process)
        await group.done()
        await wait_all_tasks_blocked()
        assert [child.state for child in process.children] == [State.EXITED, State.READY]
        assert process.children[0].value.phase is Phase.DONE


async def test_job_inside_another_runner_returns_too() -> None:
    """Adapters do not hide what it is a part of."""
    store, _ = await faulty_group()
    runner = grouper.Proxy(Signals(), WaitGroupDone(store, "batch"))
    async with grouper.invoke(Member("migrated", runner, role=Role.JOB)) as process:
        assert (await process.wait()).ok


async def test_it_stays_where_it_is_no_member() -> None:
    """Run with signals that nobody owns."""
    store, _ = await faulty_group()
    signals = Signals()
    async with trio.open_nursery() as nursery:
        status = await nursery.start(WaitGroupDone(store, "batch").run, signals)
        assert status.phase is Phase.DONE
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        signals.send(15)


async def test_group_that_nobody_has_added_to_is_done() -> None:
    """As it is for who waits for it."""
    store, _ = await faulty_group()
    async with grouper.invoke(WaitGroupDone(store, "batch")) as process:
        assert not process.value.started


async def test_with_started_it_waits_for_the_first() -> None:
    """And then until it is done."""
    store, group = await faulty_group()
    async with watched(WaitGroupDone(store, "batch", started=True)) as process:
        assert waiting(process)
        await group.add()
        await wait_all_tasks_blocked()
        assert waiting(process)
        await group.done()
        assert (await process.wait_ready()).started


async def test_lost_members_are_an_error() -> None:
    """Their work was not done: those after it do not start."""
    store, group = await faulty_group(1)
    worker = store.process()
    cast = Cast("x")
    async with watched(Ordered([("migrated", WaitGroupDone(store, "batch")), *cast.pairs()])) as process, worker.owner():
        await worker.register("member", "batch", "w1", "")
        worker.die()
        await group.done()
        (error,) = (await trace_of(process)).exceptions
    assert type(error) is WaitGroupError
    assert str(error).startswith("wait group 'batch' is done, but 1 of what it counted did not finish: ")
    assert cast.log == []


async def test_lost_members_are_allowed_where_that_is_said() -> None:
    """The status tells how many."""
    store, _ = await faulty_group()
    worker = store.process()
    async with worker.owner():
        await worker.register("member", "batch", "w1", "")
        worker.die()
        async with grouper.invoke(WaitGroupDone(store, "batch", allow_lost=True)) as process:
            assert process.value.lost == 1


async def test_missing_group_is_an_error_at_once() -> None:
    """It is not waited for."""
    with pytest.raises(NotFound, match="batch"):
        async with grouper.invoke(WaitGroupDone(FaultyStore(), "batch")):
            raise AssertionError("not ready")
    assert trio.current_time() == 0


async def test_group_deleted_while_it_waits_is_an_error() -> None:
    """Deleted, not Done."""
    store, group = await faulty_group(1)
    async with watched(WaitGroupDone(store, "batch")) as process:
        await group.delete()
        assert isinstance((await process.wait()).error, Deleted)


async def test_group_deleted_once_it_was_done_is_none() -> None:
    """It was."""
    store, group = await faulty_group()
    async with grouper.invoke(WaitGroupDone(store, "batch")) as process:
        await group.delete()
        await wait_all_tasks_blocked()
        assert process.state is State.READY


@pytest.mark.parametrize("anew", [False, True])
async def test_group_deleted_in_an_outage_is_an_error(anew: bool) -> None:
    """Also where it was made anew: that is another group, whose zero says nothing."""
    store, group = await faulty_group(1)
    async with watched(WaitGroupDone(store, "batch")) as process:
        store.fail("watch")
        store.cut()
        await trio.sleep(60)
        await group.delete()
        if anew:
            await group.create()
        store.recover()
        assert isinstance((await process.wait()).error, Deleted)


async def test_it_is_stopped_cleanly_while_it_waits() -> None:
    """At once, though the group is not done."""
    store, _ = await faulty_group(1)
    async with watched(WaitGroupDone(store, "batch")) as process:
        process.signal(15)
        assert (await process.wait()).ok
        assert process.ready_at is None


@pytest.mark.parametrize("began", [False, True])
async def test_outage_is_no_end_of_the_wait(began: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it came before or meanwhile; what happened in it counts. The log is told once, and once of its end."""
    caplog.set_level(logging.INFO, "grouper")
    store, group = await faulty_group(1)
    if not began:
        store.fail("watch")
    async with watched(WaitGroupDone(store, "batch")) as process:
        store.fail("watch")
        store.cut()
        await trio.sleep(600)
        await group.done()
        assert waiting(process)
        store.recover()
        await process.wait_ready()
    assert [record.getMessage() for record in caplog.records] == [
        f"the wait for wait group 'batch' is held up: {GONE}",
        "the wait for wait group 'batch' goes on: the store is available again",
    ]


async def test_it_is_stopped_cleanly_in_an_outage() -> None:
    """At once."""
    store, _ = await faulty_group(1)
    store.fail("watch")
    async with watched(WaitGroupDone(store, "batch")) as process:
        await trio.sleep(600)
        process.signal(15)
        assert (await process.wait()).ok
        assert trio.current_time() == 600


async def test_zero_that_is_followed_at_once_by_more_is_not_missed() -> None:
    """A zero is a zero."""
    store, group = await faulty_group(1)
    async with watched(WaitGroupDone(store, "batch")) as process:
        await group.done()
        await group.add()
        await process.wait_ready()


async def test_it_can_be_run_again() -> None:
    """It is a description."""
    store, group = await faulty_group()
    waiter = WaitGroupDone(store, "batch", started=True)
    for _ in range(2):
        await group.add()
        await group.done()
        async with grouper.invoke(waiter):
            pass


@pytest.mark.parametrize(("name", "error"), [("a/b", InvalidName), (None, TypeError)])
def test_name_is_checked_when_it_is_made(name: Any, error: type[Exception]) -> None:
    """As that of a group."""
    with pytest.raises(error, match="wait group"):
        WaitGroupDone(FaultyStore(), name)


def test_url_is_no_store() -> None:
    """The error says what makes one."""
    with pytest.raises(TypeError, match="WaitGroupDone: 'sqlite:x' is not a store"):
        WaitGroupDone("sqlite:x", "batch")  # type: ignore[arg-type]  # what is tested  # pyright: ignore[reportArgumentType]


async def test_store_that_must_answer_at_first() -> None:
    """As for the command: a wrong address is told at once, a later outage is waited for."""
    store, group = await faulty_group(1)
    store.fail("watch")
    with pytest.raises(Unavailable):
        await until(store, "batch", lambda status: not status.counter, Outage("the test"), first_too=False)
    store.recover()
    seen: list[int] = []

    def enough(status: Status) -> bool:
        seen.append(status.counter)
        return not status.counter

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: until(store, "batch", enough, Outage("the test"), first_too=False))
        await wait_all_tasks_blocked()
        store.fail("watch")
        store.cut()
        await wait_all_tasks_blocked()
        await group.done()
        store.recover()
    assert seen == [1, 0]
