"""Runners for the tests of processes and groups, one for each way to live and end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Process, Signals
from grouper.runner import RunnerLike
from grouper.signals import STOP_SIGNALS, signal_name

Status = trio.TaskStatus[Any]


async def service(signals: Signals, /, *, task_status: Status) -> None:
    """Is ready at once and stops when told to."""
    task_status.started("up")
    with signals.cancelling():
        await trio.sleep_forever()


async def never_ready(signals: Signals, /, *, task_status: Status) -> None:
    """Stops when told to, but is never ready."""
    with signals.cancelling():
        await trio.sleep_forever()


async def returns(signals: Signals, /, *, task_status: Status) -> None:
    """Returns at once."""


async def returns_ready(signals: Signals, /, *, task_status: Status) -> None:
    """Is ready and returns in the same step."""
    task_status.started("was up")


async def fails(signals: Signals, /, *, task_status: Status) -> None:
    """Fails at once."""
    raise OSError("gone")


async def fails_later(signals: Signals, /, *, task_status: Status) -> None:
    """Is ready, and fails a second later."""
    task_status.started()
    await trio.sleep(1)
    raise OSError("gone")


async def fails_stopping(signals: Signals, /, *, task_status: Status) -> None:
    """Is ready, and fails when it is told to stop, or killed."""
    task_status.started()
    try:
        with signals.cancelling():
            await trio.sleep_forever()
    finally:
        raise OSError("while stopping")


async def deaf(signals: Signals, /, *, task_status: Status) -> None:
    """Is ready, and ends only when it is killed."""
    task_status.started()
    await trio.sleep_forever()


@attrs.define(eq=False)
class Puppet:
    """Is ready, and ends, when the test says so, or at a stop signal.

    `log` tells what happened to it; `told` is set, and renewed, when a signal comes.
    """

    name: str = "a"
    log: list[str] = attrs.field(factory=list[str])
    ready: bool = True
    polite: bool = True
    go: trio.Event = attrs.field(factory=trio.Event, init=False)
    end: trio.Event = attrs.field(factory=trio.Event, init=False)
    told: trio.Event = attrs.field(factory=trio.Event, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)

    async def run(self, signals: Signals, /, *, task_status: Status) -> None:
        self.log.append(f"+{self.name}")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, signals)
                if not self.ready:
                    nursery.start_soon(self._be_ready, task_status)
                else:
                    task_status.started()
                await self.end.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.log.append(f"{'-' if self.end.is_set() else '!'}{self.name}")
        if self.error is not None:
            raise self.error

    async def _be_ready(self, task_status: Status) -> None:
        await self.go.wait()
        task_status.started()

    async def _listen(self, signals: Signals) -> None:
        async for number in signals:
            self.log.append(f"{signal_name(number)} {self.name}")
            self.told.set()
            self.told = trio.Event()
            if self.polite and number in STOP_SIGNALS:
                self.end.set()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.end.set()


class Cast:
    """Puppets with one log."""

    def __init__(self, names: str, *, ready: bool = True, polite: bool = True) -> None:
        self.log: list[str] = []
        self.puppets = {name: Puppet(name, self.log, ready, polite) for name in names}

    def __getitem__(self, name: str) -> Puppet:
        return self.puppets[name]

    def pairs(self) -> list[tuple[str, RunnerLike]]:
        return list(self.puppets.items())

    async def news(self) -> list[str]:
        """What was logged since the last call, once all tasks wait."""
        await wait_all_tasks_blocked()
        news, self.log[:] = self.log[:], []
        return news


@contextlib.asynccontextmanager
async def watched(runner: RunnerLike) -> AsyncGenerator[Process]:
    """Run a runner beside the block, which begins when all tasks wait; the test looks at how it ended, so that is not raised."""
    process: Process | None = None
    try:
        async with grouper.background(runner) as process:
            await wait_all_tasks_blocked()
            with trio.fail_after(3600):
                yield process
    except Exception as error:
        if process is None or process.exit is None or process.exit.error is not error:
            raise


def child(process: Process, name: str) -> Process:
    """The process of a group's member."""
    return next(each for each in process.children if each.name == name)


async def trace_of(process: Process) -> grouper.ErrorTrace:
    """The trace with which a group has ended, or ends."""
    error = (await process.wait()).error
    assert isinstance(error, grouper.ErrorTrace)
    return error
