"""`open_pool` and `Pool`: what they take, refuse, raise and show."""

from __future__ import annotations

import contextvars
import math
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import grouper
from grouper import Backoff, CycleError, ErrorTrace, Member, Ordered, Signals
from grouper.testing import FakeRunner
from grouper.work import (
    Job,
    JobCancelled,
    JobEnded,
    JobFailed,
    JobNotReady,
    JobSkipped,
    JobStarted,
    JobTimeout,
    NotReady,
    Pool,
    PoolClosed,
    Status,
    all_done,
    open_pool,
    ready_if,
)
from grouper.work.pool import DEFAULT_LIMIT


async def noop() -> None:
    """Do nothing."""


async def fails() -> None:
    """Raise."""
    raise ValueError("no")


async def not_ready() -> None:
    """Say so."""
    ready_if([], "the list is empty")


BAD_POOLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "limit 0": ({"limit": 0}, ValueError, "limit=0 would let no job run"),
    "limit 2.5": ({"limit": 2.5}, TypeError, "limit=2.5 is not a number of jobs"),
    "limit True": ({"limit": True}, TypeError, "limit=True"),
    "on_error": ({"on_error": "ignore"}, ValueError, "on_error='ignore' is not one of"),
    "timeout": ({"timeout": -1}, ValueError, "timeout=-1 is not 0 or more"),
    "timeout text": ({"timeout": "5"}, TypeError, "timeout='5' is not a number"),
}


@pytest.mark.parametrize(("given", "kind", "told"), BAD_POOLS.values(), ids=BAD_POOLS)
def test_bad_pools_are_refused_by_argument(given: dict[str, Any], kind: type[Exception], told: str) -> None:
    """Before anything is open."""
    with pytest.raises(kind, match=told):
        open_pool(**given)


BAD_JOBS: dict[str, tuple[Callable[[Pool, Job[Any]], object], type[Exception], str]] = {
    "not callable": (lambda pool, _: pool.start(3), TypeError, "job '3': 3 is not callable: give an async function"),  # type: ignore[arg-type]  # pyright: ignore
    "timeout": (lambda pool, _: pool.start(noop, timeout=-1), ValueError, "job 'noop': timeout=-1 is not 0 or more"),
    "retry": (lambda pool, _: pool.start(noop, retry=3), TypeError, "job 'noop': retry=3 is no Backoff"),  # type: ignore[arg-type]  # pyright: ignore
    "when": (lambda pool, _: pool.start(noop, when=1), TypeError, "job 'noop': when=1 is not callable"),  # type: ignore[arg-type]  # pyright: ignore
    "after a name": (lambda pool, _: pool.start(noop, after="a", name="b"), TypeError, "job 'b': after='a' is no job"),  # type: ignore[arg-type]  # pyright: ignore
    "after another pool's": (lambda pool, other: pool.start(noop, name="b", after=other), ValueError, "job 'b' is after 'alien'"),
    "key": (lambda pool, _: pool.start(noop, key=[]), TypeError, r"job 'noop': key=\[\] cannot be hashed"),  # type: ignore[arg-type]  # pyright: ignore
}


@pytest.mark.parametrize(("start", "kind", "told"), BAD_JOBS.values(), ids=BAD_JOBS)
async def test_bad_jobs_are_refused_by_name(start: Callable[[Pool, Job[Any]], object], kind: type[Exception], told: str) -> None:
    """At the call; the pool is as it was."""
    async with open_pool() as other:
        alien = other.start(noop, name="alien")
    async with open_pool() as pool:
        with pytest.raises(kind, match=told.replace("'noop'", "'.*noop'")):
            start(pool, alien)
        assert pool.active == 0


