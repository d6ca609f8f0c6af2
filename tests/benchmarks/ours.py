"""What the tables measure, with grouper."""

from __future__ import annotations

from typing import Any

import trio

from grouper import Dynamic, Member, Ordered, Parallel, Runner, Signals
from grouper.signals import TERMINATE


async def member(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
    """Ready at once, and told to stop."""
    task_status.started()
    await signals.wait()


async def brief(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
    """Ready at once, and ends by itself."""
    task_status.started()
    await trio.lowlevel.checkpoint()


class StopWhenReady:
    """A task status that stops the group as soon as it is ready."""

    def __init__(self) -> None:
        self.signals = Signals()

    def started(self, value: object = None) -> None:
        """Stop."""
        self.signals.send(TERMINATE)


def members(n: int) -> list[Member]:
    """The description of n members."""
    return [Member(f"m{number}", member) for number in range(n)]


def parallel(n: int) -> Parallel:
    """N members at once."""
    return Parallel(members(n))


def ordered(n: int) -> Ordered:
    """N members one after the other."""
    return Ordered(members(n))


def nested(depth: int) -> Ordered:
    """Groups in groups, `depth` of them."""
    tree = Ordered([("m", member)])
    for _ in range(depth - 1):
        tree = Ordered([("m", tree)])
    return tree


async def start_and_stop(group: Runner) -> None:
    """Run a group until it is ready, and stop it."""
    status: Any = StopWhenReady()
    await group.run(status.signals, task_status=status)


async def bounded(n: int, capacity: int) -> None:
    """N short-lived members of which `capacity` run at a time."""
    group = Dynamic(capacity)
    client = group.client()
    async with trio.open_nursery() as nursery:
        await nursery.start(group.run, Signals())
        for number in range(n):
            await client.insert(Member(f"m{number}", brief))
        client.close()
