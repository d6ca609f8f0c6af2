"""FakeRunner: the test drives it, and what cannot be done raises."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper.testing import FakeRunner

SIGHUP, SIGINT, SIGTERM, SIGQUIT = signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT


async def test_it_is_ready_when_the_test_says_so_and_with_its_value() -> None:
    """`ready(value)` makes the runner ready, and nothing else does."""
    fake = FakeRunner("db")
    async with grouper.background(fake) as process:
        await fake.wait_started()
        await wait_all_tasks_blocked()
        assert process.state is grouper.State.STARTING
        fake.ready("address")
        assert await process.wait_ready() == "address"
        assert fake.runs[0].was_ready
        fake.exit()


async def test_wait_started_waits_for_the_start() -> None:
    """Whoever waits before the start is told."""
    fake = FakeRunner()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fake.wait_started)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        async with grouper.background(fake):
            await fake.wait_started()
            fake.exit()


async def test_wait_started_does_not_miss_a_start_of_before() -> None:
    """Whoever asks after the run has ended gets it too."""
    fake = FakeRunner()
    async with grouper.background(fake):
        await fake.wait_started()
        fake.exit()
    assert await fake.wait_started() is fake.runs[0]


async def test_ready_at_once() -> None:
    """With `ready_at_once` nobody has to say ready."""
    fake = FakeRunner(ready_at_once=True, stops=True)
    async with grouper.invoke(fake):
        assert fake.runs[0].was_ready


async def test_a_signal_is_recorded_when_it_is_sent() -> None:
    """`signals` has each signal at once and in order, two that are equal as two."""
    fake = FakeRunner(ready_at_once=True)
    async with grouper.invoke(fake) as process:
        for number in (SIGHUP, SIGHUP, SIGTERM, SIGHUP):
            process.signal(number)
        assert fake.signals == [SIGHUP, SIGHUP, SIGTERM, SIGHUP]
        fake.exit()


async def test_pending_signals_are_recorded() -> None:
    """What was sent before the run is the first that it gets."""
    fake = FakeRunner(stops=True)
    signals = grouper.Signals()
    signals.send(SIGHUP)
    signals.send(SIGTERM)
    await fake.run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert fake.signals == [SIGHUP, SIGTERM]


async def test_it_ignores_stop_signals_until_it_is_told_to_exit() -> None:
    """As ifrit's, it runs on until the test says exit."""
    fake = FakeRunner(ready_at_once=True)
    async with grouper.invoke(fake) as process:
        process.signal(SIGTERM)
        await wait_all_tasks_blocked()
        assert fake.running
        fake.exit()
        assert (await process.wait()).ok
        assert not fake.running


@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGQUIT, signal.SIGKILL])
async def test_stops_ends_it_with_a_stop_signal(number: int) -> None:
    """With `stops` a stop signal is a clean exit."""
    fake = FakeRunner(stops=True)
    signals = grouper.Signals()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fake.run(signals, task_status=trio.TASK_STATUS_IGNORED))
        await fake.wait_started()
        signals.send(number)
        run = await fake.wait_exited()
    assert (run.signals, run.killed) == ([number], False)


async def test_stops_does_not_end_it_with_another_signal() -> None:
    """With `stops` a SIGHUP is recorded and no more."""
    fake = FakeRunner(ready_at_once=True, stops=True)
    async with grouper.invoke(fake) as process:
        process.signal(SIGHUP)
        await wait_all_tasks_blocked()
        assert fake.running


