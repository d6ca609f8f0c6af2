"""A member of a wait group for the time of a block: whatever happens, it counts exactly as long as the block runs."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random

import pytest
import trio
from trio.testing import MockClock

from grouper.coordination import Deleted, Entry, Exists, InvalidName, Lock, MemberLost, NotFound, Overflow, Unavailable, WaitGroup
from grouper.coordination.owning import WITHDRAW_WITHIN, Membership
from tests.conftest import SCHEDULER
from tests.hard.injection import Injector, in_modules, moments
from tests.hard.scenario import leaves

from .faulty import GONE, FaultyStore
from .meeting import Meeting


async def faulty_group() -> tuple[FaultyStore, WaitGroup]:
    """A group that is there, in a store that can fail."""
    store = FaultyStore()
    group = store.waitgroup("batch")
    await group.create()
    return store, group


async def counts(store: FaultyStore) -> tuple[int, int]:
    """Counter and lost, as another process sees them."""
    status = await store.process().waitgroup("batch").status()
    return status.counter, status.lost


# The block


async def test_member_counts_while_its_block_runs(meeting: Meeting) -> None:
    """The block gets the entry, which names it."""
    group = await meeting.group()
    async with group.member("w1") as entry:
        assert (entry.name, entry.id) == ("batch", "w1")
        assert (await group.status()).members == (entry,)
    status = await group.status()
    assert (status.counter, status.lost) == (0, 0)


async def test_member_without_an_id_gets_one() -> None:
    """A different one each time it is entered, so that several tasks can share it."""
    _, group = await faulty_group()
    member = group.member()
    entries: list[Entry] = []

    async def work() -> None:
        async with member as entry:
            entries.append(entry)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work)
        await trio.sleep(0.5)
        assert (await group.status()).counter == 3
    assert len({entry.id for entry in entries}) == 3
    assert (await group.status()).counter == 0


async def test_member_can_be_entered_again() -> None:
    """One block after the other, also one inside the other if it has no id of its own."""
    _, group = await faulty_group()
    member = group.member("w1")
    for _ in range(2):
        async with member as entry:
            assert entry.id == "w1"
    nested = group.member()
    async with nested as outer, nested as inner:
        assert outer != inner
        assert (await group.status()).counter == 2
    assert (await group.status()).counter == 0
    assert isinstance(nested, Membership)
    assert nested._entered == {}, "no task is kept"


async def test_exception_of_the_block_comes_out_bare() -> None:
    """The very same one, and the member counts no more."""
    store, group = await faulty_group()
    error = ValueError("no good")
    with pytest.raises(ValueError, match="no good") as caught:
        async with group.member():
            raise error
    assert caught.value is error
    assert await counts(store) == (0, 0)


async def test_exception_group_of_the_block_comes_out_as_it_is() -> None:
    """It is not put into another one."""
    _, group = await faulty_group()
    error = ExceptionGroup("two", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with group.member():
            raise error
    assert caught.value is error


async def test_member_counts_until_a_cancelled_block_has_cleaned_up() -> None:
    """What it must still do is still its work."""
    store, group = await faulty_group()
    with trio.move_on_after(1) as scope:
        async with group.member():
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(60)
                    assert await counts(store) == (1, 0)
    assert scope.cancelled_caught
    assert await counts(store) == (0, 0)


async def test_run_calls_a_function_as_a_member() -> None:
    """It returns what the function returns."""
    _, group = await faulty_group()

    async def work(n: int) -> int:
        return (await group.status()).counter + n

    assert await group.run(work, 10, id="w1") == 11
    assert (await group.status()).counter == 0


async def test_block_left_by_another_task_is_an_error() -> None:
    """Trio's scopes could not stand it. The task that has entered it can still leave it."""
    store, group = await faulty_group()
    member = Membership(group, "w1")
    errors: list[str] = []

    async def leave() -> None:
        try:
            await member.__aexit__(None, None, None)
        except RuntimeError as error:
            errors.append(str(error))

    async with member, trio.open_nursery() as nursery:
        nursery.start_soon(leave)
    assert errors == [f"{member!r} is left by a task that has not entered it: enter and leave it in the same one"]
    assert repr(member) == "<Membership 'w1' of <WaitGroup 'batch' in memory:>>"
    assert await counts(store) == (0, 0)


# The start


async def test_what_registering_raises_comes_out_bare() -> None:
    """No group, an id that is taken, no store."""
    store, group = await faulty_group()
    with pytest.raises(NotFound):
        async with store.waitgroup("other").member():
            raise AssertionError("not entered")
    async with group.member("w1"):
        with pytest.raises(Exists):
            async with group.member("w1"):
                raise AssertionError("not entered")
    await group.add(2**31 - 1)
    with pytest.raises(Overflow):
        async with group.member():
            raise AssertionError("not entered")
    store.fail("register")
    with pytest.raises(Unavailable, match=GONE):
        async with group.member():
            raise AssertionError("not entered")


