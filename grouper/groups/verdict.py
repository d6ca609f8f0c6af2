"""What a member's exit means: for itself, for its group, and in what the group raises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from ..errors import ExitedBeforeReady
from ..exit import ErrorTrace
from ..member import Role
from ..process import Process

__all__ = ["AFTER_EXIT", "After", "judge", "trace", "unready"]


class After(NamedTuple):
    """What a member's own exit does: it stops the group, is raised in the trace, satisfies those after the member."""

    stops: bool
    raised: bool
    satisfies: bool


AFTER_EXIT: Final = {
    # (role, clean)
    (Role.SERVICE, True): After(stops=True, raised=False, satisfies=False),
    (Role.SERVICE, False): After(stops=True, raised=True, satisfies=False),
    (Role.JOB, True): After(stops=False, raised=False, satisfies=True),
    (Role.JOB, False): After(stops=True, raised=True, satisfies=False),
    (Role.OPTIONAL, True): After(stops=False, raised=False, satisfies=True),
    (Role.OPTIONAL, False): After(stops=False, raised=False, satisfies=True),
}


def judge(process: Process, *, stopping: bool) -> BaseException | None:
    """Settle with which error, if any, a process has ended; `stopping` tells that its group was.

    The reason for which it was killed comes first, and what it raised then is that one's cause. A service that returned before it
    was ready has failed, unless it was told to stop.
    """
    error = process._error
    if error is not None and not isinstance(error, Exception):
        error.__cause__ = error.__cause__ or process._failure
        return error
    if process._failure is not None:
        process._failure.__cause__ = error
        process._error = error = process._failure
    elif error is None:
        told = stopping or process._killed or process._signals.received is not None
        if told or process._said_ready or process.member.role is not Role.SERVICE:
            return None
        process._error = error = ExitedBeforeReady(
            f"{process.title} returned before it was ready: call `task_status.started()`, or give it Role.JOB if it is to return"
        )
    if not isinstance(error, ErrorTrace):
        _note(error, f"in {process.title}")
    return error


def _note(error: Exception, text: str) -> None:
    try:
        if text not in getattr(error, "__notes__", ()):  # it may have been judged before
            error.add_note(text)
    except Exception:
        pass


def trace(headline: str, path: str, failed: Iterable[Process], exited: Sequence[Process], ended_by: Process | None) -> ErrorTrace:
    """Make the trace of a group; its cause is that of who ended it. Exits that were not kept, but failed, come first."""
    failed = list(failed)
    kept = set(exited)
    exits = [process.exit for process in (*(each for each in failed if each not in kept), *exited)]
    errors = [process._error for process in failed if isinstance(process._error, Exception)]
    error = ErrorTrace(headline, errors, path=path, exits=[exit for exit in exits if exit is not None])
    error.__cause__ = None if ended_by is None else ended_by._error
    return error


def unready(path: str, process: Process) -> ExitedBeforeReady:
    """The error of a group that a clean exit ended before it was ready."""
    group = f"the group {path!r}" if path else "the group"
    return ExitedBeforeReady(f"{group} was never ready: {process.title} ended first")
