"""What a dynamic group and its client promise (section 1.8 of the contract)."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Client, DuplicateNames, Dynamic, GroupClosed, Member, Parallel, Process, State

from .runners import Stage, ended, names, trace_of, watched


async def end(client: Client, process: Process, stage: Stage) -> grouper.Exit:
    """Close the group, let all its members exit, and return how it ended."""
    client.close()
    for actor in stage:
        if client.get(actor.name) is not None:
            actor.exit()
    return await ended(process)


@pytest.mark.contract("46")
async def test_46_dynamic_starts_empty_and_ready_and_stays() -> None:
    """With no members the group is ready at once and stays up until it is closed or told to stop."""
    group = Dynamic()
    async with watched(group) as process:
        await process.wait_ready()
        await trio.sleep(1_000)
        assert (process.state, process.children) == (State.READY, ())


@pytest.mark.contract("47")
async def test_47_the_client_may_be_had_before_the_run() -> None:
    """The client exists as soon as the group does, and an insert through it waits for the run."""
    stage = Stage("a", ready=True, polite=True)
    group = Dynamic(3, event_buffer=5, termination_signal=signal.SIGINT)
    client = group.client()
    assert client is group.client()
    inserted: list[Process] = []

    async def insert() -> None:
        inserted.append(await client.insert(("a", stage["a"])))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(insert)
        await wait_all_tasks_blocked()
        assert inserted == []
        async with watched(group):
            await wait_all_tasks_blocked()
            assert inserted == [client.get("a")]
            assert stage["a"].runs == 1


@pytest.mark.contract("48")
async def test_48_an_insert_waits_while_the_group_is_full() -> None:
    """While as many members run as the capacity says, an insert waits; it goes on when an exit was processed."""
    stage = Stage("abc", ready=True)
    group = Dynamic(2)
    client = group.client()

    async def insert(name: str) -> None:
        await client.insert((name, stage[name]))

    async with watched(group) as process, trio.open_nursery() as nursery:
        await insert("a")
        await insert("b")
        nursery.start_soon(insert, "c")
        assert await stage.news() == ["a starts", "b starts"]
        stage["a"].exit()
        assert await stage.news() == ["a exits", "c starts"]
        assert (await end(client, process, stage)).ok


@pytest.mark.contract("49")
async def test_49_no_capacity_is_no_limit() -> None:
    """A group without a capacity takes any number of members without waiting."""
    stage = Stage(polite=True)
    group = Dynamic(None)
    client = group.client()
    async with watched(group) as process:
        await process.wait_ready()
        for number in range(1_000):
            client.insert_nowait((f"m{number}", stage.add(f"m{number}", polite=True)))
        assert len(process.children) == 1_000
    assert sum(actor.runs for actor in stage) == 1_000


@pytest.mark.contract("49")
@pytest.mark.parametrize("capacity", [0, -1])
def test_49_a_capacity_without_room_is_refused(capacity: int) -> None:
    """Zero and below are no capacities."""
    with pytest.raises(ValueError, match="capacity"):
        Dynamic(capacity)


def close(client: Client, process: Process) -> None:
    client.close()


def stop(client: Client, process: Process) -> None:
    process.signal(signal.SIGTERM)


CLOSINGS = pytest.mark.parametrize("closing", [close, stop])
Closing = Callable[[Client, Process], None]


@pytest.mark.contract("50")
@CLOSINGS
async def test_50_an_insert_into_a_closed_group_raises(closing: Closing) -> None:
    """After a close or a stop signal an insert raises GroupClosed, at once, and so does one that was waiting for room."""
    stage = Stage("abc", ready=True)
    group = Dynamic(1)
    client = group.client()
    refused: list[str] = []

    async def insert(name: str) -> None:
        try:
            await client.insert((name, stage[name]))
        except GroupClosed:
            refused.append(name)

    async with watched(group) as process, trio.open_nursery() as nursery:
        await insert("a")
        nursery.start_soon(insert, "b")
        await stage.news()
        assert refused == []
        closing(client, process)
        await wait_all_tasks_blocked()
        assert refused == ["b"]
        await insert("c")
        assert refused == ["b", "c"]
        with pytest.raises(GroupClosed):
            client.insert_nowait(("c", stage["c"]))
        await end(client, process, stage)
    assert stage["b"].runs == stage["c"].runs == 0


@pytest.mark.contract("51")
async def test_51_a_closed_group_ends_when_its_members_have() -> None:
    """`close()` takes no more members and tells nobody anything; a second one does nothing; the last exit ends the group."""
    stage = Stage("ab", ready=True)
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        for member in stage.members():
            await client.insert(member)
        await stage.set_out()
        client.close()
        client.close()
        stage["a"].exit()
        assert await stage.news() == ["a exits"]
        assert process.exit is None
        stage["b"].exit()
        assert (await ended(process)).ok
        client.close()


@pytest.mark.contract("52")
async def test_52_every_stop_signal_goes_to_every_running_member() -> None:
    """A stop signal closes the group; each one sent, equal ones too, goes to all that run, also those not ready."""
    stage = Stage("ab")
    stage["a"].ready = True
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        for member in stage.members():
            await client.insert(member)
        await stage.set_out()
        for _ in range(3):
            process.signal(signal.SIGINT)
        await stage.news()
        assert [actor.heard for actor in stage] == [[signal.SIGINT] * 3] * 2
        with trio.fail_after(1):
            await client.wait_closed()
        await end(client, process, stage)


@pytest.mark.contract("52")
async def test_52_a_pass_through_signal_leaves_the_group_open() -> None:
    """Other signals go to all running members, and more members may come."""
    stage = Stage("ab", ready=True, polite=True)
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        await client.insert(("a", stage["a"]))
        process.signal(signal.SIGHUP)
        assert await stage.news() == ["a starts", "a SIGHUP"]
        await client.insert(("b", stage["b"]))
        assert await stage.news() == ["b starts"]


@pytest.mark.contract("53")
@pytest.mark.parametrize("fails", [False, True])
async def test_53_with_a_termination_signal_an_exit_stops_the_group(fails: bool) -> None:
    """The first exit of a member sends the termination signal to the others, once, and closes the group."""
    stage = Stage("abc", ready=True)
    group = Dynamic(termination_signal=signal.SIGQUIT)
    client = group.client()
    async with watched(group) as process:
        for member in stage.members():
            await client.insert(member)
        await stage.set_out()
        stage["b"].exit(ValueError("broken") if fails else None)
        assert sorted(await stage.news()) == ["a SIGQUIT", "b exits", "c SIGQUIT"]
        stage["a"].exit()
        assert await stage.news() == ["a exits"]
        with pytest.raises(GroupClosed):
            await client.insert(("d", stage["b"]))
        await end(client, process, stage)


@pytest.mark.contract("53")
@pytest.mark.parametrize("fails", [False, True])
async def test_53_without_a_termination_signal_members_come_and_go(fails: bool) -> None:
    """By default an exit, clean or not, does nothing to the other members and leaves the group open."""
    stage = Stage("abc", ready=True)
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        await client.insert(("a", stage["a"]))
        await client.insert(("b", stage["b"]))
        await stage.set_out()
        stage["b"].exit(ValueError("broken") if fails else None)
        assert await stage.news() == ["b exits"]
        await client.insert(("c", stage["c"]))
        assert await stage.news() == ["c starts"]
        assert process.exit is None
        await end(client, process, stage)


async def three_that_came_and_went(client: Client, stage: Stage) -> None:
    for member in stage.members():
        await client.insert(member)
        await stage.news()
        stage[member.name].exit()
        await stage.news()


@pytest.mark.contract("54")
async def test_54_a_late_listener_is_told_the_last_events() -> None:
    """A new listener begins with the last `event_buffer` events, oldest first; those before them are forgotten."""
    stage = Stage("abc", ready=True)
    group = Dynamic(event_buffer=2)
    client = group.client()
    async with watched(group):
        await three_that_came_and_went(client, stage)
        async with client.entrances() as entrances, client.exits() as exits:
            client.close()
            assert [event.path async for event in entrances] == ["b", "c"]
            assert [event.path async for event in exits] == ["b", "c"]


@pytest.mark.contract("55")
async def test_55_events_are_in_the_order_of_what_happened() -> None:
    """Entrances are told in the order in which members became ready, exits in the order in which they ended."""
    stage = Stage("abc")
    group = Dynamic()
    client = group.client()
    async with watched(group), client.entrances() as entrances, client.exits() as exits:
        for member in stage.members():
            await client.insert(member)
        await stage.news()
        for name in "cab":
            stage[name].make_ready()
            await stage.news()
        for name in "bca":
            stage[name].exit()
            await stage.news()
        client.close()
        assert [event.path async for event in entrances] == ["c", "a", "b"]
        assert [event.path async for event in exits] == ["b", "c", "a"]


@pytest.mark.contract("56")
async def test_56_without_a_buffer_nothing_is_replayed_and_nobody_waits() -> None:
    """With `event_buffer=0` a late listener is told nothing old; one that is there gets all, and the group waits for none."""
    stage = Stage("abc", ready=True)
    group = Dynamic(event_buffer=0)
    client = group.client()
    async with watched(group), client.exits() as early:
        await three_that_came_and_went(client, stage)
        async with client.exits() as late:
            client.close()
            assert [event.path async for event in late] == []
        assert [event.path async for event in early] == ["a", "b", "c"]


@pytest.mark.contract("57")
@pytest.mark.parametrize("last", ["is ready", "exits"])
async def test_57_entrances_end_before_exits_do(last: str) -> None:
    """Entrances end once the group is closed and no member is still starting, exits when the group has ended."""
    stage = Stage("ab")
    stage["a"].ready = True
    group = Dynamic()
    client = group.client()
    over: list[str] = []

    async def listen_to_entrances() -> None:
        async with client.entrances() as stream:
            async for _ in stream:
                pass
        over.append("entrances")

    async def listen_to_exits() -> None:
        async with client.exits() as stream:
            async for _ in stream:
                pass
        over.append("exits")

    async with watched(group) as process, trio.open_nursery() as nursery:
        nursery.start_soon(listen_to_entrances)
        nursery.start_soon(listen_to_exits)
        for member in stage.members():
            await client.insert(member)
        client.close()
        await stage.news()
        assert over == []
        if last == "is ready":
            stage["b"].make_ready()
        else:
            stage["b"].exit()
        await stage.news()
        assert over == ["entrances"]
        await end(client, process, stage)
        assert over == ["entrances", "exits"]


@pytest.mark.contract("57")
async def test_57_a_listener_that_comes_after_the_end_gets_the_replay() -> None:
    """After the group's end a new listener is told the last events, and ends."""
    stage = Stage("abc", ready=True)
    group = Dynamic(event_buffer=2)
    client = group.client()
    async with watched(group):
        await three_that_came_and_went(client, stage)
        client.close()
    with trio.fail_after(1):
        async with client.entrances() as entrances, client.exits() as exits:
            assert [event.path async for event in entrances] == ["b", "c"]
            assert [event.path async for event in exits] == ["b", "c"]


