"""`map`, `as_completed`, `gather` and `first`."""

from __future__ import annotations

import contextvars
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from grouper import NotReady
from grouper.work import as_completed, first, gather, map

SLOWER_FIRST = [3, 1, 2]


async def double(seconds: int) -> int:
    """Take as long as the number says."""
    await trio.sleep(seconds)
    return 2 * seconds


async def fail() -> int:
    """Raise at once."""
    raise KeyError("x")


async def not_ready() -> int:
    """Say so."""
    raise NotReady("later")


async def one() -> int:
    """Return after a second."""
    await trio.sleep(1)
    return 1


async def test_map_returns_values_in_the_order_of_the_items() -> None:
    """Not in that of their ends."""
    assert await map(double, SLOWER_FIRST) == [6, 2, 4]


@pytest.mark.parametrize("limit", [1, 3, 100, 300, math.inf])
async def test_map_runs_as_many_as_the_limit_and_no_more(limit: float) -> None:
    """Also more than are taken from the iterator at a time."""
    running = most = 0

    async def body(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    await map(body, range(1_000), limit=limit)
    assert most == min(limit, 1_000)


async def test_map_of_nothing_is_nothing() -> None:
    """And runs nothing."""
    assert await map(double, []) == []


async def test_map_raises_all_errors_with_the_numbers_of_their_items() -> None:
    """With on_error="continue" every item has its turn."""
    done: list[int] = []

    async def odd_fails(item: int) -> None:
        if item % 2:
            raise ValueError(item)
        done.append(item)

    with pytest.raises(ExceptionGroup) as caught:
        await map(odd_fails, range(5), limit=1, on_error="continue")
    notes = [(error.args[0], error.__notes__) for error in caught.value.exceptions]
    assert [(item, note[0][-len("#1'") :]) for item, note in notes] == [(1, "#1'"), (3, "#3'")]
    assert done == [0, 2, 4]


async def test_map_cancels_the_others_at_the_first_error() -> None:
    """No further item is begun."""
    begun: list[int] = []

    async def body(item: int) -> None:
        begun.append(item)
        await trio.sleep(1)
        if item == 1:
            raise KeyError(item)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup, match="1 job failed"):
        await map(body, itertools.count(), limit=3)
    assert sorted(begun) == [0, 1, 2]


async def test_not_ready_is_an_error_of_map() -> None:
    """There is no value to go on with."""

    async def body(item: int) -> None:
        raise NotReady("later")

    with pytest.raises(ExceptionGroup) as caught:
        await map(body, [1])
    assert isinstance(caught.value.exceptions[0], NotReady)


async def test_map_takes_items_as_it_goes() -> None:
    """An endless iterator is not read to its end before something runs."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def body(item: int) -> None:
        if item == 500:
            raise KeyError(item)
        await trio.sleep(1)

    with pytest.raises(ExceptionGroup):
        await map(body, items(), limit=2)
    assert taken < 700


async def test_an_error_of_the_iterator_is_raised_as_it_is() -> None:
    """What runs is cancelled."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await map(double, items())


async def test_map_is_cancelled_with_its_caller() -> None:
    """Nothing runs on."""
    with trio.move_on_after(5) as scope:
        await map(double, itertools.repeat(2), limit=3)
    assert scope.cancelled_caught


async def test_map_has_a_timeout() -> None:
    """Seconds for all."""
    with pytest.raises(trio.TooSlowError, match="within 5 s"):
        await map(double, itertools.repeat(2), timeout=5)


