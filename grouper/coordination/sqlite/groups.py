"""Wait groups in a store's file: the verbs, each a function to be called within a change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ..errors import Exists, NotFound, Underflow
from ..store import MEMBER
from .database import Shortcut
from .entries import under
from .rows import GROUPS, KEPT, Group, load, remove, sweep
from .tables import Tables

if TYPE_CHECKING:
    from ..model import Status

SAFE: Final = 2**30
"""Below this a plain count can grow whatever the number of members beside it."""


def create(db: Tables, name: str, ttl: float | None, count: int) -> bool:
    """Make a group; False if it exists. Raises: Exists if that has another ttl."""
    try:
        group = load(db, name)
    except NotFound:
        now = db.now()
        done_at = None if count else now
        db.execute(
            "INSERT INTO waitgroup (name, ttl, plain, created, done_at) VALUES (?, ?, ?, ?, ?)", (name, ttl, count, now, done_at)
        )
        return True
    if group.ttl != ttl:
        raise Exists(f"wait group {name!r} is there with {_ttl(group.ttl)}, not {_ttl(ttl)}: name that, or delete it first")
    return False


def _ttl(ttl: float | None) -> str:
    return "no ttl" if ttl is None else f"a ttl of {ttl:g} s"


def quick_add(name: str, n: int) -> Shortcut[tuple[str, ...]]:
    """To a group that counts something that nobody can lose, no round begins and nothing can run over."""
    where = "name = ? AND plain BETWEEN 1 AND ? AND NOT EXISTS (SELECT 1 FROM ticket WHERE grp = waitgroup.id)"
    return Shortcut(f"UPDATE waitgroup SET plain = plain + ? WHERE {where}", (n, name, SAFE - n), ())


def quick_done(name: str, n: int) -> Shortcut[bool]:
    """From a group that goes on counting something that nobody can lose, no round ends."""
    return Shortcut("UPDATE waitgroup SET plain = plain - ? WHERE name = ? AND plain > ?", (n, name, n), True)


def add(db: Tables, name: str, n: int, tickets: bool, expires_in: float | None, token: str | None) -> tuple[str, ...]:
    """Issue plain tickets. Raises: NotFound, Overflow, Exists."""
    group = load(db, name)
    call = f"add {group.id} {n} {tickets} {expires_in}"
    if (before := earlier(db, token, call)) is not None:
        return tuple(before.split())
    group.require_room(n)
    group.begin()
    ids: tuple[str, ...] = ()
    if not tickets and expires_in is None:
        group.plain += n
    else:
        expires = None if expires_in is None else db.now() + expires_in
        weights = [1] * n if tickets else [n]
        rows = [(group.id, os.urandom(8).hex(), weight, expires) for weight in weights]
        for row in rows:
            db.execute("INSERT INTO ticket VALUES (?, ?, ?, ?)", row)
        group.tickets += n
        if tickets:
            ids = tuple([row[1] for row in rows])
    group.keep(db)
    remember(db, token, call, " ".join(ids))
    return ids


def done(db: Tables, name: str, n: int, ticket: str | None, token: str | None) -> bool:
    """Settle plain tickets. Raises: NotFound, Underflow, Exists."""
    group = load(db, name)
    call = f"done {group.id} {n} {ticket}"
    if (before := earlier(db, token, call)) is not None:
        return bool(before)
    changed = settle(db, group, n) if ticket is None else settle_ticket(db, group, ticket)
    if changed:
        group.keep(db)
    remember(db, token, call, "1" if changed else "")
    return changed


def settle(db: Tables, group: Group, n: int) -> bool:
    """Settle any: the number first, then those that run out soonest."""
    if n > group.plain + group.tickets:
        others = f", beside {group.members} of members, which settle their own" if group.members else ""
        raise Underflow(
            f"wait group {group.name!r} has {group.plain + group.tickets} tickets to settle{others}, not {n}: "
            "`done` was called more often than `add`"
        )
    plain = min(n, group.plain)
    group.plain -= plain
    n -= plain
    if n:
        group.tickets -= n
        settled: list[tuple[int, str]] = []
        for id, weight in db.execute(
            "SELECT id, weight FROM ticket WHERE grp = ? ORDER BY expires IS NULL, expires", (group.id,)
        ).fetchall():
            if weight > n:
                db.execute("UPDATE ticket SET weight = weight - ? WHERE grp = ? AND id = ?", (n, group.id, id))
                break
            settled.append((group.id, id))
            n -= weight
            if not n:
                break
        for row in settled:
            db.execute("DELETE FROM ticket WHERE grp = ? AND id = ?", row)
    return True


def settle_ticket(db: Tables, group: Group, ticket: str) -> bool:
    """Settle that very one; False if it is not there."""
    if not db.execute("DELETE FROM ticket WHERE grp = ? AND id = ?", (group.id, ticket)).rowcount:
        return False
    group.tickets -= 1
    return True


def delete(db: Tables, name: str) -> bool:
    """Remove a group; False if there is none."""
    try:
        remove(db, load(db, name))
    except NotFound:
        return False
    return True


def status(db: Tables, name: str) -> Status:
    """The state of a group. Raises: NotFound."""
    return described(db, load(db, name))


def described(db: Tables, group: Group) -> Status:
    """The state of a group that was read."""
    from ..model import Status

    return Status(
        name=group.name,
        counter=group.counter,
        members=under(db, MEMBER, group.name) if group.members else (),
        lost=group.lost,
        ttl=group.ttl,
        created=group.created,
        started=group.started,
    )


def listed(db: Tables, prefix: str) -> tuple[Status, ...]:
    """The groups whose names begin so, by name."""
    sweep(db)
    rows = db.execute(GROUPS + " WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix)).fetchall()
    return tuple([described(db, Group(row)) for row in rows])


# --- tokens


def earlier(db: Tables, token: str | None, call: str) -> str | None:
    """What a call with this token returned, None if there was none. Raises: Exists if it was another call."""
    if token is None:
        return None
    for before, result in db.execute("SELECT call, result FROM op WHERE token = ? AND at >= ?", (token, db.now() - KEPT)):
        if before != call:
            raise Exists(f"the token {token!r} was used for another call within 10 minutes: give each call a token of its own")
        return str(result)
    return None


def remember(db: Tables, token: str | None, call: str, result: str) -> None:
    """Keep what a call with a token returned."""
    if token is not None:
        now = db.now()
        db.execute("DELETE FROM op WHERE at < ?", (now - KEPT,))
        db.execute("INSERT OR REPLACE INTO op VALUES (?, ?, ?, ?)", (token, call, result, now))