@pytest.mark.contract("58")
@CLOSINGS
async def test_58_that_the_group_is_closed_is_told_to_all_who_wait(closing: Closing) -> None:
    """`wait_closed()` returns to any number of waiters once the group was closed or told to stop, and at once after that."""
    group = Dynamic()
    client = group.client()
    told: list[str] = []

    async def wait() -> None:
        await client.wait_closed()
        told.append("closed")

    async with watched(group) as process, trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await process.wait_ready()
        await wait_all_tasks_blocked()
        assert told == []
        closing(client, process)
        await wait_all_tasks_blocked()
        assert told == ["closed"] * 2
        await wait()


@pytest.mark.contract("59")
async def test_59_get_knows_the_running_members_and_never_waits() -> None:
    """`get` is a plain function: the process of a running member, and None for any other name, before and after the run too."""
    stage = Stage("a", ready=True)
    group = Dynamic()
    client = group.client()
    assert client.get("a") is None
    async with watched(group) as process:
        member = await client.insert(("a", stage["a"]))
        await stage.news()
        assert client.get("a") is member
        assert client.get("b") is None
        stage["a"].exit()
        await stage.news()
        assert client.get("a") is None
        await end(client, process, stage)
    assert client.get("a") is None


@pytest.mark.contract("60")
async def test_60_events_carry_the_member_and_how_it_ended() -> None:
    """An entrance has the member and its process; an exit these and the `Exit`, with the error."""
    stage = Stage("a", ready=True)
    group = Dynamic()
    client = group.client()
    member = Member("a", stage["a"])
    error = ValueError("broken")
    async with watched(group):
        process = await client.insert(member)
        await stage.news()
        stage["a"].exit(error)
        await stage.news()
        client.close()
        async with client.entrances() as entrances, client.exits() as exits:
            (entrance,) = [event async for event in entrances]
            assert (entrance.member, entrance.process) == (member, process)
            (exit,) = [event async for event in exits]
            assert (exit.member, exit.process, exit.exit.error) == (member, process, error)


