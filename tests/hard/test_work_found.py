"""What attacks on pools and graphs of jobs have found, each as small as it gets."""

from __future__ import annotations

import gc
import math
import signal
from collections.abc import AsyncGenerator, Sequence
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from grouper import CycleError, Signals
from grouper.work import (
    Backoff,
    Job,
    JobFailed,
    Jobs,
    NotReady,
    Pool,
    Status,
    all_done,
    job,
    open_pool,
    run_jobs,
)
from tests.conftest import SCHEDULER

SEEDS = range(8)


def no(after: Sequence[Job[Any]]) -> bool:
    return False


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


async def fails() -> None:
    raise ValueError("fails")


class Concurrency:
    """Counts how many bodies run at once, and who ran."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self.ran: list[str] = []

    async def body(self, name: str = "", lasts: float = 1.0) -> None:
        self.ran.append(name)
        self.now += 1
        self.peak = max(self.peak, self.now)
        await trio.sleep(lasts)
        self.now -= 1


# Awaiting


@pytest.mark.parametrize("awaiters", [2, 5])
async def test_two_can_wait_for_the_same_job(awaiters: int) -> None:
    """All that wait for a job are woken with its value, jobs and others."""
    got: list[int] = []

    async def value() -> int:
        await trio.sleep(1)
        return 7

    async with open_pool(limit=awaiters + 1) as pool:
        target = pool.start(value)

        async def wait() -> None:
            got.append(await target)

        async with trio.open_nursery() as nursery:
            for _ in range(awaiters):
                pool.start(wait)
                nursery.start_soon(wait)
    assert got == [7] * 2 * awaiters


async def test_a_job_may_wait_for_the_one_that_has_inserted_it() -> None:
    """Who inserts waits only until the other has begun: there is no ring."""
    async with open_pool(limit=2) as pool:

        async def child() -> str:
            return await parent

        async def insert() -> str:
            await pool.insert(child)
            return "inserted"

        parent = pool.start(insert)
    assert parent.value == "inserted"


async def test_slots_are_let_go_in_every_pool_in_whose_jobs_a_task_is() -> None:
    """A job of a nested pool that waits for a job of a third pool, which needs the outermost, does not keep its slot."""
    with trio.fail_after(50):
        async with open_pool(limit=1) as third, open_pool(limit=1) as outer:

            async def needs_outer() -> None:
                await outer.start(nothing)

            async def inner() -> None:
                await third.start(needs_outer)

            async def nest() -> None:
                async with open_pool(limit=1) as nested:
                    nested.start(inner)

            await outer.start(nest)


async def test_a_job_that_is_to_be_after_itself_by_its_key_is_no_deadlock() -> None:
    """What is after a queued job of its own key is refused with CycleError, or runs after it."""
    with trio.fail_after(50):
        async with open_pool(limit=1) as pool:
            pool.start(trio.sleep, 1)
            first = pool.start(nothing, key="k")
            try:
                second = pool.start(nothing, key="k", after=first)
            except CycleError:
                return
    assert (first.status, second.status) == (Status.SUCCESS, Status.SUCCESS)


async def test_a_job_that_joins_one_that_what_it_is_after_is_after_is_no_deadlock() -> None:
    """X <- y, and then a start with the key of x that is after y: CycleError, or it runs."""
    with trio.fail_after(50):
        async with open_pool(limit=1) as pool:
            pool.start(trio.sleep, 1)
            x = pool.start(nothing, key="k")
            y = pool.start(nothing, after=x)
            try:
                pool.start(nothing, key="k", after=y)
            except CycleError:
                return
    assert y.ready


async def test_a_job_that_joins_one_for_which_what_it_is_after_waits_is_no_deadlock() -> None:
    """X is awaited by y, and then comes a start with the key of x that is after y: CycleError, or it runs."""
    with trio.fail_after(50):
        async with open_pool(limit=2) as pool:
            x = pool.start(nothing, key="k", after=pool.start(trio.sleep, 1))

            async def wait() -> None:
                await x

            y = pool.start(wait)
            await trio.testing.wait_all_tasks_blocked()
            try:
                pool.start(nothing, key="k", after=y)
            except CycleError:
                return
    assert y.ready


# Errors


async def test_the_block_of_a_pool_fails_with_the_failure_of_another_pools_job() -> None:
    """A block that waited for a failed job of another pool does not end as if nothing had been."""
    jobs: list[Job[None]] = []
    with pytest.raises(ExceptionGroup):
        async with open_pool() as other:
            jobs.append(other.start(fails))
    with pytest.raises(JobFailed):
        async with open_pool():
            await jobs[0]


async def test_a_report_has_all_failures() -> None:
    """A graph is finite: each error is in the report, and the first is the first in time."""
    report = await run_jobs({f"job{number}": fails for number in range(1_200)}, on_error="continue", limit=1)
    assert len(report.failed) == 1_200
    assert report.first_error is report["job0"].error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_a_when_that_raises_no_exception_ends_all_jobs(kind: type[BaseException]) -> None:
    """It comes out bare, and no job is left without an end."""

    def raises(after: Sequence[Job[Any]]) -> bool:
        raise kind

    jobs: list[Job[None]] = []
    pools: list[Pool] = []
    with pytest.raises(kind):
        async with open_pool() as pool:
            pools.append(pool)
            jobs.append(pool.start(nothing))
            jobs.append(pool.start(nothing, after=jobs[0], when=raises))
            jobs.append(pool.start(nothing, after=jobs[1]))
    assert [each.ended is not None for each in jobs] == [True] * 3
    assert pools[0].active == 0


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_a_when_of_a_graph_that_raises_no_exception_ends_all_jobs(kind: type[BaseException]) -> None:
    """As in a pool, also for the first job of a graph."""

    def raises(after: Sequence[Job[Any]]) -> bool:
        raise kind

    jobs = Jobs({"a": job(nothing, when=raises), "b": nothing, "c": job(nothing, after="b")})
    with pytest.raises(kind):
        await jobs.execute()
    assert jobs.report.finished
    assert all(each.ended is not None for each in jobs.report.values())


async def test_an_object_whose_repr_raises_is_no_error_of_the_engine() -> None:
    """A function that returns what cannot be awaited, nor shown, fails its job and no more."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    def shy() -> Any:
        return Shy()

    jobs: list[Job[Any]] = []
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool(on_error="continue") as pool:
            jobs.append(pool.start(shy))
            jobs.append(pool.start(nothing))
            jobs.append(pool.start(nothing, after=jobs[0]))
    assert [type(each) for each in caught.value.exceptions] == [TypeError]
    assert [each.status for each in jobs] == [Status.FAILED, Status.SUCCESS, Status.SKIPPED]


