"""What a runner is (section 1.1 of the contract)."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Exit, Member, Ordered, Parallel, QueueOrdered, Signals, State

from .runners import Actor, Stage, ended, trace_of, watched


@pytest.mark.contract("1")
async def test_01_one_method_makes_a_runner() -> None:
    """An object with a method `run(signals, *, task_status)`, and nothing else, is a runner."""

    class OnlyRun:
        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started("running")
            await signals.wait()

    runner = OnlyRun()
    assert isinstance(runner, grouper.Runner)
    async with grouper.invoke(runner) as process:
        assert process.value == "running"


@pytest.mark.contract("2")
async def test_02_a_runner_is_ready_when_it_says_so() -> None:
    """A process is starting until its runner calls `started()`, and ready from then on."""
    stage = Stage("a", polite=True)
    async with watched(stage["a"]) as process:
        await stage.set_out()
        assert process.state is State.STARTING
        stage["a"].make_ready("up")
        await stage.news()
        assert (process.state, process.value) == (State.READY, "up")


@pytest.mark.contract("3")
async def test_03_a_ready_runner_works_until_a_stop_signal() -> None:
    """A runner that is ready goes on for as long as it likes, and ends after a stop signal."""
    stage = Stage("a", ready=True, polite=True)
    async with watched(stage["a"]) as process:
        await trio.sleep(1_000)
        assert process.exit is None
        process.signal(signal.SIGTERM)
        assert (await ended(process)).ok


@pytest.mark.contract("4")
@pytest.mark.parametrize("fails", [False, True])
async def test_04_returning_is_a_clean_end_and_raising_is_not(fails: bool) -> None:
    """A runner that returns has ended cleanly; what it raises is the error of its exit."""
    stage = Stage("a", ready=True)
    error = ValueError("broken") if fails else None
    async with watched(stage["a"]) as process:
        await stage.set_out()
        stage["a"].exit(error)
        exit = await ended(process)
        assert exit.error is error
        assert exit.ok is not fails


@pytest.mark.contract("5")
@pytest.mark.parametrize("fails", [False, True])
async def test_05_a_runner_is_run_once(fails: bool) -> None:
    """A member that has exited, however it did, is not run again unless somebody asked for that."""
    stage = Stage("ab", ready=True)
    async with watched(Parallel(stage.members(), termination_signal=None)):
        await stage.set_out()
        stage["a"].exit(ValueError("broken") if fails else None)
        await trio.sleep(1_000)
        assert [actor.runs for actor in stage] == [1, 1]
        stage["b"].exit()


@pytest.mark.contract("6")
async def test_06_an_async_function_is_a_runner() -> None:
    """A plain async function of the shape of `run` is used like a runner, as a member too."""

    async def serve(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started("served")
        await signals.wait()

    async with grouper.invoke(Parallel([("web", serve)])) as process:
        assert process.children[0].value == "served"


@pytest.mark.contract("7")
async def test_07_a_member_is_a_runner() -> None:
    """A member can be given wherever a runner is wanted: at the root, and as another member's runner."""
    stage = Stage("a", ready=True, polite=True)
    (member,) = stage.members()
    assert isinstance(member, grouper.Runner)
    async with grouper.invoke(member):
        assert stage["a"].runs == 1
    async with grouper.invoke(Parallel([Member("other", member)])):
        assert stage["a"].runs == 2


@pytest.mark.contract("8")
@pytest.mark.parametrize("depth", [1, 7, 500])
async def test_08_groups_are_runners_to_any_depth(depth: int) -> None:
    """A group is a runner, so groups nest: readiness and errors come up, signals go down."""
    leaf = Actor("leaf", [], polite=True)
    tree: grouper.Runner = leaf
    kinds = [Ordered, Parallel, QueueOrdered]
    for level in range(depth):
        tree = kinds[level % 3]([("m", tree)])
    async with watched(tree) as process:
        await wait_all_tasks_blocked()
        assert process.state is State.STARTING
        leaf.make_ready()
        await process.wait_ready()
        process.signal(signal.SIGHUP)
        await wait_all_tasks_blocked()
        assert leaf.heard == [signal.SIGHUP]
        leaf.exit(ValueError("deep"))
        assert isinstance(deepest(await ended(process)), ValueError)


def deepest(exit: Exit) -> BaseException:
    """The single error at the bottom of the traces."""
    error: BaseException = trace_of(exit)
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error
