"""A small tree in which everything happens that the engine has code for, and which keeps account of who runs."""

from __future__ import annotations

import contextlib
import math
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeAlias

import attrs
import trio
import trio.testing

import grouper
from grouper import Dynamic, Graph, Member, Ordered, Parallel, Role, Signals
from tests.conftest import SCHEDULER

from .injection import Injector

HANG = 10_000.0
"""Seconds of the mock clock, which jumps there when nobody does anything any more."""


@attrs.define
class Account:
    """Who was started, and who has ended."""

    running: Counter[str] = attrs.field(factory=Counter[str])
    started: list[str] = attrs.field(factory=list[str])
    ended: list[str] = attrs.field(factory=list[str])

    def service(self, name: str, *, lasts: float = math.inf, slow: float = 0.0, deaf: bool = False) -> Any:
        """A runner that works for `lasts` seconds, cleans up for `slow` under a shield, and may not listen to signals."""

        async def run(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
            self.running[name] += 1
            self.started.append(name)
            try:
                await trio.sleep(0.01)
                task_status.started()
                with trio.move_on_after(lasts):
                    if deaf:
                        await trio.sleep_forever()
                    async for number in signals:
                        if number != signal.SIGHUP:
                            break
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(slow)
                self.running[name] -= 1
                self.ended.append(name)

        return run

    @property
    def left(self) -> list[str]:
        """Who runs."""
        return [name for name, count in self.running.items() if count]


def tree(account: Account, dynamic: Dynamic) -> Ordered:
    """All kinds of group, a job, an optional that ends, one that is slow to stop and one that must be killed."""
    service = account.service
    inserted = dynamic.client()

    async def inserting(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with contextlib.suppress(grouper.GroupClosed, LookupError):  # where Ctrl-C came first
            await inserted.insert(("x", service("x", lasts=0.3)))
            await inserted.insert(("y", service("y")))
            await inserted.insert(("z", service("z")))
            await inserted.remove("y")
        await signals.wait()

    return Ordered(
        [
            ("first", service("first", slow=0.05)),
            Member("job", service("job", lasts=0.02), role=Role.JOB),
            (
                "pair",
                Parallel([("one", service("one")), Member("two", service("two", lasts=0.1), role=Role.OPTIONAL)], cancel_grace=0.5),
            ),
            (
                "graph",
                Graph([Member("b", service("b"), after="a"), ("a", service("a")), Member("c", service("c"), after=("a", "b"))]),
            ),
            ("dynamic", dynamic),
            ("inserting", inserting),
            Member("deaf", service("deaf", deaf=True), grace=1.0, ready_within=5.0),
        ]
    )


async def invoked(account: Account) -> None:
    """Run the tree beside a block, which is the main task."""
    async with grouper.invoke(tree(account, Dynamic(2))) as process:
        async with process.events() as stream:
            async for _ in stream:
                break
        await trio.sleep(1)


async def direct(account: Account) -> None:
    """Run the tree in the main task itself, told to stop by a task beside it."""
    signals = Signals()
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await trio.sleep(1)
            signals.send(signal.SIGHUP)
            signals.send(signal.SIGINT)
            signals.send(signal.SIGTERM)

        nursery.start_soon(stop)
        await tree(account, Dynamic(2)).run(signals, task_status=trio.TASK_STATUS_IGNORED)


Scenario: TypeAlias = Callable[[Account], Awaitable[None]]


def run(scenario: Scenario, account: Account, injector: Injector, seed: int) -> BaseException | None:
    """Run a scenario to its end, always in the same way, and return what it raised."""

    async def main() -> None:
        with trio.fail_after(HANG):
            await scenario(account)

    SCHEDULER._r = Random(seed)
    try:
        with injector.watching():
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[injector])
    except BaseException as error:
        return error
    return None


def leaves(error: BaseException | None) -> set[type[BaseException]]:
    """The kinds of exception in a group, at any depth."""
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if inside:
        return {kind for inner in inside for kind in leaves(inner)}
    return set() if error is None else {type(error)}
