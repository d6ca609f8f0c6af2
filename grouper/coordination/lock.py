"""A lock that programs share: a queue of entries in a store, of which the first holds.

Entries are numbered in order of arrival, so whoever is first stays first until his entry is gone: nobody takes a lock, it comes to
him. A dead holder's entry goes as every entry does, with its owner, and the next is first then. The number is the fencing token:
give it along to what the lock protects, which can refuse whoever comes with a lower one than it has seen. Such a one exists: a
program that was paused for longer than its lease learns that it has lost the lock only after it was woken.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import attrs
import trio

from ..signals import Signals
from .errors import LockLost, Unavailable, require_name
from .following import RETRY, Outage, follow, logger, require_store
from .model import Entry
from .owning import Reentrant, Watched
from .store import LOCK, Store

__all__ = ["Lock"]


@attrs.frozen(eq=False)
class Lock:
    """Hold a lock that one program at a time can have; it is ready when it is held, and its value is the fencing token.

    `Ordered([("lock", Lock(store, "leader")), ("server", server)])`: the server exists only where the lock is held; elsewhere the
    lock is starting, in a queue in order of arrival. The token rises with each holder.

    A stop signal ends it cleanly, in the queue too; if it was held it is released at once. If it is lost while it is held, be it
    that the store did not hear of this process for too long or that somebody removed its entry, it raises LockLost, which stops a
    group in reverse order. In the queue nothing is an error: what was taken away is registered again, at the end of the queue, and
    an unavailable store is tried again, which is told to the log. Raises, when it is released: Unavailable if the store cannot be
    told so. When it is made: InvalidName, TypeError.
    """

    store: Store
    name: str

    def __attrs_post_init__(self) -> None:
        require_store(self.store, "Lock")
        require_name(self.name, "lock")

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[int]) -> None:
        """Wait for the lock, then hold it until told to stop. Raises: LockLost; Unavailable if it could not be released."""
        with signals.cancelling():
            async with self.hold() as token:
                task_status.started(token)
                await trio.sleep_forever()

    async def queue(self) -> tuple[Entry, ...]:
        """Who holds the lock, which is the first, and who waits for it, in order. Raises: Unavailable."""
        return await self.store.entries(LOCK, self.name)

    def hold(self) -> AbstractAsyncContextManager[int]:
        """Hold the lock while a block runs, and give it the fencing token: `async with lock.hold() as token`.

        Waits for the lock before. However the block ends, the lock is released then. If it is lost meanwhile, the block is
        cancelled and LockLost raised, in an exception group with the block's own exception if there is one. Can be entered any
        number of times, also by several tasks at a time, of which each waits for its own turn: inside the block, that is for ever.
        A cancellation of the wait leaves nothing in the queue. Raises, at the end: Unavailable if the lock could not be released.
        """
        return Holding(self)


class Holding(Reentrant[int]):
    """What `Lock.hold()` returns."""

    def __init__(self, lock: Lock) -> None:
        super().__init__()
        self._lock = lock

    def __repr__(self) -> str:
        return f"<{self._lock!r}.hold()>"

    def _once(self) -> AbstractAsyncContextManager[int]:
        return Turn(self._lock)


class Turn:
    """One time to wait for a lock and to hold it."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._outage = Outage(f"lock {lock.name!r}")
        self._place: Place

    async def __aenter__(self) -> int:
        lost = 0
        while True:
            self._place = Place(self._lock, self._outage)
            try:
                return (await self._place.__aenter__()).token
            except Unavailable as error:
                await self._outage.pause(error)
            except LockLost:
                lost += 1
                logger.warning(
                    "lock %r: the place in its queue was taken away: it is queued for again, at the end", self._lock.name
                )
                await trio.sleep(RETRY.delay(lost))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> Any:
        return await self._place.__aexit__(kind, error, tb)


class Place(Watched):
    """A place in the queue, which is the lock when it is the first."""

    def __init__(self, lock: Lock, outage: Outage) -> None:
        super().__init__(lock.store, LOCK, lock.name, secrets.token_hex(8), "", f"lock {lock.name!r}")
        self._name = lock.name
        self._outage = outage

    async def tend(self, entry: Entry) -> None:
        """Be granted when it is the first; return when it is gone."""

        def look(entries: tuple[Entry, ...]) -> bool:
            tokens = [each.token for each in entries]
            if entry.token not in tokens:
                return False
            if entry.token == min(tokens):
                self.grant()
            return True

        await follow(self.store, LOCK, self._name, look, self._outage)

    def loss(self) -> Exception:
        """LockLost."""
        return LockLost(
            f"{self.what} is not held any more: its entry in {self.store.url} was removed, or this process was taken for dead: "
            "stop what it protects, and wait for it again"
        )
