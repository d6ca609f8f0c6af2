"""`WaitGroup`: a counter to wait for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from grouper.work import WaitGroup


async def test_wait_returns_when_the_count_comes_to_zero() -> None:
    """Not before the last is done."""
    group = WaitGroup()
    group.add(2)
    done: list[str] = []

    async def waits() -> None:
        await group.wait()
        done.append("waited")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        group.done()
        await trio.testing.wait_all_tasks_blocked()
        done.append("one is left")
        group.done()
    assert done == ["one is left", "waited"]


async def test_wait_at_zero_returns_at_once() -> None:
    """It is a checkpoint all the same."""
    with trio.testing.assert_checkpoints():
        await WaitGroup().wait()


async def test_a_zero_is_not_missed_when_the_next_round_has_begun() -> None:
    """Whoever waited in a round goes on with its end, whatever the count is by then."""
    group = WaitGroup()
    group.add()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.wait)
        await trio.testing.wait_all_tasks_blocked()
        group.done()
        group.add()  # before the one who waits could look
    assert group.count == 1


async def test_a_wait_in_the_next_round_waits_for_that_one() -> None:
    """Rounds do not mix."""
    group = WaitGroup()
    group.add()
    group.done()
    group.add()
    with trio.move_on_after(1) as scope:
        await group.wait()
    assert scope.cancelled_caught


def test_below_zero_is_an_error_that_changes_nothing() -> None:
    """`done` was called too often."""
    group = WaitGroup()
    group.add()
    with pytest.raises(ValueError, match="counts 1 cannot count -2"):
        group.add(-2)
    assert group.count == 1
    assert repr(group) == "<WaitGroup 1>"


@pytest.mark.parametrize("n", [True, 1.5, "1"])
def test_only_whole_numbers_are_counted(n: object) -> None:
    """Anything else is a mistake of the caller."""
    with pytest.raises(TypeError, match="whole numbers"):
        WaitGroup().add(n)  # type: ignore[arg-type]  # what is tested  # pyright: ignore[reportArgumentType]


def test_a_worker_counts_while_its_block_runs() -> None:
    """Also when the block raises."""
    group = WaitGroup()
    counts: list[int] = []
    with pytest.raises(KeyError), group.worker():
        counts.append(group.count)
        raise KeyError
    assert [*counts, group.count] == [1, 0]
