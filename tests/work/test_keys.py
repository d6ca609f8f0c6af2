"""`pool.start(key=)`: which run covers which calls."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import grouper
from grouper import Backoff, CycleError, Ordered
from grouper.work import Job, JobCancelled, JobFailed, JobSkipped, NotReady, Pool, Status, open_pool


class Gate:
    """Bodies that say that they run, and wait until they are let through."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.opened = trio.Event()

    async def body(self, name: str) -> str:
        """Return the name, once the gate is open."""
        self.ran.append(name)
        await self.opened.wait()
        return name


async def not_ready(gate: Gate, name: str) -> str:
    """Say so."""
    gate.ran.append(name)
    raise NotReady(name)


async def test_a_fresh_call_ends_the_delay_of_a_stale_one() -> None:
    """What it failed with is out of date; the call's own tries and delays count from then."""
    gate = Gate()
    gate.opened.set()
    async with open_pool() as pool:
        stale = pool.start(not_ready, gate, "stale", key="k", retry=Backoff.every(1_000))
        await trio.sleep(1)
        fresh = pool.start(gate.body, "fresh", key="k")
        assert await fresh == "fresh"
        assert fresh is stale
    assert trio.current_time() == 1
    assert gate.ran == ["stale", "fresh"]


async def test_tries_count_from_the_freshest_call() -> None:
    """A call that says three has three."""
    gate = Gate()
    async with open_pool() as pool:
        job = pool.start(not_ready, gate, "old", key="k", retry=Backoff.every(10, timeout=15))
        await trio.sleep(12)
        pool.start(not_ready, gate, "new", key="k", retry=Backoff(1, jitter=0, attempts=3))
    assert gate.ran == ["old", "old", "new", "new", "new"]
    assert job.status is Status.NOT_READY


async def test_a_call_that_came_while_a_run_failed_is_the_next_try() -> None:
    """At once, and both calls come to what that comes to."""
    gate, failing = Gate(), trio.Event()

    async def fails() -> str:
        await failing.wait()
        raise OSError

    async with open_pool() as pool:
        first = pool.start(fails, key="k", retry=Backoff.every(1_000))
        await trio.testing.wait_all_tasks_blocked()
        second = pool.start(gate.body, "fresh", key="k")
        assert second is not first
        failing.set()
        gate.opened.set()
        assert [await first, await second] == ["fresh", "fresh"]
        assert (first.attempts, second.attempts, second.started) == (2, 2, first.started)
    assert trio.current_time() == 0


@pytest.mark.parametrize("calls_after", [range(6), range(1, 6)])
async def test_calls_that_are_after_others_are_covered_once_they_could_begin(calls_after: range) -> None:
    """The one that runs, and one more for all that came meanwhile; each handle has that one's value."""
    gate = Gate()
    async with open_pool() as pool:
        before = pool.start(trio.sleep, 5)
        await before
        jobs: list[Job[str]] = []
        for number in range(6):
            jobs.append(pool.start(gate.body, str(number), key="k", after=before if number in calls_after else ()))
            await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.ran == ["0", "5"]
    assert [job.value for job in jobs] == ["0", "5", "5", "5", "5", "5"]


async def test_a_covered_call_is_not_lost_when_the_one_that_covers_it_is_cancelled() -> None:
    """It takes its place, with what the freshest call said."""
    gate = Gate()
    async with open_pool() as pool:
        running = pool.start(gate.body, "running", key="k")
        await trio.testing.wait_all_tasks_blocked()
        first = pool.start(gate.body, "a", key="k")
        second, third = (pool.start(gate.body, name, key="k", after=pool.start(trio.sleep, 1)) for name in "bc")
        await trio.sleep(2)
        first.cancel()
        with pytest.raises(JobCancelled):
            await first
        second.cancel()
        gate.opened.set()
        assert await third == gate.ran[-1]
    assert (running.status, second.status) == (Status.SUCCESS, Status.UNKNOWN)
    assert len(gate.ran) == 2


async def test_a_cancelled_try_leaves_its_place_to_a_covered_call() -> None:
    """Also while it waits for its next try, from which the covered call has just taken it."""
    gate = Gate()
    gate.opened.set()
    async with open_pool(limit=2) as pool:
        stale = pool.start(not_ready, gate, "stale", key="k", retry=Backoff.every(1_000))
        await trio.testing.wait_all_tasks_blocked()
        pool.start(trio.sleep, 10)
        dep = pool.start(trio.sleep, 1)
        pool.start(trio.sleep, 10)  # so that what could begin after `dep` has no slot yet
        fresh = pool.start(gate.body, "fresh", key="k", after=dep)
        await trio.sleep(2)
        stale.cancel()
        assert await fresh == "fresh"
    assert gate.ran == ["stale", "fresh"]


async def test_calls_that_are_covered_share_a_failure() -> None:
    """It is told once."""

    async def fails() -> None:
        await trio.sleep(1)
        raise OSError("disk")

    with pytest.raises(ExceptionGroup, match="2 jobs failed"):
        async with open_pool(on_error="continue") as pool:
            dep = pool.start(trio.sleep, 0.5)
            pool.start(fails, key="k")
            others = [pool.start(fails, key="k", after=dep) for _ in range(2)]
            for other in others:
                with pytest.raises(JobFailed, match="disk"):
                    await other


async def test_a_ring_that_a_key_closes_is_the_failure_of_the_job_that_would_close_it() -> None:
    """One that could begin but for the key, while the one that runs waits for what is after it."""
    last: list[Job[None]] = []

    async def waits() -> None:
        with pytest.raises(JobSkipped, match="because of 'call', which failed: CycleError"):
            await last[0]

    with pytest.raises(ExceptionGroup, match="1 job failed") as caught:
        async with open_pool(on_error="continue") as pool:
            pool.start(waits, key="k", name="runs")
            call = pool.start(waits, key="k", name="call", after=pool.start(trio.sleep, 1))
            last.append(pool.start(trio.sleep, 0, after=call, name="last"))
    (error,) = caught.value.exceptions
    assert isinstance(error, CycleError)
    assert error.path == ("call", "runs", "last", "call")


async def test_what_is_covered_ends_with_a_run_that_is_given_up() -> None:
    """And so does what is after it."""
    gate = Gate()

    async def fails() -> None:
        await trio.sleep(2)
        raise OSError

    jobs: list[Job[object]] = []
    with pytest.raises(ExceptionGroup):
        async with open_pool() as pool:
            pool.start(fails)
            pool.start(gate.body, "running", key="k")
            jobs.append(pool.start(gate.body, "a", key="k", after=pool.start(trio.sleep, 1)))
            jobs.append(pool.start(gate.body, "b", key="k", after=pool.start(trio.sleep, 1)))
            jobs.append(pool.start(trio.sleep, 0, after=jobs[1]))
    assert [job.status for job in jobs] == [Status.UNKNOWN] * 3


async def test_a_stop_signal_tries_nothing_again() -> None:
    """A pool that polls stops at once; what was to be tried again has not failed."""
    pool, gate = Pool(), Gate()

    async def fails_late() -> None:
        await trio.sleep(5)
        raise OSError("not this time")

    async with grouper.invoke(Ordered([("pool", pool)])):
        polled = pool.start(not_ready, gate, "polled", retry=Backoff.every(3))
        late = pool.start(fails_late, retry=Backoff.every(3))
        await trio.sleep(1)
    assert trio.current_time() == 5
    assert (polled.status, str(polled.error)) == (Status.UNKNOWN, "polled")
    assert (late.status, str(late.error)) == (Status.UNKNOWN, "not this time")