@pytest.mark.contract("61")
async def test_61_a_name_is_free_again_after_its_members_exit() -> None:
    """A name that is taken while its member runs can be given to another one afterwards."""
    stage = Stage("a", ready=True)
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        first = await client.insert(("a", stage["a"]))
        await stage.news()
        with pytest.raises(DuplicateNames):
            await client.insert(("a", stage["a"]))
        stage["a"].exit()
        await stage.news()
        second = await client.insert(("a", stage["a"]))
        assert await stage.news() == ["a starts"]
        assert client.get("a") is second is not first
        await end(client, process, stage)


@pytest.mark.contract("62")
async def test_62_a_dynamic_group_raises_the_last_failures() -> None:
    """Failures of members are raised at the end as in any group, the last `event_buffer` of them, and the text counts all."""
    stage = Stage("abcd", ready=True)
    group = Dynamic(event_buffer=2)
    client = group.client()
    async with watched(group) as process:
        for member in stage.members():
            await client.insert(member)
            await stage.news()
            stage[member.name].exit(ValueError(member.name) if member.name != "b" else None)
            await stage.news()
        assert process.exit is None
        trace = trace_of(await end(client, process, stage))
        assert [str(error) for error in trace.exceptions] == ["c", "d"]
        assert names(trace.exits) == ["c", "d"]
        assert "3 of 4" in str(trace)


@pytest.mark.contract("62")
async def test_62_a_dynamic_member_of_a_group_fails_like_any_other() -> None:
    """The group around a dynamic group sees its failure: it stops and raises it in its own trace."""
    stage = Stage("ab", ready=True, polite=True)
    dynamic = Dynamic()
    async with watched(Parallel([("guests", dynamic), ("b", stage["b"])])) as process:
        await process.wait_ready()
        await dynamic.client().insert(("a", stage["a"]))
        await stage.set_out()
        stage["a"].exit(ValueError("broken"))
        await stage.news()
        dynamic.client().close()
        (inner,) = trace_of(await ended(process)).exceptions
        assert isinstance(inner, grouper.ErrorTrace)
        assert [str(error) for error in inner.exceptions] == ["broken"]
        assert stage["b"].heard == [signal.SIGTERM]
