"""What a second attack on pools and graphs of jobs has found, each as small as it gets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from grouper import CycleError, Signals
from grouper.work import Job, JobFailed, Jobs, NotReady, Status, job, map, open_pool, run_jobs
from tests.conftest import SCHEDULER

SEEDS = range(8)


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


def raises(after: Sequence[Job[Any]]) -> bool:
    raise LookupError


# A cancellation and those who wait for what is never begun


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_cancellation_does_not_fail_a_job_that_waits_for_one_not_begun(seed: int) -> None:
    """It is cancelled like any other, and no exception comes out of the scope."""
    SCHEDULER._r = Random(seed)
    jobs: list[Job[None]] = []
    with trio.move_on_after(5) as scope:
        async with open_pool() as pool:
            long = pool.start(trio.sleep_forever)
            queued = pool.start(nothing, after=long)

            async def wait() -> None:
                await queued

            jobs.append(pool.start(wait))
    assert scope.cancelled_caught
    assert jobs[0].status is Status.UNKNOWN


async def test_a_timeout_does_not_fail_a_job_that_waits_for_one_not_begun() -> None:
    """What comes out is the timeout alone."""
    with pytest.raises(trio.TooSlowError):
        async with open_pool(timeout=5) as pool:
            queued = pool.start(nothing, after=pool.start(trio.sleep_forever))

            async def wait() -> None:
                await queued

            pool.start(wait)


async def test_a_failure_does_not_fail_a_job_that_waits_for_one_not_begun() -> None:
    """One job failed, and one exception comes out."""
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool:
            queued = pool.start(nothing, after=pool.start(trio.sleep_forever))

            async def wait() -> None:
                await queued

            async def fails() -> None:
                await trio.sleep(1)
                raise ValueError

            pool.start(wait)
            pool.start(fails)
    assert [type(each) for each in caught.value.exceptions] == [ValueError]


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_begins_after_a_job_has_cancelled_the_scope_around_its_pool(seed: int) -> None:
    """Also where that is the first thing that happens in the pool."""
    SCHEDULER._r = Random(seed)
    begun: list[str] = []
    with trio.CancelScope() as scope:

        async def cancels() -> None:
            begun.append("cancels")
            scope.cancel()

        async def other() -> None:
            begun.append("other")

        async with open_pool(limit=1) as pool:
            pool.start(cancels)
            pool.start(other)
    assert begun == ["cancels"]


# Ends


@pytest.mark.parametrize("on_error", ["cancel", "drain"])
async def test_a_when_that_raises_after_what_is_not_ready_ends_its_job_once(on_error: Any) -> None:
    """The job that is not ready is still in its worker's hands when its followers are swept."""

    async def not_ready() -> None:
        raise NotReady

    with trio.fail_after(100):
        report = await run_jobs({"a": not_ready, "b": job(nothing, after="a", when=raises)}, on_error=on_error)
    assert report.finished
    assert report["b"].status is Status.FAILED


async def test_a_graph_does_not_return_before_a_job_that_runs_while_a_when_raises() -> None:
    """What is counted twice would let the run end with a job in it."""
    ended: list[str] = []

    async def not_ready() -> None:
        await trio.sleep(1)
        raise NotReady

    async def slow() -> None:
        await trio.sleep(2)
        ended.append("slow")

    with trio.fail_after(100):
        await run_jobs({"a": not_ready, "b": job(nothing, after="a", when=raises), "slow": slow}, on_error="drain")
    assert ended == ["slow"]


async def test_a_block_that_a_timeout_cuts_short_after_close_is_told() -> None:
    """Although all jobs were done in time, the block was not."""
    with pytest.raises(trio.TooSlowError):
        async with open_pool(timeout=5) as pool:
            pool.close()
            await trio.sleep(10)