def test_id_is_checked_when_the_member_is_made() -> None:
    """As any name."""
    with pytest.raises(InvalidName):
        FaultyStore().waitgroup("batch").member("a/b")


async def test_nothing_stays_of_a_start_that_is_cancelled_while_the_store_does_not_answer() -> None:
    """And the block does not begin."""
    store, group = await faulty_group()
    store.hangs.add("register")
    with trio.move_on_after(1) as scope:
        async with group.member():
            raise AssertionError("not entered")
    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert await counts(store) == (0, 0)


class Slow(FaultyStore):
    """Registers although it is cancelled meanwhile, as a store does that is past the point of no return."""

    async def register(self, space: str, name: str, id: str, value: str) -> Entry:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
            return await super().register(space, name, id, value)
        raise AssertionError("a shield is not cancelled")


async def test_member_that_was_registered_although_cancelled_is_withdrawn() -> None:
    """Nothing stays."""
    store = Slow()
    group = store.waitgroup("batch")
    await group.create()
    with trio.move_on_after(1) as scope:
        async with group.member():
            raise AssertionError("not entered")
    assert scope.cancelled_caught
    assert store.calls == ["register", "withdraw"]
    assert await counts(store) == (0, 0)


# The loss


async def test_block_is_cancelled_when_the_member_is_taken_away() -> None:
    """MemberLost says which, and the store counts it as lost."""
    store, group = await faulty_group()
    cancelled = False
    with pytest.raises(MemberLost, match="member 'w1' of wait group 'batch' was taken away"):
        async with group.member("w1"):
            store.die()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled
    assert await counts(store) == (0, 1)


async def test_loss_and_the_failure_of_its_block_both_come_out() -> None:
    """What the block raises while it cleans up is not lost either."""
    store, group = await faulty_group()
    with pytest.raises(ExceptionGroup) as caught:
        async with group.member("w1"):
            try:
                store.die()
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, MemberLost]
    assert "member 'w1' of wait group 'batch'" in str(caught.value)


async def test_loss_while_a_cancelled_block_cleans_up_is_told() -> None:
    """A failure wins over a cancellation."""
    store, group = await faulty_group()
    with pytest.raises(MemberLost), trio.move_on_after(1):
        async with group.member("w1"):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    store.die()
                    await trio.sleep(10)


async def test_loss_that_shows_only_at_the_end_is_told() -> None:
    """The store says that there was nothing to withdraw: somebody else counted it as lost."""
    store, group = await faulty_group()
    with pytest.raises(MemberLost):
        async with group.member("w1"):
            assert store._db.owner is not None
            store._machine.give_up(store._db.owner)
            assert await counts(store) == (0, 1)
    assert await counts(store) == (0, 1)


async def test_deleted_group_is_told_as_such() -> None:
    """The block is not disturbed: there is nothing that it could do about it."""
    store, group = await faulty_group()
    with pytest.raises(Deleted, match="'batch': the group was deleted meanwhile"):
        async with group.member("w1"):
            await store.process().waitgroup("batch").delete()
            await trio.sleep(10)


async def test_group_deleted_and_made_anew_has_lost_its_member() -> None:
    """The new one does not have it."""
    _, group = await faulty_group()
    with pytest.raises(MemberLost):
        async with group.member("w1"):
            await group.delete()
            await group.create()
    assert (await group.status()).counter == 0


@pytest.mark.parametrize("fault", ["fails", "hangs"])
async def test_loss_is_told_although_the_store_cannot_be_asked_about_it(fault: str) -> None:
    """Within the bound."""
    store, group = await faulty_group()
    if fault == "fails":
        store.fail("status")
    else:
        store.hangs.add("status")
    with pytest.raises(MemberLost):
        async with group.member():
            store.die()
            await trio.sleep_forever()
    assert trio.current_time() <= WITHDRAW_WITHIN


class Broken(FaultyStore):
    """Raises what no store should, where it should tell of a loss."""

    def _loss(self) -> object:  # type: ignore[override]  # broken  # pyright: ignore[reportIncompatibleMethodOverride]
        async def lost() -> None:
            await trio.sleep(1)
            raise ZeroDivisionError

        return lost


async def test_error_of_the_store_itself_ends_the_block() -> None:
    """It comes out, and the member is withdrawn."""
    store = Broken()
    group = store.waitgroup("batch")
    await group.create()
    with pytest.raises(ZeroDivisionError):
        async with group.member():
            await trio.sleep_forever()
    assert store.calls == ["register", "withdraw"]


