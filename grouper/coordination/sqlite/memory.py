"""A store without a file: the same tables in memory, for tests.

Everything happens in the task that calls, with a checkpoint, and time is trio's: a test with trio's mock clock needs no threads and
waits for nothing. `trio.lowlevel` is used for the checkpoint.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from .database import Database, Side
from .store import BaseStore

if TYPE_CHECKING:
    from .watching import Waker

__all__ = ["MemoryStore"]

P = ParamSpec("P")
T = TypeVar("T")


class Machine:
    """What the simulated processes share: the tables, the bell, and who is alive."""

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None
        self.alive: set[int] = set()
        self.asleep: set[trio.Event] = set()
        self.processes: int = 0

    def __del__(self) -> None:
        if self.connection is not None:
            self.connection.close()

    place = "memory"

    def enter(self, until: float | None = None, /) -> None:
        """Pass the gate, which is open: there is one thread."""

    def leave(self) -> None:
        """Leave it."""

    def ring(self) -> None:
        """Wake all who wait."""
        for event in self.asleep:
            event.set()

    def claim(self, owner: int, /) -> None:
        """Say that an owner lives."""
        self.alive.add(owner)

    def give_up(self, owner: int, /) -> None:
        """Say that an owner lives no more."""
        self.alive.discard(owner)

    def is_claimed(self, owner: int, /) -> bool:
        """Whether the owner lives."""
        return owner in self.alive

    def close(self) -> None:
        """Go on: the other processes are still there."""


class MemoryDatabase(Database):
    """The tables, as one simulated process sees them."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(":memory:")
        self._machine = machine
        machine.processes += 1
        self._number = machine.processes

    def now(self) -> float:
        """Trio's time, in seconds."""
        return trio.current_time()

    def identity(self) -> tuple[str, int, str, str, str]:
        """A process with a number of its own."""
        return "memory", self._number, "", "", ""

    def _make_side(self) -> Side:
        return self._machine

    def _connect(self) -> sqlite3.Connection:
        if self._machine.connection is None:
            self._machine.connection = super()._connect()
        return self._machine.connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        pass

    def _place(self) -> tuple[int, int]:
        return (0, 0)


class MemoryWaker:
    """Sleeps until something was changed."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._bell = trio.Event()
        machine.asleep.add(self._bell)

    def heed(self, pids: Iterable[int], /) -> None:
        """Do nothing: a death rings the bell."""

    async def sleep(self, seconds: float, /) -> bool:
        """Sleep for at most so long; then always look for the dead."""
        with trio.move_on_after(seconds if seconds < 1e9 else math.inf):
            await self._bell.wait()
        self.close()
        self._bell = trio.Event()
        self._machine.asleep.add(self._bell)
        return True

    def close(self) -> None:
        """Wait for nothing more."""
        self._machine.asleep.discard(self._bell)


class MemoryStore(BaseStore):
    """A store for tests: what programs share, inside one program, with trio's clock (`time` in it is `trio.current_time()`).

    Each `MemoryStore()` is a machine of its own; `process()` gives the same machine as another process sees it.
    """

    def __init__(self, *, _machine: Machine | None = None) -> None:
        self._machine = Machine() if _machine is None else _machine
        super().__init__(MemoryDatabase(self._machine), "memory:")
        self._death = trio.Event()

    def process(self) -> MemoryStore:
        """The store as another process has it."""
        return MemoryStore(_machine=self._machine)

    def die(self) -> None:
        """Be taken for dead, as after a kill -9: what this process owns is removed, its members are lost.

        Its own tasks go on, and are told that what they owned was taken from them; what it registers from then on is new.
        """
        if self._db.owner is not None:
            self._machine.give_up(self._db.owner)
            self._db.owner = None
        self._death.set()
        self._death = trio.Event()
        self._machine.ring()

    def _loss(self) -> Callable[[], Awaitable[None]]:
        return self._death.wait

    async def _call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        return fn(*args, **kwargs)

    async def aclose(self) -> None:
        """End the process: what it owns is dead from then on. The machine stays."""
        self._db.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _waker(self) -> Waker:
        return MemoryWaker(self._machine)
