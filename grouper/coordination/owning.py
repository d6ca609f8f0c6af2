"""Being registered in a store while a block runs: what members, locks and presences are made of.

A task beside the block, its keeper, registers, watches over the entry and withdraws it. Not the block's own task, for two reasons:

* What the block owns it must own until it has cleaned up, also where it is cancelled. The keeper is shielded, and ends when the
  block has.
* Trio raises a KeyboardInterrupt in an await of the main task, so it could come in the middle of a call to the store, of which
  nobody would know then whether it was made. There it comes while the block's task waits for the keeper.

The keeper's nursery wraps nothing: what the block raises does not go through it, and the keeper raises nothing. The context
managers are classes, because a KeyboardInterrupt that comes between the lines of a generator that is being closed is lost.

`trio.lowlevel` is used for the protection from KeyboardInterrupt, for a checkpoint, and to know which task leaves a block.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import trio

from ..exit import only_cancelled
from .errors import Deleted, MemberLost, NotFound, Unavailable, require_name
from .following import Followable
from .model import Entry, Status

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Membership", "Reentrant", "Registered", "Watched"]

T = TypeVar("T")

WITHDRAW_WITHIN: Final = 5.0
"""Seconds that the end of a block waits for the store."""


class Registry(Followable, Protocol):
    """What of a store is used here: `Store` itself imports this module."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None, /
    ) -> object: ...
    def owner(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]: ...
    async def register(self, space: str, name: str, id: str, value: str) -> Entry: ...
    async def withdraw(self, space: str, entry: Entry) -> bool: ...


class Group(Protocol):
    """What of a wait group is used here."""

    name: str

    @property
    def store(self) -> Registry: ...
    async def status(self) -> Status: ...


class Registered(ABC):
    """Have this process registered in a store while a block runs, which gets the entry. Entered once.

    The block is cancelled when the entry is taken away. However it ends, the entry is withdrawn then, within `WITHDRAW_WITHIN`
    seconds. Raises, at the start: what `register` raises; at the end: what `loss` tells if the entry was taken away, Unavailable
    if it could not be withdrawn; in an exception group with the block's own exception where there is one.
    """

    def __init__(self, store: Registry, space: str, name: str, id: str, value: str, what: str) -> None:
        self.store: Registry = store
        self.what: str = what
        self._place = (space, name, id, value)
        self._entry: Entry | None = None
        self._granted = False
        self._settled = trio.Event()
        self._keeping = trio.CancelScope(shield=True)
        self._held = trio.CancelScope()
        self._body = trio.CancelScope()
        self._errors: list[BaseException] = []

    @abstractmethod
    def loss(self) -> Exception:
        """What to raise where the entry was taken away."""

    async def explained(self) -> Exception | None:
        """Ask the store for more than `loss` knows. It may be cancelled, and then `loss` holds."""
        return None

    async def until_gone(self, entry: Entry, lost: Callable[[], Awaitable[None]]) -> None:
        """Call `grant()` when the block may begin, here at once; return when the entry was taken away."""
        self.grant()
        await lost()

    def grant(self) -> None:
        """Let the block begin."""
        self._granted = True
        self._settled.set()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Entry:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._keep, name=f"keeper of {self.what}")
        try:
            await self._settled.wait()
        except BaseException as error:
            await self._leave(error)
            raise
        if not self._granted:
            await self._leave(None)
        assert self._entry is not None
        self._body.__enter__()
        return self._entry

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        try:
            if self._body.__exit__(kind, error, tb):
                error = None
        except BaseException as rest:  # what the block raised beside the cancellation that was ours
            await self._leave(rest)
            raise
        await self._leave(error)
        return error is None

    async def _leave(self, error: BaseException | None) -> None:
        """Have the keeper end; `error` is the block's. Raises what there is to raise but that alone."""
        if self._entry is None:
            self._keeping.cancel("nobody wants to be registered any more")
        self._held.cancel("the block has ended")
        errors = self._errors
        try:
            await self._nursery.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # a KeyboardInterrupt that came meanwhile
            errors.extend(group.exceptions)
        if not errors:
            return
        if error is not None and not only_cancelled(error):
            errors.insert(0, error)
        if len(errors) == 1:
            raise errors[0]
        raise BaseExceptionGroup(f"{self.what}: more than one thing failed", errors)

    @trio.lowlevel.enable_ki_protection
    async def _keep(self) -> None:
        """Be registered until the block has ended. Raises nothing."""
        try:
            with self._keeping:
                async with self.store, self.store.owner() as lost:
                    self._entry = await self.store.register(*self._place)
                    await self._hold(self._entry, lost)
        except BaseException as error:
            self._errors.append(error)
        finally:
            self._settled.set()

    async def _hold(self, entry: Entry, lost: Callable[[], Awaitable[None]]) -> None:
        taken = False
        try:
            with self._held:
                try:
                    await self.until_gone(entry, lost)
                    taken = True
                except Exception as error:
                    self._errors.append(error)
                if self._granted:
                    self._body.cancel(f"{self.what} was taken away")
                    await trio.sleep_forever()
        finally:
            await self._release(entry, taken)

    async def _release(self, entry: Entry, taken: bool) -> None:
        end = trio.current_time() + WITHDRAW_WITHIN
        self._keeping.deadline = end
        with trio.CancelScope(shield=True, deadline=end) as limit:
            try:
                taken = taken or not await self.store.withdraw(self._place[0], entry)
            except Unavailable as error:
                self._errors.append(self._left_behind(error))
        if limit.cancelled_caught:
            self._errors.append(self._left_behind(f"{self.store.url} has not answered within {WITHDRAW_WITHIN:g} s"))
        if taken:
            loss = None
            with trio.CancelScope(shield=True, deadline=end):
                loss = await self.explained()
            self._errors.append(loss or self.loss())

    def _left_behind(self, why: object) -> Unavailable:
        """The error of an entry that could not be withdrawn."""
        left = Unavailable(f"{self.what} was not withdrawn, and stays until this process is taken for dead: {why}")
        left.__cause__ = why if isinstance(why, Unavailable) else None
        return left


