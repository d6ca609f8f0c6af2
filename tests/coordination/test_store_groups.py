"""Wait groups, the same on every store."""

from __future__ import annotations

import pytest
import trio

from grouper.coordination import (
    Deleted,
    Exists,
    InvalidName,
    MemberLost,
    NotFound,
    Overflow,
    Phase,
    Underflow,
    WaitGroup,
    WaitGroupError,
)
from grouper.coordination.errors import MOST, TICKETS_AT_ONCE

from .meeting import Meeting


async def counter(group: WaitGroup) -> int:
    return (await group.status()).counter


async def test_new_group_counts_zero_and_is_done(meeting: Meeting) -> None:
    """Nothing was added: that is Done too, and it was never started."""
    group = await meeting.group()
    status = await group.status()
    assert (status.name, status.counter, status.phase, status.started) == ("batch", 0, Phase.DONE, False)
    assert (status.members, status.lost, status.ttl) == ((), 0, None)


async def test_create_with_a_count_is_one_step(meeting: Meeting) -> None:
    """The group is Waiting from its first instant."""
    group = await meeting.group(count=3)
    status = await group.status()
    assert (status.counter, status.phase, status.started) == (3, Phase.WAITING, True)


async def test_create_again_changes_nothing(meeting: Meeting) -> None:
    """The count of the second call is not added."""
    group = await meeting.group(count=3)
    assert not await group.create(count=5)
    assert await counter(group) == 3


async def test_create_with_another_ttl_is_an_error(meeting: Meeting) -> None:
    """It would be ignored otherwise; the group stays as it was."""
    group = await meeting.group(ttl=60)
    assert not await group.create(ttl=60)
    with pytest.raises(Exists, match=r"'batch'.*60 s"):
        await group.create(ttl=30)
    assert (await group.status()).ttl == 60


async def test_add_and_done_are_counted(meeting: Meeting) -> None:
    """By any number, in any program."""
    group = await meeting.group()
    other = meeting.handle()
    async with other:
        assert await group.add(10) == ()
        assert await other.waitgroup("batch").done()
        assert await group.done(4)
        assert await counter(other.waitgroup("batch")) == 5
        await other.waitgroup("batch").done(5)
    assert (await group.status()).phase is Phase.DONE


async def test_a_large_number_is_one_step(meeting: Meeting) -> None:
    """A million are no more than one, and can be settled one by one and many at a time."""
    group = await meeting.group()
    await group.add(1_000_000)
    await group.done()
    await group.done(999_990)
    assert await counter(group) == 9


async def test_done_without_a_ticket_is_an_underflow(meeting: Meeting) -> None:
    """Nothing is changed, also not in part."""
    group = await meeting.group(count=2)
    with pytest.raises(Underflow, match=r"'batch' has 2 tickets.*not 3"):
        await group.done(3)
    assert await counter(group) == 2
    await group.done(2)
    with pytest.raises(Underflow):
        await group.done()
    assert await counter(group) == 0


async def test_a_member_is_no_ticket_to_settle(meeting: Meeting) -> None:
    """`done` cannot take a member's place."""
    group = await meeting.group()
    async with group.member("w1"):
        with pytest.raises(Underflow):
            await group.done()
        assert await counter(group) == 1


async def test_more_than_an_int32_is_an_overflow(meeting: Meeting) -> None:
    """In one call and in sum; nothing is changed."""
    group = await meeting.group()
    with pytest.raises(Overflow):
        await group.add(MOST + 1)
    await group.add(MOST)
    with pytest.raises(Overflow, match=r"'batch'"):
        await group.add()
    assert await counter(group) == MOST


@pytest.mark.parametrize("n", [0, -1])
async def test_what_is_not_positive_is_refused(meeting: Meeting, n: int) -> None:
    """Add counts up and done counts down, each by one or more."""
    group = await meeting.group(count=1)
    with pytest.raises(ValueError, match="less than 1"):
        await group.add(n)
    with pytest.raises(ValueError, match="less than 1"):
        await group.done(n)
    assert await counter(group) == 1


async def test_what_is_no_number_is_refused(meeting: Meeting) -> None:
    """Before the store is asked."""
    group = meeting.store.waitgroup("batch")
    with pytest.raises(TypeError, match="'3' is not a whole number"):
        await group.add("3")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="not a whole number"):
        await group.done(True)
    with pytest.raises(ValueError, match="ttl=0"):
        await group.create(ttl=0)
    with pytest.raises(ValueError, match="expires_in=-1"):
        await group.add(expires_in=-1)
    with pytest.raises(ValueError, match="together with a ticket"):
        await group.done(2, ticket="x")
    with pytest.raises(ValueError, match=f"more than {TICKETS_AT_ONCE}"):
        await group.add(TICKETS_AT_ONCE + 1, tickets=True)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 254, "a\nb"])
