"""A pool against flate's task service (section 1.1 of the contract of bounded work)."""

from __future__ import annotations

import contextlib
import math
import os
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper.work import Job, JobEnded, Jobs, JobStarted, NotReady, Pool, Status, open_pool, run_jobs

CPUS = os.cpu_count() or 1


class Width:
    """A body that counts how many of it run at once."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self.total = 0

    async def __call__(self) -> None:
        self.now += 1
        self.total += 1
        self.peak = max(self.peak, self.now)
        await trio.sleep(1)
        self.now -= 1


def block(pool: Pool, way: str) -> AbstractAsyncContextManager[None]:
    """The block in which a job leaves its slot."""
    return pool.idle() if way == "idle" else pool.yielding()


@pytest.mark.contract("work S1")
async def test_s01_a_pool_is_bounded_unless_it_is_said() -> None:
    """Four jobs for each CPU run at once."""
    gate = trio.Event()
    async with open_pool() as pool:
        for _ in range(4 * CPUS + 5):
            pool.start(gate.wait)
        await wait_all_tasks_blocked()
        assert len(pool.running) == 4 * CPUS
        gate.set()


@pytest.mark.contract("work S1")
async def test_s01_a_graph_is_bounded_unless_it_is_said() -> None:
    """As a pool."""
    width = Width()
    await run_jobs([(f"{place}", width) for place in range(4 * CPUS + 5)])
    assert width.peak == 4 * CPUS


@pytest.mark.contract("work S2")
async def test_s02_at_most_limit_bodies_run_at_a_time() -> None:
    """And no fewer, as long as there are jobs."""
    gate, width = trio.Event(), Width()
    async with open_pool(limit=3) as pool:
        for _ in range(12):
            pool.start(gate.wait)
            pool.start(width)
        await wait_all_tasks_blocked()
        assert len(pool.running) == 3
        gate.set()
    assert (width.total, width.peak) == (12, 3)


@pytest.mark.contract("work S2")
async def test_s02_without_a_bound_all_run_at_once() -> None:
    """Which is said with `math.inf`."""
    width = Width()
    async with open_pool(limit=math.inf) as pool:
        for _ in range(1_000):
            pool.start(width)
    assert width.peak == 1_000


@pytest.mark.contract("work S2")
@pytest.mark.parametrize("limit", [0, -1, -math.inf])
async def test_s02_a_limit_below_one_is_refused(limit: Any) -> None:
    """It is no way to say that there is no bound."""
    for wrong in (lambda: open_pool(limit=limit), lambda: Jobs({}, limit=limit)):
        with pytest.raises((ValueError, TypeError), match="limit="):
            wrong()


@pytest.mark.contract("work S3")
async def test_s03_start_never_waits_and_the_surplus_does() -> None:
    """A hundred jobs are started in one step, and one of them runs."""
    gate = trio.Event()
    async with open_pool(limit=1) as pool:
        jobs = [pool.start(gate.wait) for _ in range(100)]
        assert pool.running == ()
        await wait_all_tasks_blocked()
        assert [job for job in jobs if job.started is not None] == jobs[:1]
        gate.set()
        await pool.drained()
        assert all(job.ready for job in jobs)


@pytest.mark.contract("work S3")
async def test_s03_insert_waits_for_a_slot() -> None:
    """It returns when the job has begun."""
    gate, inserted = trio.Event(), list[Job[Any]]()

    async def insert() -> None:
        inserted.append(await pool.insert(gate.wait))

    async with open_pool(limit=1) as pool, trio.open_nursery() as nursery:
        blocker = pool.start(trio.Event().wait)
        nursery.start_soon(insert)
        await wait_all_tasks_blocked()
        assert (inserted, pool.active) == ([], 2)
        blocker.cancel()
        await wait_all_tasks_blocked()
        assert inserted == list(pool.running)
        gate.set()


@pytest.mark.contract("work S4")
async def test_s04_what_is_queued_at_a_cancellation_never_runs_and_says_so() -> None:
    """It ends UNKNOWN and was never started, which is to be seen in its handle; those that ran were."""
    jobs: list[Job[None]] = []
    with trio.CancelScope() as scope:
        async with open_pool(limit=2) as pool:
            jobs += (pool.start(trio.sleep_forever) for _ in range(1_000))
            await wait_all_tasks_blocked()
            scope.cancel()
    assert {job.status for job in jobs} == {Status.UNKNOWN}
    assert [job.started is None for job in jobs] == [False] * 2 + [True] * 998
    assert all(job.ended is not None for job in jobs)


@pytest.mark.contract("work S4")
async def test_s04_nothing_runs_in_a_scope_that_is_cancelled_already() -> None:
    """Not one of a thousand."""
    ran: list[int] = []

    async def body(number: int) -> None:
        ran.append(number)

    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_pool() as pool:
            for number in range(1_000):
                pool.start(body, number)
    assert ran == []


@pytest.mark.contract("work S5")
async def test_s05_a_failure_leaves_the_others_alone_and_is_kept() -> None:
    """Where that is wanted: the exception is the job's, counts as a failure, and is raised at the end."""
    error = KeyError("gone")

    async def fail() -> None:
        raise error

    with pytest.RaisesGroup(pytest.RaisesExc(KeyError, check=lambda raised: raised is error)):
        async with open_pool(limit=1, on_error="continue") as pool:
            bad, good = pool.start(fail, name="bad"), pool.start(trio.sleep, 1)
            await pool.drained()
            assert (bad.status, bad.error, good.status) == (Status.FAILED, error, Status.SUCCESS)
            assert pool.failures == (bad,)
    assert error.__notes__ == ["in job 'bad'"]


