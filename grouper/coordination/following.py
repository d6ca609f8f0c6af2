"""What is under a name in a store, followed through the times in which the store is unavailable."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import trio

from ..backoff import Backoff
from .errors import Unavailable
from .model import Entry

__all__ = ["RETRY", "Followable", "Outage", "follow", "require_store"]

logger: logging.Logger = logging.getLogger("grouper")

RETRY: Final = Backoff(0.1, cap=5.0)
"""When to try again what an unavailable store could not do, or to register again what was taken away."""


class Followable(Protocol):
    """What of a store is used here."""

    url: str

    def watch_entries(self, space: str, name: str) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, ...]]]:
        """The entries under a name, now and again after each change."""
        ...


def require_store(store: object, who: str) -> None:
    """Raises: TypeError if it is no store."""
    if not hasattr(store, "watch_entries"):
        raise TypeError(f"{who}: {store!r} is not a store: open_store(url) makes one")


class Outage:
    """The time in which a store is unavailable to somebody: told to the log once, however often it is tried again."""

    def __init__(self, who: str) -> None:
        self.who: str = who
        self._tries = 0

    async def pause(self, error: Unavailable) -> None:
        """Wait before the next try, longer each time."""
        if not self._tries:
            logger.warning("%s is held up: %s", self.who, error)
        self._tries += 1
        await trio.sleep(RETRY.delay(self._tries))

    def over(self) -> None:
        """Note that the store has answered."""
        if self._tries:
            logger.info("%s goes on: the store is available again", self.who)
            self._tries = 0


async def follow(store: Followable, space: str, name: str, look: Callable[[tuple[Entry, ...]], bool], outage: Outage) -> None:
    """Show `look` the entries under a name, now and after each change, until it returns False.

    While the store is unavailable nothing is known, which is no reason to end: it is asked again.
    """
    while True:
        try:
            async with store.watch_entries(space, name) as stream:
                async for entries in stream:
                    outage.over()
                    if not look(entries):
                        return
        except Unavailable as error:
            await outage.pause(error)
