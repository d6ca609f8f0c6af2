"""What is in the tables, without the dead and what has run out: every verb begins by clearing away what it would stumble over.

These are functions to be called within a change, as all in this package that take `Tables`.
"""

from __future__ import annotations

from typing import Any, Final

from ..errors import MOST, NotFound, Overflow
from ..store import MEMBER
from .tables import Tables

KEPT: Final = 600.0
"""Seconds for which a token is remembered."""
REMEMBERED: Final = 1000
"""Rounds whose losses can be told to a waiter that has been away."""

GROUPS: Final = """
SELECT id, name, ttl, plain, round, lost, created, done_at,
    (SELECT coalesce(sum(weight), 0) FROM ticket WHERE grp = waitgroup.id),
    (SELECT count(*) FROM entry WHERE space = 'member' AND entry.name = waitgroup.name)
FROM waitgroup"""
_GROUP: Final = GROUPS + " WHERE name = ?"


class Group:
    """A row of the table, with what the group counts beside its plain number."""

    __slots__ = ("created", "done_at", "id", "lost", "members", "name", "plain", "round", "tickets", "ttl")

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.id: int
        self.name: str
        self.ttl: float | None
        self.plain: int
        self.round: int
        self.lost: int
        self.created: float
        self.done_at: float | None
        self.tickets: int
        self.members: int
        (
            self.id,
            self.name,
            self.ttl,
            self.plain,
            self.round,
            self.lost,
            self.created,
            self.done_at,
            self.tickets,
            self.members,
        ) = row

    @property
    def counter(self) -> int:
        """What was added and is not done."""
        return self.plain + self.tickets + self.members

    @property
    def started(self) -> bool:
        """Whether anything was ever added."""
        return self.round > 0 or self.counter > 0

    def has_expired(self, now: float) -> bool:
        """Whether it has been Done for its ttl."""
        return self.ttl is not None and self.done_at is not None and self.done_at + self.ttl <= now

    def require_room(self, n: int) -> None:
        """Raises: Overflow if it cannot count so many more."""
        if self.counter + n > MOST:
            raise Overflow(f"wait group {self.name!r} counts {self.counter} and cannot count {n} more: the most is {MOST}")

    def begin(self) -> None:
        """Something is about to be added: to an empty group, that begins a round."""
        if not self.counter:
            self.lost = 0
            self.done_at = None

    def keep(self, db: Tables) -> None:
        """Write the row; if the group has come to zero, its round ends."""
        if not self.counter and self.done_at is None:
            if self.lost:
                db.execute("INSERT INTO losses VALUES (?, ?, ?)", (self.id, self.round, self.lost))
                db.execute("DELETE FROM losses WHERE grp = ? AND round < ?", (self.id, self.round - REMEMBERED))
            self.round += 1
            self.done_at = db.now()
        db.execute(
            "UPDATE waitgroup SET plain = ?, round = ?, lost = ?, done_at = ? WHERE id = ?",
            (self.plain, self.round, self.lost, self.done_at, self.id),
        )


def missing(name: str) -> NotFound:
    """The error that there is no such group."""
    return NotFound(f"there is no wait group {name!r}: create it first, or see `list`")


def find(db: Tables, name: str) -> Group | None:
    """The group as it is in the table, or None."""
    for row in db.execute(_GROUP, (name,)):
        return Group(row)
    return None


def load(db: Tables, name: str) -> Group:
    """The group, without the dead and what has run out. Raises: NotFound."""
    group = find(db, name)
    if group is not None and (group.tickets or group.members):
        if group.members and bury_the_dead(db, MEMBER, name):
            group = find(db, name)
        if group is not None and group.tickets:
            drop_late_tickets(db, group)
    elif group is not None and group.has_expired(db.now()):
        remove(db, group)
        group = None
    if group is None:
        raise missing(name)
    return group


def drop_late_tickets(db: Tables, group: Group) -> None:
    """Remove the tickets whose time has run out; they are lost."""
    late = (group.id, db.now())
    ((weight,),) = db.execute("SELECT coalesce(sum(weight), 0) FROM ticket WHERE grp = ? AND expires <= ?", late)
    if weight:
        db.execute("DELETE FROM ticket WHERE grp = ? AND expires <= ?", late)
        group.tickets -= weight
        group.lost += weight
        group.keep(db)


def bury_the_dead(db: Tables, space: str | None = None, name: str = "") -> bool:
    """Remove the owners that are dead, of those who own something under that name, or of all; whether there were any."""
    owners = "SELECT id, pid, boot, ns, started, gate FROM owner"
    if space is None:
        rows = db.execute(owners)
    else:
        rows = db.execute(owners + " WHERE id IN (SELECT owner FROM entry WHERE space = ? AND name = ?)", (space, name))
    dead = [row[0] for row in rows.fetchall() if not db.is_alive(*row)]
    for owner in dead:
        bury(db, owner)
    return bool(dead)


def bury(db: Tables, owner: int) -> None:
    """Remove an owner with all it owns; its members are counted as lost."""
    counts = "SELECT name, count(*) FROM entry WHERE owner = ? AND space = 'member' GROUP BY name"
    lost = db.execute(counts, (owner,)).fetchall()
    db.execute("DELETE FROM entry WHERE owner = ?", (owner,))
    db.execute("DELETE FROM owner WHERE id = ?", (owner,))
    for name, n in lost:
        group = find(db, name)
        if group is not None:
            group.lost += n
            group.keep(db)


def remove(db: Tables, group: Group) -> None:
    """Remove a group with all that is in it."""
    db.execute("INSERT INTO gone VALUES (?, ?, ?)", (group.id, group.round, db.now()))
    db.execute("DELETE FROM ticket WHERE grp = ?", (group.id,))
    db.execute("DELETE FROM entry WHERE space = 'member' AND name = ?", (group.name,))
    db.execute("DELETE FROM waitgroup WHERE id = ?", (group.id,))


def sweep(db: Tables) -> None:
    """Remove what has run out, everywhere: groups after their ttl, owners that are dead, tokens."""
    bury_the_dead(db)
    now = db.now()
    db.execute("DELETE FROM op WHERE at < ?", (now - KEPT,))
    db.execute("DELETE FROM gone WHERE at < ?", (now - KEPT,))
    db.execute("DELETE FROM losses WHERE grp NOT IN (SELECT id FROM waitgroup UNION SELECT id FROM gone)")
    for row in db.execute(GROUPS + " WHERE id IN (SELECT grp FROM ticket WHERE expires <= ?)", (now,)).fetchall():
        drop_late_tickets(db, Group(row))
    for row in db.execute(GROUPS + " WHERE done_at + ttl <= ?", (now,)).fetchall():
        remove(db, Group(row))
