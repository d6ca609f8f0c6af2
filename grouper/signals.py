"""What a runner is told from outside: OS signal numbers, in the order sent.

A `Signals` is one queue with one reader. Three things were rejected on the way here:

* A memory channel. It is bounded or needs a second object to send on, it loses the order when a sender has to wait, and its
  receive end cannot be looked at without taking from it, which `wait()` and `cancelling()` need.
* A task that copies signals from one queue to another (for groups, proxies and the like). Every copy is a scheduler tick in
  which the order can change and a task that can be left behind. Here a reader *attaches a sink*: what is pending moves over at
  once, and what is sent from then on is handed over synchronously.
* A ParkingLot or an Event for each runner: at 100,000 members their sets and dicts are most of the memory. A list made when
  somebody waits does the same.

`trio.lowlevel` is used for parking a task and because Ctrl-C may strike between any two lines of a sender's code: what changes
the queue runs under KeyboardInterrupt protection.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final, Self, cast

import attrs
import trio

if TYPE_CHECKING:
    from trio.lowlevel import Abort, RaiseCancelT, Task

__all__ = ["KILL", "STOP_SIGNALS", "TERMINATE", "Signals", "signal_name"]

# Windows has neither SIGKILL nor SIGQUIT: the numbers are what Unix calls them.
KILL: Final = int(getattr(signal, "SIGKILL", 9))
TERMINATE: Final = int(signal.SIGTERM)
STOP_SIGNALS: Final = frozenset({int(signal.SIGINT), int(signal.SIGTERM), int(getattr(signal, "SIGQUIT", 3))})
_ENDS: Final = STOP_SIGNALS | {KILL}

Sink = Callable[[int], None]


def signal_name(number: int) -> str:
    """Name a signal, also one that the enum `signal.Signals` does not know (real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        lowest, highest = int(getattr(signal, "SIGRTMIN", 0)), int(getattr(signal, "SIGRTMAX", 0))
        return f"SIGRTMIN+{number - lowest}" if lowest < number < highest else f"signal {number}"


def signal_number(number: int) -> int:
    """Check that `number` can be sent. Raises: ValueError, TypeError."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"a signal is a number such as signal.SIGTERM, not {number!r}")
    if number <= 0:
        raise ValueError(f"a signal is a positive number such as signal.SIGTERM, not {number}")
    return int(number)


@attrs.define(eq=False, repr=False, init=False)
class Signals:
    """The signals sent to one runner, in the order sent.

    Made by whoever starts the runner. `send` never blocks and may be called from any trio task. One task at a time is meant to
    read: by iterating, or by handing the whole object on to a group, which then reads it.
    """

    _pending: list[int] | None
    _queued: set[int] | None
    _received: int | None
    _sink: Sink | None
    _tasks: list[Task] | None
    _scopes: list[trio.CancelScope] | None
    _owner: Any  # the Process, which is defined below this layer

    def __init__(self) -> None:
        self._pending = self._queued = self._received = self._sink = self._tasks = self._scopes = self._owner = None

    def __repr__(self) -> str:
        pending = ", ".join(map(signal_name, self._pending or ()))
        return f"<Signals pending=[{pending}] received={self._received and signal_name(self._received)}>"

    @property
    def received(self) -> int | None:
        """The first stop signal sent, from the moment it was sent, or None. It never changes back."""
        return self._received

    @trio.lowlevel.enable_ki_protection
    def send(self, number: int) -> None:
        """Queue a signal; a pass-through signal that is still pending is not queued twice, a stop signal always is.

        Never blocks. Raises: TypeError, ValueError for what is no signal number.
        """
        number = signal_number(number)
        if number in _ENDS:
            if self._received is None:
                self._received = number
            if self._scopes is not None:
                scopes, self._scopes = self._scopes, None
                for scope in scopes:
                    scope.cancel(f"told to stop by {signal_name(number)}")
        elif self._queued is None:
            self._queued = {number}
        elif number in self._queued:
            return
        else:
            self._queued.add(number)
        if self._sink is not None:
            self._sink(number)
            return
        if self._pending is None:
            self._pending = []
        self._pending.append(number)
        self._wake()

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> int:
        """Take the next signal. A cancellation while waiting takes nothing."""
        await self.wait()
        assert self._pending is not None
        number = self._pending.pop(0)
        self._taken(number)
        return number

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> int:
        """Wait until a signal is pending and return it without taking it.

        A cancellation leaves everything as it was. Several tasks may wait.
        """
        if self._pending:
            await trio.lowlevel.checkpoint()
        while not self._pending:
            task = trio.lowlevel.current_task()
            if self._tasks is None:
                self._tasks = [task]
            else:
                self._tasks.append(task)

            def abort(_: RaiseCancelT, task: Task = task) -> Abort:
                assert self._tasks is not None
                self._tasks.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        return self._pending[0]

    def cancelling(self) -> contextlib.AbstractContextManager[trio.CancelScope, bool]:
        """Cancel the block at the first stop signal, pending or to come.

        The signal is not taken. The cancellation happens inside `send`, with no task in between, and ends with the block:
        `scope.cancelled_caught` tells whether it cut the block short.
        """
        return cast("contextlib.AbstractContextManager[trio.CancelScope, bool]", self._cancelling())  # it can end a block early

    @contextlib.contextmanager
    @trio.lowlevel.enable_ki_protection
    def _cancelling(self) -> Generator[trio.CancelScope]:
        with trio.CancelScope() as scope:
            if self._pending and not _ENDS.isdisjoint(self._pending):
                scope.cancel("told to stop before the block began")
                yield scope
                return
            if self._scopes is None:
                self._scopes = []
            self._scopes.append(scope)
            try:
                yield scope
            finally:
                if self._scopes is not None:
                    with contextlib.suppress(ValueError):
                        self._scopes.remove(scope)

    def _taken(self, number: int) -> None:
        if self._queued is not None:
            self._queued.discard(number)

    def _wake(self) -> None:
        if self._tasks is not None:
            tasks, self._tasks = self._tasks, None
            for task in tasks:
                trio.lowlevel.reschedule(task)

    @trio.lowlevel.enable_ki_protection
    def _attach(self, sink: Sink) -> None:
        """Hand every signal to `sink` from now on, first those pending. The sink calls `_taken` when it acts on one."""
        if self._sink is not None:
            raise RuntimeError("these Signals are read by another group already: give each running group Signals of its own")
        self._sink = sink
        pending, self._pending = self._pending, None
        for number in pending or ():
            sink(number)

    @trio.lowlevel.enable_ki_protection
    def _detach(self, unread: Iterable[int] = ()) -> None:
        """Hand nothing over any more; what the sink did not act on is pending again."""
        self._sink = None
        for number in unread:
            if number not in _ENDS:
                self._queued = (self._queued or set()) | {number}
            if self._pending is None:
                self._pending = []
            self._pending.append(number)
        if self._pending:
            self._wake()

    @contextlib.contextmanager
    @trio.lowlevel.enable_ki_protection
    def _forwarded(self, inner: Signals) -> Generator[None]:
        """Send to `inner` all that these get, in order, for the time of the block; what it did not read comes back."""
        sent: set[int] = set()

        @trio.lowlevel.enable_ki_protection
        def forward(number: int) -> None:
            self._taken(number)
            sent.add(number)
            inner.send(number)

        self._attach(forward)
        try:
            yield
        finally:
            pending = inner._pending or ()
            inner._pending = [number for number in pending if number not in sent]
            self._detach(number for number in pending if number in sent)

    @contextlib.contextmanager
    @trio.lowlevel.enable_ki_protection
    def _relayed(self) -> Generator[Signals]:
        """Give new Signals that get all that these get: what a wrapper hands to the runner it wraps.

        They have the same owner, by which a group finds its place in the tree.
        """
        inner = Signals()
        inner._owner = self._owner
        inner._received = self._received
        with self._forwarded(inner):
            yield inner