async def test_a_coroutine_is_refused_with_the_fix() -> None:
    """It was called already."""
    coroutine = noop()
    async with open_pool() as pool:
        with pytest.raises(TypeError, match="give the function itself, without the call"):
            pool.start(coroutine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # what is tested
    coroutine.close()


async def test_the_default_limit_is_four_jobs_per_cpu() -> None:
    """Unbounded must be asked for."""
    assert Pool().limit == DEFAULT_LIMIT
    running = most = 0

    async def body() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    async with open_pool() as pool:
        for _ in range(3 * DEFAULT_LIMIT):
            pool.start(body)
    assert most == DEFAULT_LIMIT


async def test_a_job_is_a_handle_for_good() -> None:
    """Also after the end of the pool it can be awaited, any number of times."""

    async def answer() -> int:
        await trio.sleep(2)
        return 42

    async with open_pool() as pool:
        job = pool.start(answer, name="answer")
        assert (repr(job), job.status, job.ready) == ("<Job 'answer' waiting>", Status.UNKNOWN, False)
        await trio.sleep(1)
        assert job.state == "running"
    assert [await job, await job, job.value] == [42, 42, 42]
    assert job.started is not None
    assert job.ended is not None
    assert (job.state, job.ready, job.attempts, job.ended - job.started) == ("success", True, 1, 2)


async def test_a_job_without_a_name_has_that_of_its_function_and_a_number() -> None:
    """Which tells it from others in logs and errors."""
    async with open_pool() as pool:
        names = [pool.start(noop).name, pool.start(noop).name, pool.start(noop, name="x").name]
    assert [name.rpartition(".")[2] for name in names] == ["noop#1", "noop#2", "x"]


async def test_awaiting_a_job_without_a_value_raises_what_it_came_to() -> None:
    """With the job, and its error as the cause."""
    async with open_pool(on_error="continue") as pool:
        failed, unready = pool.start(fails, name="f"), pool.start(not_ready, name="n")
        skipped, cancelled = pool.start(noop, name="s", after=failed), pool.start(trio.sleep_forever, name="c")
        refused = pool.start(noop, name="r", after=unready, when=lambda _: False)
        await trio.testing.wait_all_tasks_blocked()
        cancelled.cancel()
        with pytest.raises(JobFailed, match=r"job 'f' failed: ValueError\('no'\)") as caught:
            await failed
        assert caught.value.__cause__ is failed.error
        assert caught.value.job is failed
        with pytest.raises(JobNotReady, match="job 'n' is not ready: the list is empty"):
            await unready
        with pytest.raises(NotReady):
            await unready
        with pytest.raises(JobSkipped, match="job 's' was skipped because of 'f', which failed: ValueError"):
            await skipped
        with pytest.raises(JobSkipped, match="job 'r' was skipped because of 'n', which is not ready"):
            await refused
        with pytest.raises(JobCancelled, match="job 'c' was cancelled"):
            await cancelled
        failed.error = None  # so that the pool, whose end is not the point here, has nothing to raise


async def test_a_job_that_takes_too_long_fails_with_its_name() -> None:
    """It is cancelled after its timeout; each try has that time."""
    jobs: list[Job[None]] = []
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool:
            jobs.append(pool.start(trio.sleep_forever, name="slow", timeout=5, retry=Backoff(1, jitter=0, attempts=2)))
    assert [str(error) for error in caught.value.exceptions] == ["job 'slow' was not done within 5 s and was cancelled"]
    assert isinstance(jobs[0].error, JobTimeout)
    assert jobs[0].attempts == 2


async def test_the_limit_counts_no_job_that_waits_for_its_next_try() -> None:
    """It has no slot then, and `state` says so."""
    async with open_pool(limit=1) as pool:
        retried = pool.start(not_ready, retry=Backoff.every(100, timeout=150))
        other = pool.start(noop)
        await other
        assert retried.state == "trying again"
    assert retried.status is Status.NOT_READY
    assert retried.attempts == 2


async def test_jobs_have_the_contextvars_of_who_starts_them() -> None:
    """And what they set stays with them."""
    variable: contextvars.ContextVar[object] = contextvars.ContextVar("variable", default="default")

    async def body(mine: object) -> object:
        found = variable.get()
        variable.set(mine)
        await trio.lowlevel.checkpoint()
        assert variable.get() is mine
        return found

    async with open_pool(limit=1) as pool:
        first = pool.start(body, 1)
        submitter: list[int] = []
        variable.set(submitter)
        second, third = pool.start(body, 2), pool.start(body, 3)
        assert [await first, await second, await third] == ["default", submitter, submitter]
        assert await second is submitter
        assert variable.get() is submitter


async def test_events_tell_what_begins_and_ends() -> None:
    """From the moment on in which somebody listens, until the pool is gone."""
    told: list[tuple[type, str, str]] = []

    async def listen(pool: Pool, *, task_status: trio.TaskStatus[None]) -> None:
        async with pool.events() as stream:
            task_status.started()
            async for event in stream:
                assert isinstance(event, JobStarted | JobEnded)
                told.append((type(event), event.path, event.job.status.value))

    async with trio.open_nursery() as nursery, open_pool(limit=1) as pool:
        pool.start(noop, name="before")
        await pool.drained()
        await nursery.start(listen, pool)
        pool.start(noop, name="a")
        pool.start(not_ready, name="b")
    assert told == [
        (JobStarted, "a", "success"),  # a job is shown as it is when one looks
        (JobEnded, "a", "success"),
        (JobStarted, "b", "not ready"),
        (JobEnded, "b", "not ready"),
    ]


async def test_a_pool_that_is_not_open_takes_no_jobs_and_says_how() -> None:
    """Neither before it is opened nor after its end."""
    pool = Pool()
    with pytest.raises(PoolClosed, match="its pool is not open: use `async with open_pool"):
        pool.start(noop)
    with pytest.raises(PoolClosed, match="no events"):
        pool.events()
    pool.close()
    await pool.drained()
    await pool.quiescent(0)
    assert (pool.active, pool.running, pool.failures) == (0, (), ())
    async with open_pool() as other:
        pass
    with pytest.raises(PoolClosed, match="its pool is over"):
        other.start(noop)


async def test_a_closed_pool_takes_jobs_from_its_jobs_alone() -> None:
    """As a nursery does while its block ends."""
    started: list[Job[None]] = []

    async def parent() -> None:
        await trio.sleep(1)
        started.append(pool.start(noop))

    async with open_pool() as pool:
        pool.start(parent)
        pool.close()
        pool.close()
        with pytest.raises(PoolClosed, match="takes jobs only from those that run"):
            pool.start(noop)
    assert started[0].ready


async def test_a_pool_is_opened_once_at_a_time() -> None:
    """A second opening would take the jobs of the first."""
    block = open_pool()
    async with block:
        with pytest.raises(RuntimeError, match="opened once at a time"):
            async with block:
                pass


async def test_insert_waits_until_the_job_has_begun() -> None:
    """Whoever makes jobs faster than they are done is held back."""
    begun: list[float] = []

    async def body() -> None:
        begun.append(trio.current_time())
        await trio.sleep(1)

    async with open_pool(limit=2) as pool:
        for _ in range(5):
            await pool.insert(body)
            assert len(pool.running) <= 2
            assert pool.active == len(pool.running)
        assert len(begun) == 5


async def test_an_insert_that_is_cancelled_is_as_if_it_had_not_been() -> None:
    """The job is cancelled, where nobody else wants it."""
    async with open_pool(limit=1) as pool:
        pool.start(trio.sleep, 5)
        with trio.move_on_after(1):
            await pool.insert(noop)
        assert pool.active == 1


async def test_what_waits_for_the_job_that_inserts_it_is_refused() -> None:
    """It would never begin."""

    async def parent() -> None:
        with pytest.raises(CycleError, match=r"'parent'.*'child'"):
            await pool.insert(noop, name="child", after=pool.running[0])

    async with open_pool() as pool:
        pool.start(parent, name="parent")


@pytest.mark.parametrize("n", [-1, 1.5, True])
async def test_quiescent_takes_a_number_of_jobs(n: Any) -> None:
    """Anything else is refused at once."""
    async with open_pool() as pool:
        with pytest.raises((ValueError, TypeError), match=r"quiescent\("):
            await pool.quiescent(n)


async def test_a_job_cannot_wait_for_its_own_pool() -> None:
    """Neither to drain nor to be quiet; both say what to do instead."""

    async def body() -> None:
        with pytest.raises(RuntimeError, match=r"job 'me' waits for its own pool to drain: await the jobs"):
            await pool.drained()
        with pytest.raises(RuntimeError, match=r"job 'me' is active itself .*: do it in `async with pool.idle"):
            await pool.quiescent(0)
        await pool.quiescent(1)

    async with open_pool() as pool:
        pool.start(body, name="me")


@pytest.mark.parametrize("what", ["yielding", "idle"])
async def test_only_a_job_can_leave_its_slot(what: str) -> None:
    """Outside of one it is an error at once."""
    async with open_pool() as pool:
        with pytest.raises(RuntimeError, match=f"pool.{what}\\(\\) was called outside of a job of this pool"):
            getattr(pool, what)()


async def test_a_block_and_a_job_that_fail_come_out_together() -> None:
    """Nothing is lost."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_pool(on_error="continue") as pool:
            pool.start(fails)
            await pool.drained()
            raise KeyError("block")
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


async def test_a_block_that_waits_for_a_failed_job_adds_nothing_to_its_error() -> None:
    """The job's own is there."""
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool(on_error="continue") as pool:
            await pool.start(fails, name="f")
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert caught.value.exceptions[0].__notes__ == ["in job 'f'"]


async def test_a_pool_that_took_too_long_says_so() -> None:
    """Block and jobs are cancelled."""
    with pytest.raises(trio.TooSlowError, match="the pool was not done within 5 s"):
        async with open_pool(timeout=5) as pool:
            pool.start(trio.sleep_forever)
            await trio.sleep_forever()


async def test_a_pool_as_a_member_finishes_what_was_started_when_it_is_stopped() -> None:
    """It is ready at once, stops before what it is after, and takes nothing new meanwhile."""
    pool, db = Pool(limit=1), FakeRunner(ready_at_once=True, stops=True)
    done: list[int] = []

    async def body(number: int) -> None:
        await trio.sleep(1)
        assert db.running
        done.append(number)

    async with grouper.invoke(Ordered([("db", db), ("pool", pool)])) as process:
        assert process.children[1].value is pool
        for number in range(3):
            pool.start(body, number)
    assert done == [0, 1, 2]
    with pytest.raises(PoolClosed):
        pool.start(noop)


async def test_a_pool_that_is_not_done_within_its_grace_is_cancelled() -> None:
    """As any member."""
    pool = Pool()
    jobs: list[Job[None]] = []
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([Member("pool", pool, grace=5)])):
            jobs.append(pool.start(trio.sleep_forever))
    assert "had not stopped 5 s after SIGTERM" in str(caught.value.exceptions[0])
    assert jobs[0].state == "cancelled"


