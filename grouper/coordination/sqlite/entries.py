"""What lives as long as its owner, in a store's file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import Exists
from ..store import MEMBER
from .rows import bury_the_dead, find, load
from .tables import Tables

if TYPE_CHECKING:
    from ..model import Entry

_ENTRIES: Final = """
SELECT entry.name, entry.id, value, host, pid, since, token FROM entry JOIN owner ON owner.id = entry.owner WHERE space = ? AND """
_NAMED: Final = _ENTRIES + "entry.name = ? ORDER BY token"
_BEGINNING: Final = _ENTRIES + "substr(entry.name, 1, ?) = ? ORDER BY entry.name, token"


def made(row: tuple[Any, ...]) -> Entry:
    """An entry of its row."""
    from ..model import Entry

    return Entry(*row)


def under(db: Tables, space: str, name: str, by_prefix: bool = False) -> tuple[Entry, ...]:
    """The entries as they are in the table."""
    rows = db.execute(_BEGINNING, (space, len(name), name)) if by_prefix else db.execute(_NAMED, (space, name))
    return tuple([made(row) for row in rows])


def living(db: Tables, space: str, name: str, by_prefix: bool = False) -> tuple[Entry, ...]:
    """The entries, without those of the dead."""
    if by_prefix:
        bury_the_dead(db)
    else:
        bury_the_dead(db, space, name)
    return under(db, space, name, by_prefix)


def register(db: Tables, space: str, name: str, id: str, value: str) -> Entry:
    """Make an entry of this process. Raises: Exists; for a member NotFound, Overflow."""
    group = None
    if space == MEMBER:
        group = load(db, name)
        group.require_room(1)
    else:
        bury_the_dead(db, space, name)
    if db.execute("SELECT 1 FROM entry WHERE space = ? AND name = ? AND id = ?", (space, name, id)).fetchone():
        raise Exists(f"{name!r} has {'a member' if space == MEMBER else 'an entry'} {id!r}, whose process lives: use another id")
    owner = db.become_owner()
    if group is not None:
        group.begin()
    token = db.execute(
        "INSERT INTO entry (space, name, id, value, owner, since) VALUES (?, ?, ?, ?, ?, ?)",
        (space, name, id, value, owner, db.now()),
    ).lastrowid
    if group is not None:
        group.members += 1
        group.keep(db)
    ((row),) = db.execute(_ENTRIES + "token = ?", (space, token))
    return made(row)


def withdraw(db: Tables, space: str, entry: Entry) -> bool:
    """Remove an entry; False if it is not there."""
    if not db.execute("DELETE FROM entry WHERE space = ? AND token = ?", (space, entry.token)).rowcount:
        return False
    if space == MEMBER and (group := find(db, entry.name)) is not None:
        group.keep(db)
    return True


def pids(db: Tables, space: str, name: str, by_prefix: bool = False) -> list[int]:
    """The processes of other owners that can be seen from here."""
    where, args = ("substr(entry.name, 1, ?) = ?", (len(name), name)) if by_prefix else ("entry.name = ?", (name,))
    *_, boot, ns, _ = db.identity()
    rows = db.execute(
        "SELECT DISTINCT pid FROM entry JOIN owner ON owner.id = entry.owner "
        f"WHERE space = ? AND boot = ? AND ns = ? AND owner.id IS NOT ? AND {where}",
        (space, boot, ns, db.owner, *args),
    )
    return [pid for (pid,) in rows]
