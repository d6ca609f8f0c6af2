"""Wait groups in etcd: making, removing, adding to them, and their state.

To add is one transaction that reads nothing first, so those who add do not get in each other's way. A transaction whose answer did
not come is sent again, and knows itself: an `add` by its token, which is put in the same transaction, a `create` by its uid.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import MOST, Exists, NotFound, Overflow
from .gateway import Refused
from .mirror import GroupMirror, by_name
from .session import random_lease
from .wire import JSON, KV, absent, branch, delete, delete_under, empty, get, present, put, put_under, under

if TYPE_CHECKING:
    from ..model import Status
    from .gateway import Call
    from .keys import GroupKeys
    from .session import Session

__all__ = ["add", "create", "described", "earlier", "joining", "listed", "loaded", "missing", "remove", "require_room", "status"]

PARTS: Final = 32
"""Keys that the tickets of one call are spread over, so that those who settle them seldom meet."""
BIG: Final = 2**20
"""Tickets of one call from which on the sum is looked at before more is added: calls for less seldom come near to the most."""


def missing(name: str) -> NotFound:
    """The error of a group that is not there."""
    return NotFound(f"there is no wait group {name!r}: create it first, or see `list`")


async def create(session: Session, name: str, ttl: float | None, count: int) -> bool:
    """Make a group; False if it exists. Raises: Exists with another ttl."""
    uid = uuid.uuid4().hex
    call = session.call(uid)
    keys = session.keys.group(name)
    lease = 0
    if ttl is not None and not count:
        lease = random_lease()
        await session.grant(lease, ttl, call)
    op, op_lease = session.keys.op(uid), session.keys.op_lease()  # for a try that comes when the group was deleted again
    success = [put(op, "{}", op_lease), put(keys.group, json.dumps({"uid": uid, "ttl": ttl, "created": time.time()}), lease)]
    if count:
        success += [put(keys.tickets + id, str(weight)) for id, weight in parts(count)]
        success += [put(keys.round, "0"), *([put(keys.big)] if count >= BIG else [])]
    while True:
        try:
            answer = await session.txn([empty(keys.all), absent(op)], success, [get(keys.group), get(op)], call, op_lease)
        except Refused:  # the lease of the ttl has run out meanwhile
            await session.grant(lease, ttl or 0, call)
            continue
        if answer.succeeded:
            return True
        found = answer.kv(0)
        if found is not None:
            break
        if answer.kv(1) is not None:  # made by an earlier try, and gone since
            return True
        await clear(session, keys, call)
    said: dict[str, Any] = json.loads(found.value)
    if said["uid"] == uid:  # it was made by a try whose answer did not come
        return True
    if lease and not call.unsure:
        await session.revoke(lease, call)
    if said["ttl"] != ttl:
        raise Exists(f"wait group {name!r} is there with {_ttl(said['ttl'])}, not {_ttl(ttl)}: name that, or delete it first")
    return False


def _ttl(ttl: float | None) -> str:
    return "no ttl" if ttl is None else f"a ttl of {ttl:g} s"


async def clear(session: Session, keys: GroupKeys, call: Call) -> None:
    """Remove what a group that has run out left behind."""
    await session.txn([absent(keys.group)], [delete_under(keys.all)], [], call)


async def remove(session: Session, name: str) -> bool:
    """Remove a group with all that is in it; False if there is none."""
    keys = session.keys.group(name)
    token = uuid.uuid4().hex
    call, op, lease = session.call(token), session.keys.op(token), session.keys.op_lease()
    # The token is for a try that is held up on its way, and comes when the group has been made anew.
    answer = await session.txn([present(keys.group), absent(op)], [delete_under(keys.all), put(op, "{}", lease)], [], call, lease)
    return answer.succeeded or call.unsure  # where it is gone after a try whose answer did not come, that try removed it


# --- looking


async def loaded(session: Session, name: str, call: Call) -> GroupMirror:
    """The group as it is now. Raises: NotFound."""
    mirror = GroupMirror(name, session.keys.group(name))
    answer = await session.gateway.read([under(mirror.keys.all)], call)
    mirror.load(answer.kvs(0), answer.revision)
    if mirror.group is None:
        raise missing(name)
    return mirror


async def described(session: Session, mirror: GroupMirror, call: Call) -> Status:
    """The state of a group; its ttl begins here if it is empty and nobody has seen that yet."""
    if not mirror.counter and mirror.group is not None:
        await session.start_ttl(mirror.keys, mirror.group, call)
    return mirror.status()


async def status(session: Session, name: str) -> Status:
    """The group's state. Raises: NotFound."""
    call = session.call()
    return await described(session, await loaded(session, name, call), call)