async def test_items_run_in_the_context_of_the_caller_and_leak_nothing() -> None:
    """As if each had a task of its own."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(-1)

    async def body(item: int) -> int:
        found = variable.get()
        variable.set(item)
        return found

    assert await map(body, range(5), limit=1) == [-1] * 5


async def test_as_completed_gives_pairs_as_they_are_there() -> None:
    """The item and its value."""
    async with as_completed(double, SLOWER_FIRST) as results:
        assert [pair async for pair in results] == [(1, 2), (2, 4), (3, 6)]


async def test_as_completed_waits_for_a_slow_reader() -> None:
    """No more than the limit have begun."""
    begun: list[int] = []

    async def body(item: int) -> int:
        begun.append(item)
        return item

    async with as_completed(body, itertools.count(), limit=2) as results:
        await trio.testing.wait_all_tasks_blocked()
        assert begun == [0, 1]
        async for item, _ in results:
            if item == 10:
                break
    assert max(begun) <= 13


async def test_the_end_of_the_block_cancels_what_was_not_read() -> None:
    """And waits for it."""
    cleaned: list[int] = []

    async def body(item: int) -> int:
        try:
            await trio.sleep(item)
        finally:
            cleaned.append(item)
        return item

    async with as_completed(body, [1, 50]) as results:
        async for _ in results:
            break
    assert cleaned == [1, 50]


async def test_a_failure_ends_the_block_of_as_completed() -> None:
    """It is raised once all have ended."""

    async def body(item: int) -> int:
        raise KeyError(item)

    with pytest.raises(ExceptionGroup, match="1 job failed"):
        async with as_completed(body, [1]) as results:
            async for _ in results:
                pytest.fail("nothing succeeded")
            await trio.sleep_forever()


async def test_a_failure_of_the_block_is_its_own() -> None:
    """It is not wrapped; what runs is cancelled."""
    with pytest.raises(KeyError):
        async with as_completed(double, itertools.repeat(9)):
            raise KeyError("block")


async def test_gather_returns_values_in_the_order_given() -> None:
    """All run at once."""
    before = trio.current_time()
    assert await gather(one, lambda: double(1), lambda: double(0)) == (1, 2, 0)
    assert trio.current_time() - before == 1
    assert await gather() == ()


@pytest.mark.parametrize("wrong", [fail, not_ready])
async def test_gather_cancels_the_others_at_the_first_error(wrong: Any) -> None:
    """And raises it in a group."""
    before = trio.current_time()
    with pytest.raises(ExceptionGroup, match="1 job failed"):
        await gather(one, wrong)
    assert trio.current_time() == before


async def test_first_returns_the_first_value_and_cancels_the_others() -> None:
    """Those that failed before do not count."""
    cleaned: list[str] = []

    async def slow() -> int:
        try:
            await trio.sleep(10)
        finally:
            cleaned.append("slow")
        return 10

    assert await first(slow, fail, one, not_ready) == 1
    assert cleaned == ["slow"]


async def test_first_raises_all_errors_if_none_returns() -> None:
    """In one group."""
    with pytest.raises(ExceptionGroup) as caught:
        await first(fail, not_ready)
    assert sorted(type(error).__name__ for error in caught.value.exceptions) == ["KeyError", "NotReady"]


async def test_first_is_cancelled_with_its_caller() -> None:
    """It has no value then."""
    with trio.move_on_after(5) as scope:
        await first(trio.sleep_forever)
    assert scope.cancelled_caught


async def test_first_of_nothing_is_an_error() -> None:
    """It would never return."""
    with pytest.raises(ValueError, match="give it async functions"):
        await first()


@pytest.mark.parametrize(
    "call",
    [
        lambda: map(3, [1]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is tested
        lambda: gather(3, one),  # type: ignore[call-overload]  # pyright: ignore  # what is tested
        lambda: first(one, 3),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is tested
        lambda: map(double, [1], limit=0),
        lambda: map(double, [1], timeout=-1),
    ],
)
async def test_bad_arguments_are_refused_before_anything_has_run(call: Any) -> None:
    """By name."""
    with pytest.raises((TypeError, ValueError), match=r"is not callable|limit=0|timeout=-1"):
        await call()


async def test_as_completed_refuses_what_is_not_callable() -> None:
    """At the call."""
    with pytest.raises(TypeError, match="3 is not callable"):
        as_completed(3, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is tested
