"""A lock that programs share: one holder at a time, in order of arrival, with a token that rises."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import ErrorTrace, Ordered, Process, State
from grouper.coordination import InvalidName, Lock, LockLost, MemoryStore, Store, Unavailable
from grouper.coordination.owning import WITHDRAW_WITHIN
from tests.groups.members import Cast, service, watched

from .faulty import GONE, FaultyStore
from .meeting import Meeting

LOCK = "lock"


async def queue(store: MemoryStore) -> int:
    """How many hold the lock or wait for it, as another process sees them."""
    return len(await store.process().entries(LOCK, "leader"))


class Holder:
    """Waits for the lock in a task of its own, and holds it until it is told to release it."""

    def __init__(self, store: Store, log: list[str], name: str) -> None:
        self.store = store
        self.log = log
        self.name = name
        self.token = 0
        self.release = trio.Event()
        self.scope = trio.CancelScope()
        self.error: BaseException | None = None

    async def live(self) -> None:
        with self.scope:
            try:
                async with Lock(self.store, "leader").hold() as self.token:
                    self.log.append(f"+{self.name}")
                    try:
                        await self.release.wait()
                    finally:
                        self.log.append(f"-{self.name}")
            except Exception as error:
                self.error = error


@contextlib.asynccontextmanager
async def holders(*stores: Store) -> AsyncGenerator[tuple[list[Holder], list[str]]]:
    """One holder for each store, that came in this order; what they do is logged."""
    log: list[str] = []
    async with trio.open_nursery() as nursery:
        made = [Holder(store, log, "abcdef"[number]) for number, store in enumerate(stores)]
        for each in made:
            nursery.start_soon(each.live)
            await wait_all_tasks_blocked()
        yield made, log
        nursery.cancel_scope.cancel()


def processes(n: int) -> tuple[FaultyStore, list[FaultyStore]]:
    """A store to look with, and others to hold with."""
    store = FaultyStore()
    return store, [store.process() for _ in range(n)]


# One holder after the other


async def test_lock_is_held_for_the_time_of_a_block(meeting: Meeting) -> None:
    """Then nobody is in its queue."""
    lock = Lock(meeting.store, "leader")
    async with lock.hold() as token:
        (entry,) = await meeting.store.entries(LOCK, "leader")
        assert entry.token == token
    assert await meeting.store.entries(LOCK, "leader") == ()


async def test_lock_goes_from_program_to_program(meeting: Meeting) -> None:
    """When it is released, the one that waits has it, with a higher token."""
    tokens: list[int] = []

    async def wait() -> None:
        async with Lock(meeting.handle(), "leader").hold() as token:
            tokens.append(token)

    store = meeting.store
    async with trio.open_nursery() as nursery, store.watch_entries(LOCK, "leader") as queue, Lock(store, "leader").hold() as token:
        nursery.start_soon(wait)
        while len(await anext(queue)) < 2:
            pass
        assert tokens == []
    assert len(tokens) == 1
    assert tokens[0] > token


async def test_lock_of_a_killed_program_goes_to_who_waits(meeting: Meeting) -> None:
    """Nobody has to release it."""
    async with meeting.other(LOCK, "leader", "other") as other:
        (entry,) = await meeting.store.entries(LOCK, "leader")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.die)
            async with Lock(meeting.store, "leader").hold() as token:
                assert token > entry.token


async def test_lock_is_held_in_order_of_arrival() -> None:
    """One at a time, with rising tokens."""
    _, stores = processes(4)
    async with holders(*stores) as (all_holders, log):
        for each in all_holders:
            each.release.set()
            await wait_all_tasks_blocked()
        assert log == ["+a", "-a", "+b", "-b", "+c", "-c", "+d", "-d"]
        tokens = [each.token for each in all_holders]
        assert tokens == sorted(set(tokens))


async def test_a_death_is_followed_by_one_takeover() -> None:
    """The first of those that wait has it; the others wait on."""
    _, (a, b, c) = processes(3)
    async with holders(a, b, c) as (_, log):
        a.die()
        await wait_all_tasks_blocked()
        assert sorted(log) == ["+a", "+b", "-a"]


async def test_tasks_of_one_process_have_places_of_their_own() -> None:
    """Also those that share what `hold` returned."""
    store = FaultyStore()
    hold = Lock(store, "leader").hold()
    inside: list[int] = []
    tokens: list[int] = []

    async def work() -> None:
        async with hold as token:
            inside.append(token)
            assert len(inside) == 1
            await trio.sleep(1)
            tokens.append(inside.pop())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(work)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 5
    assert await queue(store) == 0


async def test_locks_of_different_names_are_different() -> None:
    """One can have both."""
    store = FaultyStore()
    async with Lock(store, "a").hold(), Lock(store, "ab").hold():
        pass


async def test_what_the_block_raises_comes_out_bare() -> None:
    """And the lock is released."""
    store = FaultyStore()
    with pytest.raises(ValueError, match="no good"):
        async with Lock(store, "leader").hold():
            raise ValueError("no good")
    assert await queue(store) == 0


async def test_lock_is_held_until_a_cancelled_block_has_cleaned_up() -> None:
    """Who comes next finds all in order."""
    _, (a, b) = processes(2)
    log: list[str] = []

    async def work() -> None:
        async with Lock(a, "leader").hold():
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(60)
                    log.append("cleaned up")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            async with Lock(b, "leader").hold():
                log.append("next")
    assert log == ["cleaned up", "next"]


# The queue


async def test_cancelled_wait_leaves_nothing_in_the_queue() -> None:
    """Whoever came after goes on."""
    store, (a, b, c) = processes(3)
    async with holders(a, b, c) as (all_holders, log):
        all_holders[1].scope.cancel()
        await wait_all_tasks_blocked()
        assert await queue(store) == 2
        all_holders[0].release.set()
        await wait_all_tasks_blocked()
        assert log == ["+a", "-a", "+c"]


async def test_place_that_is_taken_away_is_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    """At the end of the queue; the log is told."""
    _, (a, b, c) = processes(3)
    async with holders(a, b, c) as (all_holders, log):
        b.die()
        await trio.sleep(10)
        assert all_holders[1].error is None
        for each in all_holders:
            each.release.set()
        await trio.sleep(10)
        assert log == ["+a", "-a", "+c", "-c", "+b", "-b"]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "lock 'leader': the place in its queue was taken away: it is queued for again, at the end"
    ]


async def test_place_that_somebody_removes_is_taken_again() -> None:
    """As one that the store took."""
    store, (a, b) = processes(2)
    async with holders(a, b) as (all_holders, log):
        _, entry = await store.entries(LOCK, "leader")
        await store.withdraw(LOCK, entry)
        await trio.sleep(10)
        assert await queue(store) == 2
        all_holders[0].release.set()
        await wait_all_tasks_blocked()
        assert log == ["+a", "-a", "+b"]


@pytest.mark.parametrize("verb", ["register", "watch_entries"])
async def test_unavailable_store_is_tried_again_while_waiting(verb: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log is told once of the outage, and once of its end."""
    caplog.set_level(logging.INFO, "grouper")
    _, (a, b) = processes(2)
    b.fail(verb)
    async with holders(a, b) as (all_holders, log):
        all_holders[0].release.set()
        await trio.sleep(600)
        assert log == ["+a", "-a"]
        assert 100 <= b.calls.count(verb) <= 300
        b.recover()
        await trio.sleep(10)
        assert log == ["+a", "-a", "+b"]
    assert [record.getMessage() for record in caplog.records] == [
        f"lock 'leader' is held up: {GONE}",
        "lock 'leader' goes on: the store is available again",
    ]


