"""What programs share that share no memory: wait groups, locks, and who is present.

In an SQLite file for the programs of one machine, in etcd for several. The names below are imported when they are first used, so
that the command's short verbs need neither trio nor attrs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .errors import CoordinationError as CoordinationError
    from .errors import Deleted as Deleted
    from .errors import Exists as Exists
    from .errors import InvalidName as InvalidName
    from .errors import LockLost as LockLost
    from .errors import MemberLost as MemberLost
    from .errors import NotFound as NotFound
    from .errors import Overflow as Overflow
    from .errors import Unavailable as Unavailable
    from .errors import Underflow as Underflow
    from .errors import WaitGroupError as WaitGroupError
    from .lock import Lock as Lock
    from .model import Entry as Entry
    from .model import Phase as Phase
    from .model import Status as Status
    from .opening import open_store as open_store
    from .presence import Presence as Presence
    from .sqlite.memory import MemoryStore as MemoryStore
    from .store import Store as Store
    from .store import WaitGroup as WaitGroup
    from .waiting import WaitGroupDone as WaitGroupDone

__all__ = [
    "CoordinationError",
    "Deleted",
    "Entry",
    "Exists",
    "InvalidName",
    "Lock",
    "LockLost",
    "MemberLost",
    "MemoryStore",
    "NotFound",
    "Overflow",
    "Phase",
    "Presence",
    "Status",
    "Store",
    "Unavailable",
    "Underflow",
    "WaitGroup",
    "WaitGroupDone",
    "WaitGroupError",
    "open_store",
]

_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "errors": (
        "CoordinationError",
        "Deleted",
        "Exists",
        "InvalidName",
        "LockLost",
        "MemberLost",
        "NotFound",
        "Overflow",
        "Unavailable",
        "Underflow",
        "WaitGroupError",
    ),
    "lock": ("Lock",),
    "model": ("Entry", "Phase", "Status"),
    "opening": ("open_store",),
    "presence": ("Presence",),
    "sqlite.memory": ("MemoryStore",),
    "store": ("Store", "WaitGroup"),
    "waiting": ("WaitGroupDone",),
}
_PLACE_OF: Final[dict[str, str]] = {name: place for place, names in _PLACES.items() for name in names}


if not TYPE_CHECKING:  # else every name would exist for a type checker

    def __getattr__(name: str) -> object:
        place = _PLACE_OF.get(name)
        if place is None:
            raise AttributeError(f"module 'grouper.coordination' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f".{place}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACE_OF])
