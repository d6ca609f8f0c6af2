"""Jobs that share a key against flate's Coalescer (section 1.2 of the contract of bounded work)."""

from __future__ import annotations

import gc
import math
import weakref
from contextvars import ContextVar
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import Backoff, MemberKilled, invoke
from grouper.work import Job, Pool, Status, open_pool

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


@attrs.define(eq=False)
class Syncs:
    """Bodies that end when the test says so, and what became of each in order."""

    log: list[str] = attrs.field(factory=list[str])
    now: int = 0
    peak: int = 0
    _gates: list[trio.Event] = attrs.field(factory=list[trio.Event])

    async def run(self, what: str = "run") -> str:
        self.now += 1
        self.peak = max(self.peak, self.now)
        self.log.append(what)
        gate = trio.Event()
        self._gates.append(gate)
        try:
            await gate.wait()
        finally:
            self.now -= 1
        return what

    async def fail(self, what: str) -> str:
        await self.run(what)
        raise KeyError(what)

    async def step(self) -> list[str]:
        """Let what runs end; the log since the last step, when nobody has anything left to do."""
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.set()
        await wait_all_tasks_blocked()
        news = self.log[:]
        self.log.clear()
        return news


@pytest.mark.contract("work C1")
async def test_c01_one_job_of_a_key_runs_at_a_time() -> None:
    """However many slots there are."""
    syncs = Syncs()
    async with open_pool(limit=math.inf) as pool:
        for _ in range(5):
            pool.start(syncs.run, key="host")
            await syncs.step()
            pool.start(syncs.run, key="host")
        while await syncs.step():
            pass
    assert syncs.peak == 1


@pytest.mark.contract("work C2")
async def test_c02_all_calls_during_a_run_are_covered_by_one_more() -> None:
    """Six calls are two runs."""
    syncs = Syncs()
    async with open_pool() as pool:
        first = pool.start(syncs.run, key="host")
        assert await syncs.step() == ["run"]
        again = [pool.start(syncs.run, key="host") for _ in range(5)]
        assert {*again} == {again[0]} != {first}
        assert await syncs.step() == ["run"]
        assert await syncs.step() == []
        assert pool.active == 0


@pytest.mark.contract("work C3")
async def test_c03_the_freshest_call_says_what_is_done() -> None:
    """The function, its arguments, and the context in which it runs."""
    syncs = Syncs()

    async def report(what: str) -> str:
        return await syncs.run(f"{what} for {WHO.get()}")

    async with open_pool() as pool:
        pool.start(syncs.run, "first", key="host")
        await wait_all_tasks_blocked()
        pool.start(syncs.run, "second", key="host")
        token = WHO.set("ann")
        last = pool.start(report, "third", key="host", name="newest")
        WHO.reset(token)
        assert await syncs.step() == ["first", "third for ann"]
        assert [job.name for job in pool.running] == ["newest"]
        await syncs.step()
        assert last.value == "third for ann"


@pytest.mark.contract("work C3")
async def test_c03_the_freshest_call_is_the_last_to_run() -> None:
    """Also where the job that runs fails and is tried again: what an earlier call wanted never comes after it."""
    log: list[str] = []

    async def flaky() -> None:
        log.append("first")
        await trio.sleep(1)
        if len(log) == 1:
            raise OSError

    async def body(what: str) -> None:
        log.append(what)

    async with open_pool() as pool:
        pool.start(flaky, key="host", retry=Backoff.every(10))
        await wait_all_tasks_blocked()
        pool.start(body, "second", key="host")
        await trio.sleep(5)
        pool.start(body, "third", key="host")
    assert log[-1] == "third"


@pytest.mark.contract("work C4")
async def test_c04_a_call_for_a_queued_job_is_covered_by_it() -> None:
    """It has not begun, so it sees what the call is about: there is no second run."""
    syncs = Syncs()
    async with open_pool(limit=1) as pool:
        pool.start(syncs.run, "other")
        await wait_all_tasks_blocked()
        jobs = {pool.start(syncs.run, what, key="host") for what in ("first", "second", "third")}
        assert len(jobs) == 1
        assert await syncs.step() == ["other", "third"]
        assert await syncs.step() == []


@pytest.mark.contract("work C5")
async def test_c05_jobs_of_different_keys_run_together() -> None:
    """As jobs without a key do."""
    syncs = Syncs()
    async with open_pool() as pool:
        for key in ("a", "b", ("a", 1), 7):
            pool.start(syncs.run, key=key)
        assert await syncs.step() == ["run"] * 4
        await syncs.step()
    assert syncs.peak == 4


@pytest.mark.contract("work C6")
async def test_c06_a_failure_frees_its_key() -> None:
    """It is counted, and the next call runs."""
    syncs = Syncs()
    with pytest.RaisesGroup(KeyError):
        async with open_pool(on_error="continue") as pool:
            bad = pool.start(syncs.fail, "bad", key="host")
            await syncs.step()
            await syncs.step()
            assert pool.failures == (bad,)
            good = pool.start(syncs.run, "good", key="host")
            assert await syncs.step() == ["good"]
            await syncs.step()
            assert good.ready


