"""The group whose members come and go, and its client."""

from __future__ import annotations

import contextvars
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import grouper
from grouper import (
    DuplicateNames,
    Dynamic,
    EventStream,
    GroupClosed,
    Member,
    MemberEntrance,
    Ordered,
    Process,
    Role,
    Signals,
    State,
)

from .members import Puppet, deaf, fails, never_ready, returns, service, trace_of, watched

Stream = EventStream[Process, Any]
TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL


async def names(stream: Stream, count: int | None = None) -> list[str]:
    """The names of the next so many members told, or of all up to the end of the stream."""
    found: list[str] = []
    with trio.fail_after(10):
        while len(found) != count:
            try:
                found.append((await anext(stream)).member.name)
            except StopAsyncIteration:
                assert count is None, f"the stream ends after {found}"
                break
    return found


# The description


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "3"])
def test_capacity_is_checked(capacity: Any) -> None:
    """A group has room for one member at least."""
    wrong = "leaves no room for a member" if type(capacity) is int else "is no whole number of members"
    with pytest.raises(ValueError, match=f"Dynamic: capacity={capacity!r} {wrong}: use 1 or more, or None"):
        Dynamic(capacity)


def test_client_is_one() -> None:
    """Always the same, and there before the group runs."""
    group = Dynamic()
    assert group.client() is group.client()


def test_repr_is_shallow() -> None:
    """The client is left out."""
    text = repr(Dynamic(3))
    assert text.startswith("Dynamic(capacity=3, event_buffer=64, termination_signal=None, cancel_grace=0.0, drain_signal=None, ")
    assert "lient" not in text


# Inserting


async def test_group_is_ready_at_once_and_stays_up_empty() -> None:
    """It ends only when closed or told to stop."""
    async with watched(Dynamic()) as root:
        assert root.state is State.READY
        await trio.sleep(1e3)
        assert root.exit is None


async def test_inserted_member_is_started() -> None:
    """`insert` returns its process, which need not be ready."""
    group = Dynamic()
    async with watched(Ordered([("pool", group)])):
        process = await group.client().insert(("a", never_ready))
        assert (process.path, process.state) == ("pool/a", State.STARTING)


@pytest.mark.parametrize("how", ["insert", "insert_nowait"])
async def test_what_is_no_member_is_refused(how: str) -> None:
    """In the inserter's own call."""

    async def insert(member: Any) -> None:
        result: Any = getattr(Dynamic().client(), how)(member)
        await result

    with pytest.raises(TypeError, match="is not a member: give Member"):
        await insert(service)
    with pytest.raises(ValueError, match=r"member 'a' is after \('b',\), but a Dynamic group has no order: use a Graph"):
        await insert(Member("a", service, after="b"))


