"""Streams of what changes in a store's file.

A stream looks, then sleeps until the bell, the death of an owner, or the time at which something runs out; then it looks again. To
look is to read: it waits for no writer. Only after a death, or once a second, it goes through the gate to bury the dead: that
second is for what no bell told, as when a writer is killed between its commit and the bell.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

import attrs

from ..errors import Deleted, NotFound
from ..store import MEMBER
from .entries import living, pids, under
from .groups import described
from .rows import find, load
from .tables import Tables

if TYPE_CHECKING:
    from ..model import Entry, Status
    from .database import Database

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Waker(Protocol):
    """What sleeps until something may have changed."""

    def heed(self, pids: Iterable[int], /) -> None:
        """End a sleep also at the death of one of these processes."""
        ...

    async def sleep(self, seconds: float, /) -> bool:
        """Sleep for at most so long; whether it is time to look for the dead."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class Home(Protocol):
    """The store of a stream: how the database's methods are called, and how one sleeps."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None, /
    ) -> object: ...
    async def _call(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def _write(self, change: Callable[Concatenate[Database, P], R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    def _waker(self) -> Waker: ...


class Stream(ABC, Generic[T]):
    """What is under a name, now and after each change."""

    def __init__(self, home: Home, db: Database, name: str) -> None:
        self.name: str = name
        self._home = home
        self._db = db
        self._waker: Waker | None = None

    async def __aenter__(self) -> Self:
        await self._home.__aenter__()
        try:
            await self._home._write(self._begin)
            self._waker = self._home._waker()
        except BaseException as error:
            await self._home.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        await self._home.__aexit__(kind, error, tb)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        assert self._waker is not None, "a stream is read within its block"
        while True:
            news, pids, expires = await self._home._call(self._db.read, self._look)
            if news is not None:
                return self._told(news)
            self._waker.heed(pids)
            if await self._waker.sleep(max(0.0, expires - self._db.now())):
                await self._home._write(self._bury)

    @abstractmethod
    def _begin(self, db: Tables) -> None:
        """Within a change: what must be so for the stream to begin."""

    @abstractmethod
    def _look(self, db: Tables) -> tuple[T | None, list[int], float]:
        """What is new, or None; the pids to heed, and when something runs out."""

    @abstractmethod
    def _bury(self, db: Tables) -> None:
        """Within a change: clear away the dead and what has run out."""

    @abstractmethod
    def _told(self, news: T) -> T:
        """It is told now."""


class Statuses(Stream["Status"]):
    """The stream of a group: no zero is left out, since each ends a round, and rounds are counted."""

    def __init__(self, home: Home, db: Database, name: str) -> None:
        super().__init__(home, db, name)
        self._id = self._round = 0
        self._ends = False
        self._first: Status | None = None
        self._last: Status

    def _begin(self, db: Tables) -> None:
        group = load(db, self.name)
        self._id, self._round = group.id, group.round
        self._first = self._last = described(db, group)

    def _look(self, db: Tables) -> tuple[Status | None, list[int], float]:
        self._ends = False
        if self._first is not None:
            return self._first, [], math.inf
        group = find(db, self.name)
        if group is None or group.id != self._id:
            for (rounds,) in db.execute("SELECT round FROM gone WHERE id = ?", (self._id,)):
                if rounds > self._round:
                    self._ends = True
                    return self._ended(db, self._last), [], math.inf
            raise Deleted(f"wait group {self.name!r} was deleted while it was watched: create it again, and tell its workers")
        status = described(db, group)
        self._ends = group.round > self._round
        if self._ends:
            over = group.counter or group.round > self._round + 1
            return self._ended(db, status) if over else status, [], math.inf
        if status != self._last:
            return status, [], math.inf
        expires = math.inf
        if group.tickets:
            ((soonest,),) = db.execute("SELECT min(expires) FROM ticket WHERE grp = ?", (group.id,))
            expires = math.inf if soonest is None else soonest
        elif group.ttl is not None and group.done_at is not None:
            expires = group.done_at + group.ttl
        return None, pids(db, MEMBER, self.name), expires

    def _ended(self, db: Tables, status: Status) -> Status:
        """The zero with which the round that is seen ended."""
        ((lost,),) = db.execute("SELECT coalesce(sum(lost), 0) FROM losses WHERE grp = ? AND round = ?", (self._id, self._round))
        return attrs.evolve(status, counter=0, members=(), lost=lost, started=True)

    def _bury(self, db: Tables) -> None:
        with contextlib.suppress(NotFound):  # it has run out, which the next look tells
            load(db, self.name)

    def _told(self, news: Status) -> Status:
        self._first = None
        self._round += self._ends
        self._last = news
        return news


class Entries(Stream["tuple[Entry, ...]"]):
    """The stream of the entries under a name, or under all that begin so."""

    def __init__(self, home: Home, db: Database, space: str, name: str, by_prefix: bool) -> None:
        super().__init__(home, db, name)
        self._space = space
        self._by_prefix = by_prefix
        self._last: tuple[Entry, ...] | None = None

    def _begin(self, db: Tables) -> None:
        self._bury(db)

    def _look(self, db: Tables) -> tuple[tuple[Entry, ...] | None, list[int], float]:
        found = under(db, self._space, self.name, self._by_prefix)
        if found != self._last:
            return found, [], math.inf
        return None, pids(db, self._space, self.name, self._by_prefix), math.inf

    def _bury(self, db: Tables) -> None:
        living(db, self._space, self.name, self._by_prefix)

    def _told(self, news: tuple[Entry, ...]) -> tuple[Entry, ...]:
        self._last = news
        return news
