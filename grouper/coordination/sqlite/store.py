"""The store on one machine: tickets and entries in an SQLite file, asked from a trio task, or in the calling thread."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from ..store import Store
from . import entries, groups, rows
from .database import Database, Shortcut

if TYPE_CHECKING:
    from ..model import Entry, Status
    from .threads import Thread
    from .watching import Waker

__all__ = ["InlineStore", "SQLiteStore"]

P = ParamSpec("P")
T = TypeVar("T")


def database(path: str, full: bool) -> tuple[Database, str]:
    """The database at that path, and the url of its store."""
    return Database(path, full=full), f"sqlite:{path}" + "?synchronous=full" * full


class BaseStore(Store):
    """The verbs of a store whose tables are in a database; how its functions are called is told by subclasses."""

    def __init__(self, db: Database, url: str) -> None:
        self.url: str = url
        self._db = db

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def _call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that does not change anything, or whose change is as good if it comes late."""
        raise NotImplementedError

    async def _write(self, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a change."""
        return await self._write_by(None, change, *args, **kwargs)

    async def _write_by(
        self, shortcut: Shortcut[T] | None, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make a change, by a shortcut if it can be."""
        return await self._call(lambda: self._db.write_if(None, shortcut, change, *args, **kwargs))

    async def _write_late(self, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a change that is as good if it comes after all."""
        return await self._write(change, *args, **kwargs)

    def _waker(self) -> Waker:
        raise NotImplementedError

    def _loss(self) -> Callable[[], Awaitable[None]]:
        """What waits until this process is told that what it owned until now was taken: never, for it lives."""
        return forever

    async def aclose(self) -> None:
        """Close the file. What this process owns in it is dead from then on."""
        await self._call(self._db.close)

    async def list(self, prefix: str = "") -> tuple[Status, ...]:
        """The groups whose names begin with `prefix`, by name."""
        return await self._write(groups.listed, prefix)

    async def create(self, name: str, ttl: float | None, count: int) -> bool:
        """Make a group; False if it exists."""
        return await self._write(groups.create, name, ttl, count)

    async def add(self, name: str, n: int, tickets: bool, expires_in: float | None, token: str | None) -> tuple[str, ...]:
        """Issue plain tickets."""
        plain = not tickets and expires_in is None and token is None
        shortcut = groups.quick_add(name, n) if plain else None
        return await self._write_by(shortcut, groups.add, name, n, tickets, expires_in, token)

    async def done(self, name: str, n: int, ticket: str | None, token: str | None) -> bool:
        """Settle plain tickets."""
        shortcut = groups.quick_done(name, n) if ticket is None and token is None else None
        return await self._write_by(shortcut, groups.done, name, n, ticket, token)

    async def status(self, name: str) -> Status:
        """The group's state."""
        return await self._write(groups.status, name)

    async def counter(self, name: str) -> int:
        """What a group counts, for who would wait for the import of `Status`. Raises: NotFound."""
        return (await self._write(rows.load, name)).counter

    async def delete(self, name: str) -> bool:
        """Remove a group."""
        return await self._write(groups.delete, name)

    def watch(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[Status]]:
        """The group's state, now and after changes."""
        from .watching import Statuses

        return Statuses(self, self._db, name)

    def owner(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Be alive in the store, which a process is as long as the store is open."""
        return Owning(self)

    async def register(self, space: str, name: str, id: str, value: str) -> Entry:
        """Make an entry of this process."""
        return await self._write(entries.register, space, name, id, value)

    async def withdraw(self, space: str, entry: Entry) -> bool:
        """Remove an entry of this process."""
        return await self._write_late(entries.withdraw, space, entry)

    async def entries(self, space: str, name: str, *, by_prefix: bool = False) -> tuple[Entry, ...]:
        """The entries under a name, or under all names that begin so."""
        return await self._write(entries.living, space, name, by_prefix)

    def watch_entries(
        self, space: str, name: str, *, by_prefix: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, ...]]]:
        """As `entries`, now and after changes."""
        from .watching import Entries

        return Entries(self, self._db, space, name, by_prefix)


async def forever() -> None:
    """Wait for what does not come."""
    import trio

    await trio.sleep_forever()


class Owning:
    """The block in which a process owns what it registers: its store stays open."""

    def __init__(self, store: BaseStore) -> None:
        self._store = store

    async def __aenter__(self) -> Callable[[], Awaitable[None]]:
        await self._store.__aenter__()
        return self._store._loss()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self._store.__aexit__(kind, error, tb)


class InlineStore(BaseStore):
    """The store for a program without an event loop: nothing is awaited, the calling thread does it all, and blocks.

    `deadline`, by `time.monotonic()`, ends a wait, of a stream or for the gate, with TimeoutError. It is set before the first call.
    """

    @property
    def deadline(self) -> float | None:
        """When a wait ends."""
        return self._db.deadline

    @deadline.setter
    def deadline(self, deadline: float | None) -> None:
        self._db.deadline = deadline

    async def _call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)

    def _waker(self) -> Waker:
        from .waking import BlockingWaker

        return BlockingWaker(self._db.gate_path, self.deadline)


class SQLiteStore(BaseStore):
    """Wait groups, locks and presences of the programs of one machine, in an SQLite file.

    Calls run in a worker thread, one at a time. A call that is cancelled while it waits for its turn was not made. Once it has
    begun it is made, and returns: a change takes less than a millisecond, and a cancellation then comes at the next checkpoint.
    """

    def __init__(self, path: str, *, full: bool = False) -> None:
        super().__init__(*database(path, full))
        self._thread: Thread | None = None

    @property
    def _worker(self) -> Thread:
        if self._thread is None or self._thread.pid != os.getpid():
            from .threads import Thread

            self._thread = Thread(self._db)
        return self._thread

    async def _call(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._worker.call(fn, *args, **kwargs)

    async def _write_by(
        self, shortcut: Shortcut[T] | None, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._worker.write(shortcut, change, *args, **kwargs)

    async def _write_late(self, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._worker.write_late(change, *args, **kwargs)

    async def aclose(self) -> None:
        """Close the file. What this process owns in it is dead from then on. Also where it is cancelled."""
        await self._worker.close()

    def _waker(self) -> Waker:
        from .waking import TrioWaker

        return TrioWaker(self._db.gate_path)
