"""The pytest plugin: what `start_runner` does with the runners of a test, and that it is no burden to others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
import grouper.testing
from grouper.testing import FakeRunner, StartRunner
from grouper.testing.starting import starting


def stoppable(name: str) -> FakeRunner:
    return FakeRunner(name, ready_at_once=True, stops=True)


async def test_the_fixture_starts_a_runner(start_runner: StartRunner) -> None:
    """A test gets the process of a runner that is ready."""
    process = await start_runner(FakeRunner(ready_at_once=True, stops=True, cleanup=1))
    assert process.state is grouper.State.READY


async def test_start_waits_until_the_runner_is_ready() -> None:
    """What comes after the start can use what was started."""
    fake = FakeRunner("db", stops=True)
    async with starting() as start, trio.open_nursery() as nursery:
        nursery.start_soon(start, fake)
        await fake.wait_started()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        fake.ready()


async def test_runners_are_stopped_at_the_end_the_last_first() -> None:
    """Each is told to stop when the one started after it has exited."""
    order: list[str] = []
    fakes = [stoppable("db"), FakeRunner("api", ready_at_once=True)]
    async with trio.open_nursery() as nursery:

        async def note_the_end(fake: FakeRunner) -> None:
            await fake.wait_exited()
            order.append(fake.name)

        async def let_go() -> None:
            await fakes[1].wait_signal()
            await wait_all_tasks_blocked()
            assert fakes[0].signals == []
            fakes[1].exit()

        nursery.start_soon(let_go)
        for fake in fakes:
            nursery.start_soon(note_the_end, fake)
        async with starting() as start:
            for fake in fakes:
                await start(fake)
    assert order == ["api", "db"]
    assert not any(run.killed for fake in fakes for run in fake.runs)


async def test_a_runner_that_fails_cancels_the_block_and_is_raised() -> None:
    """A test need not wait for what cannot come any more; the other runners are still stopped politely."""
    db, api = stoppable("db"), stoppable("api")
    error = OSError("gone")

    async def use() -> None:
        async with starting() as start:  # pragma: no branch
            await start(db)
            await start(api)
            api.fail(error)
            await trio.sleep_forever()

    with pytest.raises(OSError, match="gone") as caught:
        await use()
    assert caught.value is error
    assert (db.signals, db.runs[0].killed) == ([15], False)


async def test_failures_at_the_stop_are_raised_together() -> None:
    """Several failures make one group."""
    fakes = [FakeRunner(name, ready_at_once=True) for name in ("db", "api")]

    async def fail_when_told(fake: FakeRunner) -> None:
        await fake.wait_signal()
        fake.fail(OSError(fake.name))

    async with trio.open_nursery() as nursery:
        for fake in fakes:
            nursery.start_soon(fail_when_told, fake)
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="db"), pytest.RaisesExc(OSError, match="api")):
            async with starting() as start:
                for fake in fakes:
                    await start(fake)


async def test_a_runner_that_is_never_ready_fails_in_its_start() -> None:
    """What it raised is raised by the call, once, and the block goes on."""
    error = OSError("no config")

    async def broken(signals: grouper.Signals, *, task_status: trio.TaskStatus[None]) -> None:
        raise error

    async with starting() as start:
        with pytest.raises(OSError, match="no config") as caught:
            await start(broken)
        await trio.lowlevel.checkpoint()
    assert caught.value is error


async def test_a_start_that_is_cancelled_kills_the_runner() -> None:
    """A runner that nobody waits for any more has ended when the start has."""
    fake = FakeRunner(cleanup=1)
    async with starting() as start:
        with trio.move_on_after(1):
            await start(fake)
        assert fake.runs[0].killed
        assert fake.runs[0].exited


async def test_a_runner_that_exits_cleanly_ends_nothing() -> None:
    """A clean exit during the test is no failure of it."""
    fake = FakeRunner(ready_at_once=True)
    async with starting() as start:
        process = await start(fake)
        fake.exit()
        await process.wait()
        await trio.lowlevel.checkpoint()


async def test_a_cancellation_from_outside_kills() -> None:
    """A test that is cancelled ends, also where a runner ignores signals."""
    fake = FakeRunner(ready_at_once=True)
    with trio.move_on_after(1) as scope:
        async with starting() as start:
            await start(fake)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert fake.runs[0].killed


async def test_what_is_no_runner_is_refused() -> None:
    """A start of something else is an error at once."""
    async with starting() as start:
        with pytest.raises(TypeError, match="is not a runner"):
            await start(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # that is the test


# In projects of other people

Pytest = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Pytest:
    """Run pytest on one test file, in a directory of its own."""

    def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        (tmp_path / "test_it.py").write_text(code)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
        command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


ASYNC_TEST = """
import pytest, trio
from grouper.testing import FakeRunner