async def test_fail_raises_the_exception_itself() -> None:
    """The exit has the exception that the test gave."""
    fake, error = FakeRunner(ready_at_once=True), OSError("disk full")
    async with trio.open_nursery() as nursery:

        async def fail() -> None:
            await fake.wait_started()
            fake.fail(error)

        nursery.start_soon(fail)
        with pytest.raises(OSError, match="disk full") as caught:
            await fake.run(grouper.Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert caught.value is error


async def test_a_kill_ends_it() -> None:
    """It obeys a cancellation, and tells."""
    fake = FakeRunner(ready_at_once=True)
    with contextlib.suppress(grouper.MemberKilled):
        async with grouper.invoke(fake) as process:
            process.kill()
            await process.wait()
    assert fake.runs[0].killed


@pytest.mark.parametrize("end", ["exit", "stop", "kill"])
async def test_cleanup_is_part_of_each_end_and_shielded(end: str) -> None:
    """However it ends, it has exited only when its cleanup is over, and a signal of that time is recorded."""
    fake = FakeRunner(ready_at_once=True, stops=True, cleanup=5)
    signals = grouper.Signals()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fake.run(signals, task_status=trio.TASK_STATUS_IGNORED))
        run = await fake.wait_started()
        await wait_all_tasks_blocked()
        if end == "exit":
            fake.exit()
        elif end == "stop":
            signals.send(SIGTERM)
        else:
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            assert (run.exited, run.killed) == (False, end == "kill")
            signals.send(SIGHUP)
            assert await fake.wait_exited() is run
        assert run.signals[-1] == SIGHUP


async def test_wait_signal_gives_each_signal_once() -> None:
    """It waits for the next signal that was not waited for; a cancelled wait takes none."""
    fake = FakeRunner(ready_at_once=True)
    async with grouper.invoke(fake) as process:
        with trio.move_on_after(1):
            await fake.wait_signal()
        process.signal(SIGHUP)
        process.signal(SIGINT)
        assert (await fake.wait_signal(), await fake.wait_signal()) == (SIGHUP, SIGINT)
        fake.exit()
        await process.wait()
        with pytest.raises(RuntimeError, match=r"has exited and gets no more signals; it got \[1, 2\]"):
            await fake.wait_signal()


async def test_waits_begin_before_the_first_run() -> None:
    """`wait_signal` and `wait_exited` wait for the start too."""
    fake = FakeRunner(stops=True)
    got: list[int] = []

    async def wait() -> None:
        got.append(await fake.wait_signal())
        await fake.wait_exited()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        async with grouper.background(fake):
            await fake.wait_started()
    assert got == [SIGTERM]


async def test_each_run_is_recorded() -> None:
    """A restart is a second run, to which the methods then speak."""
    fake = FakeRunner("api", ready_at_once=True, stops=True)
    async with grouper.invoke(grouper.restart_on(fake, OSError)):
        fake.fail(OSError("gone"))
        second = await fake.wait_started(2)
        assert [run.exited for run in fake.runs] == [True, False]
        assert fake.signals == second.signals == []
        fake.fail(OSError("gone again"))
        await fake.wait_started(3)
    assert fake.signals == [SIGTERM]
    assert fake.runs[0].signals == []


async def test_two_runs_at_once_are_told_apart_by_their_place_in_runs() -> None:
    """Where it runs twice, the test says which run it means."""
    fake = FakeRunner(ready_at_once=True)
    async with grouper.invoke(grouper.Parallel([("a", fake), ("b", fake)])):
        with pytest.raises(RuntimeError, match="it runs 2 times at once; say which"):
            fake.exit()
        for run in fake.runs:
            run.exit()


async def test_a_group_stops_its_fakes_in_order() -> None:
    """In a group a fake is a member like any other."""
    db, api = FakeRunner("db", ready_at_once=True), FakeRunner("api", ready_at_once=True, stops=True)
    async with grouper.invoke(grouper.Ordered([("db", db), ("api", api)])) as process:
        process.signal(SIGINT)
        await db.wait_signal()
        assert api.signals == db.signals == [SIGINT]
        assert not api.running
        assert db.running
        db.exit()


async def drive(fake: FakeRunner, *steps: Callable[[FakeRunner], object]) -> None:
    """Run a fake, take steps, and look at each when all is quiet."""
    signals = grouper.Signals()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fake.run(signals, task_status=trio.TASK_STATUS_IGNORED))
        await fake.wait_started()
        for step in steps:
            step(fake)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def do_ready(fake: FakeRunner) -> None:
    fake.ready()


