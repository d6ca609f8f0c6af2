"""Streams of what changes in etcd: a mirror of some keys, kept up to date by a watch.

etcd tells the changes of each revision in order and together. So no instant is missed at which a group counted zero, also if
something was added right after it: whoever reads again at each event, and does not count, misses a third of them.

A watch alone is not enough: an etcd that is stopped, or cut off from the others, says nothing for ever. So after some silence the
keys are looked at through whichever endpoint answers. If something has changed of which the watch has not told, or the watch is on
another endpoint than the one that answered, it is begun anew, from the revision at which the mirror is: nothing is missed then
either, unless etcd has compacted what came next, and all is read again.

A task beside the block reads the watch, since a cancelled read would lose the connection. It is cancelled in a read and nowhere
else, since async generators that are left in their middle are not closed in time, and the HTTP client is made of such.

`trio.lowlevel` is used for a checkpoint where there is nothing to wait for.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from itertools import groupby
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import attrs
import trio

from ..errors import Deleted, Unavailable
from ..model import Entry, Status
from .gateway import Failed, Refused
from .groups import described, loaded
from .mirror import EntryMirror, GroupMirror, Mirror
from .session import Session
from .wire import JSON, KV, after, as_kv, encoded, under

__all__ = ["Entries", "Statuses"]

M = TypeVar("M", bound=Mirror)
T = TypeVar("T")

SILENCE: Final = 5.0
"""Seconds without a message, after which is looked whether something has changed."""
AHEAD: Final = 64
"""Messages that may be read before they are asked for."""
LONGEST: Final = 1.0
"""Seconds, at most, before a watch that ended again and again is begun anew."""


class Broken(Exception):  # noqa: N818 (it goes no further than this module)
    """A watch has ended."""


class Watch:
    """A watch through one endpoint, and the messages that its task has read."""

    def __init__(self, session: Session, prefix: str, revision: int) -> None:
        self.base: str = session.gateway.current
        self._session = session
        request = {"key": encoded(prefix), "range_end": encoded(after(prefix)), "start_revision": str(revision)}
        self._request: JSON = {"create_request": request}
        self._messages: list[JSON] = []
        self._ended = False
        self._news = trio.Event()
        self._room = trio.Event()
        self._scope = trio.CancelScope()

    async def read(self) -> None:
        """Read until it ends or is closed. Raises nothing."""
        try:
            with self._scope:
                async with self._session.gateway.stream(self.base, "/v3/watch", self._request) as messages:
                    async for message in messages:
                        self._messages.append(message)
                        self._news.set()
                        with trio.CancelScope(shield=True):  # a cancellation is for the next read, inside of the generators
                            while len(self._messages) >= AHEAD and not self._scope.cancel_called:
                                await self._room.wait()
        except (Failed, Refused, Unavailable):
            pass  # whoever takes the messages finds the end, and asks another endpoint
        finally:
            self._ended = True
            self._news.set()

    def close(self) -> None:
        """End the task."""
        self._scope.cancel("nobody wants this watch any more")
        self._room.set()

    async def messages(self) -> list[JSON]:
        """What has come since the last call, at least one message. A cancellation loses nothing. Raises: Broken."""
        await self._news.wait()
        found, self._messages = self._messages, []
        self._room.set()
        self._room = trio.Event()
        if not self._ended:
            self._news = trio.Event()
        if not found:
            raise Broken
        return found


class Home(Protocol):
    """The store of a stream."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None, /
    ) -> object: ...
    def session(self) -> Session:
        """What is open in this `trio.run`."""
        ...


class Stream(ABC, Generic[T, M]):
    """What is under a prefix of keys, now and after changes."""

    def __init__(self, home: Home) -> None:
        self.session: Session
        self.mirror: M
        self.prefix: str
        self.pending: deque[T] = deque()
        self._home = home
        self._watch: Watch | None = None
        self._broken = 0
        self._tasks = trio.open_nursery()

    @abstractmethod
    async def begin(self) -> tuple[str, M]:
        """Read for the first time; the prefix, and what is under it."""

    @abstractmethod
    async def again(self) -> M:
        """Read again, after what happened meanwhile was compacted."""

    @abstractmethod
    async def tell(self) -> None:
        """Make of what has changed something to be told, in `pending`."""

    async def __aenter__(self) -> Self:
        await self._home.__aenter__()
        try:
            self.session = self._home.session()
            self.prefix, self.mirror = await self.begin()
        except BaseException as error:
            await self._home.__aexit__(type(error), error, error.__traceback__)
            raise
        self._nursery = await self._tasks.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._nursery.cancel_scope.shield = True  # so that a Cancelled in the task is this nursery's own, and wraps nothing
        self._nursery.cancel_scope.cancel("the block has ended")
        if self._watch is not None:
            self._watch.close()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._home.__aexit__(kind, error, tb)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self.pending:
            await trio.lowlevel.checkpoint()
        while not self.pending:
            await self.tell()
            if not self.pending:
                await self._advance()
        return self.pending.popleft()

    async def _advance(self) -> None:
        """Wait for something to happen, and bring the mirror up to date. A cancellation loses nothing. Raises: Unavailable."""
        watch = self._watch
        if watch is None:
            watch = self._watch = Watch(self.session, self.prefix, self.mirror.revision + 1)
            self._nursery.start_soon(watch.read)
        try:
            with trio.move_on_after(SILENCE) as silence:
                for message in await watch.messages():
                    await self._take(message)
        except Broken:
            self._close(watch)
            self.session.gateway.avoid(watch.base)
            self._broken += 1
            await trio.sleep(random.uniform(0, min(LONGEST, 0.01 * 2 ** min(self._broken, 10))))
            await self._look(watch)
        else:
            if silence.cancelled_caught:
                await self._look(watch)

    async def _take(self, message: JSON) -> None:
        result = message.get("result", {})
        if "compact_revision" in result:
            self.mirror = await self.again()
            raise Broken
        if "result" not in message or result.get("canceled"):
            raise Broken
        for revision, events in groupby(map(_event, result.get("events", ())), key=lambda event: event[1].modified):
            self._broken = 0
            if revision > self.mirror.revision:
                self.mirror.apply(revision, events)

    async def _look(self, watch: Watch) -> None:
        """See whether something has changed of which the watch has not told, and whether it is where etcd answers."""
        since = under(self.prefix, keys_only=True, min_mod_revision=str(self.mirror.revision + 1))
        answer = await self.session.gateway.read([since], self.session.call())
        if not answer.kvs(0) and answer.count(0) == len(self.mirror.kvs):
            self.mirror.revision = max(self.mirror.revision, answer.revision)
            if watch.base == self.session.gateway.current:
                return
        self._close(watch)

    def _close(self, watch: Watch) -> None:
        watch.close()
        if self._watch is watch:
            self._watch = None


