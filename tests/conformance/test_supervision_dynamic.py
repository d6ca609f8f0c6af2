"""What ends a group by itself, and groups whose members come and go (sections 6 and 7 of the contract of supervision)."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import (
    Dynamic,
    ErrorTrace,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartLimitExceeded,
    RestartType,
    Role,
    Signals,
    State,
    Strategy,
)
from tests.groups.transitions import known_transitions

from .supervised import AT_ONCE, SLOWLY, Troupe, at_once, ended, supervised

__all__ = ["known_transitions"]

PERMANENT, TRANSIENT, TEMPORARY = RestartType


def trace_of(process: Process) -> ErrorTrace:
    """The trace with which a group ended."""
    assert process.exit is not None
    assert isinstance(process.exit.error, ErrorTrace)
    return process.exit.error


@pytest.mark.contract("V35")
def test_v35_a_job_that_would_never_end_is_refused() -> None:
    """What can never end by itself can tell nothing by its end: PERMANENT is no policy for a JOB."""
    with pytest.raises(ValueError, match="a JOB that is restarted after each exit never ends"):
        Member("a", Troupe("a")["a"], role=Role.JOB, restart=Restart(PERMANENT))


@pytest.mark.contract("V35")
async def test_v35_only_what_members_do_by_themselves_ends_a_group() -> None:
    """Neither a stop by hand nor a sibling's restart does; the clean end of a TRANSIENT service does."""
    troupe = Troupe("abc")
    a, b, c = troupe.members(Restart(TRANSIENT))
    async with supervised(
        Parallel([a, b, attrs.evolve(c, restart=Restart(TEMPORARY))], strategy=Strategy.ALL, restart=AT_ONCE)
    ) as group:
        await group.stop("b")
        troupe["a"].crash()
        await wait_all_tasks_blocked()
        assert [each.state for each in group.children] == [State.READY, State.STOPPED, State.EXITED]
        assert group.exit is None
        troupe["a"].finish()
        assert (await ended(group)).ok


@pytest.mark.contract("V36")
async def test_v36_a_group_of_jobs_ends_with_the_last_that_runs() -> None:
    """However many others there were."""
    troupe = Troupe("abc")
    async with supervised(Parallel(troupe.members(at_once(TRANSIENT), role=Role.JOB))) as group:
        troupe["a"].crash()
        await wait_all_tasks_blocked()
        for name in "abc":
            assert group.exit is None
            troupe[name].finish()
            await wait_all_tasks_blocked()
        assert (await ended(group)).ok


@pytest.mark.contract("V36")
async def test_v36_a_member_stopped_by_hand_holds_the_group_up() -> None:
    """Who stopped it may start it again, and the group is there for that until it is told to stop."""
    troupe = Troupe("ab")
    async with supervised(Parallel(troupe.members(at_once(TRANSIENT), role=Role.JOB))) as group:
        troupe["a"].finish()
        await group.stop("b")
        await trio.sleep(1000)
        assert group.exit is None
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):  # a job is ready when it has returned
            await group.start("b")
        troupe["b"].finish()
        assert (await ended(group)).ok


@pytest.mark.contract("V37")
async def test_v37_a_group_that_ended_cleanly_has_the_exit_of_a_member() -> None:
    """It stops its parent if it is a service there, and not if it is OPTIONAL; a PERMANENT one is restarted, up to its limit."""
    for role, restart, ends in ((Role.SERVICE, None, True), (Role.OPTIONAL, None, False), (Role.SERVICE, at_once(limit=2), True)):
        troupe = Troupe("ab")
        inner = Ordered(troupe.members(Restart(TRANSIENT))[:1])
        async with supervised(Ordered([Member("inner", inner, role=role, restart=restart), Member("b", troupe["b"])])) as group:
            while group["inner"].exit is None:
                troupe["a"].finish()
                await wait_all_tasks_blocked()
            assert (group.exit is not None) is ends
        if restart is None:
            assert group.exit is not None
            assert group.exit.ok
        else:
            assert isinstance(trace_of(group).exceptions[0], RestartLimitExceeded)
            assert len(troupe["a"].begun) == 3


