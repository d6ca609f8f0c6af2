"""What the fixture `start_runner` does: runners that live as long as a test.

Each has a task of its own, in which `invoke` is entered and left: a test and its fixtures run in different tasks, and a nursery
must be closed in the one that opened it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import attrs
import trio

from ..main import invoke
from ..process import Process
from ..runner import RunnerLike

__all__ = ["StartRunner", "starting"]


class StartRunner(Protocol):
    """What the fixture `start_runner` is."""

    async def __call__(self, runner: RunnerLike, /) -> Process:
        """Start a runner and return its process when it is ready.

        A cancellation kills the runner. Raises: what the runner raised if it fails before it is ready; TypeError for what is none.
        """
        ...


@attrs.define(eq=False)
class Started:
    """A runner that was started for a test."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    release: trio.Event = attrs.field(factory=trio.Event)
    settled: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    process: Process | None = None
    error: Exception | None = None

    async def live(self, context: Any, failed: trio.CancelScope) -> None:
        """Run until released or failed, and keep what the runner raised; then cancel `failed`."""
        try:
            with self.scope:
                async with context as self.process:
                    self.settled.set()
                    await self.release.wait()
        except Exception as error:
            self.error = error
            if self.process is not None:
                failed.cancel("a runner that the test had started has failed")
        finally:
            self.settled.set()
            self.ended.set()


@contextlib.asynccontextmanager
async def starting() -> AsyncGenerator[StartRunner]:
    """Give a function that starts runners; at the end, stop them politely, the last started first, each before the next.

    The block is cancelled when one of them fails; the others are then stopped politely. A cancellation from outside kills them.
    Raises: what the runners raised; in an exception group if several did.
    """
    all_started: list[Started] = []
    block = trio.CancelScope()

    async def start_runner(runner: RunnerLike, /) -> Process:
        context = invoke(runner)
        started = Started()
        nursery.start_soon(started.live, context, block, name="start_runner")
        try:
            await started.settled.wait()
        except BaseException:
            started.scope.cancel("its start was cancelled")
            with trio.CancelScope(shield=True):
                await started.ended.wait()
            raise
        if started.process is None:
            assert started.error is not None
            raise started.error
        all_started.append(started)
        return started.process

    async with trio.open_nursery() as nursery:
        try:
            with block:
                yield start_runner
        finally:
            for started in reversed(all_started):
                started.release.set()
                await started.ended.wait()
    errors = [started.error for started in all_started if started.error is not None]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("runners that the test had started have failed", errors)