async def test_a_function_that_is_not_async_is_told_so_also_where_it_returns_none() -> None:
    """The commonest mistake is told with the job and the fix."""

    def sync() -> Any:
        return None

    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool:
            pool.start(sync, name="mistake")
    assert caught.group_contains(TypeError, match=r"'mistake'.*async def")


# `when` and the beginning of a graph


@pytest.mark.parametrize("on_error", ["cancel", "drain"])
async def test_nothing_of_a_graph_begins_after_the_when_of_a_first_job_has_failed(on_error: Any) -> None:
    """Those that are named later are not begun either."""
    ran = Concurrency()

    def raises(after: Sequence[Job[Any]]) -> bool:
        raise LookupError

    report = await run_jobs({"a": job(nothing, when=raises), "b": ran.body}, on_error=on_error)
    assert ran.ran == []
    assert [each.status for each in report.values()] == [Status.FAILED, Status.UNKNOWN]


async def test_a_job_after_one_that_is_skipped_at_once_runs_once() -> None:
    """It is not queued again where the graph is begun."""
    ran = Concurrency()
    with trio.fail_after(100):
        report = await run_jobs({"no": job(nothing, when=no), "after": job(ran.body, after="no", when=all_done)}, limit=4)
    assert len(ran.ran) == 1
    assert report["after"].attempts == 1


async def test_a_job_that_was_cancelled_before_the_run_stays_so() -> None:
    """Its `when` is not asked, and it ends once."""
    jobs = Jobs({"a": job(nothing, when=no), "b": nothing})
    jobs.report["a"].cancel()
    report = await jobs.execute()
    assert [each.status for each in report.values()] == [Status.UNKNOWN, Status.SUCCESS]
    assert report.finished


async def test_a_job_that_was_cancelled_before_the_run_lets_those_run_that_clean_up_after_it() -> None:
    """What is after it with `all_done` runs, once, when the run has begun."""
    jobs = Jobs({"a": nothing, "b": job(nothing, after="a", when=all_done)})
    jobs.report["a"].cancel()
    report = await jobs.execute()
    assert [(each.status, each.attempts) for each in report.values()] == [(Status.UNKNOWN, 0), (Status.SUCCESS, 1)]


async def test_a_when_that_starts_a_job_of_a_key_does_not_make_two_run_at_once() -> None:
    """The key has passed on to the follow-up when others are told of the end."""
    ran = Concurrency()
    async with open_pool(limit=9) as pool:
        first = pool.start(ran.body, key="k")
        await trio.testing.wait_all_tasks_blocked()
        pool.start(ran.body, key="k")

        def starts(after: Sequence[Job[Any]]) -> bool:
            pool.start(ran.body, key="k")
            return True

        pool.start(nothing, after=first, when=starts)
        await first
        await pool.drained()
    assert ran.peak == 1


# Time


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_pool_with_no_time_at_all_says_that_it_timed_out(seed: int) -> None:
    """Whoever runs first in the step in which it is cancelled."""
    SCHEDULER._r = Random(seed)
    with pytest.raises(trio.TooSlowError):
        async with open_pool(timeout=0) as pool:
            pool.start(nothing)