@pytest.mark.contract("work S7")
async def test_s07_active_counts_what_has_not_ended() -> None:
    """Running or queued alike; who asks from inside a job counts itself."""
    gate, seen = trio.Event(), list[int]()

    async def body() -> None:
        await gate.wait()
        seen.append(pool.active)

    async with open_pool(limit=2) as pool:
        for _ in range(5):
            pool.start(body)
        assert pool.active == 5
        await wait_all_tasks_blocked()
        assert (pool.active, len(pool.running)) == (5, 2)
        gate.set()
    assert sorted(seen) == [1, 2, 3, 4, 5]
    assert pool.active == 0


@pytest.mark.contract("work S8")
async def test_s08_drained_waits_for_every_job() -> None:
    """For fifty, when one at a time has a slot."""
    async with open_pool(limit=1) as pool:
        jobs = [pool.start(trio.sleep, 1) for _ in range(50)]
        await pool.drained()
        assert all(job.ready for job in jobs)


@pytest.mark.contract("work S8")
async def test_s08_jobs_may_be_started_while_others_drain() -> None:
    """From outside and by jobs, at any moment: whoever waits waits for those as well."""
    done: list[str] = []

    async def chain(left: int) -> None:
        await trio.sleep(1)
        done.append("job")
        if left:
            pool.start(chain, left - 1)

    async def drain() -> None:
        await pool.drained()
        done.append("drained")

    async with open_pool(limit=2) as pool, trio.open_nursery() as nursery:
        pool.start(chain, 4)
        nursery.start_soon(drain)
        await trio.sleep(0.5)
        pool.start(chain, 4)
    assert done == ["job"] * 10 + ["drained"]


@pytest.mark.contract("work S9")
async def test_s09_a_job_that_waits_for_its_own_pool_is_told() -> None:
    """By an error where it waits, in a nursery inside the job too."""

    async def alone() -> None:
        with pytest.raises(RuntimeError, match="'alone' waits for its own pool"):
            await pool.drained()

    async def nested() -> None:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="'nested' waits for its own pool")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.drained)

    async with open_pool() as pool:
        await pool.start(alone, name="alone")
        await pool.start(nested, name="nested")