async def test_place_is_kept_in_an_outage() -> None:
    """What comes after it stays after it."""
    _, (a, b, c) = processes(3)
    async with holders(a, b, c) as (all_holders, log):
        b.fail("watch_entries", "register")
        b.cut()
        all_holders[0].release.set()
        await trio.sleep(60)
        assert log == ["+a", "-a"]
        b.recover()
        await trio.sleep(10)
        assert log == ["+a", "-a", "+b"]


async def test_wait_is_cancelled_in_an_outage() -> None:
    """At once, and cleanly."""
    store = FaultyStore()
    store.fail("register")
    with trio.move_on_after(100) as scope:
        async with Lock(store, "leader").hold():
            raise AssertionError("not held")
    assert scope.cancelled_caught
    assert trio.current_time() == 100


# The loss


async def test_block_is_cancelled_when_the_lock_is_lost() -> None:
    """LockLost names it."""
    _, (a,) = processes(1)
    with pytest.raises(LockLost, match="lock 'leader' is not held any more"):
        async with Lock(a, "leader").hold():
            a.die()
            await trio.sleep_forever()


async def test_lock_is_lost_although_its_queue_cannot_be_read() -> None:
    """The time that went by tells, or the store in another way."""
    _, (a,) = processes(1)
    with pytest.raises(LockLost):
        async with Lock(a, "leader").hold():
            a.fail("watch_entries")
            a.cut()
            await trio.sleep(60)
            a.die()
            await trio.sleep_forever()
    assert trio.current_time() == 60


