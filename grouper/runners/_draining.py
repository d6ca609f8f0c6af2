"""The shape that these runners share: the first stop signal lets what is under way finish, a second one cuts it.

No task waits for the signals. A task would have to live in a nursery, which wraps what the user's code raises in a group, and it
sees a signal one tick of the scheduler late. Instead `draining` attaches a sink to the `Signals`, so that both cancellations
happen inside `send`.

`trio.lowlevel` is used because Ctrl-C may strike between any two lines: what attaches and detaches runs under KeyboardInterrupt
protection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import attrs
import trio

from ..signals import KILL, STOP_SIGNALS, Signals, signal_name

__all__ = ["Stop", "bare", "draining"]


@attrs.define(eq=False)
class Stop:
    """The first stop signal, as seen by the block that drains."""

    _requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    _scopes: list[trio.CancelScope] = attrs.field(factory=list[trio.CancelScope], init=False)

    @property
    def requested(self) -> bool:
        """Whether a stop signal was sent."""
        return self._requested.is_set()

    async def wait(self) -> None:
        """Wait until a stop signal was sent."""
        await self._requested.wait()

    @contextlib.contextmanager
    @trio.lowlevel.enable_ki_protection
    def cancelling(self) -> Generator[trio.CancelScope]:
        """Cancel the block at the first stop signal, sent or to come. Several blocks may run at once."""
        with trio.CancelScope() as scope:
            if self.requested:
                scope.cancel("told to stop before the block began")
            self._scopes.append(scope)
            try:
                yield scope
            finally:
                self._scopes.remove(scope)

    @trio.lowlevel.enable_ki_protection
    def request(self, number: int) -> None:
        """Take note of a stop signal."""
        self._requested.set()
        for scope in self._scopes:
            scope.cancel(f"told to stop by {signal_name(number)}")


@contextlib.contextmanager
@trio.lowlevel.enable_ki_protection
def draining(signals: Signals) -> Generator[Stop]:
    """Read `signals` for the time of the block, which a second stop signal, or one SIGKILL, cancels; it then ends cleanly.

    What to do at the first stop signal is the block's business: see `Stop`. Signals that stop nothing are taken and dropped.
    """
    stop = Stop()
    with trio.CancelScope() as everything:

        def told(number: int) -> None:
            signals._taken(number)
            if number == KILL or (number in STOP_SIGNALS and stop.requested):
                everything.cancel(f"told to stop at once by {signal_name(number)}")
            if number == KILL or number in STOP_SIGNALS:
                stop.request(number)

        signals._attach(told)
        try:
            if signals.received is not None and not stop.requested:  # somebody took it before this runner was given the rest
                stop.request(signals.received)
            yield stop
        finally:
            signals._detach()


@contextlib.contextmanager
def bare() -> Generator[None]:
    """Let an exception that is alone in the group of a nursery come out as itself: for nurseries nobody is to know about."""
    alone: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        (alone,) = group.exceptions
    if alone is not None:
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context  # else the group that it was taken out of, which holds it
            del alone, context
