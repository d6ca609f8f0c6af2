"""What a store is, and the wait group as its users hold it.

A wait group is a set of tickets, and its counter is the size of that set: nothing stores the counter, so it cannot drift. A ticket
is plain (nobody owns it, it goes when somebody says `done`) or a member (it goes when its owner leaves, or dies). Locks and
presences are made of the same entries that members are: things that live as long as their owner does. So an engine does two things,
tickets and entries, and all else is written once, above it.

Trio is imported by what needs it, not here: the command's short verbs come through this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

from .errors import require_count, require_name, require_text

if TYPE_CHECKING:
    from types import TracebackType

    from .model import Entry, Status

__all__ = ["Store", "WaitGroup"]

T = TypeVar("T")

MEMBER = "member"
LOCK = "lock"
PRESENCE = "presence"


class Store(ABC):
    """Where programs meet: wait groups, locks and presences by name. `open_store` makes one.

    It connects when it is first used. `async with store` closes what it holds open at the end of the outermost such block; members,
    locks and presences keep it open for themselves. What is called outside of any such block leaves it open until `aclose()`.

    The methods below `present` are what an engine does for `WaitGroup`, `Lock` and `Presence`, which are what programs use. Each
    that changes something makes its change whole or not at all. Raises: Unavailable, from each of them.
    """

    url: str

    def waitgroup(self, name: str) -> WaitGroup:
        """The group of that name, whether it exists or not. Raises: InvalidName."""
        return WaitGroup(self, name)

    async def __aenter__(self) -> Self:
        self._used += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._used -= 1
        if not self._used:
            await self.aclose()

    _used: int = 0

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is open. The store can be used again; entries of this process are not withdrawn."""

    @abstractmethod
    async def list(self, prefix: str = "") -> tuple[Status, ...]:
        """The groups whose names begin with `prefix`, by name."""

    async def present(self, prefix: str = "") -> tuple[Entry, ...]:
        """Who is present under names that begin with `prefix`: by name, then in order of arrival."""
        return await self.entries(PRESENCE, prefix, by_prefix=True)

    def watch_present(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, ...]]]:
        """As `present`, now and again after each change: `async with store.watch_present() as stream`.

        A reader that is slow gets the newest, not each in between. A cancellation while it waits loses nothing.
        """
        return self.watch_entries(PRESENCE, prefix, by_prefix=True)

    # --- tickets

    @abstractmethod
    async def create(self, name: str, ttl: float | None, count: int) -> bool:
        """Make a group with `count` plain tickets; False, and no tickets, if it exists. Raises: Exists with another ttl."""

    @abstractmethod
    async def add(self, name: str, n: int, tickets: bool, expires_in: float | None, token: str | None) -> tuple[str, ...]:
        """Issue `n` plain tickets; return their ids if `tickets`, else (). Raises: NotFound, Overflow, Exists for the token."""

    @abstractmethod
    async def done(self, name: str, n: int, ticket: str | None, token: str | None) -> bool:
        """Settle `n` plain tickets, any, or that very one, of which it returns whether it was there.

        Raises: NotFound, Underflow, Exists for the token.
        """

    @abstractmethod
    async def status(self, name: str) -> Status:
        """The group's state. Raises: NotFound."""

    @abstractmethod
    async def delete(self, name: str) -> bool:
        """Remove a group with all that is in it; False if there is none."""

    @abstractmethod
    def watch(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[Status]]:
        """The group's state now, then after changes; each instant at which it counted zero is among what comes.

        Several changes may come as one, but for those zeros: each has the `lost` of the round that it ended. To enter the block
        raises NotFound; the stream raises Deleted when the group is deleted, also if it was made anew.
        """

    # --- entries: what lives as long as its owner

    @abstractmethod
    def owner(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Be alive in the store for the time of the block: this process then owns what it registers.

        Gives an async function that returns if the store, or the time that went by, says that what this process owned until now
        was taken from it. There may be any number of blocks at a time.
        """

    @abstractmethod
    async def register(self, space: str, name: str, id: str, value: str) -> Entry:
        """Make an entry that this process owns, within a block of `owner()`. If cancelled, there is none.

        Raises: in the space "member" NotFound, Overflow, and Exists if the group has a member with that id.
        """

    @abstractmethod
    async def withdraw(self, space: str, entry: Entry) -> bool:
        """Remove an entry of this process; False if it was no longer there."""

    @abstractmethod
    async def entries(self, space: str, name: str, *, by_prefix: bool = False) -> tuple[Entry, ...]:
        """The entries under a name, or under all names that begin so: by name, then by token."""

    @abstractmethod
    def watch_entries(
        self, space: str, name: str, *, by_prefix: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, ...]]]:
        """As `entries`, now and again after each change; several changes may come as one."""


Statuses: TypeAlias = AbstractAsyncContextManager[AsyncIterator["Status"]]


class WaitGroup:
    """A counter that programs share: they add to it, say when they are done, and wait until all are.

    A handle: to make one does nothing, and any number of them may be of one group. Every call raises NotFound if the group was not
    created (`create` and `delete` do not), and Unavailable if the store cannot be reached.
    """

    __slots__ = ("name", "store")

    def __init__(self, store: Store, name: str) -> None:
        self.store: Store = store
        self.name: str = require_name(name, "wait group")

    def __repr__(self) -> str:
        return f"<WaitGroup {self.name!r} in {self.store.url}>"

    async def create(self, *, ttl: float | None = None, count: int = 0) -> bool:
        """Make the group, with `count` tickets in the same step, and return whether it is new. If it exists nothing changes.

        A group that has been Done for `ttl` seconds is removed; one that counts something never is.
        Raises: Exists if it is there with another ttl.
        """
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < 1e10):
            raise ValueError(f"wait group {self.name!r}: ttl={ttl!r} is not a number of seconds above 0, or None for ever")
        require_count(count, f"wait group {self.name!r}: count", least=0)
        return await self.store.create(self.name, ttl, count)

    async def add(
        self, n: int = 1, *, tickets: bool = False, expires_in: float | None = None, token: str | None = None
    ) -> tuple[str, ...]:
        """Issue `n` tickets that nobody owns. With `tickets` (50 at most) each has an id, which is returned, to be settled by.

        With `expires_in` those that are not settled within so many seconds are removed then, and counted as lost. A call that is
        repeated with its `token` within 10 minutes is made once. A cancellation may come before or after the change: to know,
        give a token and repeat. Raises: Overflow, Exists if the token was used for another call.
        """
        what = f"wait group {self.name!r}: add"
        if tickets:
            from .errors import TICKETS_AT_ONCE

            require_count(n, what, most=TICKETS_AT_ONCE)
        else:
            require_count(n, what)
        if expires_in is not None and (
            isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not 0 < expires_in < 1e10
        ):
            raise ValueError(f"{what}: expires_in={expires_in!r} is not a number of seconds above 0, or None for never")
        if token is not None:
            require_text(token, "token")
        return await self.store.add(self.name, n, tickets, expires_in, token)

    async def done(self, n: int = 1, *, ticket: str | None = None, token: str | None = None) -> bool:
        """Settle `n` tickets, any of those that nobody owns; or the one whose id is `ticket`.

        Returns whether this changed anything: False only for a ticket that was settled before, or whose time ran out. `token` is
        as for `add`. Raises: Underflow if there are not so many, and nothing is changed.
        """
        what = f"wait group {self.name!r}: done"
        require_count(n, what)
        if ticket is not None and n != 1:
            raise ValueError(f"{what}: {n} together with a ticket, which is one")
        for text, kind in ((ticket, "ticket"), (token, "token")):
            if text is not None:
                require_text(text, kind)
        return await self.store.done(self.name, n, ticket, token)

    async def status(self) -> Status:
        """The group at this instant, members of dead owners already counted as lost."""
        return await self.store.status(self.name)

    def watch(self) -> Statuses:
        """The group now and after each change: `async with group.watch() as statuses: async for status in statuses`.

        Changes may come as one, but no zero is left out. Raises: NotFound at the start; Deleted when the group is deleted.
        """
        return self.store.watch(self.name)

    async def wait(self, *, started: bool = False) -> Status:
        """Wait until the group counts zero, and return how it was then; at once if it does.

        With `started`, until it has counted something before that: so a waiter may come before the first `add`. No zero is missed,
        also if something is added right after it. For a time limit use `trio.fail_after`. A cancellation changes nothing.
        Raises: Deleted if the group is deleted meanwhile.
        """
        async with self.watch() as statuses:
            async for status in statuses:
                if not status.counter and (status.started or not started):
                    return status
        raise AssertionError("the stream of a group ended")  # pragma: no cover (it is endless, or raises)

    async def delete(self) -> bool:
        """Remove the group, whatever it counts; return whether there was one. Who waits for it gets Deleted."""
        return await self.store.delete(self.name)

    def member(self, id: str | None = None) -> AbstractAsyncContextManager[Entry]:
        """Count for one while a block runs, in the name of this process: `async with group.member("w1")`.

        However the block ends, it counts no more; if this process dies, it is counted as lost. Can be entered again. The block is
        cancelled, and MemberLost raised, if the member is taken away because the store did not hear of this process for too long.
        Without `id` it gets one. Raises: Exists if the group has a member with that id, Overflow.
        """
        from .owning import Membership

        return Membership(self, id)

    async def run(self, fn: Callable[..., Awaitable[T]], *args: object, id: str | None = None) -> T:
        """Call an async function as a member of the group, and return what it returns."""
        async with self.member(id):
            return await fn(*args)