async def test_lock_whose_entry_somebody_removed_is_lost() -> None:
    """As an operator may do."""
    store, (a,) = processes(1)
    with pytest.raises(LockLost):
        async with Lock(a, "leader").hold():
            (entry,) = await store.entries(LOCK, "leader")
            await store.withdraw(LOCK, entry)
            await trio.sleep_forever()


async def test_lock_that_was_lost_when_the_block_ended_is_told() -> None:
    """The end of the block may not have been protected by it."""
    store, (a,) = processes(1)
    with pytest.raises(LockLost):
        async with Lock(a, "leader").hold():
            (entry,) = await store.entries(LOCK, "leader")
            store._db.write(lambda db: db.execute("DELETE FROM entry WHERE token = ?", (entry.token,)))


async def test_loss_and_the_failure_of_its_block_both_come_out() -> None:
    """In a group."""
    store = FaultyStore()
    with pytest.raises(ExceptionGroup) as caught:
        async with Lock(store, "leader").hold():
            try:
                store.die()
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, LockLost]


async def test_outage_is_no_loss() -> None:
    """Only the store can tell that the lock is lost, and time: when it is back and says nothing, the lock is still held."""
    _, (a, b) = processes(2)
    async with holders(a, b) as (all_holders, log):
        a.fail("register", "watch_entries", "withdraw", "status")
        a.cut()
        await trio.sleep(600)
        a.recover()
        await trio.sleep(60)
        assert log == ["+a"]
        all_holders[0].release.set()
        await wait_all_tasks_blocked()
        assert log == ["+a", "-a", "+b"]
        assert all_holders[0].error is None


async def test_loss_in_an_outage_is_noticed_at_its_end() -> None:
    """Where the store did not tell before."""
    store, (a,) = processes(1)
    async with holders(a) as (all_holders, log):
        a.fail("watch_entries")
        a.cut()
        (entry,) = await store.entries(LOCK, "leader")
        await store.withdraw(LOCK, entry)
        await trio.sleep(60)
        assert log == ["+a"]
        a.recover()
        await trio.sleep(60)
        assert log == ["+a", "-a"]
        assert isinstance(all_holders[0].error, LockLost)


async def test_lock_that_could_not_be_released_is_told() -> None:
    """It stays in the queue, before all others."""
    store = FaultyStore()
    store.hangs.add("withdraw")
    with pytest.raises(Unavailable, match=r"lock 'leader' was not withdrawn, .* has not answered within 5 s"):
        async with Lock(store, "leader").hold():
            pass
    assert trio.current_time() == WITHDRAW_WITHIN