@pytest.mark.contract("work S10")
async def test_s10_quiescent_returns_when_so_few_are_active() -> None:
    """Each call for itself."""
    told: list[int] = []

    async def watch(n: int) -> None:
        await pool.quiescent(n)
        told.append(n)

    async with open_pool(limit=1) as pool, trio.open_nursery() as nursery:
        gates = [trio.Event() for _ in range(4)]
        for gate in gates:
            pool.start(gate.wait)
        for n in (2, 0, 1, 2):
            nursery.start_soon(watch, n)
        for gate, expected in zip(gates, ([], [2, 2], [2, 2, 1], [2, 2, 1, 0]), strict=True):
            gate.set()
            await wait_all_tasks_blocked()
            assert told == expected


@pytest.mark.contract("work S11")
async def test_s11_what_is_quiet_already_is_not_waited_for() -> None:
    """An empty pool is, and so is one with as few jobs as were asked for."""
    gate = trio.Event()
    async with open_pool() as pool:
        await pool.quiescent(0)
        pool.start(gate.wait)
        pool.start(gate.wait)
        await pool.quiescent(2)
        await pool.quiescent(3)
        assert pool.active == 2
        gate.set()


@pytest.mark.contract("work S12")
async def test_s12_a_wait_for_quiet_can_be_given_up() -> None:
    """Nothing is left behind, and other waiters go on."""
    gate, told = trio.Event(), list[int]()

    async def watch(n: int) -> None:
        await pool.quiescent(n)
        told.append(n)

    before = trio.lowlevel.current_statistics().tasks_living
    async with open_pool() as pool, trio.open_nursery() as outer:
        pool.start(gate.wait)
        outer.start_soon(watch, 0)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(watch, 0)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert told == []
        gate.set()
    assert told == [0]
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.contract("work S12")
async def test_s12_a_number_that_never_comes_is_refused() -> None:
    """There cannot be fewer jobs than none."""
    async with open_pool() as pool:
        with pytest.raises(ValueError, match=r"quiescent\(-1\) would never return"):
            await pool.quiescent(-1)


@pytest.mark.contract("work S12")
async def test_s12_a_job_that_counts_itself_is_told() -> None:
    """As long as it is active there are not as few jobs as it waits for; that it is idle helps."""

    async def body() -> None:
        with pytest.raises(RuntimeError, match="is active itself while it waits for 0"):
            await pool.quiescent(0)
        await pool.quiescent(1)
        async with pool.idle():
            await pool.quiescent(0)

    async with open_pool() as pool:
        await pool.start(body)


@pytest.mark.contract("work S13")
async def test_s13_quiet_is_what_holds_when_the_waiter_goes_on() -> None:
    """Not what held for an instant: where a job is started in the step in which another ended, the waiter waits on."""
    gate, told = trio.Event(), list[str]()

    async def watch() -> None:
        await pool.quiescent(1)
        told.append("quiet")

    async with open_pool(limit=1) as pool, trio.open_nursery() as nursery:
        pool.start(gate.wait)
        queued = pool.start(gate.wait)
        nursery.start_soon(watch)
        await wait_all_tasks_blocked()
        queued.cancel()
        assert pool.active == 1
        pool.start(gate.wait)
        await wait_all_tasks_blocked()
        assert told == []
        gate.set()
    assert told == ["quiet"]


@pytest.mark.contract("work S14")
async def test_s14_parents_that_fill_a_pool_can_wait_for_their_children() -> None:
    """Who awaits a job leaves its slot meanwhile, and stays active."""
    seen: list[tuple[int, int]] = []

    async def child() -> int:
        await trio.sleep(1)
        seen.append((pool.active, len(pool.running)))
        return 7

    async def parent() -> int:
        return await pool.start(child)

    async with open_pool(limit=2) as pool:
        parents = [pool.start(parent) for _ in range(2)]
        assert [await each for each in parents] == [7, 7]
    assert sorted(seen) == [(3, 3), (4, 4)]


