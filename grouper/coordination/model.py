"""What a store tells: the state of a group, and who holds what."""

from __future__ import annotations

import enum

import attrs

__all__ = ["Entry", "Phase", "Status"]


class Phase(enum.Enum):
    """Where a wait group is: DONE exactly when it counts zero, also when nothing was ever added."""

    WAITING = "Waiting"
    DONE = "Done"


@attrs.frozen
class Entry:
    """What lives in a store for as long as its owner does: a member of a group, a place in the queue of a lock, a presence.

    `token` rises: of two entries of one lock, the one that came later has the higher. `since` is in seconds since the epoch, by the
    clock of the owner's `host`, on which its process has the number `pid`.
    """

    name: str
    id: str
    value: str
    host: str
    pid: int
    since: float
    token: int


@attrs.frozen
class Status:
    """A wait group at one instant.

    `counter` is what was added and is not done, its `members` among it. `lost` is how many of this round did not finish: members
    whose owner died, and tickets whose time ran out. A round begins with what is added to an empty group; while the group is Done,
    the last one counts. `started` tells whether anything was ever added. `ttl` is in seconds, `created` in seconds since the epoch.
    """

    name: str
    counter: int
    members: tuple[Entry, ...]
    lost: int
    ttl: float | None
    created: float
    started: bool

    @property
    def phase(self) -> Phase:
        """DONE exactly when the counter is zero."""
        return Phase.WAITING if self.counter else Phase.DONE
