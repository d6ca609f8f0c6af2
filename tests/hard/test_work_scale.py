"""Pools and graphs of jobs where there are many of something."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest
import trio
import trio.testing

from grouper import CycleError
from grouper.work import Job, JobSkipped, JobSpec, NotReady, Pool, Status, job, open_pool, run_jobs


async def noop() -> None:
    """Do nothing."""


async def drain_once(pool: Pool) -> bool:
    """A consumer waits for a source, and a leaf for the consumer. Whether the leaf saw that the consumer has done its part."""
    published = trio.Event()
    done: list[str] = []
    seen: list[bool] = []

    async def source() -> None:
        await trio.lowlevel.checkpoint()
        published.set()  # and ends in the same step: nobody runs now who could go on

    async def consumer() -> None:
        async with pool.idle():
            await published.wait()
        await trio.lowlevel.checkpoint()
        done.append("consumed")

    async def leaf() -> None:
        async with pool.idle():
            await pool.quiescent(0)
        seen.append(done == ["consumed"])

    jobs = [pool.start(consumer), pool.start(leaf), pool.start(source)]
    for each in jobs:
        await each
    return seen == [True]


async def test_a_transient_drain_is_never_taken_for_quiet() -> None:
    """Ten thousand times: who was woken by the last job comes back before anybody is told that all is quiet."""
    async with open_pool(limit=2) as pool:
        assert [await drain_once(pool) for _ in range(10_000)].count(False) == 0


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_parents_that_fill_a_pool_and_wait_for_children_never_deadlock(limit: int) -> None:
    """Three levels, some of which wait in nurseries inside their bodies, and a pool inside a job."""

    async def parent(depth: int) -> int:
        if not depth:
            await trio.sleep(1)
            return 1
        if depth == 1:
            async with open_pool(limit=1) as inner:
                return sum([await each for each in [inner.start(parent, 0) for _ in range(3)]])
        found: list[int] = []

        async def wait(child: Job[int]) -> None:
            found.append(await child)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, pool.start(parent, depth - 1))
        return sum(found)

    with trio.fail_after(10_000):
        async with open_pool(limit=limit) as pool:
            roots = [pool.start(parent, 3) for _ in range(5)]
    assert [each.value for each in roots] == [27] * 5


async def test_a_long_chain_of_waits_is_no_recursion() -> None:
    """Each waits for the next, three thousand deep; the ring that the last would close is refused with its whole path."""
    rings: list[CycleError] = []
    depth = 3_000

    async def link(left: int) -> None:
        if left:
            await pool.start(link, left - 1)
            return
        with pytest.raises(CycleError) as caught:
            await first
        rings.append(caught.value)

    async with open_pool(limit=1) as pool:
        first = pool.start(link, depth)
    assert len(rings[0].path) == depth + 2


async def test_a_chain_of_ten_thousand_that_is_never_begun_is_skipped() -> None:
    """Without recursion, each with the first to blame."""

    async def not_ready() -> None:
        raise NotReady

    graph: dict[str, JobSpec[None]] = {"0": job(not_ready)}
    graph |= {str(place): job(noop, after=str(place - 1)) for place in range(1, 10_000)}
    report = await run_jobs(graph)
    assert report.counts() == {"not ready": 1, "skipped": 9_999}
    assert report["9999"].blame is report["0"]


async def test_diamonds_are_skipped_once() -> None:
    """Three thousand layers of two, each after both of the layer before: there are more ways than atoms."""

    async def fails() -> None:
        raise ValueError

    befores, graph = ["root"], {"root": job(fails)}
    for layer in range(3_000):
        names = [f"{layer}a", f"{layer}b"]
        graph |= {name: job(noop, after=befores) for name in names}
        befores = names
    report = await run_jobs(graph, on_error="continue")
    assert report.counts() == {"failed": 1, "skipped": 6_000}


async def test_twenty_thousand_queued_jobs_can_be_cancelled_one_by_one() -> None:
    """None of them runs, and the pool is free for others."""
    async with open_pool(limit=1) as pool:
        running = pool.start(trio.sleep, 1)
        await trio.testing.wait_all_tasks_blocked()
        queued = [pool.start(noop) for _ in range(20_000)]
        for each in queued:
            each.cancel()
        assert pool.active == 1
        after = pool.start(noop)
    assert (running.ready, after.ready) == (True, True)
    assert {each.status for each in queued} == {Status.UNKNOWN}
    assert {each.started for each in queued} == {None}


class Odd:
    """A value that equals everything, or cannot be compared at all."""

    def __init__(self, *, raises: bool) -> None:
        self.raises = raises

    __hash__ = None  # type: ignore[assignment]  # as it has an `__eq__` that tells nothing

    def __eq__(self, other: object) -> bool:
        if self.raises:
            raise RuntimeError("not to be compared")
        return True


@pytest.mark.parametrize("make", [lambda: Odd(raises=False), lambda: Odd(raises=True), list[int], lambda: float("nan")])
@pytest.mark.parametrize("limit", [1, 3])
async def test_contextvars_are_the_submitters_by_identity(make: Any, limit: int) -> None:
    """What equals it, or cannot be compared, is still another value; what a job sets or resets reaches no other."""
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable")
    found: list[tuple[object, object]] = []

    async def body(mine: object, *, wait: bool) -> None:
        found.append((variable.get(), mine))
        token = variable.set(make())
        if wait:
            await trio.lowlevel.checkpoint()
            variable.reset(token)

    async def child(mine: object) -> None:
        await pool.start(lambda: body(mine, wait=False))

    async with open_pool(limit=limit) as pool:
        for number in range(30):
            value = make()
            variable.set(value)
            wait = number % 2 == 0
            pool.start(lambda value=value, wait=wait: body(value, wait=wait))  # type: ignore[misc]  # mypy infers no lambda defaults
            if number % 3 == 0:
                pool.start(child, value)
    assert len(found) == 40
    assert all(seen is given for seen, given in found)


async def test_a_skipped_job_in_the_depth_names_who_is_to_blame() -> None:
    """Not the one before it, but the one at which it all began."""

    async def fails() -> None:
        raise ValueError("the root of it")

    with pytest.raises(ExceptionGroup):
        async with open_pool(on_error="continue") as pool:
            last: Job[None] = pool.start(fails, name="root")
            for _ in range(1_000):
                last = pool.start(noop, after=last)
            with pytest.raises(JobSkipped, match="because of 'root', which failed: ValueError"):
                await last
