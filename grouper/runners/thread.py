"""A blocking function as a runner."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import attrs
import trio

from ..signals import Signals
from ._draining import Stop, bare, draining

__all__ = ["Threaded"]


@attrs.frozen(eq=False, init=False)
class Threaded:
    """Run a blocking function in a thread of its own; it is ready at once and ends when the function returns.

    Without `stop`, a stop signal makes `trio.from_thread.check_cancelled()` raise in the function, which is a clean exit if the
    function lets that through. With `stop`, the first stop signal calls `stop()` in another thread (`httpd.shutdown` is meant) and
    the function goes on until that makes it return; `check_cancelled()` raises from a second stop signal on. A cancellation does
    both at once. `stop` is called once at most, and never unless the function has begun and has not returned.

    A thread cannot be abandoned: this runner ends when the function does and not before, also when it is killed. A function that
    neither looks at `check_cancelled()` nor is ended by `stop` keeps whoever runs it waiting. It does not count among the threads
    of trio's default limiter.

    Raises, when it runs: what the function raises, or else what `stop` does; both, if both do, come in one group. When it is made:
    TypeError.
    """

    fn: Callable[..., object]
    args: tuple[Any, ...]
    stop: Callable[[], object] | None

    def __init__(self, fn: Callable[..., object], *args: Any, stop: Callable[[], object] | None = None) -> None:
        for name, function in (("fn", fn), ("stop", stop)):
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"Threaded: {name} is async: what is async needs no thread (see Startable, Periodic)")
        if not callable(fn):
            raise TypeError(
                f"Threaded({fn!r}) is given no function: Threaded(httpd.serve_forever, stop=httpd.shutdown) is how it is meant"
            )
        if stop is not None and not callable(stop):
            raise TypeError(f"Threaded: stop={stop!r} is no function: `stop=httpd.shutdown`, without a call, is how it is meant")
        self.__attrs_init__(fn, args, stop)  # pyright: ignore  # attrs makes it, which pyright does not know

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        """Run the function until it returns."""
        task_status.started()
        if self.stop is None:
            with draining(signals) as stop, stop.cancelling():
                await trio.to_thread.run_sync(self.fn, *self.args, limiter=trio.CapacityLimiter(1))
            return
        # The thread begins at a moment that cannot be seen from here, and `stop` must not be called before: whichever of the two
        # comes first takes this lock.
        begun = threading.Lock()
        ended = threading.Event()

        def call() -> None:
            if begun.acquire(blocking=False):
                self.fn(*self.args)

        with draining(signals) as stop, bare():
            if stop.requested:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_call_when_told, self.stop, stop, begun, ended)
                try:
                    await trio.to_thread.run_sync(call, limiter=trio.CapacityLimiter(1))
                finally:
                    ended.set()
                nursery.cancel_scope.cancel("the function has returned")


async def _call_when_told(fn: Callable[[], object], stop: Stop, begun: threading.Lock, ended: threading.Event) -> None:
    """Call `fn` in a thread at the first stop signal, or at a cancellation, of which a blocked function knows nothing else."""
    try:
        await stop.wait()
    finally:
        if not ended.is_set() and not begun.acquire(blocking=False):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(fn, limiter=trio.CapacityLimiter(1))
