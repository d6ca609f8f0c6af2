"""Being present in a store for as long as a program runs."""

from __future__ import annotations

import secrets

import attrs
import trio

from ..signals import Signals
from .errors import CoordinationError, Unavailable, require_name
from .following import RETRY, Outage, follow, logger, require_store
from .model import Entry
from .owning import Watched
from .store import PRESENCE, Store

__all__ = ["Presence"]


@attrs.frozen(eq=False)
class Presence:
    """Be present under a name, with a value for whoever looks; it is ready when it is, and its value is the `Entry`.

    `store.present(prefix)` tells who is there, `store.watch_present(prefix)` tells it again after each change. Any number may be
    present under one name. `Presence(store, "api", "10.0.0.7:8080")` is how a server says where it is.

    A stop signal ends it cleanly, and what is present is withdrawn at once. If it is taken away before, it registers again; as long
    as the store is unavailable it tries again. Both are told to the log, as is a store that cannot be told of the end: then it is
    present until the store takes this process for dead. When it is made: InvalidName, TypeError.
    """

    store: Store
    name: str
    value: str = ""

    def __attrs_post_init__(self) -> None:
        require_store(self.store, "Presence")
        require_name(self.name, "presence")
        if not isinstance(self.value, str):
            raise TypeError(f"presence {self.name!r}: value={self.value!r} is not a string: make one of it, say with json.dumps")

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Entry]) -> None:
        """Be present until told to stop."""
        outage = Outage(f"presence {self.name!r}")
        was_ready = False
        tries = 0
        with signals.cancelling():
            while True:
                began = trio.current_time()
                try:
                    async with Here(self, outage) as entry:
                        outage.over()
                        if not was_ready:
                            was_ready = True
                            task_status.started(entry)
                        await trio.sleep_forever()
                except Unavailable as error:
                    await outage.pause(error)
                except TakenAway:
                    tries = tries + 1 if trio.current_time() - began < RETRY.cap else 1
                    logger.warning("presence %r was taken away: it is registered again", self.name)
                    await trio.sleep(RETRY.delay(tries))


class TakenAway(CoordinationError):  # noqa: N818 (as the errors that users see)
    """A presence is gone. Nobody outside gets it."""


class Here(Watched):
    """One time of being present."""

    def __init__(self, presence: Presence, outage: Outage) -> None:
        what = f"presence {presence.name!r}"
        super().__init__(presence.store, PRESENCE, presence.name, secrets.token_hex(8), presence.value, what)
        self._name = presence.name
        self._outage = outage

    async def tend(self, entry: Entry) -> None:
        """Be granted at once; return when it is gone."""
        self.grant()

        def is_there(entries: tuple[Entry, ...]) -> bool:
            return any(each.token == entry.token for each in entries)

        await follow(self.store, PRESENCE, self._name, is_there, self._outage)

    def loss(self) -> Exception:
        """What tells that it is gone."""
        return TakenAway(self.what)
