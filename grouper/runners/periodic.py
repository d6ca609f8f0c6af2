"""Async functions as runners: one that is called at intervals, one that is called at the end."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from ..signals import Signals
from ._checks import require_async
from ._draining import draining

__all__ = ["Cleanup", "Periodic"]


@attrs.frozen(eq=False, init=False)
class Periodic:
    """Call an async function every `every` seconds, the first time at once; it is ready at once.

    Calls begin on a fixed grid, counted from the first: how long they take does not move it. A call that takes longer than
    `every` makes the ticks that it misses be dropped, and the next call waits for the next tick: calls never overlap.

    The first stop signal ends it at once if it is waiting, and else when the call that is under way returns. A second one cancels
    that call. Both are clean exits. A cancellation cancels the call. Other signals do nothing.

    Raises, when it runs: what the function raises, which ends it. When it is made: TypeError; ValueError if `every` is not a
    positive, finite number.
    """

    fn: Callable[..., Awaitable[object]]
    args: tuple[Any, ...]
    every: float

    def __init__(self, fn: Callable[..., Awaitable[object]], *args: Any, every: float) -> None:
        require_async(fn, "Periodic")
        if not 0 < every < math.inf:
            raise ValueError(f"Periodic: every={every!r} is not a positive number of seconds: every=60 means once a minute")
        self.__attrs_init__(fn, args, every)  # pyright: ignore  # attrs makes it, which pyright does not know

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        """Call the function until told to stop."""
        task_status.started()
        begin = trio.current_time()
        tick = 0
        with draining(signals) as stop:
            while not stop.requested:
                await self.fn(*self.args)
                # At least one further, lest a rounding error calls twice for one tick.
                tick = max(tick + 1, math.ceil((trio.current_time() - begin) / self.every))
                with stop.cancelling():
                    await trio.sleep_until(begin + tick * self.every)


@attrs.frozen(eq=False, init=False)
class Cleanup:
    """Call an async function when told to stop; it is ready at once and idle until then.

    In an `Ordered` group, what is listed first is stopped last: put it before those after whom it cleans up. A second stop signal
    cancels the function, which is a clean exit. The function is not called if this runner is cancelled or killed before it was
    told to stop: there is no time left then, and what must be done even so belongs into the `finally` of what is cleaned up.

    Raises, when it runs: what the function raises. When it is made: TypeError.
    """

    fn: Callable[..., Awaitable[object]]
    args: tuple[Any, ...]

    def __init__(self, fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        require_async(fn, "Cleanup")
        self.__attrs_init__(fn, args)  # pyright: ignore  # attrs makes it, which pyright does not know

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        """Wait for a stop signal, then call the function."""
        task_status.started()
        with draining(signals) as stop:
            await stop.wait()
            await self.fn(*self.args)
