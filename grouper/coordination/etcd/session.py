"""What a store has open in one `trio.run`: connections, the lease, and what it remembers of what it did."""

from __future__ import annotations

import contextlib
import json
import math
import random
from typing import Final

import attrs
import trio

from ..errors import Unavailable
from .address import Address
from .gateway import TRY, Call, Gateway, Refused
from .keys import KEPT, SLOT, GroupKeys, Keys
from .lease import Life
from .wire import JSON, KV, Answer, absent, empty, put_under, unchanged

__all__ = ["Mine", "Session"]

LONGEST: Final = 9_000_000_000
"""Seconds of the longest lease that etcd grants."""
REMEMBERED: Final = 1000
"""Groups of which a key is remembered that was there."""


@attrs.frozen
class Mine:
    """What is known of an entry of this process: its nonce, whether a request for it may still be under way, its group's ttl."""

    nonce: str
    unsure: bool
    ttl: float | None


class Session:
    """An etcd as one `trio.run` uses it.

    `hints` has a key for each group that was lately there: while it is, the group is not empty, which etcd then need not find out
    by reading all that is in it. `used` is in how many blocks the store is.
    """

    def __init__(self, address: Address, lease: float, timeout: float) -> None:
        self.gateway: Gateway = Gateway(address, timeout)
        self.life: Life = Life(self.gateway, lease)
        self.keys: Keys = Keys(address.prefix)
        self.mine: dict[tuple[str, str, str, int], Mine] = {}
        self.hints: dict[str, str] = {}
        self.used: int = 0

    def call(self, token: str | None = None) -> Call:
        """A call that begins now, with time for a try of each endpoint."""
        gateway = self.gateway
        return Call(gateway.timeout, token, each=min(TRY, gateway.timeout / len(gateway.address.bases)))

    def hint(self, name: str, key: str) -> None:
        """Remember that a key of a group is there."""
        if len(self.hints) >= REMEMBERED:
            self.hints.clear()
        self.hints[name] = key

    def is_empty(self, name: str, keys: GroupKeys) -> list[JSON]:
        """What is compared to find a group empty; the first that does not hold ends it."""
        hint = self.hints.get(name)
        return [*([] if hint is None else [absent(hint)]), *map(empty, keys.counted)]

    async def txn(self, compare: list[JSON], success: list[JSON], failure: list[JSON], call: Call, lease: int = 0) -> Answer:
        """Make a transaction, in which tokens are under the `lease` of `op_lease()`: if that is not there yet, it is granted.

        Raises: Unavailable; Refused, also for any other lease that is not there.
        """
        try:
            return await self.gateway.txn(compare, success, failure, call)
        except Refused:
            if not lease:
                raise
        await self.grant(lease, KEPT + SLOT, call)  # or another program does so at the same time
        return await self.gateway.txn(compare, success, failure, call)

    async def grant(self, id: int, seconds: float, call: Call) -> bool:
        """Make a lease; False if it is there. Raises: Unavailable."""
        request = {"ID": str(id), "TTL": str(min(math.ceil(seconds), LONGEST))}
        try:
            await self.gateway.post("/v3/lease/grant", request, call, reads=True)
        except Refused:
            return False
        return True

    async def revoke(self, id: int, call: Call) -> None:
        """End a lease that is not needed, if that can be done: else it runs out."""
        shorter = Call(max(0.0, call.deadline - trio.current_time()))
        with contextlib.suppress(Unavailable, Refused):
            await self.gateway.post("/v3/lease/revoke", {"ID": str(id)}, shorter, reads=True)

    async def start_ttl(self, keys: GroupKeys, group: KV, call: Call) -> None:
        """Put a group under a lease of its ttl, if it has one and is empty. If that cannot be done, the next who sees it does it.

        `group` is its key, as it was read when it was found to be empty.
        """
        ttl = json.loads(group.value)["ttl"]
        if ttl is None or group.lease:
            return
        shorter = Call(min(2.0, max(0.0, call.deadline - trio.current_time())))
        lease = random_lease()
        try:
            await self.grant(lease, ttl, shorter)
            compare = [unchanged(keys.group, group), *map(empty, keys.counted)]
            answer = await self.gateway.txn(compare, [put_under(keys.group, lease)], [], shorter)
            if not answer.succeeded and not shorter.unsure:  # else the group may be under it, and would go with it
                await self.revoke(lease, shorter)
        except (Unavailable, Refused):
            pass


def random_lease() -> int:
    """The number of a new lease."""
    return random.getrandbits(62) + 1
