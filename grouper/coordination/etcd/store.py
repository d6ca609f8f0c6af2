"""The store for several machines: tickets and entries in etcd.

`trio.lowlevel` is used to tell one `trio.run` from another: connections and tasks belong to one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

import trio

from ..model import Entry, Status
from ..store import Store
from . import entries, groups, settling
from .address import PREFIX, Address, endpoints, parse
from .lease import Tenure
from .session import Session
from .watching import Entries, Statuses

__all__ = ["EtcdStore", "from_url"]


def from_url(url: str, *, lease: float = 15.0, timeout: float = 10.0) -> EtcdStore:
    """The store at `etcd://user:password@host:2379,host:2379/prefix`, or `etcds://…?ca=PATH&cert=PATH&key=PATH` for TLS.

    User and password, and each of the paths, may be left out; ports too, if they are 2379. Raises: ValueError that says what to
    write.
    """
    store = EtcdStore.__new__(EtcdStore)
    store._set_up(parse(url), lease, timeout)
    return store


class EtcdStore(Store):
    """Wait groups, locks and presences of the programs of several machines, in etcd, which it speaks to by its JSON gateway.

    `endpoints` are `host:port`, all of one cluster, any of which is asked. All keys are under `prefix`. `lease` is the seconds, 2
    or more, after which a process that is not heard of is taken for dead, and `timeout` those after which a call gives up. TLS is
    used with `tls`, or where one of the files is named: those of the authority, and of this client's certificate and key.

    Deadlines and ttls are in whole seconds there, rounded up, and not less than 2. Raises: TypeError, ValueError.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str = PREFIX,
        *,
        tls: bool = False,
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        user: str | None = None,
        password: str = "",
        lease: float = 15.0,
        timeout: float = 10.0,
    ) -> None:
        tls = tls or ca is not None or cert is not None
        address = Address(
            _endpoints(endpoints), prefix.strip("/"), tls=tls, ca=ca, cert=cert, key=key, user=user, password=password
        )
        self._set_up(address, lease, timeout)

    def _set_up(self, address: Address, lease: float, timeout: float) -> None:
        for what, seconds in (("lease", lease), ("timeout", timeout)):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
                raise ValueError(f"an etcd store: {what}={seconds!r} is not a number of seconds above 0")
        self.url: str = address.url
        self._address = address
        self._lease = lease
        self._timeout = timeout
        self._sessions: dict[trio.lowlevel.TrioToken, Session] = {}

    def __repr__(self) -> str:
        return f"<EtcdStore {self.url}>"

    def session(self) -> Session:
        """What is open in this `trio.run`. What belonged to runs that are over is forgotten."""
        token = trio.lowlevel.current_trio_token()
        session = self._sessions.get(token)
        if session is None:
            self._sessions = {each: kept for each, kept in self._sessions.items() if _is_running(each)}
            session = self._sessions[token] = Session(self._address, self._lease, self._timeout)
        return session

    async def __aenter__(self) -> Self:
        self.session().used += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        session = self.session()
        session.used -= 1
        if not session.used:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this `trio.run`. What this process owns stays while there is a block of `owner()`."""
        token = trio.lowlevel.current_trio_token()
        session = self._sessions.get(token)
        if session is not None:
            if not session.used:
                del self._sessions[token]
            await session.gateway.aclose()

    async def list(self, prefix: str = "") -> tuple[Status, ...]:
        """The groups whose names begin with `prefix`, by name."""
        return await groups.listed(self.session(), prefix)

    async def create(self, name: str, ttl: float | None, count: int) -> bool:
        """Make a group; False if it exists."""
        return await groups.create(self.session(), name, ttl, count)

    async def add(self, name: str, n: int, tickets: bool, expires_in: float | None, token: str | None) -> tuple[str, ...]:
        """Issue plain tickets."""
        return await groups.add(self.session(), name, n, tickets, expires_in, token)

    async def done(self, name: str, n: int, ticket: str | None, token: str | None) -> bool:
        """Settle plain tickets."""
        return await settling.done(self.session(), name, n, ticket, token)

    async def status(self, name: str) -> Status:
        """The group's state."""
        return await groups.status(self.session(), name)

    async def delete(self, name: str) -> bool:
        """Remove a group."""
        return await groups.remove(self.session(), name)

    def watch(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[Status]]:
        """The group's state, now and after changes."""
        return Statuses(self, name)

    def owner(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Have a lease, kept alive, while a block runs."""
        return Owning(self)

    async def register(self, space: str, name: str, id: str, value: str) -> Entry:
        """Make an entry of this process."""
        return await entries.register(self.session(), space, name, id, value)

    async def withdraw(self, space: str, entry: Entry) -> bool:
        """Remove an entry of this process."""
        return await entries.withdraw(self.session(), space, entry)

    async def entries(self, space: str, name: str, *, by_prefix: bool = False) -> tuple[Entry, ...]:
        """The entries under a name, or under all names that begin so."""
        return await entries.entries(self.session(), space, name, by_prefix)

    def watch_entries(
        self, space: str, name: str, *, by_prefix: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, ...]]]:
        """As `entries`, now and after changes."""
        return Entries(self, space, name, by_prefix)


_endpoints = endpoints


def _is_running(token: trio.lowlevel.TrioToken) -> bool:
    try:
        token.run_sync_soon(bool)
    except trio.RunFinishedError:
        return False
    return True


class Owning:
    """The block in which a process owns what it registers."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store

    async def __aenter__(self) -> Callable[[], Awaitable[None]]:
        await self._store.__aenter__()
        self._tenure = Tenure(self._store.session().life)
        await self._tenure.begin()
        return self._tenure.lost

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            await self._tenure.end()
        finally:
            await self._store.__aexit__(kind, error, tb)
