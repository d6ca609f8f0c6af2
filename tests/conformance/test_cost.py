"""What ifrit pays too much for, as facts that hold on any machine (the "cost" part of section 2 of the contract)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Dynamic, Ordered, Parallel, Process, QueueOrdered, Signals

from .runners import Stage, watched


def living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def quiet(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
    """A runner that does as little as a runner can."""
    task_status.started()
    await signals.wait()


@pytest.mark.contract("C1")
@pytest.mark.parametrize("kind", [Ordered, QueueOrdered, Parallel])
async def test_c01_a_member_is_one_task(kind: Any) -> None:
    """A group of 500 has 500 tasks more than a group of none, while it starts, runs and stops."""

    async def tasks(count: int) -> int:
        before = living()
        async with grouper.invoke(kind([(f"m{number}", quiet) for number in range(count)])):
            return living() - before

    assert await tasks(500) - await tasks(0) == 500


@pytest.mark.contract("C1")
async def test_c01_waiting_for_an_exit_starts_no_task() -> None:
    """A thousand who wait for one process are a thousand tasks, their own."""
    stage = Stage("a", ready=True)
    async with watched(stage["a"]) as process, trio.open_nursery() as nursery:
        await stage.set_out()
        before = living()
        for _ in range(1_000):
            nursery.start_soon(process.wait)
        await stage.news()
        assert living() - before == 1_000
        stage["a"].exit()


@pytest.mark.contract("C2")
async def test_c02_a_signal_starts_no_task() -> None:
    """A thousand signals that nobody reads are a thousand entries in a queue."""
    unread = trio.Event()

    async def deaf(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await unread.wait()

    async with watched(Parallel([("a", deaf)])) as process:
        await process.wait_ready()
        before = living()
        for _ in range(1_000):
            process.signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        assert living() <= before + 1  # the one that waits for the end of the member's grace
        unread.set()


PACKAGE = os.path.dirname(grouper.__file__) + os.sep


async def calls(run: Callable[[int], Any], count: int) -> int:
    """How many calls inside the package a run makes."""
    counted = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal counted
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(PACKAGE):
            counted += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        await run(count)
    finally:
        sys.setprofile(before)
    return counted


async def static(kind: Any, count: int) -> None:
    async with grouper.invoke(kind([(f"m{number}", quiet) for number in range(count)])):
        pass


async def dynamic(count: int) -> None:
    group = Dynamic()
    async with grouper.invoke(group) as process:
        processes: list[Process] = [group.client().insert_nowait((f"m{number}", quiet)) for number in range(count)]
        for each in processes:
            await each.wait_ready()
        process.signal(signal.SIGTERM)
        await process.wait()


async def assert_linear(run: Callable[[int], Any]) -> None:
    await calls(run, 10)  # what is only done the first time
    small, large = await calls(run, 100), await calls(run, 400)
    assert 2 * small < large < 5 * small


@pytest.mark.contract("C3")
@pytest.mark.parametrize("kind", [Ordered, QueueOrdered, Parallel])
async def test_c03_the_work_grows_with_the_number_of_members(kind: Any) -> None:
    """Four times the members cost four times the calls to start and stop, and not sixteen times."""
    await assert_linear(lambda count: static(kind, count))


@pytest.mark.contract("C4")
async def test_c04_the_number_of_members_has_no_limit() -> None:
    """A parallel group of more members than Go's select has cases starts and stops."""
    count = 33_000
    async with grouper.invoke(Parallel([(f"m{number}", quiet) for number in range(count)])) as process:
        assert sum(child.ready_at is not None for child in process.children) == count


@pytest.mark.contract("C5")
async def test_c05_the_work_of_a_dynamic_group_grows_with_its_members() -> None:
    """Inserting and stopping four times the members costs four times the calls."""
    await assert_linear(dynamic)