async def listed(session: Session, prefix: str) -> tuple[Status, ...]:
    """The groups whose names begin with `prefix`, by name."""
    call = session.call()
    answer = await session.gateway.read([under(session.keys.groups(prefix))], call)
    found: list[Status] = []
    for _, mirror in sorted(by_name(session.keys, answer.kvs(0)).items()):
        if mirror.group is None:
            await clear(session, mirror.keys, call)
        else:
            found.append(await described(session, mirror, call))
    return tuple(found)


# --- adding


def parts(n: int, lease: int | None = None) -> list[tuple[str, int]]:
    """Ids for `n` tickets, several of which may have one, and how many have it."""
    used = min(n, PARTS)
    return [(id, n // used + (part < n % used)) for part, id in enumerate(ticket_ids(used, lease))]


def ticket_ids(n: int, lease: int | None = None) -> list[str]:
    """Ids for tickets of one call; those under a lease begin with its number."""
    base = os.urandom(8).hex() if lease is None else f"{lease:016x}"
    return [f"{base}{number:02x}" for number in range(n)]


def joining(session: Session, name: str, keys: GroupKeys, puts: Sequence[JSON], leased: int, *, big: bool = False) -> JSON:
    """Add something to a group, `leased` units of it under a lease; to an empty one, that begins a round."""
    begin = [
        *puts,
        delete_under(keys.joined),
        delete_under(keys.left),
        put(keys.round, str(leased)),
        put_under(keys.group, 0),
        put(keys.big) if big else delete(keys.big),
    ]
    go_on = [*puts, *([put(f"{keys.joined}{leased}")] if leased else []), *([put(keys.big)] if big else [])]
    return branch(session.is_empty(name, keys), begin, go_on)


async def require_room(session: Session, name: str, n: int, call: Call) -> None:
    """Look whether a group can count `n` more. Raises: NotFound, Overflow."""
    mirror = await loaded(session, name, call)
    if mirror.counter + n > MOST:
        raise Overflow(f"wait group {name!r} counts {mirror.counter} and cannot count {n} more: the most is {MOST}")


async def add(session: Session, name: str, n: int, tickets: bool, expires_in: float | None, token: str | None) -> tuple[str, ...]:
    """Issue plain tickets. Raises: NotFound, Overflow, Exists for the token."""
    token = token or uuid.uuid4().hex
    call = session.call(token)
    keys, op, op_lease = session.keys.group(name), session.keys.op(token), session.keys.op_lease()
    lease = None if expires_in is None else random_lease()
    base, leased = (keys.tickets, 0) if lease is None else (keys.timed, n)
    issued = [(id, 1) for id in ticket_ids(n, lease)] if tickets else parts(n, lease)
    puts = [put(base + id, str(weight), lease or 0) for id, weight in issued]
    ids = [id for id, _ in issued] if tickets else []
    made = ["add", name, n, tickets, expires_in]
    remember = put(op, json.dumps({"call": made, "ids": ids, "lease": lease}), op_lease)
    has_room = n >= BIG
    if has_room:
        await require_room(session, name, n, call)
    granted = lease is None
    while True:
        if lease is not None and expires_in is not None and not granted:
            await session.grant(lease, expires_in, call)
            granted = True
        compare = [present(keys.group), absent(op), *([] if has_room else [absent(keys.big)])]
        success = [joining(session, name, keys, puts, leased, big=n >= BIG), remember]
        try:
            answer = await session.txn(compare, success, [get(keys.group), get(op)], call, op_lease)
        except Refused:  # the lease of the tickets has run out meanwhile
            granted = False
            continue
        if answer.succeeded:
            session.hint(name, base + issued[0][0])
            return tuple(ids)
        group, found = answer.kv(0), answer.kv(1)
        if group is not None and found is None and not has_room:
            await require_room(session, name, n, call)
            has_room = True
            continue
        try:
            before = earlier(name, token, made, group, found)
        except (NotFound, Exists):
            if lease is not None and not call.unsure:
                await session.revoke(lease, call)
            raise
        if before is not None:
            if lease is not None and before["lease"] != lease:
                await session.revoke(lease, call)
            return tuple(before["ids"])


def earlier(name: str, token: str, made: list[Any], group: KV | None, found: KV | None) -> dict[str, Any] | None:
    """What is known of a call with this token, None if it was not made. Raises: NotFound, Exists if it was another call."""
    if group is None:
        raise missing(name)
    if found is None:
        return None
    before: dict[str, Any] = json.loads(found.value)
    if before.get("call") != made or found.modified < group.created:
        raise Exists(f"the token {token!r} was used for another call within 10 minutes: give each call a token of its own")
    return before
