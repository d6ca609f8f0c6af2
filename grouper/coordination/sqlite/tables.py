"""The tables of a store, and what the functions that work on them need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SCHEMA", "Tables"]

SCHEMA: Final = """
CREATE TABLE waitgroup (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: a group made anew is another one
    name TEXT NOT NULL UNIQUE,
    ttl REAL,
    plain INTEGER NOT NULL CHECK (plain BETWEEN 0 AND 2147483647),
    round INTEGER NOT NULL DEFAULT 0,      -- how many have ended
    lost INTEGER NOT NULL DEFAULT 0,       -- in the round that is under way; in the last one while none is
    created REAL NOT NULL,
    done_at REAL                           -- since when it counts zero
);
CREATE TABLE gone (
    id INTEGER PRIMARY KEY, round INTEGER NOT NULL, at REAL NOT NULL  -- of groups that were removed, for those who wait for one
);
CREATE TABLE losses (grp INTEGER NOT NULL, round INTEGER NOT NULL, lost INTEGER NOT NULL, PRIMARY KEY (grp, round)) WITHOUT ROWID;
CREATE TABLE ticket (
    grp INTEGER NOT NULL, id TEXT NOT NULL, weight INTEGER NOT NULL, expires REAL, PRIMARY KEY (grp, id)
) WITHOUT ROWID;
CREATE TABLE owner (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, boot TEXT NOT NULL, ns TEXT NOT NULL, started TEXT NOT NULL,
    gate TEXT NOT NULL                     -- the file in which it has its byte
);
CREATE TABLE entry (
    token INTEGER PRIMARY KEY AUTOINCREMENT,
    space TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, value TEXT NOT NULL, owner INTEGER NOT NULL, since REAL NOT NULL,
    UNIQUE (space, name, id)
);
CREATE INDEX entry_owner ON entry (owner);
CREATE TABLE op (token TEXT PRIMARY KEY, call TEXT NOT NULL, result TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX op_at ON op (at);
"""


class Tables(Protocol):
    """The tables within a change, as one process sees them. `owner` is the number under which it owns entries, None for none."""

    owner: int | None
    execute: Callable[..., sqlite3.Cursor]

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def identity(self) -> tuple[str, int, str, str, str]:
        """What tells this process from all others: host, pid, boot, pid namespace, time of start."""
        ...

    def become_owner(self) -> int:
        """Make this process an owner, if it is not one; its number."""
        ...

    def is_alive(self, owner: int, pid: int, boot: str, ns: str, started: str, gate: str) -> bool:
        """Whether the process of an owner runs."""
        ...