@pytest.mark.parametrize("on_error", ["cancel", "drain"])
async def test_a_job_that_fails_ends_a_pool_that_is_a_member(on_error: Any) -> None:
    """Its group is told by the member's failure, also where the others are let finish."""
    pool = Pool(on_error=on_error)
    finished: list[bool] = []

    async def slow() -> None:
        await trio.sleep(3)
        finished.append(True)

    with pytest.raises(ErrorTrace):
        async with grouper.invoke(Ordered([("pool", pool)])):
            pool.start(slow)
            await trio.testing.wait_all_tasks_blocked()
            pool.start(fails)
            await trio.sleep_forever()
    assert finished == [True] * (on_error == "drain")


async def test_a_pool_can_be_run_again() -> None:
    """A member that is restarted has no jobs of the run before."""
    pool = Pool(on_error="continue")
    with pytest.raises(ExceptionGroup):
        async with grouper.invoke(pool):
            pool.start(fails)
    async with grouper.invoke(pool):
        assert pool.failures == ()
        job = pool.start(noop)
    assert job.ready


async def test_all_done_runs_what_cleans_up() -> None:
    """Whatever became of the others; `failures` tells."""
    cleaned: list[int] = []

    async def clean() -> None:
        cleaned.append(len(pool.failures))

    with pytest.raises(ExceptionGroup):
        async with open_pool(on_error="continue", limit=math.inf) as pool:
            pool.start(clean, after=[pool.start(fails), pool.start(trio.sleep, 3)], when=all_done)
    assert cleaned == [1]