@pytest.mark.contract("work C7")
async def test_c07_a_call_during_a_run_that_fails_is_not_lost() -> None:
    """Its own run comes all the same."""
    syncs = Syncs()
    with pytest.RaisesGroup(KeyError):
        async with open_pool(on_error="continue") as pool:
            first = pool.start(syncs.fail, "first", key="host")
            await syncs.step()
            second = pool.start(syncs.run, "second", key="host")
            assert await syncs.step() == ["second"]
            await syncs.step()
            assert (first.status, second.value) == (Status.FAILED, "second")


@pytest.mark.contract("work C7")
async def test_c07_a_call_during_a_run_that_is_cancelled_is_not_lost() -> None:
    """As with one that fails."""
    syncs = Syncs()
    async with open_pool() as pool:
        first = pool.start(syncs.run, "first", key="host")
        await syncs.step()
        second = pool.start(syncs.run, "second", key="host")
        first.cancel()
        assert await syncs.step() == ["second"]
        await syncs.step()
        assert (first.status, second.value) == (Status.UNKNOWN, "second")


@pytest.mark.contract("work C7")
async def test_c07_what_fails_again_and_again_runs_as_often_as_it_was_started() -> None:
    """And no more often, so that nothing goes round for ever."""
    runs: list[Job[Any]] = []

    async def fail() -> None:
        raise KeyError

    with pytest.raises(ExceptionGroup, match="5 jobs failed"):
        async with open_pool(on_error="continue") as pool:
            for _ in range(5):
                runs.append(pool.start(fail, key="host"))
                await wait_all_tasks_blocked()
    assert [job.attempts for job in runs] == [1] * 5


@pytest.mark.contract("work C8")
async def test_c08_a_key_that_has_no_job_takes_no_memory() -> None:
    """Neither the key nor the job is kept when it has ended, also badly."""

    class Key:
        pass

    async def body() -> None:
        await trio.sleep(1)

    kept: list[weakref.ref[Any]] = []

    def start(pool: Pool, number: int) -> None:
        key = Key()
        kept.append(weakref.ref(key))
        job = pool.start(body, key=key)
        if number % 2:
            pool.start(body, key=key)
        if number % 3 == 0:
            job.cancel()

    async with open_pool() as pool:
        for number in range(50):
            start(pool, number)
        await pool.drained()
        await wait_all_tasks_blocked()
        gc.collect()
        assert [each for each in kept if each() is not None] == []


@pytest.mark.contract("work C9")
async def test_c09_a_run_more_goes_to_the_end_of_the_queue() -> None:
    """A key that is started all the time leaves the others their turns."""
    log: list[str] = []

    async def body(key: str) -> None:
        log.append(key)
        if len(log) < 8:
            pool.start(body, key, key=key)
        await trio.lowlevel.checkpoint()

    async with open_pool(limit=1) as pool:
        for key in ("hot", "a", "b"):
            pool.start(body, key, key=key)
    assert log == ["hot", "a", "b"] * 3 + ["hot"]


@pytest.mark.contract("work C10")
@pytest.mark.parametrize("where", ["queued", "running", "to run again", "after another", "trying again"])
async def test_c10_a_cancellation_frees_the_key_wherever_the_job_is(where: str) -> None:
    """Every later call runs."""
    syncs = Syncs()

    async def fail() -> str:
        raise KeyError

    async with open_pool(limit=2) as pool:
        other = pool.start(trio.sleep_forever)
        if where == "queued":
            blocker = pool.start(syncs.run, "blocker")
            await wait_all_tasks_blocked()
            job = pool.start(syncs.run, key="host")
            assert job.started is None
            job.cancel()
            blocker.cancel()
        elif where == "after another":
            job = pool.start(syncs.run, key="host", after=other)
            job.cancel()
        elif where == "trying again":
            job = pool.start(fail, key="host", retry=Backoff(100))
            await wait_all_tasks_blocked()
            job.cancel()
        else:
            job = first = pool.start(syncs.run, key="host")
            await wait_all_tasks_blocked()
            if where == "to run again":
                job = pool.start(syncs.run, key="host")
                job.cancel()
            first.cancel()
        await syncs.step()
        later = pool.start(syncs.run, "later", key="host")
        assert later is not job
        assert await syncs.step() == ["later"]
        await syncs.step()
        assert (job.status, later.status) == (Status.UNKNOWN, Status.SUCCESS)
        other.cancel()


@pytest.mark.contract("work C10")
async def test_c10_a_pool_that_is_run_again_knows_no_key_of_the_run_before() -> None:
    """Where that was cancelled with jobs queued, these keys run now."""
    pool, ran = Pool(limit=1), list[str]()

    async def body(what: str) -> None:
        ran.append(what)

    with pytest.raises(MemberKilled):
        async with invoke(pool) as process:
            pool.start(trio.sleep_forever, key="a")
            pool.start(body, "never", key="b")
            await wait_all_tasks_blocked()
            process.kill()
    async with invoke(pool):
        for key in ("a", "b"):
            pool.start(body, key, key=key)
    assert ran == ["a", "b"]


@pytest.mark.contract("work C11")
async def test_c11_a_call_returns_the_job_that_covers_it() -> None:
    """Which can be awaited for what that run returned; the one before keeps its own value."""
    syncs = Syncs()
    async with open_pool() as pool:
        first = pool.start(syncs.run, "first", key="host")
        await wait_all_tasks_blocked()
        second = pool.start(syncs.run, "second", key="host")
        third = pool.start(syncs.run, "third", key="host")
        await syncs.step()
        await syncs.step()
        assert (await first, await second, await third) == ("first", "third", "third")
