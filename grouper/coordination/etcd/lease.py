"""Being alive in etcd: one lease for all that a process owns, for as long as there is a block of `owner()`.

No task outlives its block. Each block has a task of its own that would keep the lease alive; they take turns on a lock, so that
one of them does it, and another goes on when that one's block ends. The last block to end revokes the lease.

A lease is lost when etcd says so, or when its time went by since the last renewal that succeeded was sent. The clock for this is
one that goes on while the machine is suspended, and it is looked at before anything is done with the lease: a process that was
stopped and goes on must not believe that it still holds what others hold by now.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import time
from typing import Final, Protocol

import trio

from ..errors import Unavailable
from .gateway import TRY, Call, Gateway, Refused

__all__ = ["Lease", "Life", "Tenure", "Undo"]

logger: logging.Logger = logging.getLogger("grouper")

LOOK: Final = 1.0
"""Seconds between looks at the clock: trio's does not go on while the machine is suspended."""
REVOKE: Final = 2.0
"""Seconds for revoking a lease that is needed no more; else it runs out."""

_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def now() -> float:
    """Seconds by a clock that goes on while the machine is suspended, where there is one."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Lease:
    """A lease that was granted for `ttl` seconds; `used` is the number of the last registration under it."""

    def __init__(self, id: int, ttl: float, sent: float) -> None:
        self.id: int = id
        self.ttl: float = ttl
        self.sent: float = sent
        self.used: int = 0

    @property
    def left(self) -> float:
        """Seconds until it is lost if nothing more is heard."""
        return self.sent + self.ttl - now()


class Undo(Protocol):
    """Something to take back."""

    async def undo(self, call: Call, /) -> object:
        """Take it back. Raises: Unavailable, Refused."""


class Life:
    """The lease of this process in one `trio.run`, and who needs it.

    `undone` are registrations that could not be taken back. What they may have left is under the lease, and goes with it.
    """

    def __init__(self, gateway: Gateway, seconds: float) -> None:
        self.gateway: Gateway = gateway
        self.undone: dict[Undo, None] = {}
        self.registrations: int = 0
        self.tenures: set[Tenure] = set()
        self._seconds = math.ceil(seconds)
        self._lease: Lease | None = None
        self._former: Lease | None = None
        self._granted = trio.Event()
        self._granting = trio.Lock()
        self._turn = trio.Lock()

    def held(self) -> Lease | None:
        """The lease, if there is one and it is not lost."""
        lease = self._lease
        if lease is not None and lease.left <= 0:
            self.lose(lease, f"nothing was heard of etcd for {lease.ttl:g} s")
        return self._lease

    async def lease(self, call: Call) -> Lease:
        """The lease; a new one if there is none. Raises: Unavailable."""
        lease = self.held()
        if lease is not None:
            return lease
        async with self._granting:
            lease = self.held()
            if lease is None:
                if self._former is not None:  # what is under it is of no use, and in the way of what replaces it
                    await self._revoke(self._former, call)
                    self._former = None
                lease = await self._grant(call)
                self._lease = lease
                self._granted.set()
            return lease

    def registered(self, lease: Lease) -> None:
        """Take note that something is registered under the lease."""
        self.registrations += 1
        lease.used = self.registrations

    def lose(self, lease: Lease, why: str) -> None:
        """Take note that a lease is lost: each block is told in whose time something was registered under it."""
        if lease is not self._lease:
            return
        self._former = lease
        self._drop()
        logger.warning("etcd at %s: what this process owned there is lost: %s", self.gateway.address.where, why)
        for tenure in self.tenures:
            if lease.used > tenure.since:
                tenure.since = self.registrations
                tenure.taken.set()

    def _drop(self) -> None:
        self._lease = None
        self._granted = trio.Event()
        self.undone.clear()

    async def tend(self) -> None:
        """Keep the lease alive, as soon as no other task does."""
        async with self._turn:
            while True:
                lease = self.held()
                if lease is None:
                    await self._granted.wait()
                    continue
                due = lease.left - lease.ttl * 2 / 3
                if due > 0:
                    await self._undo(min(due, TRY))
                    await trio.sleep(min(due, LOOK))
                else:
                    # Where blocks come and go, each would cut short the renewal of the one that ends; it is bounded in time.
                    renewed = False
                    with trio.CancelScope(shield=len(self.tenures) > 1):
                        renewed = await self._renew(lease)
                    if not renewed:
                        await trio.sleep(random.uniform(0, min(LOOK, lease.ttl / 10)))

    async def end(self) -> None:
        """Revoke the lease, which nobody needs any more. Takes at most `REVOKE` seconds, also where it is cancelled."""
        lease, former = self._lease, self._former
        if former is not None:
            self._former = None
            with trio.CancelScope(shield=True):
                await self._revoke(former, Call(REVOKE))
        if lease is not None:
            call, undone = Call(REVOKE), [*self.undone]
            self._drop()
            with trio.CancelScope(shield=True):
                await self._undo_all(undone, call)  # else they would be counted as lost
                await self._revoke(lease, call)

    async def _grant(self, call: Call) -> Lease:
        id = random.getrandbits(62) + 1  # chosen here, so that a request that was not answered can be sent again
        sent = now()
        request = {"ID": str(id), "TTL": str(self._seconds)}
        try:
            answer = await self.gateway.post("/v3/lease/grant", request, call, reads=True, urgent=True)
        except Refused:  # it is there
            return Lease(id, self._seconds, sent)
        return Lease(id, float(answer["TTL"]), sent)

    async def _renew(self, lease: Lease) -> bool:
        sent = now()
        call = Call(max(0.0, min(lease.left, max(lease.ttl / 3, TRY))), each=min(TRY, max(0.25, lease.ttl / 6)))
        try:
            answer = await self.gateway.post("/v3/lease/keepalive", {"ID": str(lease.id)}, call, reads=True, urgent=True)
        except (Unavailable, Refused):
            return False
        if int(answer.get("result", {}).get("TTL", 0)) <= 0:
            self.lose(lease, "its lease is gone")
            return False
        lease.sent = sent
        return True

    async def _revoke(self, lease: Lease, call: Call) -> None:
        shorter = Call(min(REVOKE, max(0.0, call.deadline - trio.current_time())))
        with contextlib.suppress(Unavailable, Refused):  # then it is gone, or runs out
            await self.gateway.post("/v3/lease/revoke", {"ID": str(lease.id)}, shorter, reads=True, urgent=True)

    async def _undo(self, seconds: float) -> None:
        if self.undone:
            await self._undo_all([*self.undone], Call(seconds))

    async def _undo_all(self, undone: list[Undo], call: Call) -> None:
        with contextlib.suppress(Unavailable, Refused):
            for undo in undone:
                await undo.undo(call)
                self.undone.pop(undo, None)


class Tenure:
    """One block of `owner()`: `since` is the number of the last registration that it need not hear of."""

    def __init__(self, life: Life) -> None:
        self.since: int = life.registrations
        self.taken: trio.Event = trio.Event()
        self._life = life
        self._tending = trio.open_nursery()

    async def begin(self) -> None:
        """Have a task that would tend the lease."""
        self._nursery = await self._tending.__aenter__()
        self._nursery.start_soon(self._life.tend)
        self._life.tenures.add(self)

    async def end(self) -> None:
        """End that task. The nursery wraps nothing: what the block raises does not go through it."""
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.cancel("the block of owner() has ended")
        self._life.tenures.discard(self)
        try:
            await self._tending.__aexit__(None, None, None)
        finally:
            if not self._life.tenures:
                await self._life.end()

    async def lost(self) -> None:
        """Return when something is lost that was registered since the block began, or since this last returned."""
        self._life.held()
        taken = self.taken
        await taken.wait()
        if taken is self.taken:
            self.taken = trio.Event()