# In a tree


def leader(store: Store, cast: Cast) -> Ordered:
    """A server that exists only where the lock is held."""
    return Ordered([("lock", Lock(store, "leader")), *cast.pairs()])


def states(process: Process) -> list[State]:
    return [child.state for child in process.children]


async def test_server_starts_only_where_the_lock_is_held() -> None:
    """The standby's lock is starting, its server waits; the lock's value is the token."""
    _, (a, b) = processes(2)
    first, second = Cast("x"), Cast("y")
    async with watched(leader(a, first)) as process, watched(leader(b, second)) as standby:
        assert states(process) == [State.READY, State.READY]
        assert states(standby) == [State.STARTING, State.WAITING]
        process.signal(15)
        await wait_all_tasks_blocked()
        assert states(standby) == [State.READY, State.READY]
        assert process.children[0].value < standby.children[0].value
        assert first.log == ["+x", "SIGTERM x", "-x"]


async def test_lost_lock_stops_the_tree_in_reverse() -> None:
    """The server is told to stop, and LockLost is in the trace."""
    _, (a,) = processes(1)
    cast = Cast("xy")
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(leader(a, cast)):
            a.die()
            await trio.sleep_forever()
    assert [type(error) for error in caught.value.exceptions] == [LockLost]
    assert cast.log == ["+x", "+y", "SIGTERM y", "-y", "SIGTERM x", "-x"]


async def test_standby_is_stopped_cleanly() -> None:
    """It leaves the queue."""
    store, (a, b) = processes(2)
    async with holders(a), watched(Lock(b, "leader")) as process:
        assert process.state is State.STARTING
        process.signal(15)
        assert (await process.wait()).ok
        assert await queue(store) == 1


async def test_standby_without_a_store_is_stopped_cleanly() -> None:
    """Also in an outage that began in the queue, where it cannot leave it."""
    _, (a, b) = processes(2)
    async with holders(a), watched(Lock(b, "leader")) as process:
        b.fail("watch_entries", "register", "withdraw")
        b.cut()
        await trio.sleep(60)
        process.signal(15)
        assert (await process.wait()).ok


async def test_lock_is_released_at_once_when_it_is_told_to_stop() -> None:
    """After all that needs it has stopped."""
    store = FaultyStore()
    async with grouper.invoke(Ordered([("lock", Lock(store, "leader")), ("server", service)])) as process:
        pass
    assert process.exit is not None
    assert process.exit.ok
    assert trio.current_time() == 0
    assert await queue(store) == 0


async def test_lock_that_is_told_to_stop_before_it_began_does_not_queue() -> None:
    """Nothing is asked of the store."""
    store = FaultyStore()
    signals = grouper.Signals()
    signals.send(15)
    await Lock(store, "leader").run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert store.calls == []


async def test_lock_can_be_run_again() -> None:
    """It is a description; each run has a higher token."""
    lock = Lock(FaultyStore(), "leader")
    tokens: list[int] = []
    for _ in range(2):
        async with grouper.invoke(lock) as process:
            tokens.append(process.value)
    assert tokens[0] < tokens[1]


@pytest.mark.parametrize(("name", "error"), [("a/b", InvalidName), ("", InvalidName), (3, TypeError)])
def test_name_is_checked_when_the_lock_is_made(name: Any, error: type[Exception]) -> None:
    """As that of a group."""
    with pytest.raises(error, match="lock"):
        Lock(FaultyStore(), name)


def test_url_is_no_store() -> None:
    """The error says what makes one."""
    with pytest.raises(TypeError, match=r"Lock: 'sqlite:x' is not a store: open_store\(url\) makes one"):
        Lock("sqlite:x", "leader")  # type: ignore[arg-type]  # what is tested  # pyright: ignore[reportArgumentType]
