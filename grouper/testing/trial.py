"""One run of a runner that is under test: how far it is, which tasks it made, and how to get rid of it.

Two things are not as a group does them:

* A runner that ignores its kill would keep the test from ending, and so from telling. `force` ends its tasks: it lifts the shields
  they hide under, and puts `Doomed` in the place of their coroutine, which throws into them at each step. There is no public way
  to the scopes of another task, hence `_cancel_status`; should trio lose it, what hides under a shield is logged and waited for.
* A mock clock moves only when all tasks wait. A task that swallows its Cancelled in a loop never does, and no deadline would pass.
  So a wait also ends after `BUSY` rounds of the scheduler in a row in which trio's clock stood still and nobody waited.

`trio.lowlevel` is used for the instrument, which sees both, and which tasks were spawned by which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast

import trio
import trio.testing

from ..runner import RunnerLike, entry_point
from ..signals import Signals

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["BUSY", "Trial", "on_trial"]

BUSY: Final = 20_000
"""Rounds of the scheduler; with a real clock the deadlines of trio hold and this is never reached."""

THROWS: Final = 100
"""How often a task is made to raise before its coroutine is left alone."""

TRIO: Final = os.path.dirname(trio.__file__)
LIBRARIES: Final = (os.path.dirname(TRIO), os.path.dirname(os.path.dirname(__file__)))

_left_alone: list[object] = []  # coroutines that cannot even be closed: destroying them would be reported as an error of its own


class Forced(BaseException):
    """What is thrown into a task that ignores its cancellation."""


class Doomed:
    """What stands in for the coroutine of a task that is to end: raises in it whenever it is resumed, if it has no children."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._coro: Any = task.coro
        self._throws = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)

    def send(self, value: object) -> object:
        """Resume the coroutine, with an exception if that is safe: a parent has to wait for its children first."""
        if self._task.child_nurseries:
            return self._coro.send(value)
        self._throws += 1
        if self._throws > THROWS:
            _left_alone.append(self._coro)
            raise Forced
        return self._coro.throw(Forced())


class Trial(trio.abc.Instrument):
    """A run, as its own task status. `settled` is set when it is ready or has ended; `calls` counts `started()`."""

    def __init__(self, runner: RunnerLike) -> None:
        self.runner = runner
        self.signals: Signals = Signals()
        self.scope: trio.CancelScope = trio.CancelScope()
        self.calls: int = 0
        self.error: Exception | None = None
        self.settled: trio.Event = trio.Event()
        self.ended: trio.Event = trio.Event()
        self.all_gone: trio.Event = trio.Event()
        self.tasks: set[Task] = set()
        self._task: Task | None = None
        self._wait: trio.CancelScope | None = None
        self._clock_at = 0.0
        self._rounds = 0

    # The run

    def started(self, value: object = None) -> None:
        """Be ready. Raises: RuntimeError the second time, as in a group."""
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("the runner called task_status.started() a second time: a runner is ready once")
        self.settled.set()

    async def live(self) -> None:
        """Run the runner in this task and keep its error."""
        self._task = trio.lowlevel.current_task()
        self.tasks.add(self._task)
        try:
            with self.scope:
                await entry_point(self.runner)(self.signals, task_status=self)
        except Exception as error:
            self.error = error

    # The instrument

    def task_spawned(self, task: Task) -> None:
        """Note a task that this run made, wherever it put it."""
        with contextlib.suppress(RuntimeError):  # spawned by trio itself
            if trio.lowlevel.current_task() in self.tasks:
                self.tasks.add(task)

    def task_exited(self, task: Task) -> None:
        """Note the end of a task, and of the run."""
        self.tasks.discard(task)
        if task is self._task:
            self.settled.set()
            self.ended.set()
        if self.ended.is_set() and not self.tasks:
            self.all_gone.set()

    def before_io_wait(self, timeout: float) -> None:
        """Look whether tasks are so busy that a mock clock stands."""
        now = trio.current_time()
        if timeout > 0 or now != self._clock_at:
            self._clock_at = now
            self._rounds = 0
        self._rounds += 1
        if self._rounds > BUSY and self._wait is not None:
            self._wait.cancel("nobody waits, so the mock clock stands")

    # Waiting for it, and its end

    async def within(self, seconds: float, event: trio.Event) -> bool:
        """Wait so many seconds for an event of the run, and tell whether it came."""
        await self._bounded(seconds, event.wait)
        return event.is_set()

    async def linger(self, seconds: float) -> None:
        """Let it run until everybody waits for something, for so many seconds at most."""
        await self._bounded(seconds, trio.testing.wait_all_tasks_blocked)

    async def _bounded(self, seconds: float, wait: Callable[[], Awaitable[None]]) -> None:
        self._rounds = 0
        with trio.move_on_after(seconds) as self._wait:
            await wait()
        self._wait = None

    def _beneath(self) -> list[Task]:
        """The task of the run and those in its nurseries; none once it has ended."""
        found = [] if self._task is None or self.ended.is_set() else [self._task]
        for task in found:
            found.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        return found

    def where(self) -> str:
        """Where it sits: the place in each task that no child is waited for in."""
        return " and ".join(sorted(sits_at(task) for task in self._beneath() if not task.child_nurseries))

    def force(self) -> None:
        """Make its tasks end that ignore their cancellation."""
        for task in self._beneath():
            status: Any = getattr(task, "_cancel_status", None)
            while status is not None and status._scope is not self.scope:
                status._scope.shield = False
                status = status._parent
            task.coro = cast("Any", Doomed(task))


def sits_at(task: Task) -> str:
    """The innermost line of a task that is neither trio's nor, if there is one, a library's: `file.py:12 in serve`."""
    own, any_place = "", f"task {task.name!r}"
    for frame, line in task.iter_await_frames():
        code = frame.f_code
        place = f"{os.path.basename(code.co_filename)}:{line} in {code.co_name}"
        if not code.co_filename.startswith(TRIO):
            any_place = place
        if not code.co_filename.startswith(LIBRARIES):
            own = place
    return own or any_place


@contextlib.asynccontextmanager
async def on_trial(runner: RunnerLike, *pending: int, killed: bool = False) -> AsyncGenerator[Trial]:
    """Run a runner beside the block, which sees to its end; `pending` was sent, and it was `killed`, before its first step."""
    trial = Trial(runner)
    for number in pending:
        trial.signals.send(number)
    if killed:
        trial.scope.cancel("killed before its first checkpoint")
    trio.lowlevel.add_instrument(trial)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trial.live, name=f"trial of {runner!r}")
            yield trial
    except BaseExceptionGroup as group:
        _, rest = group.split(Forced)
        if rest is not None:
            raise rest from None
    finally:
        trio.lowlevel.remove_instrument(trial)
