"""The file of a store: opening it, and changes that are made whole or not at all.

WAL with `synchronous=NORMAL`: what was committed survives the death of any process; a power cut may take back the last commits, the
file stays sound. `synchronous=FULL` in the url of the store waits for the disk at each change.

A change is one transaction inside the gate, and a bell after it. A change that raises was not made.

SQLite keeps what it knows of a file's locks once for a process, and a child made by fork would go on with what its parent knew: it
would believe that it has locks that it has not, and its changes could be lost (seen, when the parent closed the file). So before a
fork all connections are closed; each process opens its own when it next uses the store.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import Concatenate, Final, Generic, NamedTuple, ParamSpec, Protocol, TypeVar

from ..errors import Unavailable
from . import hosts
from .gate import GateRemoved, open_gate
from .rows import bury, sweep
from .tables import SCHEMA
from .trouble import BUSY, explained

__all__ = ["Database", "Shortcut", "Side"]

P = ParamSpec("P")
T = TypeVar("T")

APPLICATION: Final = 0x67727072
VERSION: Final = 1
FORK_WITHIN: Final = 1.0
"""Seconds that a fork waits for a change that is under way."""


class Side(Protocol):
    """What is beside the tables: the gate, the bell, and who is alive."""

    @property
    def place(self) -> str:
        """What tells it from others."""
        ...

    def enter(self, until: float | None = None, /) -> None:
        """Wait until this is the only writer, by `time.monotonic()` at most so long. Raises: TimeoutError."""
        ...

    def leave(self) -> None:
        """Let the next writer in."""
        ...

    def ring(self) -> None:
        """Wake all who wait for a change."""
        ...

    def claim(self, owner: int, /) -> None:
        """Say that an owner lives."""
        ...

    def give_up(self, owner: int, /) -> None:
        """Say that an owner lives no more."""
        ...

    def is_claimed(self, owner: int, /) -> bool:
        """Whether an owner lives."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Shortcut(NamedTuple, Generic[T]):
    """One statement that does what a change does where nothing special is the case, and else changes no row; what is returned."""

    sql: str
    args: tuple[object, ...]
    result: T


