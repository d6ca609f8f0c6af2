"""What flate learnt from its task service and had to build anew (section 1.3 of the contract of bounded work)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Generator
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import Backoff, CycleError, UnknownDependency
from grouper.work import Job, Jobs, JobTimeout, NotReady, Status, job, open_pool


@attrs.define(eq=False)
class AfterEachStep(trio.abc.Instrument):
    """Looks at something after each step of each task."""

    look: Callable[[], object]

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.look()


@contextlib.contextmanager
def looking(look: Callable[[], object]) -> Generator[None]:
    instrument = AfterEachStep(look)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(instrument)


@pytest.mark.contract("work L1")
async def test_l01_it_is_not_quiet_while_one_job_takes_over_from_another() -> None:
    """Where the last job ends and one that awaited it goes on, the pool is quiet after that one, each time of 500."""
    log: list[str] = []

    async def source() -> None:
        await trio.lowlevel.checkpoint()

    async def consumer(awaited: Job[None]) -> None:
        await awaited
        await trio.lowlevel.checkpoint()
        log.append("consumed")

    async def watch() -> None:
        await pool.quiescent(0)
        log.append("quiet")

    async with open_pool(limit=2) as pool:
        for _ in range(500):
            async with trio.open_nursery() as nursery:
                pool.start(consumer, pool.start(source))
                nursery.start_soon(watch)
    assert log == ["consumed", "quiet"] * 500


@pytest.mark.contract("work L1")
async def test_l01_what_will_be_tried_again_is_not_quiet() -> None:
    """Nor what waits for others to begin: nothing runs and nothing is queued, and there is still something to come."""
    tries: list[float] = []

    async def flaky() -> None:
        tries.append(trio.current_time())
        ready = len(tries) == 3
        if not ready:
            raise NotReady

    async with open_pool() as pool:
        first = pool.start(flaky, retry=Backoff.every(10))
        last = pool.start(trio.sleep, 1, after=first)
        await wait_all_tasks_blocked()
        assert pool.running == ()
        assert pool.active == 2
        await pool.quiescent(0)
        assert (trio.current_time(), last.ready) == (21, True)


@pytest.mark.contract("work L2")
@pytest.mark.parametrize("how", ["awaited", "after"])
async def test_l02_the_number_of_active_jobs_never_dips(how: str) -> None:
    """Along a chain of jobs it goes down by one for each that ends, looked at after each step of each task."""
    seen: list[int] = []

    async def link(before: Job[None] | None) -> None:
        if before is not None:
            await before
        await trio.lowlevel.checkpoint()

    async with open_pool(limit=3) as pool:
        last = pool.start(link, None)
        for _ in range(50):
            last = pool.start(link, last) if how == "awaited" else pool.start(link, None, after=last)
        with looking(lambda: seen.append(pool.active)):
            await pool.drained()
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == set(range(52))


@pytest.mark.contract("work L3")
async def test_l03_a_job_that_waits_for_another_has_no_slot_and_is_active() -> None:
    """So one slot is enough for fifty that wait for each other."""
    seen: list[int] = []

    async def nest(depth: int) -> int:
        if not depth:
            seen.append(pool.active)
            return 0
        return 1 + await pool.start(nest, depth - 1)

    async with open_pool(limit=1) as pool:
        assert await pool.start(nest, 50) == 50
    assert seen == [51]


@pytest.mark.contract("work L3")
async def test_l03_a_job_that_waits_in_a_nursery_has_no_slot_either() -> None:
    """Nobody has to choose how to wait."""

    async def wait(child: Job[int]) -> None:
        await child

    async def child() -> int:
        return 7

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, pool.start(child))

    async with open_pool(limit=1) as pool:
        for _ in range(3):
            await pool.start(parent)


@pytest.mark.contract("work L4")
async def test_l04_a_call_that_is_after_others_takes_its_key_when_they_have_ended() -> None:
    """Until then jobs of that key run; from then on it is one of them, of which one runs at a time."""
    log: list[str] = []
    gates = [trio.Event() for _ in range(3)]

    async def body(place: int) -> None:
        log.append(f"{place} begins")
        await gates[place].wait()
        log.append(f"{place} ends")

    async with open_pool() as pool:
        source = pool.start(gates[0].wait)
        late = pool.start(body, 2, key="host", after=source)
        assert pool.start(body, 1, key="host") is not late
        await wait_all_tasks_blocked()
        assert log == ["1 begins"]
        gates[0].set()
        gates[2].set()
        await wait_all_tasks_blocked()
        assert log == ["1 begins"]
        gates[1].set()
    assert log == ["1 begins", "1 ends", "2 begins", "2 ends"]


@pytest.mark.contract("work L4")
async def test_l04_a_call_for_a_job_that_will_be_tried_again_is_covered_by_that_try() -> None:
    """Which does what was called for last, and does it at once."""

    async def fail() -> str:
        raise OSError

    async def succeed() -> str:
        return "done"

    async with open_pool() as pool:
        first = pool.start(fail, key="host", retry=Backoff.every(10))
        await wait_all_tasks_blocked()
        assert pool.start(succeed, key="host") is first
        assert (await first, trio.current_time(), first.attempts) == ("done", 0, 2)


@pytest.mark.contract("work L5")
async def test_l05_no_status_ever_goes_back() -> None:
    """A job that has succeeded has, also while its key runs again: that is another job."""
    jobs: list[Job[int]] = []
    seen: dict[Job[int], list[Status]] = {}

    def look() -> None:
        for each in jobs:
            states = seen.setdefault(each, [])
            if states[-1:] != [each.status]:
                states.append(each.status)

    async def body(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return number

    async def consumer() -> None:
        for _ in range(20):
            assert await jobs[0] == 0
            assert jobs[0].ready

    with looking(look):
        async with open_pool() as pool:
            for number in range(20):
                jobs.append(pool.start(body, number, key="host"))
                pool.start(consumer)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
    assert set(map(tuple, seen.values())) == {(Status.UNKNOWN, Status.SUCCESS)}
    assert len(seen) > 1


@pytest.mark.contract("work L6")
async def test_l06_jobs_that_wait_for_each_other_are_told_at_once() -> None:
    """The one whose wait would close the circle gets an error with the path; nobody waits for a timeout."""
    jobs: dict[str, Job[None]] = {}
    told: list[CycleError] = []

    async def body(name: str) -> None:
        try:
            await jobs[{"a": "b", "b": "c", "c": "a"}[name]]
        except CycleError as error:
            told.append(error)

    async with open_pool(limit=1) as pool:
        for name in "abc":
            jobs[name] = pool.start(body, name, name=name)
    assert len(told) == 1
    assert set(told[0].path) == {"a", "b", "c"}
    assert len(told[0].path) == 4
    assert trio.current_time() == 0


@pytest.mark.contract("work L6")
async def test_l06_a_job_cannot_wait_for_itself_or_for_what_is_after_it() -> None:
    """Which are circles as well."""
    jobs: list[Job[None]] = []
    told: list[tuple[str, ...]] = []

    async def body() -> None:
        for each in jobs:
            try:
                await each
            except CycleError as error:
                told.append(error.path)

    async with open_pool() as pool:
        jobs.append(pool.start(body, name="a"))
        jobs.append(pool.start(trio.sleep, 0, name="b", after=jobs[0]))
        jobs.append(pool.start(trio.sleep, 0, name="c", after=jobs[1]))
    assert told == [("a", "a"), ("a", "b", "a"), ("a", "c", "b", "a")]


@pytest.mark.contract("work L6")
@pytest.mark.parametrize("running", [False, True])
async def test_l06_a_call_with_a_key_cannot_make_a_circle(running: bool) -> None:
    """One that is to be after a job of its own key, or after what is after that, runs after it."""
    gate = trio.Event()
    async with open_pool(limit=2) as pool:
        if running:
            pool.start(gate.wait, key="host")
            await wait_all_tasks_blocked()
        first = pool.start(gate.wait, name="first", key="host")
        second = pool.start(gate.wait, name="second", after=first)
        calls = [pool.start(gate.wait, key="host", after=each) for each in (first, second)]
        gate.set()
        with trio.move_on_after(10) as waiting:
            await pool.drained()
        for each in (first, second, *calls):
            each.cancel()
        assert not waiting.cancelled_caught
        assert all(each.ready for each in (first, second, *calls))


@pytest.mark.contract("work L6")
async def test_l06_what_will_never_come_is_refused_where_it_is_asked_for() -> None:
    """A name that no job of the graph has, and a job that is not the pool's."""
    with pytest.raises(UnknownDependency) as caught:
        Jobs({"a": job(trio.sleep, 0, after="nobody")})
    assert caught.value.pairs == (("a", "nobody"),)
    async with open_pool() as pool, open_pool() as other:
        with pytest.raises(ValueError, match="a job of another pool"):
            pool.start(trio.sleep, 0, after=other.start(trio.sleep, 0))
        assert pool.active == 0


