"""Settling the tickets of a wait group in etcd.

To settle any is to read a few tickets and to remove some of them if they are still there: who loses one to another program takes
another one. All that one call settles goes in one transaction, with the token that it knows itself by if it is sent again.

A transaction has room for about a hundred keys. Plain tickets that are more than that are removed as a range of keys, on condition
that nobody has set or settled any in it since they were read: `s` tells. Tickets with a deadline can go without telling, so they
must be named one by one, and more than `AT_ONCE` keys of those cannot be settled at once.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from ..errors import Unavailable, Underflow
from .groups import earlier
from .wire import (
    JSON,
    KV,
    Answer,
    absent,
    after,
    branch,
    delete,
    delete_span,
    get,
    has_value,
    present,
    put,
    put_value,
    span,
    unchanged,
    unchanged_span,
    under,
)

if TYPE_CHECKING:
    from .gateway import Call
    from .session import Session

__all__ = ["done"]

WINDOW: Final = 32
"""Tickets that are looked at to settle one of them."""
AT_ONCE: Final = 96
"""Keys that a transaction can name, beside what else it does."""
LEASES: Final = 8
"""Leases that are looked after in a transaction; others run out."""
CONFLICT: Final = 0.005
CONFLICTS: Final = 0.25
"""Seconds between tries to settle tickets that others settle at the same time: at first, and at most."""


async def done(session: Session, name: str, n: int, ticket: str | None, token: str | None) -> bool:
    """Settle `n` plain tickets, or that very one. Raises: NotFound, Underflow, Exists for the token."""
    token = token or uuid.uuid4().hex
    settling = Settling(session, name, token, ["done", name, n, ticket], session.call(token))
    return await (settling.some(n) if ticket is None else settling.one(ticket))


class Part(NamedTuple):
    """Tickets of one key, as many of them as are to be settled."""

    kv: KV
    units: int

    @property
    def change(self) -> JSON:
        """What settles them."""
        left = int(self.kv.value) - self.units
        return put_value(self.kv.key, str(left)) if left else delete(self.kv.key)


def total(kvs: Sequence[KV]) -> int:
    """How many tickets these are."""
    return sum([int(kv.value) for kv in kvs])


def pick(kvs: Sequence[KV], n: int) -> list[Part]:
    """Take `n` tickets, or all if there are less: of few keys, but not of the same as another program that does so."""
    picked: list[Part] = []
    for kv in sorted(random.sample(kvs, len(kvs)), key=lambda each: -int(each.value) if n > 1 else 0):
        if n <= 0:
            break
        picked.append(Part(kv, min(n, int(kv.value))))
        n -= picked[-1].units
    return picked


class Settling:
    """One call of `done`."""

    def __init__(self, session: Session, name: str, token: str, made: list[Any], call: Call) -> None:
        self.session: Session = session
        self.name: str = name
        self.token: str = token
        self.made: list[Any] = made
        self.call: Call = call
        self._keys = session.keys.group(name)
        self._op = session.keys.op(token)
        self._op_lease = session.keys.op_lease()
        self._may = [present(self._keys.group), absent(self._op)]
        self._before = [get(self._keys.group), get(self._op)]

    async def one(self, ticket: str) -> bool:
        """Settle that very ticket; False if it is not there."""
        keys = self._keys
        plain, timed = keys.tickets + ticket, keys.timed + ticket
        with_deadline = branch(
            [has_value(timed, "1")], [delete(timed), put(f"{keys.left}1"), self._remember(True)], [self._remember(False)]
        )
        settle = branch([has_value(plain, "1")], [delete(plain), put(keys.settled), self._remember(True)], [with_deadline])
        leases = _lease(ticket)
        answer = await self._txn([], [settle, get(self._op), *self._looks(leases)])
        if not answer.succeeded:
            before = self._earlier(answer)
            assert before is not None, "the group is there, and so is the token"
            return before
        found = answer.kv(1)
        assert found is not None
        result = bool(json.loads(found.value)["result"])
        if result:
            await self._look(answer, 2, leases)
        return result

    async def some(self, n: int) -> bool:
        """Settle `n` tickets, any of those that nobody owns."""
        keys = self._keys
        limit, tries = WINDOW, 0
        while True:
            start = keys.tickets + os.urandom(2).hex()
            reads = [
                *self._before,
                span(start, after(keys.tickets), limit=limit),
                span(keys.tickets, start, limit=limit),
                under(keys.timed, limit=limit),
                get(keys.settled),
                under(keys.members, limit=1, keys_only=True),
            ]
            answer = await self.session.gateway.read(reads, self.call)
            before = self._earlier(answer)
            if before is not None:
                return before
            plain, timed = [*answer.kvs(2), *answer.kvs(3)], answer.kvs(4)
            missing = n - total(plain) - total(timed)
            picked = [*pick(plain, n), *pick(timed, n - total(plain))]
            if limit and (missing > 0 or len(picked) > AT_ONCE) and answer.sum((2, 3, 4)) > len(plain) + len(timed):
                limit = 0  # look at all there are
                continue
            if missing > 0:
                raise self._underflow(n, n - missing, answer.count(6))
            if len(picked) <= AT_ONCE:
                compare, changes = [unchanged(part.kv.key, part.kv) for part in picked], [part.change for part in picked]
            else:
                compare, changes, picked = self._range(n, sorted(plain), timed, answer)
            settled = await self._settle(compare, changes, [part for part in picked if part.kv.lease])
            if settled is not None:
                return settled
            tries += 1
            await self.call.pause(tries, CONFLICT, CONFLICTS)
            if trio.current_time() >= self.call.deadline:
                raise Unavailable(
                    f"wait group {self.name!r}: other programs changed its tickets again and again: settle fewer at once, or later",
                    self.token if self.call.unsure else None,
                )

    def _range(self, n: int, plain: list[KV], timed: list[KV], answer: Answer) -> tuple[list[JSON], list[JSON], list[Part]]:
        """How to settle more than can be named: plain tickets up to some key, then some of the others, which are returned too."""
        units = last = 0
        while last < len(plain) and units < n:
            units += int(plain[last].value)
            last += 1
        last -= 1
        rest = pick(timed, n - units)
        if len(rest) > AT_ONCE or not plain:
            raise ValueError(
                f"wait group {self.name!r}: done: too many of the tickets have deadlines: a transaction of etcd's can hold "
                f"{AT_ONCE} of those: use several calls"
            )
        first, end = plain[0].key, plain[last].key
        changes = [delete_span(first, end)] if first != end else []
        changes += [Part(plain[last], int(plain[last].value) - max(0, units - n)).change, *[part.change for part in rest]]
        compare = [
            unchanged(self._keys.settled, answer.kv(5)),
            unchanged_span(first, end + "\0", answer.revision),
            *[unchanged(part.kv.key, part.kv) for part in rest],
        ]
        return compare, changes, rest

    async def _settle(self, compare: list[JSON], changes: list[JSON], timed: list[Part]) -> bool | None:
        """Make those changes; None if something has changed meanwhile."""
        left = sum([part.units for part in timed])
        leases = list({f"{part.kv.lease:016x}": part.kv.lease for part in timed}.items())[:LEASES]
        success = [
            *changes,
            self._remember(True),
            put(self._keys.settled),
            *([put(f"{self._keys.left}{left}")] if left else []),
        ]
        looks = self._looks(leases)
        answer = await self._txn(compare, [*success, *looks])
        if not answer.succeeded:
            return self._earlier(answer)
        await self._look(answer, len(success), leases)
        return True

    async def _txn(self, compare: list[JSON], success: list[JSON]) -> Answer:
        return await self.session.txn([*self._may, *compare], success, self._before, self.call, self._op_lease)

    def _remember(self, result: bool) -> JSON:
        return put(self._op, json.dumps({"call": self.made, "result": result}), self._op_lease)

    def _earlier(self, answer: Answer) -> bool | None:
        """What the call returned if it was made before. Raises: NotFound, Exists."""
        before = earlier(self.name, self.token, self.made, answer.kv(0), answer.kv(1))
        return None if before is None else bool(before["result"])

    def _looks(self, leases: list[tuple[str, int]]) -> list[JSON]:
        """Reads that tell, after the change, whether the group is empty and which leases of tickets are needed no more."""
        prefixes = [*self._keys.counted, *[self._keys.timed + prefix for prefix, _ in leases]]
        return [get(self._keys.group), *[under(prefix, limit=1, keys_only=True) for prefix in prefixes]]

    async def _look(self, answer: Answer, place: int, leases: list[tuple[str, int]]) -> None:
        """Do what they say, as far as that can be done."""
        group = answer.kv(place)
        if group is not None and not answer.sum(range(place + 1, place + 4)):
            await self.session.start_ttl(self._keys, group, self.call)
        for number, (_, lease) in enumerate(leases, place + 4):
            if not answer.count(number):
                await self.session.revoke(lease, self.call)

    def _underflow(self, n: int, there: int, members: int) -> Underflow:
        others = f", and {members} members, which leave by themselves" if members else ""
        return Underflow(
            f"wait group {self.name!r} has {there} tickets to settle{others}, not {n}: `done` was called more often than `add`"
        )


def _lease(ticket: str) -> list[tuple[str, int]]:
    """The lease of a ticket, if it has a deadline: its id, as `ticket_ids` made it, begins with its number."""
    try:
        return [(ticket[:16], int(ticket[:16], 16))] if len(ticket) == 18 else []
    except ValueError:
        return []