class Database:
    """The tables of a store as one process sees them. Used by one thread at a time; opened when it is first used.

    `owner` is the number under which this process owns entries, None as long as it owns none. `deadline`, by `time.monotonic()`, is
    when a wait for the gate ends with TimeoutError.
    """

    def __init__(self, path: str, *, full: bool = False) -> None:
        self.path: str = path
        self.owner: int | None = None
        self.deadline: float | None = None
        self.execute: Callable[..., sqlite3.Cursor]
        self._full = full
        self._connection: sqlite3.Connection | None = None
        self._side: Side | None = None
        self._file: tuple[int, int] = (0, 0)
        self._pid = 0
        self._busy = threading.Lock()
        _all.add(self)

    def __del__(self) -> None:
        connection, side = self._connection, self._side
        if connection is not None and side is not None and self._pid == os.getpid():
            with contextlib.suppress(sqlite3.Error, OSError):
                self._disconnect(connection)
                side.close()

    @property
    def gate_path(self) -> str:
        """Where the gate file is."""
        return self.path + "-gate"

    @property
    def side(self) -> Side:
        """The gate. Only while it is open."""
        assert self._side is not None
        return self._side

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def write(self, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a change in a transaction of its own and wake who waits for one. Raises: Unavailable, and what the change raises."""
        return self.write_if(None, None, change, *args, **kwargs)

    def write_if(
        self,
        wanted: Callable[[], bool] | None,
        shortcut: Shortcut[T] | None,
        change: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `write`, but nothing is done if it is no longer `wanted` once the gate is passed. Raises: Abandoned then.

        A `shortcut` is tried first.
        """
        with self._busy:
            return self._write(wanted, shortcut, change, *args, **kwargs)

    def _write(
        self,
        wanted: Callable[[], bool] | None,
        shortcut: Shortcut[T] | None,
        change: Callable[Concatenate[Database, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            connection, side = self._entered()
            before, owner = connection.total_changes, self.owner
            try:
                if wanted is not None and not wanted():
                    raise Abandoned
                self._require_same_file()
                if shortcut is not None and self.execute(shortcut.sql, shortcut.args).rowcount == 1:
                    result = shortcut.result
                else:
                    result = self._transact(change, *args, **kwargs)
            except BaseException:
                if self.owner is not None and self.owner != owner:
                    side.give_up(self.owner)
                    self.owner = owner
                raise
            finally:
                side.leave()
            if connection.total_changes != before:
                with contextlib.suppress(OSError):  # the change is made, and is seen without the bell too
                    side.ring()
        except Replaced:
            self._drop()
            raise
        except TimeoutError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise explained(self.path, error) from error
        return result

    def _entered(self) -> tuple[sqlite3.Connection, Side]:
        """Open the file, if need be, and pass the gate; the new one if it was removed."""
        while True:
            try:
                connection, side = self._open(), self.side
                side.enter(self.deadline)
            except GateRemoved:
                import logging

                log = logging.getLogger("grouper")
                log.warning("%s was removed while programs used the store: see what does that; a new one is made", self.gate_path)
                self._drop()
            else:
                return connection, side

    def _transact(self, change: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.execute("BEGIN IMMEDIATE")
        try:
            result = change(self, *args, **kwargs)
            self.execute("COMMIT")
        except BaseException:
            if self._connection is not None and self._connection.in_transaction:
                self.execute("ROLLBACK")
            raise
        return result

    def read(self, question: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask at one instant, without waiting for writers. Raises: Unavailable, and what the question raises."""
        with self._busy:
            try:
                if self._connection is None or self._pid != os.getpid():
                    self._entered()[1].leave()
                self.execute("BEGIN")
                try:
                    return question(self, *args, **kwargs)
                finally:
                    self.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise explained(self.path, error) from error

    def become_owner(self) -> int:
        """Make this process an owner, inside of a change, if it is not one; its number."""
        if self.owner is None or not self.execute("SELECT 1 FROM owner WHERE id = ?", (self.owner,)).fetchone():
            number = int.from_bytes(os.urandom(6), "big")  # never one that was given before: a change may still be taken back
            self.side.claim(number)
            self.execute("INSERT INTO owner VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *self.identity(), self.side.place))
            self.owner = number
        return self.owner

    def identity(self) -> tuple[str, int, str, str, str]:
        """What tells this process from all others: host, pid, boot, pid namespace, time of start."""
        return hosts.identity()

    def is_alive(self, owner: int, pid: int, boot: str, ns: str, started: str, gate: str) -> bool:
        """Whether the process of an owner runs. Inside of a change.

        Its byte in the gate file says so. Where that is another file than the one in which it has its byte, it is alive also if
        it can be seen to run.
        """
        return self.side.is_claimed(owner) or (gate != self.side.place and hosts.runs(pid, boot, ns, started))

    def close(self) -> None:
        """Close the file. What this process owns is dead then."""
        with self._busy:
            self._leave_parent()
            if self.owner is not None:
                with contextlib.suppress(Unavailable, TimeoutError):
                    self._write(None, None, bury, self.owner)
            if self._side is not None and self.owner is not None:
                self._side.give_up(self.owner)
            self.owner = None
            self._drop()

    def _drop(self) -> None:
        """Close the file, to open it anew. What this process owns stays its own."""
        connection, side = self._connection, self._side
        self._connection = self._side = None
        if connection is not None:
            self._disconnect(connection)
        if side is not None:
            side.close()

    def _open(self) -> sqlite3.Connection:
        self._leave_parent()
        if self._connection is not None:
            return self._connection
        if self._side is None:
            self._side = self._make_side()
        self._pid = os.getpid()
        try:
            connection = self._connect()
            self.execute = connection.execute
            self._connection = connection
            self._prepare()
        except BaseException:
            self._drop()
            raise
        return connection

    def _make_side(self) -> Side:
        hosts.require_local(self.path)
        if not os.path.isdir(os.path.dirname(self.path) or "."):
            raise Unavailable(f"the folder of the store {self.path} is not there: make it, or name another file")
        return open_gate(self.gate_path)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        connection.close()

    def _prepare(self) -> None:
        self.side.enter(self.deadline)
        try:
            if os.path.exists(self.path) and os.stat(self.path).st_nlink > 1:
                raise Unavailable(f"the store {self.path} has a second name, a hard link, which would be another store: remove one")
            ((application,),) = self.execute("PRAGMA application_id")
            ((version,),) = self.execute("PRAGMA user_version")
            ((tables,),) = self.execute("SELECT count(*) FROM sqlite_master")
            if application != APPLICATION and (application or version or tables):
                raise Unavailable(f"{self.path} is the database of another program: name another file")
            if version > VERSION:
                raise Unavailable(f"{self.path} was made by a newer grouper (its version is {version}): update this one")
            ((journal,),) = self.execute("PRAGMA journal_mode = WAL")
            if journal not in ("wal", "memory"):
                raise Unavailable(f"the store {self.path} is where SQLite can keep no log beside it: name a file on a local disk")
            self.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
            if not version:
                self.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA.split(";\n"):
                    self.execute(statement)
                self.execute(f"PRAGMA application_id = {APPLICATION}")
                self.execute(f"PRAGMA user_version = {VERSION}")
                self.execute("COMMIT")
            self.execute("BEGIN IMMEDIATE")
            if self.owner is not None:
                self.side.claim(self.owner)
                self.execute("UPDATE owner SET gate = ? WHERE id = ?", (self.side.place, self.owner))
            sweep(self)
            self.execute("COMMIT")
            self._file = self._place()
            self.side.ring()
        finally:
            self.side.leave()

    def _place(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def _require_same_file(self) -> None:
        try:
            same = self._place() == self._file
        except FileNotFoundError:
            same = False
        if not same:
            raise Replaced(
                f"the store {self.path} was removed or replaced while programs used it, and what was in it is gone: "
                "see what does that; to try again is to use what is there now"
            )

    def _leave_parent(self) -> None:
        """In a child made by fork: own nothing, and have no gate yet."""
        if self._pid not in (0, os.getpid()):
            self._connection = self._side = self.owner = None
            self._pid = 0

    def _before_fork(self) -> bool:
        """Close the connection, and let nobody open it; the gate stays, and with it what this process owns.

        False if a thread is in the midst of a change for too long, as one that waits at the gate for a stopped process.
        """
        if not self._busy.acquire(timeout=FORK_WITHIN):
            return False
        if self._connection is not None and self._pid == os.getpid():
            self._disconnect(self._connection)
            self._connection = None
        return True

    def _after_fork(self) -> None:
        self._busy.release()


class Replaced(Unavailable):
    """The file is no longer that which was opened."""


class Abandoned(Exception):  # noqa: N818 (nothing went wrong)
    """A change was not made, because nobody wanted it any more when its turn came."""


_all: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_forking: Final[list[Database]] = []


def _before_fork() -> None:
    for db in list(_all):
        if db._before_fork():
            _forking.append(db)


def _after_fork() -> None:
    while _forking:
        _forking.pop()._after_fork()


def _after_fork_in_child() -> None:
    _forking.clear()
    for db in list(_all):
        db._busy = threading.Lock()  # who held it may be a thread that is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
