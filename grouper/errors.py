"""What can go wrong, as exceptions that name the member and the fix.

`ErrorTrace`, which a failed group raises, is in `exit.py`: it is made of exits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

__all__ = [
    "CascadeNeeded",
    "CycleError",
    "DoNotRestart",
    "DuplicateNames",
    "ExitedBeforeReady",
    "GraphError",
    "GroupClosed",
    "MemberKilled",
    "NotReady",
    "ReadyTimeout",
    "RestartLimitExceeded",
    "StopTimeout",
    "TerminateTree",
    "UnknownDependency",
]


def _again(kind: type[GraphError], what: tuple[Any, ...], args: tuple[object, ...], state: dict[str, Any]) -> GraphError:
    error = kind(*what)
    error.args = args
    error.__dict__.update(state)
    return error


_WHOLE: Final = {"member": "group", "job": "graph"}
"""What the things that messages call a `kind` are part of."""


class GraphError(ValueError):
    """The members of a group, or the jobs of a run, do not make a graph. Nothing was started."""

    _what: tuple[object, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_again, (type(self), self._what or self.args, self.args, self.__dict__))


class DuplicateNames(GraphError):  # noqa: N818 (the name is decided: it is what ifrit calls it)
    """Names that more than one member has, each once, in the order in which they first appear."""

    def __init__(self, names: Iterable[str], kind: str = "member") -> None:
        self.names: tuple[str, ...] = tuple(names)
        self._what = (self.names, kind)
        listed = ", ".join(map(repr, self.names))
        super().__init__(f"more than one {kind} is called {listed}: names are unique in a {_WHOLE.get(kind, 'group')}")


class UnknownDependency(GraphError):  # noqa: N818 (named like DuplicateNames, beside which it is told)
    """Members that are `after` a name that nobody has, as pairs (member, unknown name)."""

    def __init__(self, pairs: Iterable[tuple[str, str]], kind: str = "member") -> None:
        self.pairs: tuple[tuple[str, str], ...] = tuple(pairs)
        self._what = (self.pairs, kind)
        listed = ", ".join(f"{member!r} is after {unknown!r}" for member, unknown in self.pairs)
        whole = _WHOLE.get(kind, "group")
        super().__init__(f"{listed}, which no {kind} of the {whole} is called: correct `after` or add the {kind}")


class CycleError(GraphError):
    """Members or jobs that wait for each other; `path` begins and ends with the same name."""

    def __init__(self, path: Iterable[str], kind: str = "member", *, waiting: bool = False) -> None:
        self.path: tuple[str, ...] = tuple(path)
        self._what = (self.path, kind)
        all_do, one_does = ("wait for", "waits for or is after") if waiting else ("are after", "is after")
        fix = "await it elsewhere, or not at all" if waiting else "remove one `after`"
        listed = " -> ".join(map(repr, self.path))
        super().__init__(f"{kind}s {all_do} each other in a circle: {listed} (each {one_does} the next): {fix}")


class ExitedBeforeReady(Exception):  # noqa: N818 (decided)
    """A service ended, without an error of its own, before it had called `task_status.started()`."""


class NotReady(Exception):  # noqa: N818 (the outcome is no error of the check or the job that says so)
    """Not yet: what a check, or the body of a job, raises where it has not failed but what it waits for is not there.

    A member's `ready_when` is asked again; a job with a `retry` is tried again, and one without ends NOT_READY.
    """


class ReadyTimeout(Exception):  # noqa: N818 (decided)
    """A member was not ready within its `ready_within` seconds and was killed."""


class StopTimeout(Exception):  # noqa: N818 (decided)
    """A member had not stopped `grace` seconds after its stop signal and was killed."""


class MemberKilled(Exception):  # noqa: N818 (named like the other ends of a member)
    """A member was killed by hand (`process.kill()`, SIGKILL) although nobody was stopping it."""


class GroupClosed(Exception):  # noqa: N818 (what happened, as trio.ClosedResourceError is taken)
    """A dynamic group was closed, or told to stop: it takes no more members."""


class RestartLimitExceeded(Exception):  # noqa: N818 (decided)
    """A member, or a group, used up its restarts and failed again; the last error is the cause."""


class DoNotRestart(Exception):  # noqa: N818 (what it asks for, as suture calls it)
    """Raised by a runner, alone or wrapped: it has failed, and no policy at any level starts it again."""


class TerminateTree(Exception):  # noqa: N818 (what it asks for, as suture calls it)
    """Raised by a runner, alone or wrapped: every group above it stops, whatever the role, and nothing is restarted."""


class CascadeNeeded(Exception):  # noqa: N818 (what is missing)
    """An operation on one member would stop others too, or needs others up, and was not told `cascade=True`; `names` are theirs."""

    def __init__(self, message: str, names: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.names: tuple[str, ...] = tuple(names)


def listed(names: Iterable[str]) -> str:
    """Name what there is, for a message about what there is not."""
    known = list(names)
    return f"it has {', '.join(map(repr, known[:20]))}{', ...' if len(known) > 20 else ''}" if known else "it has none"


def contains(error: BaseException | None, kind: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether an error is of the kind, or has one in its groups or among its causes."""
    if error is None or (error.__cause__ is None and not isinstance(error, BaseExceptionGroup)):  # the many
        return isinstance(error, kind)
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        if isinstance(each, kind):
            return True
        seen.add(id(each))
        todo.append(each.__cause__)
        if isinstance(each, BaseExceptionGroup):
            todo.extend(cast("BaseExceptionGroup[BaseException]", each).exceptions)
    return False