def do_exit(fake: FakeRunner) -> None:
    fake.exit()


def do_fail(fake: FakeRunner) -> None:
    fake.fail(OSError())


@pytest.mark.parametrize("step", [do_ready, do_exit, do_fail])
def test_before_it_runs_it_cannot_be_told_anything(step: Callable[[FakeRunner], None]) -> None:
    """A step that comes too early raises: ifrit's fake does nothing then."""
    with pytest.raises(RuntimeError, match=r"the fake runner 'db' cannot .*: it was not started yet; `await fake.wait_started"):
        step(FakeRunner("db"))


@pytest.mark.parametrize("step", [do_ready, do_exit, do_fail])
async def test_after_its_exit_it_cannot_be_told_anything(step: Callable[[FakeRunner], None]) -> None:
    """A step that comes too late raises, for the fake and for its run."""
    fake = FakeRunner("db")
    await drive(fake, do_exit)
    with pytest.raises(RuntimeError, match=r"the fake runner 'db' cannot .*: it has exited"):
        step(fake)
    with pytest.raises(RuntimeError, match=r"the fake runner 'db' cannot .*: it has exited"):
        step(fake.runs[0])  # type: ignore[arg-type]  # a run has the same three methods


@pytest.mark.parametrize(
    ("fake", "steps", "text"),
    [
        (FakeRunner(), [do_ready, do_ready], "cannot be ready: it is already"),
        (FakeRunner(ready_at_once=True), [do_ready], "cannot be ready: it is already"),
        (FakeRunner(cleanup=1), [do_exit, do_exit], "cannot exit: it is exiting already, the test or a stop signal has ended it"),
        (FakeRunner(cleanup=1), [do_exit, do_fail], "cannot fail: it is exiting already"),
    ],
)
async def test_nothing_can_be_told_twice(fake: FakeRunner, steps: list[Callable[[FakeRunner], None]], text: str) -> None:
    """The second of two steps that exclude each other raises."""
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match=text)):
        await drive(fake, *steps)


async def test_what_was_killed_cannot_be_told_to_exit() -> None:
    """The error says that it was killed."""
    fake = FakeRunner(cleanup=1)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: fake.run(grouper.Signals(), task_status=trio.TASK_STATUS_IGNORED))
            await fake.wait_started()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="it is exiting already, it was killed"):
                fake.exit()


async def test_signals_that_are_read_already_are_refused() -> None:
    """A fake that cannot get its signals fails, and was not started."""
    fake, signals = FakeRunner(), grouper.Signals()
    with signals._forwarded(grouper.Signals()), pytest.raises(RuntimeError, match="read by another"):
        await fake.run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert fake.runs == []
    signals.send(SIGHUP)


async def test_signals_can_be_read_by_others_after_a_run() -> None:
    """A fake lets go of its signals when it exits."""
    fake, signals = FakeRunner(stops=True), grouper.Signals()
    signals.send(SIGTERM)
    await fake.run(signals, task_status=trio.TASK_STATUS_IGNORED)
    await fake.wait_exited()
    signals.send(SIGINT)
    assert (await signals.wait(), fake.signals) == (SIGINT, [SIGTERM])


async def test_what_it_is_given_is_checked() -> None:
    """Errors name the fake and the fix."""
    with pytest.raises(ValueError, match="the fake runner 'db': cleanup=-1"):
        FakeRunner("db", cleanup=-1)
    with pytest.raises(ValueError, match="runs are counted from 1"):
        await FakeRunner("db").wait_started(0)
    broken: Any = "broken"
    with pytest.RaisesGroup(pytest.RaisesExc(TypeError, match="cannot fail with 'broken'")):
        await drive(FakeRunner("db"), lambda fake: fake.fail(broken))


def test_its_repr_has_its_name() -> None:
    """Failed asserts show which fake it is."""
    assert repr(FakeRunner("db")) == "FakeRunner(name='db', ready_at_once=False, stops=False, cleanup=0.0)"
