"""What lives as long as its owner, the same on every store."""

from __future__ import annotations

import pytest
import trio

from grouper.coordination import Entry, Exists

from .meeting import Meeting


async def test_entries_are_in_order_of_arrival(meeting: Meeting) -> None:
    """Their tokens rise, also after some have gone."""
    store = meeting.store
    async with store.owner():
        first = await store.register("lock", "leader", "a", "1")
        second = await store.register("lock", "leader", "b", "2")
        assert await store.entries("lock", "leader") == (first, second)
        assert await store.withdraw("lock", second)
        third = await store.register("lock", "leader", "b", "3")
        assert first.token < second.token < third.token
        assert (third.name, third.id, third.value) == ("leader", "b", "3")


async def test_withdrawn_entry_is_gone(meeting: Meeting) -> None:
    """A second time there is nothing to withdraw, also if another one has its id by then."""
    store = meeting.store
    async with store.owner():
        entry = await store.register("lock", "leader", "a", "")
        assert await store.withdraw("lock", entry)
        assert not await store.withdraw("lock", entry)
        again = await store.register("lock", "leader", "a", "")
        assert not await store.withdraw("lock", entry)
        assert await store.entries("lock", "leader") == (again,)


async def test_spaces_and_names_are_apart(meeting: Meeting) -> None:
    """A lock is no presence, and one name no other's prefix unless that is asked for."""
    store = meeting.store
    async with store.owner():
        for space, name in (("lock", "a"), ("lock", "ab"), ("presence", "a")):
            await store.register(space, name, "x", "")
        assert [entry.name for entry in await store.entries("lock", "a")] == ["a"]
        assert [entry.name for entry in await store.entries("lock", "a", by_prefix=True)] == ["a", "ab"]
        assert [entry.name for entry in await store.present()] == ["a"]


async def test_id_is_taken_once_under_a_name(meeting: Meeting) -> None:
    """For members, whose ids are chosen."""
    group = await meeting.group()
    async with meeting.store.owner():
        await meeting.store.register("member", group.name, "w1", "")
        with pytest.raises(Exists):
            await meeting.store.register("member", group.name, "w1", "")


async def test_watch_of_entries_begins_with_those_there_and_tells_changes(meeting: Meeting) -> None:
    """Those of other programs too."""
    store, other = meeting.store, meeting.handle()
    async with store.owner(), other.owner(), store.watch_entries("lock", "leader") as stream:
        assert await anext(stream) == ()
        first = await store.register("lock", "leader", "a", "")
        assert await anext(stream) == (first,)
        second = await other.register("lock", "leader", "b", "")
        assert await anext(stream) == (first, second)
        await store.withdraw("lock", first)
        assert await anext(stream) == (second,)


async def test_entries_of_a_killed_program_go_while_somebody_watches(meeting: Meeting) -> None:
    """Without any other change to the store."""
    async with meeting.other("lock", "leader", "a") as other, meeting.store.watch_entries("lock", "leader") as stream:
        assert [entry.id for entry in await anext(stream)] == ["a"]
        await other.die()
        assert await anext(stream) == ()


async def test_who_is_present_can_be_watched(meeting: Meeting) -> None:
    """By prefix, with their values."""
    async with meeting.store.watch_present("api-") as stream, meeting.store.owner():
        assert await anext(stream) == ()
        await meeting.store.register("presence", "web-1", "x", "")
        entry = await meeting.store.register("presence", "api-1", "x", "http://here")
        seen: tuple[Entry, ...] = ()
        while not seen:
            seen = await anext(stream)
        assert seen == (entry,)
        assert seen == await meeting.store.present("api-")
        assert seen[0].value == "http://here"


async def test_program_that_ends_its_blocks_owns_nothing(meeting: Meeting) -> None:
    """What it did not withdraw goes with it."""
    other = meeting.handle()
    async with meeting.store.watch_entries("lock", "leader") as stream:
        async with other.owner():
            await other.register("lock", "leader", "a", "")
        with trio.fail_after(10):
            while [entry.id for entry in await anext(stream)] != []:
                pass
        assert await meeting.store.entries("lock", "leader") == ()


async def test_block_of_an_owner_wraps_nothing(meeting: Meeting) -> None:
    """The exception of a body comes out as it is."""
    with pytest.raises(LookupError):
        async with meeting.store.owner():
            raise LookupError


async def test_cancelled_registration_leaves_nothing(meeting: Meeting) -> None:
    """Whenever it is cancelled."""
    async with meeting.store.owner():
        with trio.CancelScope() as scope:
            scope.cancel()
            await meeting.store.register("lock", "leader", "a", "")
            await trio.lowlevel.checkpoint()
        for entry in await meeting.store.entries("lock", "leader"):
            pytest.fail(f"{entry} was left")


async def test_watches_can_be_given_up_at_any_time(meeting: Meeting) -> None:
    """A cancelled wait loses no change: the next one tells it."""
    async with meeting.store.watch_entries("lock", "leader") as stream, meeting.store.owner():
        assert await anext(stream) == ()
        with trio.move_on_after(0.1) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        entry = await meeting.store.register("lock", "leader", "a", "")
        assert await anext(stream) == (entry,)
