"""Run a runner by itself, as a group would, and look at how it ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import trio

from grouper.runner import Runner
from grouper.signals import Signals


@attrs.define(eq=False)
class Running:
    """A runner that runs: what it is told, its value when ready, and how it ended."""

    signals: Signals = attrs.field(factory=Signals)
    value: Any = None
    was_ready: bool = False
    ready: trio.Event = attrs.field(factory=trio.Event)
    ended: trio.Event = attrs.field(factory=trio.Event)
    error: BaseException | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def started(self, value: Any = None) -> None:
        self.value = value
        self.was_ready = True
        self.ready.set()

    def stop(self) -> None:
        self.signals.send(signal.SIGTERM)

    async def end(self) -> None:
        """Wait for the end, which a test that hangs has not within a minute; raise what the runner raised."""
        with trio.fail_after(60):
            await self.ended.wait()
        if self.error is not None:
            raise self.error

    async def run(self, runner: Runner) -> None:
        try:
            with self.scope:
                await runner.run(self.signals, task_status=self)
        except BaseException as error:
            self.error = error
            if isinstance(error, trio.Cancelled):
                raise
        finally:
            self.ready.set()
            self.ended.set()


@contextlib.asynccontextmanager
async def running(runner: Runner, *pending: int) -> AsyncGenerator[Running]:
    """Run a runner beside the block, from when it is ready or has ended; it is cancelled at the end. `pending` was sent before."""
    process = Running()
    for number in pending:
        process.signals.send(number)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run, runner)
        await process.ready.wait()
        yield process
        nursery.cancel_scope.cancel()


async def refused(port: int) -> bool:
    """Tell whether nobody listens on a port of this host."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return True
    await stream.aclose()
    return False
