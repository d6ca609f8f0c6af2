"""Where things are in etcd: the keys of a store, all under `/PREFIX/`.

    wg/NAME/g        a group: uid, ttl, created; under a lease of its ttl while the group is empty
    wg/NAME/t/ID     plain tickets, as many as the value says
    wg/NAME/d/ID     the same with a deadline, under a lease that ends then
    wg/NAME/m/ID     a member, under the lease of its process
    wg/NAME/r        set when something is added to an empty group, which begins a round; the value is how much of that is leased
    wg/NAME/j/W      set when something leased is added in a round, W at a time
    wg/NAME/l/W      set when something leased is settled or leaves, W at a time
    wg/NAME/s        set when plain tickets are settled
    wg/NAME/b        set when so much was added at once that the sum may come near to the most that a group can count
    lock/NAME/ID     a place in the queue of a lock, under the lease of its process
    presence/NAME/ID who is present, likewise
    op/TOKEN         a call that was made, for 10 minutes; or a registration that was taken back

What is under a lease goes away by itself, with no word to anybody. What was lost is what joined and neither left nor is still
there: a key's version counts how often it was set, so `j/` and `l/` count what joined and left without anybody reading them first,
which would make all who change the group wait for each other. Tokens are beside the groups: they are many, and nobody lists or
watches them.
"""

from __future__ import annotations

import hashlib
import time
from typing import Final

import attrs

from ..store import MEMBER

__all__ = ["GroupKeys", "Keys"]

SLOT: Final = 60
"""Seconds for which calls put their tokens under the same lease."""
KEPT: Final = 600
"""Seconds for which a token is remembered, at least, among programs whose clocks agree."""


@attrs.frozen
class GroupKeys:
    """The keys of one group; those that end in a slash are prefixes."""

    all: str
    group: str
    tickets: str
    timed: str
    members: str
    round: str
    joined: str
    left: str
    settled: str
    big: str

    @property
    def counted(self) -> tuple[str, str, str]:
        """What a group counts is under these."""
        return self.tickets, self.timed, self.members


@attrs.frozen
class Keys:
    """The keys of a store."""

    prefix: str

    def groups(self, beginning: str = "") -> str:
        """What the keys of all groups begin with whose names begin so."""
        return f"/{self.prefix}/wg/{beginning}"

    def group(self, name: str) -> GroupKeys:
        """The keys of one group."""
        base = self.groups(name) + "/"
        return GroupKeys(base, *[base + each for each in ("g", "t/", "d/", "m/", "r", "j/", "l/", "s", "b")])

    def entries(self, space: str, name: str, by_prefix: bool = False) -> str:
        """What the keys of the entries begin with that are under a name, or under all names that begin so."""
        if space == MEMBER:
            return self.groups(name) if by_prefix else self.group(name).members
        return f"/{self.prefix}/{space}/{name}" + "/" * (not by_prefix)

    def entry(self, space: str, name: str, id: str) -> str:
        """The key of an entry."""
        return self.entries(space, name) + id

    def named(self, space: str, key: str) -> tuple[str, str] | None:
        """The name and id of the entry that has this key; None if it is the key of something else."""
        if space == MEMBER:
            name, _, rest = key.removeprefix(self.groups()).partition("/")
            kind, _, id = rest.partition("/")
            return (name, id) if kind == "m" else None
        name, _, id = key.removeprefix(f"/{self.prefix}/{space}/").partition("/")
        return name, id

    def op(self, token: str) -> str:
        """Where a call with this token is remembered."""
        return f"/{self.prefix}/op/{token}"

    def op_lease(self) -> int:
        """The number of the lease for tokens of now, which is the same in all programs whose clocks agree."""
        slot = f"{self.prefix} {int(time.time()) // SLOT}"
        return int.from_bytes(hashlib.blake2b(slot.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 1 or 1