class Work:
    """A runner that is told apart from others by who still holds it, and returns when it may."""

    def __init__(self, go: trio.Event) -> None:
        self.go = go

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        with signals.cancelling():
            await self.go.wait()


@pytest.mark.contract("V38")
async def test_v38_who_has_gone_costs_no_memory() -> None:
    """Of those that ended a bounded number is kept for the trace, and of the others nothing, their runners included."""
    group = Dynamic(event_buffer=8)
    go = trio.Event()
    held: list[weakref.ref[Work]] = []
    async with supervised(group) as process:
        client = group.client()

        def insert(name: str, work: Work) -> None:
            held.append(weakref.ref(work))
            client.insert_nowait(Member(name, work, restart=Restart(TEMPORARY)))

        for number in range(2000):
            insert(str(number), Work(go))
        await wait_all_tasks_blocked()
        assert len(process.children) == 2000
        go.set()
        await wait_all_tasks_blocked()
        assert process.children == ()
        gc.collect()
        kept = [number for number, each in enumerate(held) if each() is not None]
        assert len(kept) <= 3 * (8 + 64)  # three rings of events drop what is old in batches


@pytest.mark.contract("V39")
async def test_v39_room_is_kept_for_who_will_be_restarted() -> None:
    """What backs off counts as running: its room is not given away."""
    troupe = Troupe("ab")
    group = Dynamic(capacity=1)
    a, b = troupe.members(SLOWLY)
    async with supervised(group):
        client = group.client()
        await client.insert(a)
        await wait_all_tasks_blocked()
        troupe["a"].crash()
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(b)
        await trio.sleep(2)
        assert [len(player.begun) for player in troupe] == [2, 0]


@pytest.mark.contract("V39")
@pytest.mark.parametrize("keep", [False, True])
async def test_v39_members_survive_a_restart_of_their_group_if_that_is_asked_for(keep: bool) -> None:
    """Those that ran are inserted again, in order; without `keep_members` they are gone."""
    troupe = Troupe("abcx")
    a, b, c, x = troupe.members(Restart())
    dynamic = Dynamic(keep_members=keep)
    tree = Ordered([x, Member("dynamic", dynamic)], strategy=Strategy.REST, restart=AT_ONCE)
    async with supervised(tree) as group:
        for member in (a, b, c):
            await dynamic.client().insert(member)
        await dynamic.client().remove("b")
        await troupe.news()
        troupe["x"].crash()
        await wait_all_tasks_blocked()
        assert group["dynamic"].state is State.READY
        assert [each.name for each in group["dynamic"].children] == (["a", "c"] if keep else [])


@pytest.mark.contract("W15")
async def test_w15_kept_members_are_those_that_should_be_up() -> None:
    """One that was removed, and one that had finished, do not come back; one that was backing off does."""
    troupe = Troupe("abcd")
    dynamic = Dynamic(keep_members=True)
    async with supervised(Ordered([Member("dynamic", dynamic)])) as group:
        client = dynamic.client()
        for member in troupe.members(Restart(TRANSIENT)):
            await client.insert(member)
        await wait_all_tasks_blocked()
        troupe["a"].finish()
        troupe["b"].crash()
        await client.remove("c")
        assert group["dynamic/b"].state is State.BACKOFF
        await group.restart("dynamic")
        await wait_all_tasks_blocked()
        assert {each.name: each.state for each in group["dynamic"].children} == {"b": State.READY, "d": State.READY}


