"""Entries in etcd: keys under the lease of their process, which go away with it.

A registration whose answer did not come is sent again, and knows itself by a nonce in its value. The first one may still be under
way then, in an etcd that was stopped, and arrive after the entry was withdrawn: so what is withdrawn after such an answer, or
given up, leaves its nonce among the tokens, and no registration is made whose nonce is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from typing import Any, Final

import trio

from ..errors import CoordinationError, Exists, Unavailable
from ..model import Entry
from ..store import MEMBER
from .gateway import Call, Refused
from .groups import joining, missing, require_room
from .lease import Lease
from .mirror import EntryMirror
from .session import Mine, Session
from .wire import JSON, KV, Answer, absent, created_at, delete, get, has_value, present, put, under

__all__ = ["entries", "register", "withdraw"]

UNDO: Final = 2.0
"""Seconds to take back a registration that was given up; then it is left to the task that tends the lease."""


async def entries(session: Session, space: str, name: str, by_prefix: bool) -> tuple[Entry, ...]:
    """The entries under a name, or under all names that begin so."""
    mirror = EntryMirror(session.keys, space)
    answer = await session.gateway.read([under(session.keys.entries(space, name, by_prefix))], session.call())
    mirror.load(answer.kvs(0), answer.revision)
    return mirror.entries()


async def register(session: Session, space: str, name: str, id: str, value: str) -> Entry:
    """Make an entry of this process. If cancelled, there is none. Raises: Exists; for a member NotFound, Overflow."""
    if not session.life.tenures:
        raise RuntimeError(f"{space} {id!r} of {name!r}: register it within a block of `owner()` of this store")
    said = {"nonce": uuid.uuid4().hex, "value": value, "host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    registration = Registration(session, space, name, id, said)
    call = session.call(registration.nonce)
    try:
        return await registration.make(call)
    except BaseException as error:
        if registration.sent and (call.unsure or not isinstance(error, CoordinationError)):
            await registration.give_up()
        raise


class Registration:
    """One call of `register`."""

    def __init__(self, session: Session, space: str, name: str, id: str, said: dict[str, Any]) -> None:
        self.session: Session = session
        self.space: str = space
        self.name: str = name
        self.id: str = id
        self.said: dict[str, Any] = said
        self.sent: bool = False
        self._key = session.keys.entry(space, name, id)
        self._group = session.keys.group(name) if space == MEMBER else None

    @property
    def nonce(self) -> str:
        """What it is known by."""
        return str(self.said["nonce"])

    async def make(self, call: Call) -> Entry:
        """Make the entry."""
        session = self.session
        has_room = False
        while True:
            lease = await session.life.lease(call)
            self.sent = True
            try:
                answer = await self._txn(lease, has_room, call)
            except Refused:
                session.life.lose(lease, "its lease is gone")
                continue
            group = answer.kv(1)
            if answer.succeeded:
                return self._made(lease, answer.revision, group, call)
            found = answer.kv(0)
            if self._group is not None and group is None:
                raise missing(self.name)
            if found is not None and found.value == json.dumps(self.said):
                if found.lease == lease.id:  # it was made by a try whose answer did not come
                    return self._made(lease, found.created, group, call)
                await self.undo(call)
                self.said["nonce"] = uuid.uuid4().hex
            elif found is not None:
                what = "an entry" if self._group is None else "a member"
                raise Exists(f"{self.name!r} has {what} {self.id!r}, whose process lives: use another id")
            else:  # much was added to the group at once at some time
                await require_room(session, self.name, 1, call)
                has_room = True

    async def _txn(self, lease: Lease, has_room: bool, call: Call) -> Answer:
        free = [absent(self._key), absent(self.session.keys.op(self.nonce))]
        entry = put(self._key, json.dumps(self.said), lease.id)
        if self._group is None:
            return await self.session.txn(free, [entry, get(self._key)], [get(self._key)] * 2, call)
        group = get(self._group.group)
        compare = [present(self._group.group), *free, *([] if has_room else [absent(self._group.big)])]
        success = [joining(self.session, self.name, self._group, [entry], 1), group]
        return await self.session.txn(compare, success, [get(self._key), group], call)

    def _made(self, lease: Lease, token: int, group: KV | None, call: Call) -> Entry:
        session, said = self.session, self.said
        ttl = None if group is None or self._group is None else json.loads(group.value)["ttl"]
        session.life.registered(lease)
        session.mine[self.space, self.name, self.id, token] = Mine(self.nonce, call.unsure, ttl)
        if self._group is not None:
            session.hint(self.name, self._key)
        return Entry(self.name, self.id, said["value"], said["host"], said["pid"], said["since"], token)

    async def give_up(self) -> None:
        """See to it that there is no entry; if that is not known after `UNDO` seconds, leave it to who tends the lease."""
        self.session.life.undone[self] = None
        with trio.CancelScope(shield=True), contextlib.suppress(Unavailable, Refused):
            await self.undo(Call(UNDO))
            self.session.life.undone.pop(self, None)

    async def undo(self, call: Call) -> None:
        """Remove the entry if it was made, and see to it that it is not made any more. Raises: Unavailable, Refused."""
        lease = self.session.keys.op_lease()
        forbid = put(self.session.keys.op(self.nonce), "{}", lease)
        remove = [delete(self._key), *([] if self._group is None else [put(f"{self._group.left}1")]), forbid]
        await self.session.txn([has_value(self._key, json.dumps(self.said))], remove, [forbid], call, lease)


async def withdraw(session: Session, space: str, entry: Entry) -> bool:
    """Remove an entry of this process; False if it was no longer there."""
    call = session.call(uuid.uuid4().hex)
    key, place = session.keys.entry(space, entry.name, entry.id), (space, entry.name, entry.id, entry.token)
    mine = session.mine.get(place)
    group = session.keys.group(entry.name) if space == MEMBER else None
    success: list[JSON] = [delete(key)]
    lease = 0
    if mine is not None and mine.unsure:
        lease = session.keys.op_lease()
        success.append(put(session.keys.op(mine.nonce), "{}", lease))
    looks: list[JSON] = []
    if group is not None:
        success.append(put(f"{group.left}1"))
        if mine is None or mine.ttl is not None:
            looks = [get(group.group), *[under(each, limit=1, keys_only=True) for each in group.counted]]
    answer = await session.txn([created_at(key, entry.token)], [*success, *looks], [], call, lease)
    session.mine.pop(place, None)
    if not answer.succeeded:  # if it is gone after a try whose answer did not come, that try removed it, or the end of the lease
        return call.unsure and session.life.held() is not None
    if group is not None and looks:
        place_of = len(success)
        found = answer.kv(place_of)
        if found is not None and not answer.sum(range(place_of + 1, place_of + 4)):
            await session.start_ttl(group, found, call)
    return True