async def test_two_runs_of_one_graph_at_a_time_each_tell_their_own_failure() -> None:
    """A failure is not lost because the other run is well."""
    tries: list[int] = []

    async def fails_first() -> None:
        tries.append(len(tries))
        first = len(tries) == 1
        await trio.sleep(1 if first else 2)
        if first:
            raise ValueError

    jobs = Jobs({"a": fails_first})
    errors: list[BaseException | None] = []

    async def run() -> None:
        try:
            await jobs.run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
        except ExceptionGroup as error:
            errors.append(error)
        else:
            errors.append(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(run)
    assert [error is None for error in errors] == [False, True]


# Slots


async def test_two_tasks_of_a_body_can_both_come_back_for_the_slot() -> None:
    """The one slot that the job gets is for both."""
    with trio.fail_after(100):
        async with open_pool(limit=1) as pool:

            async def away(after: float) -> None:
                await trio.sleep(after)
                async with pool.yielding():
                    await trio.sleep(1)

            async def body() -> None:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(away, 0)
                    nursery.start_soon(away, 2)

            pool.start(body)
            pool.start(trio.sleep, 10)


async def test_a_cancelled_job_of_which_two_tasks_wait_for_a_slot_ends_at_once() -> None:
    """Also where one of them waits beyond a cancel scope of its own."""
    async with open_pool(limit=1) as pool:

        async def one() -> None:
            with trio.move_on_after(3):
                async with pool.yielding():
                    await trio.sleep(2)

        async def other() -> None:
            await trio.sleep(2.25)
            async with pool.yielding():
                await trio.sleep(0.25)

        async def body() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one)
                nursery.start_soon(other)

        first = pool.start(body)
        await trio.sleep(1)
        pool.start(trio.sleep, 100)
        await trio.sleep(4)
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        ended = first.ended
        pool._crew.abandon()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]  # what hangs would hang
    assert ended == 5


async def test_what_is_after_a_job_that_left_a_generator_without_a_slot_runs() -> None:
    """The worker without a slot calls another one for what it has queued."""
    left: list[Any] = []
    with trio.fail_after(100):
        async with open_pool(limit=1) as pool:

            async def generate() -> AsyncGenerator[int]:
                async with pool.yielding():
                    yield 1

            async def body() -> None:
                generator = generate()
                left.append(generator)
                await anext(generator)

            last = pool.start(nothing, after=pool.start(body))
    for each in left:
        await each.aclose()
    assert last.ready


async def test_jobs_of_a_key_that_wait_for_each_other_are_no_deadlock() -> None:
    """One that comes to wait behind the job of its key which waits for it is told so with CycleError."""
    with trio.fail_after(50), pytest.raises(ExceptionGroup) as caught:
        async with open_pool(on_error="continue") as pool:
            late = pool.start(nothing, key="k", after=pool.start(trio.sleep, 1))

            async def wait() -> None:
                await late

            pool.start(wait, key="k")
    assert caught.group_contains(CycleError)


# What is made while it is wanted, and texts


async def test_items_that_cancel_their_map_are_not_begun() -> None:
    """Nothing begins after the cancellation."""
    begun: list[int] = []

    async def body(item: int) -> None:
        begun.append(item)

    with trio.CancelScope() as scope:

        def items() -> Generator[int]:
            yield 0
            scope.cancel()
            yield 1

        await map(body, items())
    assert begun == []


async def test_the_text_of_a_failure_grows_no_faster_than_the_chain_of_those_who_waited() -> None:
    """Each names the next, and none the text of a text of a text."""
    jobs: list[Job[None]] = []

    async def down(deep: int) -> None:
        if not deep:
            raise ValueError("x")
        await pool.start(down, deep - 1)

    with pytest.raises(ExceptionGroup):
        async with open_pool(on_error="continue") as pool:
            jobs.append(pool.start(down, 12))
    assert isinstance(jobs[0].error, JobFailed)
    assert len(str(jobs[0].error)) < 3_000


async def test_who_waits_for_a_job_gets_job_failed_also_where_its_error_cannot_be_shown() -> None:
    """An exception whose repr raises is the cause, and not the end of who waits."""

    class ShyError(Exception):
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    async def fails() -> None:
        raise ShyError

    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool(on_error="continue") as pool:
            failed = pool.start(fails)
            with pytest.raises(JobFailed):
                await failed
    assert [type(each) for each in caught.value.exceptions] == [ShyError]


async def test_a_function_whose_name_cannot_be_had_fails_with_its_own_error() -> None:
    """Whatever its `name` does, it is only a name."""

    class Nameless:
        @property
        def name(self) -> str:
            raise RuntimeError("no name")

        async def __call__(self) -> None:
            raise ValueError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool(on_error="continue") as pool:
            pool.start(Nameless())
    assert caught.group_contains(ValueError, match="mine")
