"""What to do about what SQLite and the system say."""

from __future__ import annotations

import errno
import sqlite3
from typing import Final

from ..errors import Unavailable

__all__ = ["ADVICE", "BUSY", "explained"]

BUSY: Final = 5.0
"""Seconds to wait for a program that is in the file by another way than ours, such as SQLite's shell."""

ADVICE: Final = {
    sqlite3.SQLITE_READONLY: "it cannot be written to: let this user write to it and its folder, or use another store",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: make its folder, or give this user access to it",
    sqlite3.SQLITE_PERM: "it may not be opened: give this user access to it",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: name another file",
    sqlite3.SQLITE_CORRUPT: "it is damaged: stop its users and move it away; it is made anew",
    sqlite3.SQLITE_BUSY: f"another program has kept it locked for {BUSY:g} s: end that program's transaction",
    sqlite3.SQLITE_FULL: "the disk is full: make room",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write it: see the system's log",
}
"""What to do about an error, by the primary code that SQLite gives."""


def explained(path: str, error: sqlite3.Error | OSError) -> Unavailable:
    """The error of a store, in one line."""
    if isinstance(error, OSError) and error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(f"the store {path}: {error.strerror or error} ({error.filename or path}): see its folder")
    code = sqlite3.SQLITE_READONLY if isinstance(error, OSError) else getattr(error, "sqlite_errorcode", None)
    advice = ADVICE.get(code & 0xFF) if code is not None else None
    return Unavailable(f"the store {path}: {advice or error}")
