"""What the fake runner promises (section 1.13 of the contract)."""

from __future__ import annotations

import signal

import pytest
import trio

import grouper
from grouper.testing import FakeRunner

from .runners import ended, watched


@pytest.mark.contract("76")
async def test_76_a_fake_records_each_of_its_runs() -> None:
    """A fake counts its runs, keeps for each what it was told, and ends it with the error that the test gives."""
    fake = FakeRunner(ready_at_once=True)
    error = ValueError("broken")
    for number, sent in enumerate([[signal.SIGHUP, signal.SIGTERM], [signal.SIGINT]], 1):
        async with watched(fake) as process:
            run = await fake.wait_started(number)
            for each in sent:
                process.signal(each)
            assert run.signals == sent
            fake.fail(error)
            assert (await ended(process)).error is error
    assert [run.signals for run in fake.runs] == [[signal.SIGHUP, signal.SIGTERM], [signal.SIGINT]]


@pytest.mark.contract("77")
async def test_77_a_fake_runs_until_the_test_ends_it() -> None:
    """By itself a fake is neither ready nor ever ends, and it ignores signals, which the test can wait for."""
    fake = FakeRunner()
    async with watched(fake) as process:
        await fake.wait_started()
        process.signal(signal.SIGUSR1)
        process.signal(signal.SIGHUP)
        assert [await fake.wait_signal(), await fake.wait_signal()] == [signal.SIGUSR1, signal.SIGHUP]
        await trio.sleep(1_000)
        assert process.state is grouper.State.STARTING
        fake.ready("value")
        assert await process.wait_ready() == "value"
        fake.exit()
        assert (await ended(process)).ok


@pytest.mark.contract("77")
async def test_77_what_a_fake_cannot_do_raises() -> None:
    """To be ready twice, or to exit when it does not run, is an error of the test and is told, not swallowed."""
    fake = FakeRunner()
    with pytest.raises(RuntimeError, match="not started"):
        fake.exit()
    async with watched(fake) as process:
        await fake.wait_started()
        fake.ready()
        with pytest.raises(RuntimeError, match="already"):
            fake.ready()
        fake.exit()
        await process.wait()
    with pytest.raises(RuntimeError, match="has exited"):
        fake.exit()