async def returns() -> None:
    pass


async def raises() -> None:
    raise OSError


async def is_not_ready() -> None:
    raise NotReady


async def exits() -> None:
    raise SystemExit(3)


async def is_interrupted() -> None:
    raise KeyboardInterrupt


async def is_closed() -> None:
    raise GeneratorExit


async def fails_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(raises)


def is_no_coroutine() -> Awaitable[None]:
    return 7  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # a mistake that users make


def raises_at_the_call() -> Awaitable[None]:
    raise OSError


async def fails_while_it_is_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        await raises()


def refuses(after: object) -> bool:
    raise OSError


@pytest.mark.contract("work L7")
@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (returns, Status.SUCCESS, None),
        (raises, Status.FAILED, OSError),
        (is_not_ready, Status.NOT_READY, NotReady),
        (exits, Status.FAILED, SystemExit),
        (is_interrupted, Status.FAILED, KeyboardInterrupt),
        (is_closed, Status.FAILED, GeneratorExit),
        (fails_in_a_nursery, Status.FAILED, ExceptionGroup),
        (is_no_coroutine, Status.FAILED, TypeError),
        (raises_at_the_call, Status.FAILED, OSError),
    ],
)
@pytest.mark.parametrize("on_error", ["cancel", "drain", "continue"])
async def test_l07_however_a_body_ends_its_job_does(
    on_error: Any, body: Callable[[], Awaitable[None]], status: Status, error: type[BaseException] | None
) -> None:
    """Those after it know what to do, those who wait are told, and the pool comes to its end."""
    jobs: list[Job[None]] = []
    with contextlib.suppress(ExceptionGroup, SystemExit, KeyboardInterrupt, GeneratorExit):
        async with open_pool(limit=1, on_error=on_error) as pool:
            jobs += pool.start(body), pool.start(trio.sleep, 1), pool.start(trio.sleep, 1)
            jobs.append(pool.start(returns, after=jobs[0]))
            await pool.drained()
    assert all(each.ended is not None for each in jobs)
    assert jobs[0].status is status
    assert jobs[0].error is None if error is None else isinstance(jobs[0].error, error)