async def test_insert_waits_for_the_run() -> None:
    """A member may be inserted before the group runs; it is started when it does."""
    group = Dynamic()
    got: list[Process] = []

    async def insert() -> None:
        got.append(await group.client().insert(("a", service)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(insert)
        await wait_all_tasks_blocked()
        assert got == []
        async with watched(group):
            assert [process.name for process in got] == ["a"]


async def test_insert_nowait_before_the_run_would_block() -> None:
    """There is nobody yet who could start the member."""
    with pytest.raises(trio.WouldBlock):
        Dynamic().client().insert_nowait(("a", service))


async def test_duplicate_name_is_raised_to_the_inserter() -> None:
    """The group goes on, and the name is free again when the first has ended."""
    group = Dynamic()
    client = group.client()
    async with watched(group) as root:
        await client.insert(("a", service))
        with pytest.raises(DuplicateNames) as caught:
            await client.insert(("a", service))
        assert caught.value.names == ("a",)
        await client.remove("a")
        await client.insert(("a", service))
        assert root.exit is None


async def test_duplicate_name_is_raised_when_its_turn_has_come() -> None:
    """One that waited for room is told then; the next in line is let in."""
    group = Dynamic(2)
    client = group.client()
    outcomes: list[str] = []

    async def insert(name: str) -> None:
        try:
            await client.insert((name, service))
            outcomes.append(f"{name} is in")
        except DuplicateNames:
            outcomes.append(f"{name} is a duplicate")

    async with watched(group), trio.open_nursery() as nursery:
        for name in "ab":
            await client.insert((name, service))
        for name in "ac":
            nursery.start_soon(insert, name)
            await wait_all_tasks_blocked()
        await client.remove("b")
        await wait_all_tasks_blocked()
        assert sorted(outcomes) == ["a is a duplicate", "c is in"]


async def test_insert_waits_while_the_group_is_full() -> None:
    """Turns are in order."""
    group = Dynamic(1)
    client = group.client()
    order: list[str] = []

    async def insert(name: str) -> None:
        await client.insert((name, service))
        order.append(name)

    async with watched(group), trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(insert, name)
            await wait_all_tasks_blocked()
        for count in (1, 2, 3):
            assert order == list("abc")[:count]
            await client.remove(order[-1])
            await wait_all_tasks_blocked()


async def test_insert_nowait_when_full_would_block() -> None:
    """And starts nobody."""
    group = Dynamic(1)
    client = group.client()
    async with watched(group):
        client.insert_nowait(("a", service))
        with pytest.raises(trio.WouldBlock):
            client.insert_nowait(("b", service))
        assert client.get("b") is None


async def test_cancelled_waiter_passes_its_turn_on() -> None:
    """Nothing was started for it, and the next gets the room."""
    group = Dynamic(1)
    client = group.client()
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            await client.insert(("b", service))

    async with watched(group), trio.open_nursery() as nursery:
        await client.insert(("a", service))
        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(client.insert, ("c", service))
        await wait_all_tasks_blocked()
        scope.cancel()
        await client.remove("a")
        await wait_all_tasks_blocked()
        assert client.get("b") is None
        assert client.get("c") is not None


async def test_insert_is_a_checkpoint() -> None:
    """Also where it need not wait."""
    group = Dynamic()
    async with watched(group):
        with assert_checkpoints():
            await group.client().insert(("a", service))


async def test_insert_of_a_cancelled_task_starts_nobody() -> None:
    """A cancellation before the insert counts."""
    group = Dynamic()
    async with watched(group):
        with trio.CancelScope() as scope:
            scope.cancel()
            await group.client().insert(("a", service))
        assert scope.cancelled_caught
        assert group.client().get("a") is None


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="group")


@pytest.mark.parametrize("full", [False, True])
async def test_member_runs_in_the_groups_context(full: bool) -> None:
    """Context variables are those of the group and not of the inserter, whether he had to wait or not."""
    seen: list[str] = []

    async def look(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        seen.append(variable.get())

    group = Dynamic(1)

    async def insert() -> None:
        variable.set("inserter")
        await group.client().insert(Member("b", look, role=Role.JOB))

    async with watched(group), trio.open_nursery() as nursery:
        if full:
            await group.client().insert(("a", service))
        nursery.start_soon(insert)
        await wait_all_tasks_blocked()
        if full:
            await group.client().remove("a")
        await wait_all_tasks_blocked()
    assert seen == ["group"]


@pytest.mark.real_time
async def test_client_works_from_a_thread() -> None:
    """Through `trio.from_thread`, blocking or not."""
    group = Dynamic()
    client = group.client()

    def work() -> str:
        process = trio.from_thread.run(client.insert, ("a", service))
        trio.from_thread.run_sync(client.insert_nowait, ("b", service))
        exit = trio.from_thread.run(client.remove, "a")
        trio.from_thread.run_sync(client.close)
        return f"{process.name} {exit.ok}"

    async with grouper.invoke(group) as root:
        assert await trio.to_thread.run_sync(work) == "a True"
        root.signal(TERM)
        assert (await root.wait()).ok


# Looking and removing


async def test_get() -> None:
    """The running member of that name: not before, not after, not outside a run."""
    group = Dynamic()
    client = group.client()
    assert client.get("a") is None
    async with watched(group):
        assert client.get("a") is None
        process = await client.insert(("a", service))
        assert client.get("a") is process
        await client.remove("a")
        assert client.get("a") is None
        await client.insert(("a", service))
    assert client.get("a") is None


async def test_children_are_those_that_run() -> None:
    """In the order in which they were inserted."""
    group = Dynamic()
    client = group.client()
    async with watched(group) as root:
        for name in "abc":
            await client.insert((name, service))
        await client.remove("a")
        assert [each.name for each in root.children] == ["b", "c"]


async def test_remove_stops_the_member() -> None:
    """With a stop signal, and returns its exit."""
    a = Puppet()
    group = Dynamic()
    async with watched(group):
        await group.client().insert(("a", a))
        await wait_all_tasks_blocked()
        exit = await group.client().remove("a")
        assert (exit.path, exit.ok, exit.killed) == ("a", True, False)
    assert a.log == ["+a", "SIGTERM a", "-a"]


async def test_removed_member_has_its_grace() -> None:
    """After it the member is killed, and that is its failure."""
    group = Dynamic()
    async with watched(group) as root:
        await group.client().insert(Member("a", deaf, grace=3))
        exit = await group.client().remove("a")
        assert exit.killed
        assert exit.ended_at - exit.started_at == 3
        assert isinstance(exit.error, grouper.StopTimeout)
        assert root.exit is None


@pytest.mark.parametrize("runner", [service, deaf, never_ready])
async def test_removal_does_not_stop_a_group_that_has_a_termination_signal(runner: Any) -> None:
    """However the member ended."""
    group = Dynamic(termination_signal=TERM)
    async with watched(group) as root:
        await group.client().insert(("a", runner))
        await group.client().insert(("b", service))
        await group.client().remove("a")
        await wait_all_tasks_blocked()
        assert root.state is State.READY


async def test_kill_of_a_member_that_is_removed_is_no_failure() -> None:
    """It was to end anyway."""
    group = Dynamic()
    async with watched(group), trio.open_nursery() as nursery:
        process = await group.client().insert(("a", deaf))
        nursery.start_soon(group.client().remove, "a")
        await wait_all_tasks_blocked()
        process.kill()
        assert (await process.wait()).ok


async def test_remove_twice_at_once() -> None:
    """Both get the exit; the member is told once."""
    a = Puppet(polite=False)
    group = Dynamic()
    exits: list[grouper.Exit] = []

    async def remove() -> None:
        exits.append(await group.client().remove("a"))

    async with watched(group), trio.open_nursery() as nursery:
        await group.client().insert(("a", a))
        await wait_all_tasks_blocked()
        nursery.start_soon(remove)
        nursery.start_soon(remove)
        await wait_all_tasks_blocked()
        a.end.set()
    assert len(exits) == 2
    assert a.log.count("SIGTERM a") == 1


async def test_cancelled_remove_leaves_the_member_stopping() -> None:
    """Who gives up waiting has still stopped it."""
    a = Puppet(polite=False)
    group = Dynamic()
    async with watched(group):
        process = await group.client().insert(("a", a))
        with trio.move_on_after(1):
            await group.client().remove("a")
        assert process.state is State.STOPPING
        a.end.set()
        assert (await process.wait()).ok


async def test_remove_of_nobody() -> None:
    """A name that no running member has is an error, also when nothing runs."""
    group = Dynamic()
    with pytest.raises(LookupError, match="no member 'a' is running"):
        await group.client().remove("a")
    async with watched(group):
        with pytest.raises(LookupError, match="no member 'a' is running in the dynamic group"):
            await group.client().remove("a")


# Closing


async def test_closed_group_ends_when_it_is_empty() -> None:
    """Its members are not stopped."""
    a = Puppet()
    group = Dynamic()
    async with watched(group) as root:
        await group.client().insert(("a", a))
        group.client().close()
        await wait_all_tasks_blocked()
        assert root.exit is None
        a.end.set()
        assert (await root.wait()).ok
    assert a.log == ["+a", "-a"]


async def test_closing_an_empty_group_ends_it() -> None:
    """And a second close does nothing, during the run or after it."""
    group = Dynamic()
    async with watched(group) as root:
        group.client().close()
        group.client().close()
        assert (await root.wait()).ok
    group.client().close()


ENDS: dict[str, Callable[[Process, grouper.Client], object]] = {
    "close": lambda root, client: client.close(),
    "signal": lambda root, client: root.signal(TERM),
    "kill": lambda root, client: root.kill(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("wait", ["insert", "full", "nowait", "late"])
async def test_closed_group_takes_nobody(end: Callable[[Process, grouper.Client], object], wait: str) -> None:
    """Whoever inserts, or waits to insert, is told so, from the step in which it was closed, signalled or killed."""
    group = Dynamic(1 if wait == "full" else None)
    client = group.client()

    async def insert() -> None:
        with pytest.raises(GroupClosed, match="member 'b' was not started: the dynamic group is closed"):
            await client.insert(("b", service))
        done.set()

    done = trio.Event()
    async with watched(group) as root, trio.open_nursery() as nursery:
        await client.insert(("a", Puppet(polite=False)))
        await wait_all_tasks_blocked()
        if wait == "full":
            nursery.start_soon(insert)
            await wait_all_tasks_blocked()
        end(root, client)
        if wait != "late":
            await wait_all_tasks_blocked()
        else:
            root.kill()
            await root.wait()
        if wait == "nowait":
            with pytest.raises(GroupClosed):
                client.insert_nowait(("b", service))
        elif wait != "full":
            await insert()
        assert client.get("b") is None
        if wait == "full":
            assert done.is_set()
        root.kill()


async def test_wait_closed() -> None:
    """It returns when the group is closed, though members still run; then at once."""
    group = Dynamic()
    client = group.client()
    closed: list[str] = []

    async def wait() -> None:
        await client.wait_closed()
        closed.append("closed")

    async with watched(group), trio.open_nursery() as nursery:
        await client.insert(("a", service))
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert closed == []
        client.close()
        await wait_all_tasks_blocked()
        assert closed == ["closed"]
        await wait()
        await client.remove("a")


async def test_close_before_the_run_makes_it_end_at_once() -> None:
    """Whoever waited to insert is told, and a later run is open again."""
    group = Dynamic()
    client = group.client()
    async with trio.open_nursery() as nursery:

        async def insert() -> None:
            with pytest.raises(GroupClosed):
                await client.insert(("a", service))

        nursery.start_soon(insert)
        await wait_all_tasks_blocked()
        client.close()
    async with watched(group) as root:
        assert (await root.wait()).ok
    async with watched(group) as root:
        await client.insert(("a", service))
        assert root.state is State.READY


async def test_second_run_at_once_is_an_error() -> None:
    """The client addresses one run; the first goes on."""
    group = Dynamic()
    async with watched(group) as root:
        with pytest.raises(RuntimeError, match="this Dynamic group is running already: its client can address one run at a time"):
            async with grouper.invoke(group):
                pass
        process = await group.client().insert(("a", service))
        assert (root.state, process.exit) == (State.READY, None)


async def test_group_told_to_stop_before_it_ran() -> None:
    """It starts nobody, not even those who waited to insert."""
    group, signals = Dynamic(), Signals()
    signals.send(TERM)
    async with trio.open_nursery() as nursery:

        async def insert() -> None:
            with pytest.raises(GroupClosed):
                await group.client().insert(("a", service))

        nursery.start_soon(insert)
        await wait_all_tasks_blocked()
        await group.run(signals, task_status=trio.TASK_STATUS_IGNORED)


# Signals and exits


async def test_signalled_group_stops_all() -> None:
    """With the signal that it got."""
    group = Dynamic()
    log: list[str] = []
    async with watched(group) as root:
        for name in "ab":
            await group.client().insert((name, Puppet(name, log)))
        await wait_all_tasks_blocked()
        root.signal(HUP)
        root.signal(INT)
        assert (await root.wait()).ok
    assert sorted(log[2:6]) == ["SIGHUP a", "SIGHUP b", "SIGINT a", "SIGINT b"]


@pytest.mark.parametrize("runner", [returns, fails])
async def test_members_come_and_go_without_effect(runner: Any) -> None:
    """The default: no exit stops the group."""
    group = Dynamic()
    async with watched(group) as root:
        await group.client().insert(("a", runner))
        await group.client().insert(("b", service))
        await wait_all_tasks_blocked()
        assert root.state is State.READY
        assert [each.name for each in root.children] == ["b"]


async def test_first_exit_stops_a_group_that_has_a_termination_signal() -> None:
    """The rest get that signal, and the group is closed."""
    group = Dynamic(termination_signal=INT)
    a, b = Puppet("a"), Puppet("b")
    async with watched(group) as root:
        await group.client().insert(("a", a))
        await group.client().insert(("b", b))
        await wait_all_tasks_blocked()
        a.end.set()
        await group.client().wait_closed()
        assert (await root.wait()).ok
    assert b.log == ["+b", "SIGINT b", "-b"]


async def test_job_that_returned_stops_nobody() -> None:
    """The table of roles holds in a dynamic group too."""
    group = Dynamic(termination_signal=TERM)
    async with watched(group) as root:
        await group.client().insert(Member("a", returns, role=Role.JOB))
        await wait_all_tasks_blocked()
        assert root.state is State.READY


async def test_killed_group_kills_the_last_inserted_first() -> None:
    """All at once, and waits for each."""
    group = Dynamic()
    log: list[str] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(group.run, Signals())
            for name in "ab":
                await group.client().insert((name, Puppet(name, log)))
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert sorted(log) == ["!a", "!b", "+a", "+b"]


# The trace


async def test_failures_are_raised_at_the_end() -> None:
    """Also those of members that are long gone; optional ones are not."""
    group = Dynamic()
    async with watched(group) as root:
        for name in "ab":
            await group.client().insert((name, fails))
        await group.client().insert(Member("c", fails, role=Role.OPTIONAL))
        await wait_all_tasks_blocked()
        group.client().close()
        trace = await trace_of(root)
        assert trace.message == "2 of 3 members failed"
        assert sorted(exit.path for exit in trace.exits) == ["a", "b", "c"]


@pytest.mark.parametrize(("buffer", "kept"), [(3, 3), (0, 1)])
async def test_trace_has_the_last_failures(buffer: int, kept: int) -> None:
    """As many as `event_buffer`, one at least; its headline tells of the rest."""
    group = Dynamic(event_buffer=buffer)
    async with watched(group) as root:
        for number in range(10):
            await group.client().insert((str(number), fails))
            await wait_all_tasks_blocked()
        group.client().close()
        trace = await trace_of(root)
        assert trace.message == f"10 of 10 members failed, here the last {kept}"
        assert len(trace.exceptions) == kept
        assert [exit.path for exit in trace.exits] == [str(number) for number in range(10)][-kept:]


async def test_failure_is_told_with_its_exit_though_many_ended_well_since() -> None:
    """Exits that were not kept, but failed, come first, so that the trace can name who it was."""
    group = Dynamic(event_buffer=2)
    async with watched(group) as root:
        for name in ["bad", "x", "y", "z"]:
            await group.client().insert(
                Member(name, fails if name == "bad" else returns, role=Role.SERVICE if name == "bad" else Role.JOB)
            )
            await wait_all_tasks_blocked()
        group.client().close()
        trace = await trace_of(root)
        assert [exit.path for exit in trace.exits] == ["bad", "y", "z"]
        assert "  bad: OSError: gone  <- first" in str(trace)


# Entrances and exits


async def test_entrance_has_member_and_process() -> None:
    """And is an event like those of `process.events()`."""
    group = Dynamic()
    async with watched(Ordered([("pool", group)])), group.client().entrances() as stream:
        process = await group.client().insert(("a", service))
        event = await anext(stream)
        assert isinstance(event, grouper.EntranceEvent)
        assert (event.path, event.time, event.member, event.process) == ("pool/a", process.ready_at, process.member, process)


async def test_exit_has_member_process_and_exit() -> None:
    """And is an event like those of `process.events()`."""
    group = Dynamic()
    async with watched(Ordered([("pool", group)])), group.client().exits() as stream:
        process = await group.client().insert(("a", fails))
        event = await anext(stream)
        assert isinstance(event, grouper.ExitEvent)
        assert (event.path, event.exit, event.member, event.process) == ("pool/a", process.exit, process.member, process)


async def test_late_stream_begins_with_the_groups_own_last() -> None:
    """`event_buffer` of entrances, and as many exits."""
    group = Dynamic(event_buffer=2)
    client = group.client()
    async with watched(group):
        for name in "abc":
            await client.insert((name, service))
            await wait_all_tasks_blocked()
        async with client.entrances() as entrances, client.exits() as exits:
            for name in "abc":
                await client.remove(name)
            assert await names(entrances, 2) == ["b", "c"]
            assert await names(exits, 3) == ["a", "b", "c"]
        async with client.exits() as late:
            assert await names(late, 2) == ["b", "c"]


async def test_stream_may_be_opened_before_the_run() -> None:
    """It tells of the run from its first member on."""
    group = Dynamic(event_buffer=0)
    async with group.client().entrances() as entrances, group.client().exits() as exits, watched(group):
        await group.client().insert(("a", service))
        assert await names(entrances, 1) == ["a"]
        await group.client().remove("a")
        assert await names(exits, 1) == ["a"]


async def test_entrances_end_when_nobody_can_enter_any_more() -> None:
    """A closed group's stream ends once all that run are ready, and not before."""
    group = Dynamic()
    client = group.client()
    slow = Puppet("slow", ready=False)
    told: list[str] = []

    async def listen() -> None:
        async with client.entrances() as stream:
            told.extend(await names_of(stream))
            told.append("end")

    async def names_of(stream: EventStream[Process, MemberEntrance]) -> list[str]:
        return [event.member.name async for event in stream]

    async with watched(group) as root, trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await client.insert(("quick", service))
        await client.insert(("slow", slow))
        client.close()
        await wait_all_tasks_blocked()
        assert told == []
        slow.go.set()
        await wait_all_tasks_blocked()
        assert told == ["quick", "slow", "end"]
        assert root.exit is None
        root.signal(TERM)


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_entrances_end_though_one_was_never_ready(end: Callable[[Process, grouper.Client], object]) -> None:
    """The end of the member that still started ends the stream."""
    group = Dynamic()
    client = group.client()
    async with watched(group) as root, client.entrances() as stream:
        process = await client.insert(("a", never_ready))
        await wait_all_tasks_blocked()
        end(root, client)
        process.signal(TERM)
        assert await names(stream) == []


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_exits_end_with_the_group(end: Callable[[Process, grouper.Client], object]) -> None:
    """When the last member has ended."""
    group = Dynamic()
    client = group.client()
    async with watched(group) as root, client.exits() as stream:
        for name in "ab":
            await client.insert((name, service))
        end(root, client)
        root.signal(TERM)
        assert sorted(await names(stream)) == ["a", "b"]
        assert client._run is None


Open = Callable[[grouper.Client], Stream]
STREAMS: dict[str, Open] = {"entrances": lambda client: client.entrances(), "exits": lambda client: client.exits()}


@pytest.mark.parametrize("open_stream", STREAMS.values(), ids=STREAMS)
async def test_stream_of_an_earlier_run_ends(open_stream: Open) -> None:
    """A listener that reads on when the group runs a second time is told the end of the run that it listened to."""
    group = Dynamic()
    client = group.client()
    async with open_stream(client) as stream:
        async with watched(group):
            await client.insert(("a", service))
            await wait_all_tasks_blocked()
        async with watched(group):
            await client.insert(("b", service))
            assert await names(stream) == ["a"]


@pytest.mark.parametrize("open_stream", STREAMS.values(), ids=STREAMS)
async def test_later_run_tells_of_its_own_members_only(open_stream: Open) -> None:
    """What happened in an earlier run is not replayed."""
    group = Dynamic()
    client = group.client()
    for name in "ab":
        async with watched(group):
            await client.insert((name, service))
            await wait_all_tasks_blocked()
            await client.remove(name)
            async with open_stream(client) as stream:
                assert await names(stream, 1) == [name]
