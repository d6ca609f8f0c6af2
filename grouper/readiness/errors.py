"""With what a probe or a poll ends when it gets no answer to go by; and how errors are told in a few words."""

from __future__ import annotations

from typing import Any, cast

__all__ = ["CheckError", "CheckFailed", "CheckTimeout", "leaves", "named", "why"]


class CheckError(Exception):
    """A check neither said "ready" nor "not yet". `name` is the check's."""

    def __init__(self, name: str, what: str) -> None:
        self.name = name
        self._what: tuple[object, ...] = (name, what)
        super().__init__(f"check {name!r} {what}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._what, self.__dict__)


class CheckFailed(CheckError):  # noqa: N818 (an outcome of a check, named as GroupClosed is)
    """A check raised an error of its own, which is the cause of this one."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, f"failed: {why}")
        self._what = (name, why)


class CheckTimeout(CheckError):  # noqa: N818 (named as ReadyTimeout is)
    """A check did not answer, or a poll did not see it ready, within so many `seconds`."""

    def __init__(self, name: str, seconds: float, what: str | None = None) -> None:
        self.seconds = seconds
        super().__init__(name, f"did not answer within {seconds:g} s" if what is None else what)
        self._what = (name, seconds, what)


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and in the groups in it; of any other exception, itself."""
    found: list[BaseException] = []
    left = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            left.extend(reversed(cast("BaseExceptionGroup[BaseException]", each).exceptions))
        else:
            found.append(each)
    return found


def named(error: BaseException) -> str:
    """The class and the text of an exception."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def why(error: BaseException) -> str:
    """The first causes of an error of a connection, in the operating system's words, each once."""
    found: dict[str, None] = {}
    left = leaves(error)[::-1]
    while left:
        each = left.pop()
        # HTTP clients hide the cause, which is then the context; below an OSError that would be another matter.
        cause = each.__cause__ or (None if isinstance(each, OSError) else each.__context__)
        if cause is not None:
            left.extend(reversed(leaves(cause)))
        else:
            found[(each.strerror if isinstance(each, OSError) else None) or str(each) or type(each).__name__] = None
    return "; ".join(found)