class Watched(Registered):
    """A `Registered` that also looks at what is under its name."""

    @abstractmethod
    async def tend(self, entry: Entry) -> None:
        """Call `grant()` when the block may begin; return when the entry is gone."""

    async def until_gone(self, entry: Entry, lost: Callable[[], Awaitable[None]]) -> None:
        """Return when the entry was taken away, whoever says so first."""
        errors: list[Exception] = []

        @trio.lowlevel.enable_ki_protection
        async def end_when(returns: Callable[..., Awaitable[None]], *args: Entry) -> None:
            try:
                await returns(*args)
            except Exception as error:
                errors.append(error)
            nursery.cancel_scope.cancel(f"{self.what} is gone")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_when, lost)
            nursery.start_soon(end_when, self.tend, entry)
        if errors:
            raise errors[0]


class Reentrant(ABC, Generic[T]):
    """An async context manager that can be entered any number of times, also by several tasks at a time."""

    def __init__(self) -> None:
        self._entered: dict[Task, list[AbstractAsyncContextManager[T]]] = {}

    @abstractmethod
    def _once(self) -> AbstractAsyncContextManager[T]:
        """What is entered each time."""

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T:
        inner = self._once()
        value = await inner.__aenter__()
        self._entered.setdefault(trio.lowlevel.current_task(), []).append(inner)
        return value

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        task = trio.lowlevel.current_task()
        inners = self._entered.get(task)
        if inners is None:
            raise RuntimeError(f"{self!r} is left by a task that has not entered it: enter and leave it in the same one")
        inner = inners.pop()
        if not inners:
            del self._entered[task]
        return await inner.__aexit__(kind, error, tb)


class Membership(Reentrant[Entry]):
    """Count for one in a wait group while a block runs: `WaitGroup.member()` tells all."""

    def __init__(self, group: Group, id: str | None = None) -> None:
        super().__init__()
        self.group: Group = group
        self.id: str | None = None if id is None else require_name(id, "member")

    def __repr__(self) -> str:
        return f"<Membership {'' if self.id is None else repr(self.id) + ' '}of {self.group!r}>"

    def _once(self) -> AbstractAsyncContextManager[Entry]:
        return Counting(self.group, secrets.token_hex(8) if self.id is None else self.id)


class Counting(Registered):
    """A member, once.

    It does not watch the group, whose every change would be read by every member: that it was deleted is told at the end.
    """

    def __init__(self, group: Group, id: str) -> None:
        super().__init__(group.store, "member", group.name, id, "", f"member {id!r} of wait group {group.name!r}")
        self._group = group

    def loss(self) -> Exception:
        """MemberLost: the store is not to be asked, or says that the group is there."""
        return MemberLost(
            f"{self.what} was taken away, and counted as lost, while it was at work: {self.store.url} took this process for dead: "
            "do its work again, or have the store wait longer, by open_store(lease=)"
        )

    async def explained(self) -> Exception | None:
        """Deleted if the group is gone, or was made anew since."""
        try:
            status = await self._group.status()
        except NotFound:
            deleted = True
        except Unavailable:
            return None
        else:
            deleted = self._entry is not None and status.created > self._entry.since
        return Deleted(f"{self.what}: the group was deleted meanwhile: create it again, and tell its workers") if deleted else None
