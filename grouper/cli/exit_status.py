"""What the command's exit status says: one table, which is in its help too."""

from __future__ import annotations

from typing import Final

from ..coordination.errors import (
    CoordinationError,
    Deleted,
    Exists,
    InvalidName,
    MemberLost,
    NotFound,
    Overflow,
    Underflow,
)

__all__ = ["EXIT_STATUSES", "CommandNotFound", "CommandNotRun", "Lost", "OutOfTime", "Signalled", "UsageError", "status_of"]


class UsageError(Exception):
    """What was said makes no sense."""


class OutOfTime(Exception):  # noqa: N818 (not an error: what was asked for)
    """The wait took longer than it may."""


class Lost(Exception):  # noqa: N818 (the contract's word)
    """The group is Done, but some of it was lost."""


class CommandNotFound(Exception):  # noqa: N818 (as above)
    """There is no such command to run."""


class CommandNotRun(Exception):  # noqa: N818 (as above)
    """There is such a file, but it cannot be run."""


class Signalled(BaseException):
    """A signal told this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number: int = number


INTERRUPT: Final = 2
"""SIGINT. (The module that knows it is not imported for that.)"""

OK: Final = 0
FAILED: Final = 1
LOST: Final = 5

EXIT_STATUSES: Final = {
    OK: "fine; of wait: Done",
    FAILED: "the store cannot be used, or something else went wrong",
    2: "the command line or a name is wrong",
    3: "there is no such group",
    4: "the timeout has passed",
    LOST: "Done, but members or tickets were lost",
    6: "less than zero, more than a group can count, or it exists in another way",
    7: "the group was deleted meanwhile",
}

STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (UsageError, 2),
    (InvalidName, 2),
    (NotFound, 3),
    (OutOfTime, 4),
    (Lost, LOST),
    (MemberLost, LOST),
    (Underflow, 6),
    (Overflow, 6),
    (Exists, 6),
    (Deleted, 7),
    (CommandNotRun, 126),
    (CommandNotFound, 127),
    (CoordinationError, FAILED),
)
"""Which error has which status; the first that it is one of counts."""


def status_of(error: Exception) -> int | None:
    """The status of an error; None for one that nobody foresaw."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), None)