@pytest.mark.contract("work L7")
@pytest.mark.parametrize(
    ("body", "timeout", "status", "error"),
    [
        (trio.sleep_forever, math.inf, Status.UNKNOWN, type(None)),
        (trio.sleep_forever, 5, Status.FAILED, JobTimeout),
        (fails_while_it_is_cancelled, math.inf, Status.FAILED, OSError),
        (fails_while_it_is_cancelled, 5, Status.FAILED, Exception),
    ],
)
async def test_l07_a_job_that_is_cut_short_has_ended(
    body: Callable[[], Awaitable[None]], timeout: float, status: Status, error: type[object]
) -> None:
    """By hand or by its own timeout, and whatever it does about it."""
    jobs: list[Job[None]] = []
    with contextlib.suppress(ExceptionGroup):
        async with open_pool(limit=1, on_error="continue") as pool:
            jobs += pool.start(body, timeout=timeout), pool.start(returns)
            await wait_all_tasks_blocked()
            if timeout == math.inf:
                jobs[0].cancel()
            await pool.drained()
    assert [each.status for each in jobs] == [status, Status.SUCCESS]
    assert isinstance(jobs[0].error, error)


@pytest.mark.contract("work L7")
async def test_l07_a_job_whose_condition_fails_has_failed() -> None:
    """What it waited for has ended, and what asks whether to run it raises."""
    with pytest.RaisesGroup(OSError):
        async with open_pool(on_error="continue") as pool:
            refused = pool.start(returns, after=pool.start(returns), when=refuses)
            behind = pool.start(returns, after=refused)
            await pool.drained()
            assert (refused.status, behind.status) == (Status.FAILED, Status.SKIPPED)


@pytest.mark.contract("work L8")
@pytest.mark.parametrize("between", [0, 1])
async def test_l08_quiet_waits_for_who_was_woken_by_the_last_job(between: int) -> None:
    """An idle job that the last one wakes, directly or by one task between, is active again before it is told, each time of 100."""
    log: list[str] = []

    async def source(event: trio.Event) -> None:
        event.set()

    async def relay(heard: trio.Event, told: trio.Event) -> None:
        await heard.wait()
        told.set()

    async def consumer(event: trio.Event) -> None:
        async with pool.idle():
            await event.wait()
        await trio.lowlevel.checkpoint()
        log.append("consumed")

    async def watch() -> None:
        await pool.quiescent(0)
        log.append("quiet")

    async with open_pool(limit=2) as pool:
        for _ in range(100):
            async with trio.open_nursery() as nursery:
                events = [trio.Event() for _ in range(between + 1)]
                for heard, told in pairwise(events):
                    nursery.start_soon(relay, heard, told)
                pool.start(consumer, events[-1])
                await wait_all_tasks_blocked()
                pool.start(source, events[0])
                nursery.start_soon(watch)
    assert log == ["consumed", "quiet"] * 100


@pytest.mark.contract("work L8")
async def test_l08_jobs_that_nobody_wakes_do_not_keep_it_from_being_quiet() -> None:
    """That is what idle means."""
    never = trio.Event()

    async def consumer() -> None:
        async with pool.idle():
            await never.wait()

    async with open_pool(limit=1) as pool:
        for _ in range(3):
            pool.start(consumer)
        pool.start(trio.sleep, 5)
        await pool.quiescent(0)
        assert (trio.current_time(), len(pool.running)) == (5, 3)
        never.set()