async def test_a_name_that_nothing_can_have_is_refused(meeting: Meeting, name: str) -> None:
    """At once, by an error that says what a name may be."""
    with pytest.raises(InvalidName, match="wait group"):
        meeting.store.waitgroup(name)


@pytest.mark.parametrize("name", ["x" * 253, "größe 1", "a%2Fb", "team-a.batch'\"\\"])
async def test_any_other_name_is_a_name(meeting: Meeting, name: str) -> None:
    """The longest, and such as need quoting somewhere."""
    group = await meeting.group(name=name, count=1)
    await group.done()
    assert [status.name for status in await meeting.store.list()] == [name]


async def test_a_missing_group_is_told_at_once(meeting: Meeting) -> None:
    """By every verb but create and delete."""
    group = meeting.store.waitgroup("nothing")
    for call in (group.add, group.done, group.status, group.wait):
        with pytest.raises(NotFound, match=r"no wait group 'nothing'"):
            await call()
    with pytest.raises(NotFound):
        async with group.member():
            pytest.fail("nobody is a member of nothing")
    assert not await group.delete()


async def test_ticket_is_settled_once(meeting: Meeting) -> None:
    """The second call changes nothing, and says so; the others' tickets stay."""
    group = await meeting.group()
    first, second = await group.add(2, tickets=True)
    assert first != second
    assert await group.done(ticket=first)
    assert not await group.done(ticket=first)
    assert await counter(group) == 1
    assert await group.done(ticket=second)


async def test_done_settles_tickets_with_an_id_too(meeting: Meeting) -> None:
    """Any of those that nobody owns."""
    group = await meeting.group()
    tickets = await group.add(3, tickets=True)
    await group.done(2)
    assert sum([await group.done(ticket=ticket) for ticket in tickets]) == 1
    assert await counter(group) == 0


async def test_the_most_tickets_of_one_call(meeting: Meeting) -> None:
    """They fit into one step of every store, coming and going."""
    group = await meeting.group()
    assert len(set(await group.add(TICKETS_AT_ONCE, tickets=True, expires_in=60))) == TICKETS_AT_ONCE
    assert await counter(group) == TICKETS_AT_ONCE
    await group.done(TICKETS_AT_ONCE)
    assert await counter(group) == 0


async def test_unknown_ticket_changes_nothing(meeting: Meeting) -> None:
    """As one that was settled long ago."""
    group = await meeting.group(count=1)
    assert not await group.done(ticket="nobody's")
    assert await counter(group) == 1


async def test_a_call_with_its_token_is_made_once(meeting: Meeting) -> None:
    """Repeated, it returns what it returned, and changes nothing."""
    group = await meeting.group()
    await group.add(5, token="a")
    await group.add(5, token="a")
    assert await counter(group) == 5
    tickets = await group.add(2, tickets=True, token="b")
    assert await group.add(2, tickets=True, token="b") == tickets
    assert await counter(group) == 7
    assert await group.done(ticket=tickets[0], token="c")
    assert await group.done(ticket=tickets[0], token="c")
    assert not await group.done(ticket=tickets[0], token="d")
    assert await counter(group) == 6
    for _ in range(3):
        assert await group.done(3, token="e")
    assert await counter(group) == 3


async def test_a_token_is_for_one_call(meeting: Meeting) -> None:
    """To use it for another one is a mistake that would lose that one."""
    group = await meeting.group()
    await group.add(5, token="a")
    with pytest.raises(Exists, match="token 'a'"):
        await group.add(6, token="a")
    with pytest.raises(Exists, match="token 'a'"):
        await group.done(5, token="a")
    assert await counter(group) == 5


async def test_tickets_whose_time_runs_out_are_lost(meeting: Meeting) -> None:
    """They count no more, and are counted as lost, while somebody waits and nobody does anything."""
    group = await meeting.group()
    await group.add(3, expires_in=meeting.shortest)
    await group.done()
    status = await group.wait()
    assert (status.counter, status.lost) == (0, 2)


async def test_wait_at_zero_returns_at_once(meeting: Meeting) -> None:
    """Also if nothing was ever added."""
    group = await meeting.group()
    assert (await group.wait()).counter == 0


