"""What is under a prefix of keys, as it was at some revision: read whole, then kept up to date by the events of a watch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..model import Entry, Status
from .keys import GroupKeys, Keys
from .wire import KV

__all__ = ["EntryMirror", "GroupMirror", "Mirror"]


class Mirror:
    """Keys as they were at `revision`."""

    def __init__(self) -> None:
        self.kvs: dict[str, KV] = {}
        self.revision: int = 0

    def load(self, kvs: Iterable[KV], revision: int) -> None:
        """Take over what was read at a revision."""
        self.kvs = {kv.key: kv for kv in kvs}
        self.revision = revision

    def apply(self, revision: int, events: Iterable[tuple[bool, KV]]) -> None:
        """Take over all that was changed at a revision: whether a key was set, and the key."""
        for is_put, kv in events:
            if is_put:
                self.put(kv)
            else:
                self.drop(kv.key)
        self.revision = revision
        self.turned()

    def put(self, kv: KV) -> None:
        """A key was set."""
        self.kvs[kv.key] = kv

    def drop(self, key: str) -> None:
        """A key was removed."""
        self.kvs.pop(key, None)

    def turned(self) -> None:
        """All changes of a revision are there."""


def entry(name: str, id: str, kv: KV) -> Entry:
    """The entry that a key holds. What another program than this wrote there is shown as far as it can be."""
    try:
        said = json.loads(kv.value)
        return Entry(name, id, str(said["value"]), str(said["host"]), int(said["pid"]), float(said["since"]), kv.created)
    except (ValueError, KeyError, TypeError):
        return Entry(name, id, kv.value, "", 0, 0.0, kv.created)


class EntryMirror(Mirror):
    """The entries under a name, or under all names that begin so."""

    def __init__(self, keys: Keys, space: str) -> None:
        super().__init__()
        self._keys = keys
        self._space = space

    def entries(self) -> tuple[Entry, ...]:
        """The entries, by name, then in order of arrival."""
        found = [(self._keys.named(self._space, kv.key), kv) for kv in self.kvs.values()]
        entries = [entry(*named, kv) for named, kv in found if named is not None]
        return tuple(sorted(entries, key=lambda each: (each.name, each.token)))


class GroupMirror(Mirror):
    """A wait group. `zeros` are its states at the revisions that brought it down to zero, `born` the one at which it was made.

    Sums are kept up to date by what each key adds to them, so that a change costs the same in a large group as in a small one.
    """

    def __init__(self, name: str, keys: GroupKeys) -> None:
        super().__init__()
        self.name: str = name
        self.keys: GroupKeys = keys
        self.zeros: list[Status] = []
        self.plain: int = 0
        self.timed: int = 0
        self.members: int = 0
        self.born: int = 0
        self._joined = 0
        self._left = 0
        self._was_zero = True

    @property
    def gone(self) -> bool:
        """Whether the group is no longer there, or another one of that name is."""
        return self.group is None or self.group.created != self.born

    @property
    def group(self) -> KV | None:
        """The group's key, None if there is no group."""
        return self.kvs.get(self.keys.group)

    @property
    def counter(self) -> int:
        """What the group counts."""
        return self.plain + self.timed + self.members

    @property
    def rounds(self) -> int:
        """How many rounds have begun."""
        begun = self.kvs.get(self.keys.round)
        return 0 if begun is None else begun.version

    @property
    def lost(self) -> int:
        """How many of this round are gone that neither left nor were settled."""
        begun = self.kvs.get(self.keys.round)
        at_first = 0 if begun is None else _number(begun.value)
        return max(0, at_first + self._joined - self._left - self.timed - self.members)

    def load(self, kvs: Iterable[KV], revision: int) -> None:
        """Take over what was read at a revision."""
        self.kvs.clear()
        self.plain = self.timed = self.members = self._joined = self._left = 0
        for kv in kvs:
            self.put(kv)
        self.revision = revision
        self.born = 0 if self.group is None else self.group.created
        self._was_zero = not self.counter

    def put(self, kv: KV) -> None:
        """A key was set."""
        before = self.kvs.get(kv.key)
        if before is not None:
            self._count(before, -1)
        self.kvs[kv.key] = kv
        self._count(kv, 1)

    def drop(self, key: str) -> None:
        """A key was removed."""
        before = self.kvs.pop(key, None)
        if before is not None:
            self._count(before, -1)

    def _count(self, kv: KV, sign: int) -> None:
        kind, slash, rest = kv.key[len(self.keys.all) :].partition("/")
        if not slash:
            return
        match kind:
            case "t":
                self.plain += sign * _number(kv.value)
            case "d":
                self.timed += sign * _number(kv.value)
            case "m":
                self.members += sign
            case "j":
                self._joined += sign * _number(rest) * kv.version
            case "l":
                self._left += sign * _number(rest) * kv.version
            case _:
                pass

    def turned(self) -> None:
        """All changes of a revision are there."""
        is_zero = not self.counter
        if is_zero and not self._was_zero and not self.gone:
            self.zeros.append(self.status())
        self._was_zero = is_zero

    def status(self) -> Status:
        """The group's state. There must be one."""
        group = self.group
        assert group is not None, "a group that is there"
        said: dict[str, Any] = json.loads(group.value)
        return Status(
            name=self.name,
            counter=self.counter,
            members=tuple(sorted(self._entries(), key=lambda each: each.token)) if self.members else (),
            lost=self.lost,
            ttl=said["ttl"],
            created=said["created"],
            started=self.rounds > 0,
        )

    def _entries(self) -> Iterator[Entry]:
        base = self.keys.members
        for key, kv in self.kvs.items():
            if key.startswith(base):
                yield entry(self.name, key[len(base) :], kv)


def _number(text: str) -> int:
    """A number that this package wrote; 0 for what somebody else did."""
    try:
        return int(text)
    except ValueError:
        return 0


def by_name(keys: Keys, kvs: Iterable[KV]) -> dict[str, GroupMirror]:
    """The groups that keys belong to."""
    base = keys.groups()
    sorted_out: dict[str, list[KV]] = {}
    for kv in kvs:
        sorted_out.setdefault(kv.key[len(base) :].partition("/")[0], []).append(kv)
    found: dict[str, GroupMirror] = {}
    for name, own in sorted_out.items():
        found[name] = GroupMirror(name, keys.group(name))
        found[name].load(own, 0)
    return found
