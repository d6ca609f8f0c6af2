"""Where a run of a group takes everything that happens to it, in one total order.

A cancellation from outside, and a KeyboardInterrupt, are things that happen too. The wait takes them with `Abort.FAILED`, as one
more step in the inbox, and `conclude` lets them go on once the last member has ended. Catching `Cancelled` was rejected: each
further wait would need a shield of its own, and a KeyboardInterrupt would still come between.

`trio.lowlevel` is used for that wait, and because waking the loop must be synchronous: whoever sends a signal or calls
`started()` has put it in its place in the order when the call returns.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import TypeAlias

import trio

from ..process import Process

__all__ = ["Inbox", "Item", "nothing"]

Item: TypeAlias = Process | int | Callable[[], None]
"""What an inbox holds: a process to look at, a signal, or a step to take. The first are the many: nothing is made for them."""


class Inbox:
    """One queue with one reader, the task that made it read first."""

    def __init__(self, interrupted: Callable[[], None]) -> None:
        self._items: list[Item] = []
        self._parked = False
        self._step = interrupted
        self._cancel: Callable[[], object] | None = None
        self._context = contextvars.copy_context()
        self.interrupts: list[BaseException] = []

    @trio.lowlevel.enable_ki_protection
    def post(self, item: Item) -> None:
        """Put something in, and wake the reader."""
        self._items.append(item)
        if self._parked:
            self._parked = False
            trio.lowlevel.reschedule(self._task)

    def take_now(self, process: Process, act: Callable[[Process], None]) -> None:
        """Act on a process in the caller's own step where the reader waits, for nothing came before it; else it has its turn.

        It is done in the reader's context: whose contextvars a log of it shows does not depend on whose step it is.
        """
        if not self._parked:
            self.post(process)
            return
        try:
            self._context.run(act, process)
        except BaseException as error:
            self.post(functools.partial(_raise, error))

    def take(self) -> list[Item]:
        """Take all there is."""
        items, self._items = self._items, []
        return items

    async def wait(self) -> None:
        """Wait until there is something. Never raises: an interruption is put in as a step."""
        self._task = trio.lowlevel.current_task()
        try:
            self._parked = True
            await trio.lowlevel.wait_task_rescheduled(self._interrupt)
        finally:
            self._parked = False

    def _interrupt(self, raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
        try:
            raise_cancel()
        except trio.Cancelled:  # again and again, at each wait
            if self._cancel is None:
                self._cancel = raise_cancel
                self.post(self._step)
        except BaseException as error:
            self.interrupts.append(error)
            self.post(self._step)
        return trio.lowlevel.Abort.FAILED

    def conclude(self, error: Exception | None) -> None:
        """Raise what a run raises that has ended with `error`: whatever was no failure of a member first, a cancellation last."""
        if len(self.interrupts) == 1 and error is None:
            raise self.interrupts[0]
        if self.interrupts:
            raise BaseExceptionGroup("a group was interrupted", [*self.interrupts, *([] if error is None else [error])])
        if error is not None:
            raise error
        if self._cancel is not None:
            self._cancel()


def _raise(error: BaseException) -> None:
    """Let the reader fail with what went wrong in a step that was taken for it."""
    raise error


def nothing() -> None:
    """Wake the loop, which then looks whether the group is over."""
