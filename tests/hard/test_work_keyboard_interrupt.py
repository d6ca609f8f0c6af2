"""Ctrl-C at every executed line of the engine of pools and graphs of jobs, one at a time."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio

from grouper.work import Backoff, JobError, JobTimeout, NotReady, PoolClosed, all_done, job, open_pool, run_jobs
from grouper.work.slots import WORKERS

from .injection import Injector, in_modules, moments
from .scenario import Account, Scenario, leaves, run

ENGINE = (
    "grouper.work.crew",
    "grouper.work.job",
    "grouper.work.jobs",
    "grouper.work.keys",
    "grouper.work.ledger",
    "grouper.work.pool",
    "grouper.work.run",
    "grouper.work.slots",
    "grouper.work.submitting",
)
"""The modules between whose lines Ctrl-C comes."""


Body = Callable[[], Awaitable[None]]


class MineError(Exception):
    """What bodies raise."""


def body(account: Account, name: str, lasts: float = 0.1, *, fails: int = 0, ends: type[Exception] | None = None) -> Body:
    """A body that keeps account, and raises as often as it is told."""
    tries: list[int] = []

    async def work() -> None:
        tries.append(1)
        account.started.append(name)
        account.running[name] += 1
        try:
            await trio.sleep(lasts)
        finally:
            account.running[name] -= 1
            account.ended.append(name)
        if ends is not None or len(tries) <= fails:
            raise (ends or MineError)(name)

    return work


async def pooled(account: Account) -> None:
    """Two slots, parents that wait for children, keys, retries, timeouts, skips, a cancellation and who waits for quiet."""
    async with open_pool(limit=2, on_error="continue") as pool:

        async def insert() -> None:
            with contextlib.suppress(PoolClosed):
                await pool.insert(body(account, "inserted"))

        async def parent() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(insert)
                with contextlib.suppress(JobError, PoolClosed):
                    await pool.start(body(account, "child"))

        async def idle() -> None:
            async with pool.idle():
                await trio.sleep(0.3)

        with contextlib.suppress(PoolClosed):
            first = pool.start(parent)
            pool.start(parent, after=first)
            for _ in range(2):
                pool.start(body(account, "key"), key="k")
            pool.start(body(account, "again", fails=1), key="k", after=first, retry=Backoff(0.1, jitter=0, attempts=2))
            pool.start(body(account, "slow", 5.0), timeout=0.2)
            not_ready = pool.start(body(account, "not ready", ends=NotReady))
            pool.start(body(account, "never"), after=not_ready)
            pool.start(body(account, "clean up"), after=not_ready, when=all_done)
            pool.start(idle)
            cancelled = pool.start(body(account, "cancelled", 9.0))
            pool.start(body(account, "cancelled with it"), after=cancelled)
            await trio.sleep(1)
            await pool.quiescent(1)
            cancelled.cancel()
            await pool.drained()


async def graphed(account: Account) -> None:
    """A graph in which one job fails, others are to be tried again, and all is cancelled."""
    await run_jobs(
        {
            "a": body(account, "a"),
            "b": job(body(account, "b", fails=1), after="a", retry=Backoff(0.1, jitter=0)),
            "c": job(body(account, "c", ends=NotReady), after="a"),
            "d": job(body(account, "d"), after=("b", "c")),
            "e": job(body(account, "e", 9.0), timeout=0.3),
            "f": job(body(account, "f", 9.0), after="b"),
            "g": job(body(account, "g"), after=("d", "e"), when=all_done),
        },
        limit=3,
    )


@pytest.mark.parametrize("scenario", [pooled, graphed])
@pytest.mark.parametrize("times", [1, pytest.param(sys.maxsize, marks=pytest.mark.soak)])
def test_ctrl_c_between_any_two_lines_neither_hangs_nor_leaves_a_job(scenario: Scenario, times: int, seeded_scheduler: int) -> None:
    """Wherever it comes, all that was begun has ended, no worker is left, and the KeyboardInterrupt comes out."""
    run(scenario, Account(), Injector(in_modules(*ENGINE)), seeded_scheduler)  # the first run imports modules, line by line
    watched = Injector(in_modules(*ENGINE))
    assert leaves(run(scenario, Account(), watched, seeded_scheduler)) <= {JobTimeout}
    places = moments(watched.lines, times)
    for at in places:
        account = Account()
        injector = Injector(in_modules(*ENGINE), at, lambda: signal.raise_signal(signal.SIGINT), watched)
        error = run(scenario, account, injector, seeded_scheduler)
        where = f"Ctrl-C at {injector.struck} (line {at} of the run)"
        assert injector.struck is not None, where
        assert account.left == [], f"{where}: {account.left} are left running"
        assert not WORKERS, f"{where}: workers are left"
        kinds = leaves(error)
        assert KeyboardInterrupt in kinds, f"{where}: {error!r} came out"
        assert kinds <= {KeyboardInterrupt, JobTimeout}, f"{where}: {error!r} came out"
    assert len(places) > 150, "the scenario executes too few lines to show anything"