@pytest.mark.contract("work S14")
async def test_s14_a_job_that_waits_for_something_else_can_leave_its_slot() -> None:
    """With `yielding`, and has one again after it."""
    log: list[str] = []

    async def other() -> None:
        log.append("other")
        arrived.set()

    async def first() -> None:
        async with pool.yielding():
            await arrived.wait()
            log.append(f"{pool.active} active")
        log.append("first")

    arrived = trio.Event()
    async with open_pool(limit=1) as pool:
        pool.start(first)
        pool.start(other)
    assert log == ["other", "1 active", "first"]


@pytest.mark.contract("work S15")
@pytest.mark.parametrize("way", ["yielding", "awaiting"])
async def test_s15_an_exception_in_the_wait_brings_the_slot_back_first(way: str) -> None:
    """There is neither a slot too few nor one too many afterwards."""
    gate = trio.Event()

    async def fail() -> None:
        raise NotReady

    async def body() -> None:
        with pytest.raises(NotReady):
            if way == "yielding":
                async with pool.yielding():
                    await fail()
            else:
                await pool.start(fail)
        await gate.wait()

    async with open_pool(limit=1) as pool:
        first = pool.start(body)
        await wait_all_tasks_blocked()
        others = [pool.start(gate.wait), pool.start(gate.wait)]
        await wait_all_tasks_blocked()
        assert pool.running == (first,)
        first.cancel()
        await wait_all_tasks_blocked()
        assert pool.running == (others[0],)
        gate.set()


@pytest.mark.contract("work S16")
async def test_s16_without_a_bound_there_is_no_slot_to_leave() -> None:
    """The block is as any other."""

    async def body() -> str:
        async with pool.yielding():
            await trio.sleep(1)
        return "done"

    async with open_pool(limit=math.inf) as pool:
        assert await pool.start(body) == "done"


@pytest.mark.contract("work S17")
async def test_s17_an_idle_job_is_not_active_and_has_no_slot() -> None:
    """After the block it is active at once, and goes on when there is a slot."""
    signal, gate, log = trio.Event(), trio.Event(), list[str]()

    async def body() -> None:
        async with pool.idle():
            await signal.wait()
        log.append("has a slot")

    async with open_pool(limit=1) as pool:
        pool.start(body)
        await wait_all_tasks_blocked()
        assert pool.active == 0
        pool.start(gate.wait)
        await wait_all_tasks_blocked()
        assert pool.active == 1
        signal.set()
        await wait_all_tasks_blocked()
        assert (pool.active, log) == (2, [])
        gate.set()
    assert log == ["has a slot"]


@pytest.mark.contract("work S18")
async def test_s18_an_exception_in_an_idle_block_restores_both() -> None:
    """The job is active again, once, and has a slot again, once."""
    gates = [trio.Event() for _ in range(2)]
    end = trio.Event()

    async def body() -> None:
        for gate in gates:
            with contextlib.suppress(KeyError):
                async with pool.idle():
                    await gate.wait()
                    raise KeyError
            await trio.lowlevel.checkpoint()
        await end.wait()

    async with open_pool(limit=1) as pool:
        job = pool.start(body)
        for gate in gates:
            await wait_all_tasks_blocked()
            assert pool.active == 0
            gate.set()
        await wait_all_tasks_blocked()
        assert pool.active == 1
        pool.start(end.wait)
        await wait_all_tasks_blocked()
        assert (pool.active, pool.running) == (2, (job,))
        end.set()
    assert pool.active == 0


@pytest.mark.contract("work S19")
@pytest.mark.parametrize("way", ["idle", "yielding"])
async def test_s19_only_a_job_has_a_slot_to_leave(way: str) -> None:
    """To leave one elsewhere is an error, in a job of another pool too."""

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="outside of a job of this pool"):
            block(pool, way)

    async with open_pool() as pool, open_pool() as other:
        await elsewhere()
        other.start(elsewhere)
        pool.start(trio.sleep, 1)
        await pool.quiescent(0)
        assert pool.active == 0