async def test_what_waits_for_an_idle_job_does_not_keep_it_from_seeing_quiet() -> None:
    """Nothing can come of it before that job has ended, also if it was started meanwhile."""
    seen: list[str] = []

    async def looks() -> None:
        async with pool.idle():
            await pool.quiescent(0)
        seen.append("quiet")

    async def works() -> None:
        await trio.sleep(5)
        pool.start(noop, after=looking)
        seen.append("worked")

    async with open_pool() as pool:
        looking = pool.start(looks)
        pool.start(noop, after=pool.start(noop, after=looking))
        pool.start(works)
    assert seen == ["worked", "quiet"]


async def test_what_is_raised_in_the_place_of_a_timeout_is_its_cause() -> None:
    """Neither of the two is lost."""

    async def body() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while cleaning up")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool:
            pool.start(body, timeout=5)
    (error,) = caught.value.exceptions
    assert isinstance(error, JobTimeout)
    assert isinstance(error.__cause__, OSError)


async def test_an_error_at_the_end_of_the_time_is_no_timeout() -> None:
    """Nobody had cancelled it."""

    async def body() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        raise OSError("at last")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool:
            pool.start(body, timeout=5)
    assert isinstance(caught.value.exceptions[0], OSError)


async def test_a_job_that_has_succeeded_has_no_error_of_an_earlier_try() -> None:
    """`attempts` tells that there was one."""
    tries: list[int] = []

    async def body() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError

    async with open_pool() as pool:
        job = pool.start(body, retry=Backoff(1))
    assert (job.status, job.error, job.attempts) == (Status.SUCCESS, None, 3)


async def test_a_block_can_be_too_slow_when_all_jobs_have_ended() -> None:
    """It is the block that the timeout cuts then, and it is told as ever."""
    with pytest.raises(trio.TooSlowError):
        async with open_pool(timeout=5) as pool:
            pool.start(noop)
            pool.close()
            await pool.drained()
            await trio.sleep_forever()


async def test_a_pool_given_signals_that_say_stop_does_not_open() -> None:
    """As a group starts nobody then."""
    signals, pool = Signals(), Pool()
    signals.send(signal.SIGTERM)
    await pool.run(signals, task_status=trio.TASK_STATUS_IGNORED)
    with pytest.raises(PoolClosed, match="is not open"):
        pool.start(noop)