def _event(event: JSON) -> tuple[bool, KV]:
    """Whether a key was set, and the key."""
    return event.get("type") != "DELETE", as_kv(event["kv"])


class Statuses(Stream[Status, GroupMirror]):
    """The stream of a wait group's states."""

    def __init__(self, home: Home, name: str) -> None:
        super().__init__(home)
        self.name: str = name
        self._last: Status | None = None

    async def begin(self) -> tuple[str, GroupMirror]:
        """Read for the first time. Raises: NotFound."""
        call = self.session.call()
        mirror = await loaded(self.session, self.name, call)
        self._last = await described(self.session, mirror, call)
        self.pending.append(self._last)
        return mirror.keys.all, mirror

    async def again(self) -> GroupMirror:
        """Read again. A round that ended meanwhile is told, with what it lost if that can still be read."""
        before = self.mirror
        call = self.session.call()
        answer = await self.session.gateway.read([under(self.prefix)], call)
        now = GroupMirror(self.name, before.keys)
        now.load(answer.kvs(0), answer.revision)
        if now.group is not None and now.born == before.born:
            began = now.rounds - before.rounds
            if began and (before.counter or began > 1):
                lost = await self._lost_before(now)
                now.zeros.append(attrs.evolve(now.status(), counter=0, members=(), lost=before.lost if lost is None else lost))
            if not now.counter and (before.counter or began):
                now.zeros.append(now.status())
        now.zeros[:0] = before.zeros
        now.born = before.born
        return now

    async def _lost_before(self, mirror: GroupMirror) -> int | None:
        """What was lost in the round before this one; None if that was compacted too."""
        begun = mirror.kvs[mirror.keys.round]
        try:
            answer = await self.session.gateway.read([under(self.prefix, revision=str(begun.modified - 1))], self.session.call())
        except Refused:
            return None
        then = GroupMirror(self.name, mirror.keys)
        then.load(answer.kvs(0), answer.revision)
        return then.lost

    async def tell(self) -> None:
        """Tell each zero, then the group as it is. Raises: Deleted."""
        mirror = self.mirror
        self.pending.extend(mirror.zeros)
        mirror.zeros.clear()
        if mirror.gone:
            if not self.pending:
                raise Deleted(f"wait group {self.name!r} was deleted while it was watched: create it again, and tell its workers")
            return
        if mirror.counter:
            status = mirror.status()
            if status != self._last:
                self.pending.append(status)
        if self.pending:
            self._last = self.pending[-1]
        if self.pending and not mirror.counter:
            await described(self.session, mirror, self.session.call())


class Entries(Stream[tuple[Entry, ...], EntryMirror]):
    """The stream of the entries under a name, or under all names that begin so."""

    def __init__(self, home: Home, space: str, name: str, by_prefix: bool) -> None:
        super().__init__(home)
        self._place = (space, name, by_prefix)
        self._last: tuple[Entry, ...] = ()

    async def begin(self) -> tuple[str, EntryMirror]:
        """Read for the first time."""
        mirror = await self.again()
        self._last = mirror.entries()
        self.pending.append(self._last)
        return self.session.keys.entries(*self._place), mirror

    async def again(self) -> EntryMirror:
        """Read again."""
        answer = await self.session.gateway.read([under(self.session.keys.entries(*self._place))], self.session.call())
        mirror = EntryMirror(self.session.keys, self._place[0])
        mirror.load(answer.kvs(0), answer.revision)
        return mirror

    async def tell(self) -> None:
        """Tell who is there, if that has changed."""
        entries = self.mirror.entries()
        if entries != self._last:
            self._last = entries
            self.pending.append(entries)
