"""Running a runner again after it has exited: ifrit's restart package, with an async callback.

`trio.lowlevel` is used for a checkpoint in each turn, without which a runner that fails at once could not be cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import attrs
import trio

from .runner import RunnerLike, entry_point, require_runner
from .signals import Signals

__all__ = ["Load", "Restarter", "restart_on"]

Load: TypeAlias = Callable[[RunnerLike, Exception | None], Awaitable[RunnerLike | None]]
"""What is asked after each exit: given the runner and its error (None for a clean exit), it returns what to run next, or None."""


class FirstReady:
    """A task status that passes on the first `started()` of several runs."""

    def __init__(self, outer: trio.TaskStatus[Any]) -> None:
        self._outer = outer
        self._was_ready = False
        self._is_ready = False

    def renew(self) -> None:
        """The next run may call `started()` once."""
        self._is_ready = False

    def started(self, value: object = None) -> None:
        """Be ready. Raises: RuntimeError if the same run was."""
        if self._is_ready:
            raise RuntimeError("a restarted runner called task_status.started() a second time: a runner is ready once")
        self._is_ready = True
        if not self._was_ready:
            self._was_ready = True
            self._outer.started(value)


@attrs.frozen(eq=False)
class Restarter:
    """Run a runner; when it has exited, run what `await load(runner, error)` returns; None ends it with the last error.

    It is ready when the first of its runners is that gets ready. Signals go to the runner of the moment, unread ones to the next.
    No runner is started once a stop signal was received; `load`, which may sleep to back off, is cancelled by it, and the Restarter
    ends with the error that `load` was asked about. A pass-through signal changes nothing.
    """

    runner: RunnerLike
    load: Load

    def __attrs_post_init__(self) -> None:
        require_runner(self.runner, "Restarter")
        if not callable(self.load):
            raise TypeError(
                f"Restarter: load={self.load!r} is no function: use `async def load(runner, error)`, which returns a runner or None"
            )

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run until `load` returns None or a stop signal was received. Raises: the last runner's error."""
        if signals.received is not None:
            return
        runner = self.runner
        status = FirstReady(task_status)
        while True:
            error: Exception | None = None
            status.renew()
            with signals._relayed() as inner:
                try:
                    await entry_point(runner)(inner, task_status=status)
                except Exception as caught:
                    error = caught
            following: RunnerLike | None = None
            if signals.received is None:
                with signals.cancelling():
                    await trio.lowlevel.checkpoint()
                    following = await self._load(runner, error)
            if following is None or signals.received is not None:
                if error is not None:
                    raise error
                return
            require_runner(following, "Restarter: what load returned")
            runner = following

    async def _load(self, runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        try:
            return await self.load(runner, error)
        except Exception as failed:
            raise failed from error


def restart_on(runner: RunnerLike, *classes: type[Exception], delay: float = 1.0) -> Restarter:
    """A Restarter that runs the same runner again, `delay` seconds after it failed with one of the classes.

    An exception group counts if any exception in it does, so the trace of a group does. Anything else ends it. Raises: TypeError,
    ValueError for what are no classes of exceptions or no seconds.
    """
    if not classes or not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
        raise TypeError(f"restart_on: {classes!r} are not classes of exceptions: restart_on(runner, OSError) is how it is meant")
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not delay >= 0:
        raise ValueError(f"restart_on: delay={delay!r} is not 0 or more seconds")

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        if error is None or not _is_any(error, classes):
            return None
        await trio.sleep(delay)
        return runner

    return Restarter(runner, load)


def _is_any(error: Exception, classes: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", error).subgroup(classes) is not None
    return isinstance(error, classes)
