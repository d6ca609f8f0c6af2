"""Wait groups as sets of tickets (M1 to M12 of their contract)."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

import grouper
from grouper import ErrorTrace, Member, Ordered, Restarter, Signals
from grouper.coordination import (
    CoordinationError,
    Deleted,
    Exists,
    LockLost,
    MemberLost,
    MemoryStore,
    NotFound,
    Phase,
    Unavailable,
    Underflow,
    WaitGroup,
    WaitGroupError,
)
from grouper.runner import RunnerLike
from tests.cli.conftest import Command
from tests.coordination.meeting import AtUrl, Killable, Meeting


async def made(*, count: int = 0, ttl: float | None = None) -> tuple[MemoryStore, WaitGroup]:
    """A group that was just made, and the store that it is in."""
    store = MemoryStore()
    group = store.waitgroup("batch")
    await group.create(count=count, ttl=ttl)
    return store, group


async def counter(group: WaitGroup) -> int:
    return (await group.status()).counter


@pytest.mark.contract("waitgroup M1")
async def test_m01_the_counter_is_the_size_of_a_set(meeting: Meeting) -> None:
    """Whatever came in what way, and leaves by what way."""
    group = await meeting.group(count=3)
    ticket, _ = await group.add(2, tickets=True)
    await group.add(expires_in=3600)
    async with group.member("part1"):
        assert await counter(group) == 7
        await group.done(ticket=ticket)
        await group.done(4)
        assert await counter(group) == 2
    await group.done()
    assert await counter(group) == 0


@pytest.mark.contract("waitgroup M1")
@pytest.mark.real_time
async def test_m01_on_one_machine_what_nobody_owns_is_a_number(tmp_path: Path) -> None:
    """Of which no more is known; tickets and members have rows, and are counted there."""
    path = tmp_path / "store.db"
    meeting = AtUrl(f"sqlite:{path}")
    async with meeting.store:
        group = await meeting.group(count=1_000_000)
        await group.add(2, tickets=True)
        async with group.member():
            with closing(sqlite3.connect(path)) as tables:
                ((plain,),) = tables.execute("SELECT plain FROM waitgroup")
                ((tickets,),) = tables.execute("SELECT count(*) FROM ticket")
            assert (plain, tickets, await counter(group)) == (1_000_000, 2, 1_000_003)


@pytest.mark.contract("waitgroup M2")
async def test_m02_a_ticket_is_plain_or_a_member() -> None:
    """Plain ones may have a deadline; a member has an owner, who is told by name."""
    _, group = await made()
    await group.add(2)
    await group.add(expires_in=60)
    async with group.member("part1"):
        status = await group.status()
        assert (status.counter, [member.id for member in status.members]) == (4, ["part1"])
        await trio.sleep(60)
        status = await group.status()
        assert (status.counter, status.lost) == (3, 1)


@pytest.mark.contract("waitgroup M3")
@pytest.mark.parametrize("meeting", ["memory", pytest.param("sqlite", marks=pytest.mark.real_time)], indirect=True)
async def test_m03_a_member_lives_as_long_as_its_owner(meeting: Meeting) -> None:
    """Who waits learns of a death without anybody else doing anything."""
    group = await meeting.group()
    async with meeting.other("member", "batch", "part1") as other, group.watch() as statuses:
        assert (await anext(statuses)).counter == 1
        await other.die()
        status = await anext(statuses)
        assert (status.counter, status.lost) == (0, 1)


@pytest.mark.contract("waitgroup M3")
@pytest.mark.real_time
async def test_m03_on_one_machine_nobody_is_dead_who_is_only_slow(tmp_path: Path) -> None:
    """There are no leases there to run out: a process that is stopped is still the owner of what it owned."""
    meeting = AtUrl(f"sqlite:{tmp_path / 'store.db'}")
    async with meeting.store:
        group = await meeting.group()
        async with meeting.other("member", "batch", "part1") as other:
            assert isinstance(other, Killable)
            os.kill(other.process.pid, signal.SIGSTOP)
            assert await counter(group) == 1
            with closing(sqlite3.connect(tmp_path / "store.db")) as tables:
                columns = {row[1] for table in ("owner", "entry") for row in tables.execute(f"PRAGMA table_info({table})")}
            assert not columns & {"expires", "lease", "renewed"}
            os.kill(other.process.pid, signal.SIGCONT)


async def crashes(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await trio.sleep(1)
    raise RuntimeError("crash")


@pytest.mark.contract("waitgroup M4")
async def test_m04_a_worker_that_is_restarted_keeps_its_member() -> None:
    """The tree owns it, and is still responsible; when it gives up, the member has left, and is not lost."""
    store, group = await made()
    seen: list[tuple[int, int]] = []

    async def three_times(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        status = await store.process().waitgroup("batch").status()
        seen.append((status.counter, status.lost))
        return runner if len(seen) < 3 else None

    worker = Member("part1", Restarter(crashes, three_times), around=group.member("part1"))
    with pytest.raises(ErrorTrace):
        async with grouper.background(Ordered([worker])) as process:
            await process.wait()
    assert seen == [(1, 0)] * 3
    status = await group.status()
    assert (status.counter, status.lost) == (0, 0)


@pytest.mark.contract("waitgroup M5")
async def test_m05_done_settles_any_ticket_or_that_very_one(meeting: Meeting) -> None:
    """The latter once; what is not there is an Underflow, and changes nothing."""
    group = await meeting.group()
    mine, _ = await group.add(2, tickets=True)
    assert [await group.done(ticket=mine) for _ in range(2)] == [True, False]
    with pytest.raises(Underflow):
        await group.done(2)
    assert await group.done()
    assert await counter(group) == 0


@pytest.mark.contract("waitgroup M5")
async def test_m05_tickets_have_ids_where_that_is_asked_for() -> None:
    """A million of them have none, and are one step all the same."""
    _, group = await made()
    assert await group.add(1_000_000) == ()
    assert len(set(await group.add(50, tickets=True))) == 50
    with pytest.raises(ValueError, match="more than 50"):
        await group.add(51, tickets=True)


@pytest.mark.contract("waitgroup M6")
async def test_m06_a_call_with_a_token_is_made_once(meeting: Meeting) -> None:
    """However often it is repeated, it returns what it returned."""
    group = await meeting.group()
    tickets = await group.add(2, tickets=True, token="a")
    assert await group.add(2, tickets=True, token="a") == tickets
    assert [await group.done(token="b") for _ in range(3)] == [True] * 3
    assert await counter(group) == 1


@pytest.mark.contract("waitgroup M6")
async def test_m06_a_token_is_remembered_for_ten_minutes() -> None:
    """Then it is new."""
    _, group = await made()
    await group.add(token="a")
    await trio.sleep(599)
    await group.add(token="a")
    assert await counter(group) == 1
    await trio.sleep(2)
    await group.add(token="a")
    assert await counter(group) == 2


@pytest.mark.contract("waitgroup M6")
@pytest.mark.real_time
async def test_m06_on_one_machine_a_call_has_no_token_of_its_own(tmp_path: Path) -> None:
    """It is made, or it is not, and which is known. Only what the caller calls by a name is remembered."""
    meeting = AtUrl(f"sqlite:{tmp_path / 'store.db'}")
    async with meeting.store:
        group = await meeting.group()
        await group.add()
        await group.add(token="a")
        with closing(sqlite3.connect(tmp_path / "store.db")) as tables:
            assert list(tables.execute("SELECT token FROM op")) == [("a",)]


@pytest.mark.contract("waitgroup M6")
def test_m06_an_outcome_that_is_not_known_is_no_error_of_the_group() -> None:
    """Unavailable has the token to repeat the call with. It is a matter of the store, as a lost lock is."""
    assert Unavailable("no answer", "a").token == "a"
    assert issubclass(Unavailable, CoordinationError)
    assert issubclass(LockLost, CoordinationError)
    assert not issubclass(Unavailable, WaitGroupError)
    assert not issubclass(LockLost, WaitGroupError)


@pytest.mark.contract("waitgroup M7")
async def test_m07_done_is_that_it_counts_zero() -> None:
    """So is a new group; one that is made with its count never was."""
    _, group = await made()
    assert (await group.status()).phase is Phase.DONE
    _, group = await made(count=1)
    assert (await group.status()).phase is Phase.WAITING


@pytest.mark.contract("waitgroup M8")
async def test_m08_no_zero_is_missed(meeting: Meeting) -> None:
    """Not one that is over when the waiter looks."""
    group = await meeting.group(count=1)
    async with meeting.handle() as other, group.watch() as statuses:
        assert (await anext(statuses)).counter == 1
        for _ in range(10):
            await other.waitgroup("batch").done()
            await other.waitgroup("batch").add()
        zeros = 0
        while zeros < 10:
            zeros += not (await anext(statuses)).counter
        assert await counter(group) == 1


@pytest.mark.contract("waitgroup M9")
async def test_m09_what_was_lost_is_told_with_the_round() -> None:
    """The next round begins with none."""
    _, group = await made()
    await group.add(2, expires_in=60)
    assert (await group.wait()).lost == 2
    await group.add()
    assert (await group.status()).lost == 0
    await group.done()
    assert (await group.wait()).lost == 0


@pytest.mark.contract("waitgroup M9")
@pytest.mark.real_time
def test_m09_a_loss_is_no_plain_success(command: Command) -> None:
    """Unless the caller says that this is allowed."""
    command("create", "batch")
    command("add", "batch", "--for", "1ms")
    assert (command("wait", "batch").status, command("wait", "batch", "--allow-lost").status) == (5, 0)


@pytest.mark.contract("waitgroup M10")
async def test_m10_a_ttl_counts_from_done_and_an_add_ends_it() -> None:
    """What counts something stays for ever; each zero begins the time anew."""
    _, group = await made(ttl=60)
    await trio.sleep(59)
    await group.add()
    await trio.sleep(1000)
    assert await counter(group) == 1
    await group.done()
    await trio.sleep(59)
    assert await counter(group) == 0
    await trio.sleep(1)
    with pytest.raises(NotFound):
        await group.status()


@pytest.mark.contract("waitgroup M11")
async def test_m11_who_waits_for_a_deleted_group_is_told(meeting: Meeting) -> None:
    """It is not Done."""
    group = await meeting.group(count=1)
    async with group.watch() as statuses:
        await anext(statuses)
        await group.delete()
        with pytest.raises(Deleted):
            await anext(statuses)


@pytest.mark.contract("waitgroup M11")
async def test_m11_a_missing_group_is_told_at_once() -> None:
    """By all but create and delete, which are no error the second time; another ttl is one."""
    group = MemoryStore().waitgroup("batch")
    for call in (group.add, group.done, group.status, group.wait):
        with pytest.raises(NotFound):
            await call()
    with pytest.raises(NotFound):
        async with group.member():
            pytest.fail("nobody is a member of nothing")
    assert [await group.create(ttl=60), await group.create(ttl=60)] == [True, False]
    with pytest.raises(Exists):
        await group.create()
    assert [await group.delete(), await group.delete()] == [True, False]


@pytest.mark.contract("waitgroup M12")
async def test_m12_a_member_that_was_taken_away_is_told() -> None:
    """Its block is cancelled as soon as that is known, and MemberLost raised."""
    store, group = await made()
    with pytest.raises(MemberLost, match="'part1'"):
        async with group.member("part1"):
            store.die()
            await trio.sleep_forever()
    status = await group.status()
    assert (status.counter, status.lost) == (0, 1)


@pytest.mark.contract("waitgroup M12")
async def test_m12_a_member_that_ended_without_having_heard_of_it_is_told_too() -> None:
    """A worker that was paused until the end of its work."""
    store, group = await made()
    with pytest.raises(MemberLost):
        async with group.member():
            store.die()
