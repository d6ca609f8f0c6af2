"""Go's patterns around `sync.WaitGroup` (section 1.6 of the contract of bounded work); `docs/recipes.md` shows them to users."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from grouper.work import WaitGroup, as_completed, gather, map, open_pool


@pytest.mark.contract("work G1")
async def test_g01_a_wait_group_waits_for_all_also_nested() -> None:
    """A group within a group is one worker of it; however a worker ends, it is counted off."""
    outer, ended = WaitGroup(), list[str]()

    async def leaf(inner: WaitGroup, name: str) -> None:
        with inner.worker():
            await trio.sleep(1)
            ended.append(name)

    async def branch(name: str) -> None:
        inner = WaitGroup()
        with outer.worker():
            async with trio.open_nursery() as nursery:
                for number in range(2):
                    nursery.start_soon(leaf, inner, f"{name}{number}")
                await trio.testing.wait_all_tasks_blocked()
                await inner.wait()
                ended.append(name)

    async with trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(branch, name)
        await trio.testing.wait_all_tasks_blocked()
        await outer.wait()
        assert sorted(ended) == ["a", "a0", "a1", "b", "b0", "b1"]


@pytest.mark.contract("work G2")
async def test_g02_a_window_is_not_slower_than_batches_of_its_width() -> None:
    """One slow job holds up its batch; in a window the others go past it."""
    lengths = [9.0, 1.0, 1.0, 1.0, 9.0, 1.0]

    async def in_batches() -> None:
        for first in range(0, len(lengths), 2):
            async with open_pool(limit=2) as pool:
                for seconds in lengths[first : first + 2]:
                    pool.start(trio.sleep, seconds)

    async def taken(what: object) -> float:
        began = trio.current_time()
        await (in_batches() if what == "batches" else map(trio.sleep, lengths, limit=2))
        return trio.current_time() - began

    assert (await taken("window"), await taken("batches")) == (12, 19)


@pytest.mark.contract("work G3")
async def test_g03_results_and_errors_of_each_branch_in_a_sure_order() -> None:
    """Values in the order of the items, or as they are there; errors in the order in which they happened, with their branch."""

    async def body(seconds: int) -> int:
        await trio.sleep(seconds)
        if seconds > 3:
            raise ValueError(seconds)
        return seconds

    assert await map(body, [3, 1, 2]) == [3, 1, 2]
    async with as_completed(body, [3, 1, 2]) as results:
        assert [value async for _, value in results] == [1, 2, 3]
    with pytest.raises(ExceptionGroup) as caught:
        await map(body, [5, 1, 4], on_error="continue")
    errors = caught.value.exceptions
    assert [(error.args[0], error.__notes__[0].rpartition("#")[2]) for error in errors] == [(4, "2'"), (5, "0'")]


@pytest.mark.contract("work G4")
async def test_g04_a_cancellation_reaches_all_that_is_beneath_and_is_always_released() -> None:
    """From the scope around a pool down to a nursery in a job of a pool in a job."""
    released: list[str] = []

    async def leaf(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            released.append(name)

    async def branch() -> None:
        async with open_pool() as pool:
            pool.start(leaf, "job")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leaf, "task")

    with trio.move_on_after(5) as scope:
        async with open_pool() as pool:
            pool.start(branch)
    assert scope.cancelled_caught
    assert sorted(released) == ["job", "task"]


@pytest.mark.contract("work G5")
async def test_g05_a_failure_does_not_end_its_siblings_unless_that_is_asked_for() -> None:
    """`on_error` says it: "continue", or "cancel", which is what a nursery does and the default."""
    ended: list[str] = []

    async def sibling(policy: str) -> None:
        await trio.sleep(1)
        ended.append(policy)

    async def fails() -> None:
        raise ValueError

    for policy in ("continue", "cancel"):
        with pytest.raises(ExceptionGroup):
            async with open_pool(on_error="continue" if policy == "continue" else "cancel") as pool:
                pool.start(sibling, policy)
                pool.start(fails)
    assert ended == ["continue"]


@pytest.mark.contract("work G6")
async def test_g06_all_errors_are_collected() -> None:
    """Also those of jobs that fail while they are cancelled for the first."""

    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("while cleaning up")

    async def fails() -> None:
        await trio.sleep(1)
        raise ValueError("first")

    with pytest.raises(ExceptionGroup) as caught:
        await gather(fails_when_cancelled, fails)
    assert [type(error) for error in caught.value.exceptions] == [ValueError, KeyError]
