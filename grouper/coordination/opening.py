"""From the url of a store to the store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .errors import Unavailable

if TYPE_CHECKING:
    from .sqlite.store import InlineStore
    from .store import Store

__all__ = ["default_url", "open_inline", "open_store"]

FORMS: Final = "sqlite:PATH, or etcd://HOST:PORT,HOST:PORT/PREFIX"


def open_store(url: str | None = None, *, lease: float = 15.0, timeout: float = 10.0) -> Store:
    """The store at `url`: `sqlite:PATH` for the programs of one machine, `etcd://host:2379,host:2379/prefix` for several.

    Without one, that in the environment's GROUPER_STORE, else an SQLite file in the user's state folder (XDG). Nothing is opened
    or reached before its first use. `sqlite:PATH?synchronous=full` waits for the disk at each change. etcd takes a user and
    password (`etcd://user:password@…`) and TLS (`etcds://…?ca=PATH&cert=PATH&key=PATH`). On etcd, `lease` is the seconds after
    which a process that is not heard of is taken for dead, and `timeout` the seconds after which a call gives up; on one machine
    the kernel tells who is dead, at once. Raises: ValueError for a url of no such form, Unavailable if no folder can be made.
    """
    url = default_url() if url is None else url
    scheme, _, rest = url.partition(":")
    if scheme in ("etcd", "etcds"):
        from .etcd import from_url

        return from_url(url, lease=lease, timeout=timeout)
    from .sqlite.store import SQLiteStore

    path, full = _file(scheme, rest, url)
    return SQLiteStore(path, full=full)


def open_inline(url: str | None = None) -> InlineStore | None:
    """The store at `url` for a program without an event loop, whose thread it blocks; None for one that is not on this machine.

    Raises: as `open_store`.
    """
    url = default_url() if url is None else url
    scheme, _, rest = url.partition(":")
    if scheme in ("etcd", "etcds"):
        return None
    from .sqlite.store import InlineStore, database

    return InlineStore(*database(*_file(scheme, rest, url)))


def default_url() -> str:
    """The url in GROUPER_STORE; else `waitgroups.db` in the folder of the user's state, which is made. Raises: Unavailable."""
    if url := os.environ.get("GROUPER_STORE"):
        return url
    state = os.environ.get("XDG_STATE_HOME") or ""
    if not os.path.isabs(state):  # the standard says that any other is to be ignored
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    if not os.path.isabs(state):
        raise Unavailable(f"this user has no home folder to keep a store in: name one in GROUPER_STORE: {FORMS}")
    folder = os.path.join(state, "grouper")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        text = f"the folder {folder} cannot be made ({error.strerror}): name a store in GROUPER_STORE: {FORMS}"
        raise Unavailable(text) from error
    return "sqlite:" + os.path.join(folder, "waitgroups.db")


def _file(scheme: str, rest: str, url: str) -> tuple[str, bool]:
    if scheme != "sqlite":
        raise ValueError(f"{url!r} is not the url of a store: write {FORMS}")
    path, _, query = rest.partition("?")
    if not path or "\0" in path or query not in ("", "synchronous=full", "synchronous=normal"):
        raise ValueError(f"{url!r}: write sqlite:PATH, or sqlite:PATH?synchronous=full")
    return os.path.realpath(os.path.expanduser(path)), query == "synchronous=full"
