"""A runner whose life the test drives.

It takes its signals through `Signals._attach`, as groups do, and not by iterating: so a signal is in `signals` from the moment in
which it was sent, two that come at once are two, and no task of the fake's own is between the test and the runner's end.

`trio.lowlevel` is used for its protection from KeyboardInterrupt, under which signals are taken.

What cannot be done raises. ifrit's fake does nothing when it is told to exit before it runs, and the test then waits for ever.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
import trio

from ..member import require_seconds
from ..signals import KILL, STOP_SIGNALS, Signals

__all__ = ["FakeRun", "FakeRunner"]


@attrs.define(eq=False)
class FakeRunner:
    """A runner that is ready, exits and fails when the test says so, and records the signals that it gets.

    As ifrit's, it ignores signals: it runs until the test ends it or it is cancelled. With `stops=True` a stop signal ends it, with
    `ready_at_once=True` it is ready as soon as it is started. `cleanup` is how many seconds each end then takes, under a shield.

    It can be run again, also at once in several places; `runs` has each run. The methods speak to the one that is running, and
    `signals` and the waits to the newest.
    """

    name: str = "fake"
    ready_at_once: bool = attrs.field(default=False, kw_only=True)
    stops: bool = attrs.field(default=False, kw_only=True)
    cleanup: float = attrs.field(default=0.0, kw_only=True)
    runs: list[FakeRun] = attrs.field(factory=list["FakeRun"], init=False, repr=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        require_seconds(self.cleanup, f"{self}: cleanup")

    def __str__(self) -> str:
        return f"the fake runner {self.name!r}"

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run until the test ends it. Raises: what the test gave to `fail`; RuntimeError if something else reads the signals."""
        run = FakeRun(self, task_status)
        signals._attach(functools.partial(run._take, signals))
        self.runs.append(run)
        self._tell()
        await run._live(signals)

    def ready(self, value: object = None) -> None:
        """Be ready, with this value. Raises: RuntimeError if it is not running, or ready already."""
        self._running("be ready").ready(value)

    def exit(self) -> None:
        """Exit cleanly. Raises: RuntimeError if it is not running, or exiting already."""
        self._running("exit").exit()

    def fail(self, error: BaseException) -> None:
        """Exit with this exception. Raises: RuntimeError if it is not running, or exiting already; TypeError for no exception."""
        self._running("fail").fail(error)

    @property
    def running(self) -> bool:
        """Whether it was started and has not exited yet."""
        return any(not run.exited for run in self.runs)

    @property
    def signals(self) -> list[int]:
        """The signals that its newest run got, in order, each from the moment in which it was sent."""
        return list(self.runs[-1].signals) if self.runs else []

    async def wait_started(self, number: int = 1) -> FakeRun:
        """Wait until it was started, or was so often, and return that run: `await fake.wait_started(2)` for the first restart.

        Returns also when the run has exited since. A cancellation changes nothing.
        """
        if number < 1:
            raise ValueError(f"{self}: runs are counted from 1, so there is no run {number}")
        await self._until(lambda: len(self.runs) >= number)
        return self.runs[number - 1]

    async def wait_signal(self) -> int:
        """Wait for the newest run's next signal, as `FakeRun.wait_signal`; for the first run if there was none."""
        await self.wait_started()
        return await self.runs[-1].wait_signal()

    async def wait_exited(self) -> FakeRun:
        """Wait until the newest run has exited, and return it; for the first run if there was none.

        A cancellation changes nothing.
        """
        await self.wait_started()
        run = self.runs[-1]
        await run.wait_exited()
        return run

    def _running(self, doing: str) -> FakeRun:
        running = [run for run in self.runs if not run.exited]
        if not self.runs:
            raise RuntimeError(f"{self} cannot {doing}: it was not started yet; `await fake.wait_started()` first")
        if not running:
            raise RuntimeError(f"{self} cannot {doing}: it has exited")
        if len(running) > 1:
            raise RuntimeError(f"{self} cannot {doing}: it runs {len(running)} times at once; say which with `fake.runs[index]`")
        return running[0]

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _until(self, done: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint()
        while not done():
            await self._changed.wait()


@attrs.define(eq=False)
class FakeRun:
    """One run of a `FakeRunner`: what it was told, and how far it is. `signals` are in the order sent."""

    fake: FakeRunner
    _task_status: trio.TaskStatus[Any] = attrs.field(repr=False)
    signals: list[int] = attrs.field(factory=list[int], init=False)
    was_ready: bool = attrs.field(default=False, init=False)
    killed: bool = attrs.field(default=False, init=False)
    exited: bool = attrs.field(default=False, init=False)
    _waited: int = attrs.field(default=0, init=False, repr=False)
    _ending: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _error: BaseException | None = attrs.field(default=None, init=False, repr=False)

    def ready(self, value: object = None) -> None:
        """Be ready, as `FakeRunner.ready`."""
        self._require_running("be ready")
        if self.was_ready:
            raise RuntimeError(f"{self.fake} cannot be ready: it is already, and a runner is ready once")
        self.was_ready = True
        self._task_status.started(value)

    def exit(self) -> None:
        """Exit cleanly, as `FakeRunner.exit`."""
        self._end("exit", None)

    def fail(self, error: BaseException) -> None:
        """Exit with an exception, as `FakeRunner.fail`."""
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise TypeError(f"{self.fake} cannot fail with {error!r}: give an exception object, such as RuntimeError('broken')")
        self._end("fail", error)

    async def wait_signal(self) -> int:
        """Wait for the next signal that was not waited for yet, and return it; it stays in `signals`.

        A cancellation takes nothing. Raises: RuntimeError if the run exits without one.
        """
        await self.fake._until(lambda: len(self.signals) > self._waited or self.exited)
        if len(self.signals) == self._waited:
            raise RuntimeError(f"{self.fake} has exited and gets no more signals; it got {self.signals}")
        self._waited += 1
        return self.signals[self._waited - 1]

    async def wait_exited(self) -> None:
        """Wait until the run has exited. A cancellation changes nothing."""
        await self.fake._until(lambda: self.exited)

    def _require_running(self, doing: str) -> None:
        if self.exited:
            raise RuntimeError(f"{self.fake} cannot {doing}: it has exited")

    def _end(self, doing: str, error: BaseException | None) -> None:
        self._require_running(doing)
        if self._ending.is_set():
            why = "it was killed" if self.killed else "the test or a stop signal has ended it"
            raise RuntimeError(f"{self.fake} cannot {doing}: it is exiting already, {why}")
        self._error = error
        self._ending.set()

    def _take(self, signals: Signals, number: int) -> None:
        signals._taken(number)
        self.signals.append(number)
        if self.fake.stops and (number == KILL or number in STOP_SIGNALS):
            self._ending.set()
        self.fake._tell()

    async def _live(self, signals: Signals) -> None:
        try:
            if self.fake.ready_at_once:
                self.ready()
            await self._ending.wait()
        except trio.Cancelled:
            self.killed = True
            raise
        finally:
            self._ending.set()
            if self.fake.cleanup:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.fake.cleanup)
            signals._detach()
            self.exited = True
            self.fake._tell()
        if self._error is not None:
            raise self._error