async def test_a_graph_that_drains_can_time_out() -> None:
    """What runs on after a failure and is cut short by the timeout is reported as such."""
    report = await run_jobs({"b": trio.sleep_forever, "a": fails}, on_error="drain", timeout=5)
    assert report["b"].status is Status.UNKNOWN
    assert report.timed_out


async def test_a_pool_that_drains_can_time_out() -> None:
    """It raises both, the failure and the timeout."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_pool(on_error="drain", timeout=5) as pool:
            pool.start(trio.sleep_forever)
            pool.start(fails)
    assert caught.group_contains(trio.TooSlowError)
    assert caught.group_contains(ValueError)


@pytest.mark.parametrize("timeout", [math.inf, 100])
async def test_an_error_that_is_no_jobs_does_not_count_as_a_timeout(timeout: float) -> None:
    """Whatever ends the pool's nursery, TooSlowError is for the time."""

    def raises(after: Sequence[Job[Any]]) -> bool:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        async with open_pool(timeout=timeout) as pool:
            pool.start(nothing, after=pool.start(nothing), when=raises)


def test_ctrl_c_while_a_block_waits_for_its_jobs_is_no_timeout() -> None:
    """The KeyboardInterrupt comes out bare."""

    async def strike() -> None:
        await trio.sleep(1)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with open_pool() as pool:
            pool.start(trio.sleep, 10)
            trio.lowlevel.spawn_system_task(strike)  # which is protected: it comes to the main task

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# Keys: no call is lost, and the freshest comes last


async def test_what_runs_last_of_a_key_is_the_freshest_also_around_a_retry() -> None:
    """A call in the time between two tries does not overtake the follow-up that is older."""
    ran = Concurrency()

    async def fails_once() -> None:
        await trio.sleep(1)
        if not ran.ran:
            ran.ran.append("failed")
            raise ValueError

    async with open_pool() as pool:
        pool.start(fails_once, key="k", retry=Backoff(10, jitter=0, attempts=2))
        await trio.sleep(0.5)
        pool.start(ran.body, "older", 0.0, key="k")
        await trio.sleep(1)
        pool.start(ran.body, "fresh", 0.0, key="k")
        await pool.drained()
    assert ran.ran[-1] == "fresh"


@pytest.mark.parametrize("freshest_is_after", [False, True])
async def test_a_call_of_a_key_is_not_lost_because_another_call_is_after_what_is_not_ready(freshest_is_after: bool) -> None:
    """A call that is after nothing runs, whatever becomes of what other calls of the same key are after."""
    ran = Concurrency()

    async def not_ready() -> None:
        await trio.sleep(1)
        raise NotReady

    async with open_pool(limit=9) as pool:
        bad = pool.start(not_ready)
        calls = [("plain", ()), ("after", (bad,))]
        for name, after in calls if freshest_is_after else calls[::-1]:
            pool.start(ran.body, name, 0.0, key="k", after=after)
        await pool.drained()
    assert ran.ran, "the call that is after nothing was lost"


# Slots, memory and members


async def test_a_generator_left_in_a_block_without_a_slot_does_not_take_the_slot_of_the_next_job() -> None:
    """Where a body leaves `yielding()` open in a generator that nobody ends, its worker takes no other job without a slot."""
    ran = Concurrency()
    left: list[Any] = []
    async with open_pool(limit=1) as pool:

        async def generate() -> AsyncGenerator[int]:
            async with pool.yielding():
                yield 1

        async def body() -> None:
            generator = generate()
            left.append(generator)
            await anext(generator)

        pool.start(body)
        for _ in range(4):
            pool.start(ran.body)
    for each in left:
        await each.aclose()
    assert ran.peak == 1


async def test_a_job_that_has_ended_does_not_keep_those_it_was_after() -> None:
    """A pool in which each job is after the one before, for ever, holds the last ones only."""

    def jobs() -> int:
        gc.collect()
        return sum(isinstance(each, Job) for each in gc.get_objects())

    before = jobs()
    async with open_pool() as pool:
        last = pool.start(nothing)
        for _ in range(50):
            last = pool.start(nothing, after=last)
            await last
        assert jobs() - before < 10


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_graph_that_was_told_to_stop_before_it_began_begins_nothing(seed: int) -> None:
    """As a group that is given signals with one received."""
    SCHEDULER._r = Random(seed)
    ran = Concurrency()
    signals = Signals()
    signals.send(signal.SIGTERM)
    await Jobs({"a": ran.body}).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert ran.ran == []


async def test_an_error_in_a_block_without_a_slot_is_not_lost_where_the_wait_for_a_slot_is_cancelled() -> None:
    """`yielding()` gives the error on: it was raised before the cancellation was delivered."""
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool(limit=1, on_error="continue") as pool:

            async def body() -> None:
                async with pool.yielding():
                    await trio.sleep(1)
                    raise ValueError("mine")

            first = pool.start(body)
            pool.start(trio.sleep, 5)
            await trio.sleep(2)
            first.cancel()
    assert caught.group_contains(ValueError, match="mine")
