"""A thousand members that crash at random for a minute of real time: `-m soak -s` prints the figures."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import trio

import grouper
from grouper import Backoff, ErrorTrace, Member, Ordered, Parallel, Process, Restart, Signals, State, Strategy
from grouper.snapshot import Snapshot

pytestmark = [pytest.mark.real_time, pytest.mark.soak]

SECONDS = 60.0
SOON = Restart(backoff=Backoff(0.05, cap=0.5), limit=math.inf, start_errors=True)
WITH_SIBLINGS = Restart(start_errors=True)


class CrashError(Exception):
    """What members fail with."""


class Crasher:
    """Ready at once; fails after a second or so."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lives = 0

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Live once."""
        self.lives += 1
        task_status.started()
        with trio.move_on_after(self.random.expovariate(0.3)):
            await signals.wait()
            return
        raise CrashError(self.lives)


def tree(crashers: list[Crasher]) -> Parallel:
    """Four levels of groups; 4 x 5 x 5 x 10 members."""
    numbers = iter(range(len(crashers)))

    def leaf(strategy: Strategy) -> Member:
        number = next(numbers)
        policy = SOON if strategy is Strategy.ONE else WITH_SIBLINGS
        return Member(f"m{number}", crashers[number], restart=policy)

    def inner(number: int) -> Member:
        strategy = (Strategy.ONE, Strategy.ONE, Strategy.ONE, Strategy.ALL, Strategy.REST)[number % 5]
        members = [leaf(strategy) for _ in range(10)]
        group = Ordered(members, strategy=strategy, restart=None if strategy is Strategy.ONE else SOON)
        return Member(f"g{number}", group, restart=SOON)

    def middle(number: int) -> Member:
        return Member(f"g{number}", Parallel([inner(each) for each in range(5)]), restart=SOON)

    def outer(number: int) -> Member:
        return Member(f"g{number}", Parallel([middle(each) for each in range(5)]), restart=SOON)

    return Parallel([outer(number) for number in range(4)])


def resident() -> int:
    """The bytes of memory that this program has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wrong(snapshot: Snapshot, root: Process) -> list[str]:
    """What does not fit together in a snapshot that was just taken."""
    found = [] if snapshot.state is root.state else [f"the root is {root.state}, not {snapshot.state}"]
    leaves = 0
    for each in snapshot.walk():
        leaves += not each.children and each.name.startswith("m")
        beneath = {child.state for child in each.children}
        if beneath and each.state in (State.WAITING, State.BACKOFF, State.EXITED):
            found.append(f"{each.path} is {each.state} and has members that are {beneath}")
        if each.state is State.EXITED:
            found.append(f"{each.path} has ended")
    return found if leaves == 1000 else [*found, f"there are {leaves} members"]


async def observe(crashers: list[Crasher], sizes: dict[float, tuple[int, int]]) -> None:
    """Run the tree, and note its bytes and tasks at each fifth of the time. Raises: ErrorTrace of those that fail as they stop."""
    async with grouper.invoke(tree(crashers)) as root:
        begun = trio.current_time()
        for share in (0.2, 0.4, 0.6, 0.8, 1.0):
            while trio.current_time() < begun + share * SECONDS:
                await trio.sleep(0.1)
                assert wrong(root.snapshot(), root) == []
            sizes[share] = resident(), trio.lowlevel.current_statistics().tasks_living


async def test_a_thousand_members_crash_for_a_minute_without_growth() -> None:
    """No tasks and no memory are left behind, and snapshots are consistent all along."""
    crashers = [Crasher(seed) for seed in range(1000)]
    sizes: dict[float, tuple[int, int]] = {}
    with contextlib.suppress(ErrorTrace):
        await observe(crashers, sizes)
    lives = sum(each.lives for each in crashers)
    print(f"{lives} lives; bytes and tasks: {sizes}")  # noqa: T201 (figures that are asked for with -s)
    assert lives > 5_000
    assert sizes[1.0][0] <= 1.1 * sizes[0.2][0]
    assert sizes[1.0][1] <= 1.1 * sizes[0.2][1]