async def test_wait_ends_when_another_program_is_done(meeting: Meeting) -> None:
    """Not before the last one."""
    group = await meeting.group(count=2)
    other = meeting.handle()
    ended = trio.Event()

    async def waits() -> None:
        assert (await group.wait()).phase is Phase.DONE
        ended.set()

    async with other, group.watch() as statuses, trio.open_nursery() as nursery:
        assert (await anext(statuses)).counter == 2
        nursery.start_soon(waits)
        await other.waitgroup("batch").done()
        assert (await anext(statuses)).counter == 1
        assert not ended.is_set()
        await other.waitgroup("batch").done()
        await ended.wait()


async def test_wait_for_the_start_comes_before_the_first_add(meeting: Meeting) -> None:
    """The zero before it is not what was waited for."""
    group = await meeting.group()
    async with trio.open_nursery() as nursery:

        async def waits() -> None:
            assert (await group.wait(started=True)).started
            assert added

        added = False
        async with group.watch() as statuses:
            await anext(statuses)
            nursery.start_soon(waits)
            added = True
            await group.add()
            assert (await anext(statuses)).counter == 1
            await group.done()


async def test_wait_for_the_start_of_what_is_over_returns_at_once(meeting: Meeting) -> None:
    """It was started, and it is done."""
    group = await meeting.group(count=1)
    await group.done()
    assert (await group.wait(started=True)).counter == 0


async def test_group_can_be_used_again(meeting: Meeting) -> None:
    """By rounds: Done, Waiting, Done."""
    group = await meeting.group()
    for _ in range(3):
        await group.add(2)
        assert (await group.status()).phase is Phase.WAITING
        await group.done(2)
        assert (await group.wait()).phase is Phase.DONE


async def test_no_zero_is_missed(meeting: Meeting) -> None:
    """A done that is followed at once by an add ends the wait all the same."""
    group = await meeting.group(count=1)
    other = meeting.handle()
    async with other:
        for _ in range(10):
            ended, ready = trio.Event(), trio.Event()

            async def waits(ended: trio.Event = ended, ready: trio.Event = ready) -> None:
                async with group.watch() as statuses:
                    assert (await anext(statuses)).counter == 1
                    ready.set()
                    async for status in statuses:
                        if not status.counter:
                            break
                ended.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits)
                await ready.wait()
                await other.waitgroup("batch").done()
                await other.waitgroup("batch").add()
                await ended.wait()


async def test_a_watch_tells_each_zero_with_its_losses(meeting: Meeting) -> None:
    """Two rounds that both ended while nobody looked are two zeros."""
    group = await meeting.group(count=1)
    async with group.watch() as statuses:
        assert (await anext(statuses)).counter == 1
        for _ in range(2):
            await group.done()
            await group.add(2)
            await group.done()
        seen: list[int] = []
        while seen.count(0) < 2 or seen[-1] != 1:
            seen.append((await anext(statuses)).counter)
    assert seen.count(0) == 2


async def test_member_counts_while_its_block_runs(meeting: Meeting) -> None:
    """It is listed with where it is."""
    group = await meeting.group()
    async with group.member("w1") as entry:
        status = await group.status()
        assert (status.counter, status.members) == (1, (entry,))
        assert (entry.id, entry.name) == ("w1", "batch")
        assert entry.pid > 0
        assert entry.host
    assert (await group.status()).counter == 0


async def test_members_without_an_id_get_one(meeting: Meeting) -> None:
    """Any number of them."""
    group = await meeting.group()
    async with group.member() as one, group.member() as two:
        assert one.id != two.id
        assert await counter(group) == 2


async def test_id_of_a_member_is_its_own(meeting: Meeting) -> None:
    """A second one with that id is refused, until the first has left."""
    group = await meeting.group()
    async with group.member("w1"):
        with pytest.raises(Exists, match=r"'w1'"):
            async with group.member("w1"):
                pytest.fail("there cannot be two")
    async with group.member("w1"):
        assert await counter(group) == 1


async def test_member_of_a_killed_program_is_lost(meeting: Meeting) -> None:
    """The wait ends, without any other change to the store, and tells how many."""
    group = await meeting.group(count=1)
    async with meeting.other("member", "batch", "w1") as other, group.watch() as statuses:
        assert (await anext(statuses)).counter == 2
        await group.done()
        assert (await anext(statuses)).counter == 1
        await other.die()
        status = await anext(statuses)
    assert (status.counter, status.lost, status.members) == (0, 1, ())
    assert (await group.status()).lost == 1
    async with group.member("w1"):
        assert (await group.status()).lost == 0, "a new round"


