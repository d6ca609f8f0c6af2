"""A counter to wait for: how much of something is still under way.

`trio.lowlevel` is used for a checkpoint, and to keep a KeyboardInterrupt from leaving the count wrong.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

import trio

__all__ = ["WaitGroup"]


class WaitGroup:
    """Counts what is under way; `wait()` returns when it has come to zero, as Go's `sync.WaitGroup`.

    It can be used again, by rounds: a round ends when the count comes to zero, and whoever waited in it goes on, also if the next
    round has begun by then. Safe within one trio run; from another thread through `trio.from_thread`.
    """

    __slots__ = ("_count", "_round")

    def __init__(self) -> None:
        self._count = 0
        self._round = trio.Event()

    def __repr__(self) -> str:
        return f"<WaitGroup {self._count}>"

    @property
    def count(self) -> int:
        """How many were added and are not done."""
        return self._count

    @trio.lowlevel.enable_ki_protection
    def add(self, n: int = 1) -> None:
        """Count `n` more; a negative `n` counts down. Raises: ValueError below zero, and nothing is changed by that."""
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"WaitGroup.add({n!r}): it counts in whole numbers")
        if self._count + n < 0:
            raise ValueError(f"a WaitGroup that counts {self._count} cannot count {n:+}: `done` was called more often than `add`")
        self._count += n
        if not self._count:
            self._round.set()
            self._round = trio.Event()

    def done(self) -> None:
        """Count one less. Raises: ValueError below zero."""
        self.add(-1)

    async def wait(self) -> None:
        """Wait until the count comes to zero; return at once if it is. A cancellation of the wait changes nothing."""
        if self._count:
            await self._round.wait()
        else:
            await trio.lowlevel.checkpoint()

    def worker(self) -> AbstractContextManager[None]:
        """Count one for as long as a block runs, however it ends: `with group.worker(): ...`."""
        return Counted(self)


class Counted:
    """A block that counts for one."""

    __slots__ = ("_group",)

    def __init__(self, group: WaitGroup) -> None:
        self._group = group

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> None:
        self._group.add()

    @trio.lowlevel.enable_ki_protection
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._group.done()