@pytest.mark.contract("work S19")
@pytest.mark.parametrize("inner", ["idle", "yielding"])
@pytest.mark.parametrize("outer", ["idle", "yielding"])
async def test_s19_a_block_inside_a_block_changes_nothing(outer: str, inner: str) -> None:
    """The slot is left once and had again after the outer one; that the job is idle counts once."""
    gate, seen = trio.Event(), list[int]()

    async def body() -> None:
        async with block(pool, outer):
            async with block(pool, inner):
                seen.append(pool.active)
            seen.append(pool.active)
        seen.append(pool.active)
        await gate.wait()

    async with open_pool(limit=1) as pool:
        first = pool.start(body)
        await wait_all_tasks_blocked()
        pool.start(gate.wait)
        await wait_all_tasks_blocked()
        assert pool.running == (first,)
        gate.set()
    assert seen == [0 if "idle" in (outer, inner) else 1, 0 if outer == "idle" else 1, 1]


@pytest.mark.contract("work S20")
@pytest.mark.parametrize("way", ["idle", "yielding"])
async def test_s20_a_wait_for_a_slot_can_be_cancelled(way: str) -> None:
    """The job ends at once, whatever holds the slot, and there are as many slots as before."""
    signal, gate = trio.Event(), trio.Event()

    async def body() -> None:
        async with block(pool, way):
            await signal.wait()

    async with open_pool(limit=1) as pool:
        job = pool.start(body)
        await wait_all_tasks_blocked()
        blocker = pool.start(gate.wait)
        await wait_all_tasks_blocked()
        signal.set()
        await wait_all_tasks_blocked()
        assert job.ended is None
        job.cancel()
        await wait_all_tasks_blocked()
        assert (job.status, job.ended is not None, pool.running) == (Status.UNKNOWN, True, (blocker,))
        later = [pool.start(trio.Event().wait) for _ in range(2)]
        await wait_all_tasks_blocked()
        assert pool.running == (blocker,)
        gate.set()
        await wait_all_tasks_blocked()
        assert pool.running == (later[0],)
        for each in later:
            each.cancel()


@pytest.mark.contract("work S21")
async def test_s21_what_is_left_can_be_given_up_when_all_others_are_done() -> None:
    """Several that wait for what may never come do not keep each other waiting: that is what being idle is for."""
    arrived, log = trio.Event(), list[str]()

    async def waiter() -> None:
        async with pool.idle(), trio.open_nursery() as nursery:
            nursery.start_soon(give_up, nursery.cancel_scope)
            await arrived.wait()
            log.append("arrived")

    async def give_up(scope: trio.CancelScope) -> None:
        await pool.quiescent(0)
        log.append("given up")
        scope.cancel()

    async def producer() -> None:
        await trio.sleep(5)
        log.append("nothing made")

    async with open_pool(limit=1) as pool:
        for body in (waiter, waiter, producer):
            pool.start(body)
    assert log == ["nothing made", "given up", "given up"]


@pytest.mark.contract("work S22")
async def test_s22_events_tell_how_long_each_job_ran() -> None:
    """Each has the job and a time, so that what took longer than a second can be told by name."""
    slow: list[str] = []
    begun: dict[str, float] = {}

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        async with pool.events() as stream:
            task_status.started()
            async for event in stream:
                if isinstance(event, JobStarted):
                    begun[event.path] = event.time
                elif isinstance(event, JobEnded) and event.time - begun[event.path] > 1:
                    slow.append(f"{event.job.name} {event.time - begun[event.path]:g} s")

    async with trio.open_nursery() as nursery, open_pool(limit=1) as pool:
        await nursery.start(listen)
        pool.start(trio.sleep, 5, name="slow")
        pool.start(trio.sleep, 1, name="quick")
    assert slow == ["slow 5 s"]
    assert list(begun) == ["slow", "quick"]


@pytest.mark.contract("work S23")
async def test_s23_the_names_of_those_that_run_can_be_asked() -> None:
    """Of those that have begun, at any time."""
    gate = trio.Event()
    async with open_pool(limit=2) as pool:
        for name in ("sync", "build", "queued"):
            pool.start(gate.wait, name=name)
        await wait_all_tasks_blocked()
        assert sorted(job.name for job in pool.running) == ["build", "sync"]
        gate.set()
    assert pool.running == ()