async def test_losses_are_those_of_their_round(meeting: Meeting) -> None:
    """The next round begins with none; the last one can be asked for until then."""
    group = await meeting.group()
    await group.add(2, expires_in=meeting.shortest)
    assert (await group.wait()).lost == 2
    await group.add()
    assert (await group.status()).lost == 0
    await group.done()
    assert (await group.wait()).lost == 0


async def test_run_is_a_member_for_the_time_of_a_call(meeting: Meeting) -> None:
    """However it ends; its value and its error are the caller's."""
    group = await meeting.group()

    async def work(n: int) -> int:
        assert [member.id for member in (await group.status()).members] == ["w1"]
        return n + 1

    async def fail() -> None:
        raise LookupError

    assert await group.run(work, 1, id="w1") == 2
    with pytest.raises(LookupError):
        await group.run(fail)
    assert await counter(group) == 0


async def test_delete_removes_all_of_it(meeting: Meeting) -> None:
    """What is made anew has nothing of it; a second delete finds nothing."""
    group = await meeting.group(count=3, ttl=60)
    assert await group.delete()
    assert not await group.delete()
    assert await group.create()
    status = await group.status()
    assert (status.counter, status.ttl, status.started) == (0, None, False)


async def test_who_waits_for_a_deleted_group_is_told(meeting: Meeting) -> None:
    """Not Done, and no waiting on."""
    group = await meeting.group(count=1)
    async with group.watch() as statuses:
        await anext(statuses)
        await group.delete()
        with pytest.raises(Deleted, match="'batch'"):
            await anext(statuses)


async def test_who_waits_for_a_group_made_anew_is_told(meeting: Meeting) -> None:
    """It is another group, though it counts zero."""
    group = await meeting.group(count=1)
    async with group.watch() as statuses:
        await anext(statuses)
        await group.delete()
        await group.create()
        with pytest.raises(Deleted, match="'batch'"):
            await anext(statuses)


async def test_member_of_a_deleted_group_is_told(meeting: Meeting) -> None:
    """Its work may be whole, but nobody counts it."""
    group = await meeting.group()
    with pytest.raises(Deleted, match="'batch'"):
        async with group.member("w1"):
            await group.delete()


async def test_member_that_was_taken_away_is_told(meeting: Meeting) -> None:
    """Somebody else removed it."""
    group = await meeting.group()
    with pytest.raises((MemberLost, Deleted)):
        async with group.member("w1") as entry:
            await meeting.store.withdraw("member", entry)


async def test_group_is_removed_when_it_was_done_for_its_ttl(meeting: Meeting) -> None:
    """It is not there then, and can be made with another one."""
    group = await meeting.group(ttl=meeting.shortest)
    assert (await group.status()).ttl == meeting.shortest
    with trio.fail_after(20):
        async with group.watch() as statuses:
            with pytest.raises(Deleted):
                async for _ in statuses:
                    pass
    with pytest.raises(NotFound):
        await group.status()
    assert await group.create(ttl=60)


async def test_group_that_counts_something_has_no_ttl(meeting: Meeting) -> None:
    """What is added before the time is over keeps it; the time begins anew with the next zero."""
    group = await meeting.group(ttl=meeting.shortest)
    await group.add()
    await trio.sleep(meeting.shortest * 1.5)
    assert (await group.status()).counter == 1
    await group.done()
    assert (await group.status()).counter == 0


async def test_list_is_by_name(meeting: Meeting) -> None:
    """All, or those whose names begin so; a name that begins with another one's is not confused with it."""
    for name in ("b-2", "a", "b-1", "b-10"):
        await meeting.group(name=name, count=1)
    assert [status.name for status in await meeting.store.list()] == ["a", "b-1", "b-10", "b-2"]
    assert [status.name for status in await meeting.store.list("b-1")] == ["b-1", "b-10"]
    await meeting.store.waitgroup("b-1").delete()
    assert [(status.name, status.counter) for status in await meeting.store.list("b-1")] == [("b-10", 1)]


async def test_errors_have_one_base(meeting: Meeting) -> None:
    """So that a program can catch what a group could not do."""
    with pytest.raises(WaitGroupError):
        await meeting.store.waitgroup("nothing").status()


async def test_store_can_be_used_again_after_it_was_closed(meeting: Meeting) -> None:
    """It is opened when it is used."""
    store = meeting.handle()
    async with store:
        await store.waitgroup("batch").create(count=1)
    assert await counter(store.waitgroup("batch")) == 1
    await store.aclose()


async def test_waits_of_many_tasks_end_together(meeting: Meeting) -> None:
    """Each has its own view of the group."""
    group = await meeting.group(count=1)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(group.wait)
        await group.done()