fake = FakeRunner(ready_at_once=True, stops=True)

@pytest.mark.trio
async def test_start(start_runner):
    process = await start_runner(fake)
    assert process.state.name == "READY"
    {body}

def test_it_was_stopped():
    assert fake.signals == [15]
    assert not fake.running
"""


@pytest.mark.real_time
def test_the_fixture_is_there_without_a_configuration(project: Pytest) -> None:
    """A project with pytest-trio and grouper has `start_runner`, also without trio_mode."""
    result = project(ASYNC_TEST.format(body=""))
    assert "2 passed" in result.stdout, result.stdout


@pytest.mark.real_time
def test_a_failure_of_the_runner_fails_the_test(project: Pytest) -> None:
    """The runner's own exception is what the test fails with, and the only one."""
    result = project(ASYNC_TEST.format(body="fake.fail(OSError('gone')); await trio.sleep_forever()"), "-k", "test_start")
    assert "1 failed" in result.stdout, result.stdout
    assert "FAILED test_it.py::test_start - OSError('gone') [single exception" in result.stdout, result.stdout


@pytest.mark.real_time
def test_a_failure_of_the_test_still_stops_its_runners_politely(project: Pytest) -> None:
    """Also a test that fails has its runners stopped with a signal."""
    result = project(ASYNC_TEST.format(body="assert False"))
    assert "1 failed, 1 passed" in result.stdout, result.stdout


def test_in_a_test_that_is_not_async_it_says_what_to_do(request: pytest.FixtureRequest) -> None:
    """A test that is no trio test gets an error with the fix."""
    with pytest.raises(pytest.fail.Exception, match="start_runner is for async tests that pytest-trio runs"):
        request.getfixturevalue("start_runner")


@pytest.mark.real_time
def test_where_nobody_runs_async_tests_it_says_what_to_do(project: Pytest) -> None:
    """Without pytest-trio a test gets the same error."""
    result = project("def test_it(start_runner): ...", "-p", "no:trio")
    assert "start_runner is for async tests that pytest-trio runs: install it and mark the test" in result.stdout, result.stdout
    assert "1 error" in result.stdout


@pytest.mark.real_time
def test_tests_of_others_see_nothing_of_it(project: Pytest) -> None:
    """In a project that does not use it, the plugin imports neither trio nor the rest of grouper."""
    code = """
import sys

def test_it():
    assert "grouper.testing.plugin" in sys.modules
    assert not {"trio", "attr", "grouper.runner", "grouper.testing.fake"} & sys.modules.keys()
"""
    result = project(code, "-p", "no:trio", "-p", "no:anyio")
    assert "1 passed" in result.stdout, result.stdout


# The package


@pytest.mark.parametrize("name", grouper.testing.__all__)
def test_each_name_of_the_package_can_be_had(name: str) -> None:
    """The package gives each of its names, from the module that has it."""
    assert getattr(grouper.testing, name).__module__.startswith("grouper.testing.")
    assert name in dir(grouper.testing)


def test_another_name_is_an_attribute_error() -> None:
    """The package is a module like any other."""
    with pytest.raises(AttributeError, match=r"module 'grouper\.testing' has no attribute 'Nothing'"):
        _ = grouper.testing.Nothing  # type: ignore[attr-defined]  # pyright: ignore  # that is the test