@pytest.mark.contract("V40")
async def test_v40_who_is_counted_as_up_is_up() -> None:
    """A member that backs off is there, and its state says that it is not running."""
    troupe = Troupe("ab")
    group = Dynamic()
    async with supervised(group) as process:
        for member in troupe.members(SLOWLY):
            await group.client().insert(member)
        await wait_all_tasks_blocked()
        troupe["a"].crash()
        await wait_all_tasks_blocked()
        assert [each.state for each in process.children] == [State.BACKOFF, State.READY]
        assert [each.state for each in process.snapshot().children] == [State.BACKOFF, State.READY]


@pytest.mark.contract("V40")
async def test_v40_a_listener_to_entrances_is_done_when_nobody_enters_any_more() -> None:
    """Also where members have been restarted, which enter anew: the count of those on their way stays right."""
    troupe = Troupe("a")
    group = Dynamic()
    heard: list[str] = []

    async def listen() -> None:
        async with group.client().entrances() as stream:
            async for event in stream:
                heard.append(event.path)  # noqa: PERF401 (the test looks at it meanwhile)
        heard.append("over")

    async with supervised(group), trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await group.client().insert(troupe.members(SLOWLY)[0])
        await wait_all_tasks_blocked()
        troupe["a"].crash()
        await trio.sleep(0.5)
        group.client().close()
        await wait_all_tasks_blocked()
        assert heard == ["a"]
        await trio.sleep(1)
        assert heard == ["a", "a", "over"]


@pytest.mark.contract("V41")
async def test_v41_a_restart_runs_what_was_inserted() -> None:
    """The same member, so the same runner with what it was made with."""
    given: list[str] = []

    @attrs.frozen
    class Tail:
        path: str

        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            given.append(self.path)
            if given.count(self.path) < 3:
                raise OSError(self.path)
            await signals.wait()

    group = Dynamic()
    async with supervised(group):
        for name in ("a", "b"):
            await group.client().insert(Member(name, Tail(f"/var/log/{name}"), restart=AT_ONCE))
        await wait_all_tasks_blocked()
    assert sorted(given) == ["/var/log/a"] * 3 + ["/var/log/b"] * 3


@pytest.mark.contract("V46")
async def test_v46_nobody_is_looked_for_and_there_is_no_cap() -> None:
    """A member knows its group. Some thousand of them, each restarted once, are no special case."""
    lives = 0

    async def once_more(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        nonlocal lives
        lives += 1
        task_status.started()
        if lives <= 3000:
            raise OSError("once")
        await signals.wait()

    group = Dynamic()
    async with supervised(group) as process:
        for number in range(3000):
            group.client().insert_nowait(Member(str(number), once_more, restart=AT_ONCE))
        await wait_all_tasks_blocked()
        assert (lives, len(process.children)) == (6000, 3000)


@pytest.mark.contract("W18")
async def test_w18_an_insert_waits_for_room_is_refused_or_gives_up() -> None:
    """As the caller likes: `insert`, `insert_nowait`, or a timeout of trio's around the first; the room may change meanwhile."""
    troupe = Troupe("abcd")
    a, b, c, d = troupe.members(AT_ONCE)
    group = Dynamic(capacity=1)
    async with supervised(group) as process:
        client = group.client()
        await client.insert(a)
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(b)
        with trio.move_on_after(5) as scope:
            await client.insert(b)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.insert, c)
            await wait_all_tasks_blocked()
            client.capacity = 2
        client.capacity = 1
        assert [each.name for each in process.children] == ["a", "c"]
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(d)
        await client.remove("a")
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(d)


@pytest.mark.contract("W5")
async def test_w05_a_dynamic_group_is_closed_then_told_to_stop() -> None:
    """`drain` lets the members finish for a while, takes no more of them, and stops those that are left."""
    troupe = Troupe("ab")
    group = Dynamic()
    async with supervised(group) as process:
        client = group.client()
        for member in troupe.members(at_once(TRANSIENT)):
            await client.insert(member)
        await troupe.news()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.drain, 5)
            await trio.sleep(1)
            troupe["a"].finish()
        assert trio.current_time() == 5
        assert troupe.log == ["done a", "down b"]
        assert (await ended(process)).ok