# The end without a store


async def test_member_that_could_not_be_withdrawn_is_told() -> None:
    """The block has ended, but the member still counts."""
    store, group = await faulty_group()
    async with store:  # else it is closed, and what it owned with it
        with pytest.raises(Unavailable, match=f"member 'w1' of wait group 'batch' was not withdrawn, .*{GONE}") as caught:
            async with group.member("w1"):
                store.fail("withdraw")
        assert isinstance(caught.value.__cause__, Unavailable)
        assert await counts(store) == (1, 0)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_end_of_a_block_waits_for_the_store_for_so_long_and_no_longer(cancelled: bool) -> None:
    """Also where the block was cancelled."""
    store, group = await faulty_group()
    store.hangs.add("withdraw")
    with pytest.raises(Unavailable, match="memory: has not answered within 5 s"), trio.CancelScope() as scope:
        async with group.member():
            if cancelled:
                scope.cancel()
    assert trio.current_time() == WITHDRAW_WITHIN


class Leaving(FaultyStore):
    """Takes its time at the end of being an owner."""

    seconds = 1.0

    def owner(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        return self._owning()

    @asynccontextmanager
    async def _owning(self) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
        async with super().owner() as lost:
            yield lost
            await trio.sleep(self.seconds)
            self.calls.append("left")


async def test_store_may_take_some_time_to_let_go() -> None:
    """It is not cancelled with the block."""
    store = Leaving()
    await store.waitgroup("batch").create()
    with trio.move_on_after(10):
        async with store.waitgroup("batch").member():
            await trio.sleep_forever()
    assert store.calls == ["register", "withdraw", "left"]
    assert trio.current_time() == 11


async def test_store_that_does_not_let_go_is_left() -> None:
    """The member is withdrawn: that is no failure."""
    store = Leaving()
    store.seconds = math.inf
    await store.waitgroup("batch").create()
    async with store.waitgroup("batch").member():
        pass
    assert trio.current_time() == WITHDRAW_WITHIN
    assert await counts(store) == (0, 0)


async def test_failures_of_a_block_and_of_its_end_both_come_out() -> None:
    """In a group, the block's first."""
    store, group = await faulty_group()
    store.fail("withdraw")
    with pytest.raises(ExceptionGroup) as caught:
        async with group.member():
            raise ValueError("no good")
    assert [type(error) for error in caught.value.exceptions] == [ValueError, Unavailable]


async def test_part_of_a_block_that_was_cancelled_from_outside_stays_cancelled() -> None:
    """Beside what else came out of it: trio's rule for groups."""
    store, group = await faulty_group()
    store.fail("withdraw")
    with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(1):
        async with group.member(), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")
    assert leaves(caught.value) == {ValueError, Unavailable}


# Ctrl-C


def as_member(store: FaultyStore) -> AbstractAsyncContextManager[object]:
    return store.waitgroup("batch").member("w1")


def with_lock(store: FaultyStore) -> AbstractAsyncContextManager[object]:
    return Lock(store, "leader").hold()


@pytest.mark.parametrize("block", [as_member, with_lock])
def test_ctrl_c_between_any_two_lines_leaves_nothing(
    block: Callable[[FaultyStore], AbstractAsyncContextManager[object]], seeded_scheduler: int
) -> None:
    """Wherever it comes, a KeyboardInterrupt comes out, and what the block had was neither left behind nor lost."""

    def run(injector: Injector) -> BaseException | None:
        SCHEDULER._r = Random(seeded_scheduler)
        store = FaultyStore()
        other = store.process()
        trio.run(other.create, "batch", None, 0)

        async def main() -> None:
            await store.__aenter__()  # and so it stays open: else what is left would go with it
            async with block(store):
                await trio.sleep(1)

        try:
            with injector.watching():
                trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[injector])
        except BaseException as caught:
            error: BaseException | None = caught
        else:
            error = None
        status = trio.run(other.status, "batch")
        left = (status.counter, status.lost, trio.run(other.entries, "lock", "leader"))
        assert left == (0, 0, ()), f"Ctrl-C at {injector.struck}"
        return error

    where = in_modules(*(f"grouper.coordination.{name}" for name in ("following", "lock", "owning")))
    watched = Injector(where)
    assert run(watched) is None
    places = moments(watched.lines, 1)
    for at in places:
        injector = Injector(where, at, lambda: signal.raise_signal(signal.SIGINT), watched)
        error = run(injector)
        assert injector.struck is not None
        assert leaves(error) == {KeyboardInterrupt}, f"Ctrl-C at {injector.struck}: {error!r} came out"
    assert len(places) > 60, "too few lines to show anything"
