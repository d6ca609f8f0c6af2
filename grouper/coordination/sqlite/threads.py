"""The database of a store in a worker thread of trio's.

A change can have to wait for the gate, and who holds it may have been stopped (SIGSTOP, a debugger) in that very moment. So a
change that is cancelled before it has passed the gate is given up: its thread wakes up some day, sees that, and does nothing. Past
the gate it is waited for, for it will be made. What ends something (an entry, the store) is not given up: it is made late.

`trio.lowlevel` is used for the token by which a thread says so, and which tells one run of trio's from another.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import trio

from .database import Database, Shortcut

__all__ = ["Thread"]

P = ParamSpec("P")
T = TypeVar("T")

CLOSE_WITHIN: Final = 5.0
"""Seconds to wait for the thread before it is left to itself."""


class Thread:
    """Calls functions of one database, one at a time."""

    def __init__(self, db: Database) -> None:
        self.pid: int = os.getpid()
        self._db = db
        self._run: trio.lowlevel.TrioToken | None = None
        self._limiter: trio.CapacityLimiter

    @property
    def _one(self) -> trio.CapacityLimiter:
        """A limiter of this `trio.run`: that of an earlier one may never come free, if it left a thread at the gate."""
        if self._run is not (token := trio.lowlevel.current_trio_token()):
            self._run = token
            self._limiter = trio.CapacityLimiter(1)
        return self._limiter

    async def call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that changes nothing, or whose change is as good if it comes late. A cancellation leaves it to itself."""
        return await trio.to_thread.run_sync(functools.partial(fn, *args, **kwargs), abandon_on_cancel=True, limiter=self._one)

    async def write_late(self, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a change, which is made also if this is cancelled."""
        return await self.call(lambda: self._db.write(change, *args, **kwargs))

    async def write(
        self, shortcut: Shortcut[T] | None, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make a change. If cancelled, it is not made, or is made and its result returned."""
        turn = Turn(lambda begin: self._db.write_if(begin, shortcut, change, *args, **kwargs))
        try:
            await trio.to_thread.run_sync(turn.take, abandon_on_cancel=True, limiter=self._one)
        except BaseException as error:
            if turn.give_up():
                raise
            await turn.finished()
            if not isinstance(error, trio.Cancelled):  # Ctrl-C, or a thread that could not be started
                raise
        if turn.error is not None:
            raise turn.error
        result: T = turn.result
        return result

    async def close(self) -> None:
        """Close the file, also where this is cancelled; later, if the thread is stuck."""
        with trio.move_on_after(CLOSE_WITHIN, shield=True):
            await self.call(self._db.close)


class Turn:
    """One change, which its thread makes unless it was given up before."""

    def __init__(self, change: Callable[[Callable[[], bool]], Any]) -> None:
        self.error: BaseException | None = None
        self.result: Any = None
        self._change = change
        self._once = threading.Lock()
        self._token = trio.lowlevel.current_trio_token()
        self._taken = False
        self._event: trio.Event | None = None

    def take(self) -> None:
        """Make the change, in the thread."""
        try:
            self.result = self._change(self._begin)
        except BaseException as error:
            self.error = error
        finally:
            self._taken = True
            if self._event is not None:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._event.set)

    async def finished(self) -> None:
        """Wait until a change that could not be given up is made, also where this is cancelled."""
        self._event = trio.Event()
        if self._taken:  # after the event was there, as the thread looks for that after it has said so
            return
        with trio.CancelScope(shield=True):
            await self._event.wait()

    def give_up(self) -> bool:
        """Make sure that the change is not made; False if it is under way, or was made."""
        return self._once.acquire(blocking=False)

    def _begin(self) -> bool:
        return self._once.acquire(blocking=False)
