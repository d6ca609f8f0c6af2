"""What can go wrong between programs that share a store, and what a name may be.

Nothing is imported here, and `Status` is in another module: a script that calls `grouper waitgroup done` a hundred times should not
wait a hundred times for trio and attrs.
"""

from __future__ import annotations

__all__ = [
    "CoordinationError",
    "Deleted",
    "Exists",
    "InvalidName",
    "LockLost",
    "MemberLost",
    "NotFound",
    "Overflow",
    "Unavailable",
    "Underflow",
    "WaitGroupError",
]

MOST = 2**31 - 1
"""The most that a group can count: konductor's int32."""
TICKETS_AT_ONCE = 50
"""How many tickets with an id can be issued in one call: a transaction of etcd's has at most 128 operations."""
LONGEST_NAME = 253


class CoordinationError(Exception):
    """What a store could not do. Its text is one line that names the group, lock or store and the fix."""


class Unavailable(CoordinationError):  # noqa: N818 (the names are the contract's, also below)
    """The store could not be reached, opened, read or written.

    `token` is None where nothing was changed. Else the change may or may not have been made: the same call with that token makes it
    once, whatever happened.
    """

    def __init__(self, text: str, token: str | None = None) -> None:
        super().__init__(text)
        self.text: str = text
        self.token: str | None = token

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str, str | None]]:
        return (type(self), (self.text, self.token))


class InvalidName(CoordinationError, ValueError):  # noqa: N818 (what it is, as those below)
    """A name that nothing in a store can have: empty, longer than 253, or with a "/" or a character that does not print."""


class WaitGroupError(CoordinationError):
    """What a wait group could not do. Nothing was changed."""


class NotFound(WaitGroupError):  # noqa: N818 (the names are the contract's)
    """There is no such group."""


class Underflow(WaitGroupError):  # noqa: N818
    """More was settled than there are tickets without an owner."""


class Overflow(WaitGroupError):  # noqa: N818
    """The group would count more than 2**31 - 1."""


class Exists(WaitGroupError):  # noqa: N818
    """The group is there with another ttl, the member's id is taken, or the token was used for another call."""


class Deleted(WaitGroupError):  # noqa: N818
    """The group was deleted while somebody waited for it or was a member of it."""


class MemberLost(WaitGroupError):  # noqa: N818
    """The member was removed, and counted as lost, while its owner still ran: it had been out of touch for too long."""


class LockLost(CoordinationError):  # noqa: N818
    """The lock is no longer held by who held it: its lease ran out, or somebody removed it."""


def require_name(name: object, what: str) -> str:
    """Check what a group, lock or presence is called. Raises: InvalidName, TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} is a string, not {name!r}")
    shown = name if len(name) <= 40 else f"{name[:40]}…"
    if not name:
        raise InvalidName(f"a {what} needs a name of at least one character")
    if len(name) > LONGEST_NAME:
        raise InvalidName(f"the name {shown!r} has {len(name)} characters: a {what} is called by at most {LONGEST_NAME}")
    if "/" in name or not name.isprintable():
        raise InvalidName(
            f'the name {shown!r} has a "/" or a character that does not print: call the {what} otherwise, say with "-"'
        )
    return name


def require_text(text: object, what: str) -> str:
    """Check a token, or the id of a ticket. Raises: InvalidName, TypeError."""
    if not isinstance(text, str):
        raise TypeError(f"a {what} is a string, not {text!r}")
    if not 0 < len(text) <= LONGEST_NAME or not text.isprintable():
        raise InvalidName(f"the {what} {text[:40]!r} is empty, longer than {LONGEST_NAME}, or has a character that does not print")
    return text


def require_count(n: object, what: str, *, least: int = 1, most: int = MOST) -> int:
    """Check a number of tickets. Raises: TypeError, ValueError; Overflow above what a group can count."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"{what}: {n!r} is not a whole number")
    if n < least:
        raise ValueError(f"{what}: {n} is less than {least}")
    if n > most:
        if most == MOST:
            raise Overflow(f"{what}: {n} is more than a group can count, which is {MOST}")
        raise ValueError(f"{what}: {n} is more than {most}: use several calls")
    return n
