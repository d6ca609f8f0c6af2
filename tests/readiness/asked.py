"""A check that answers as it is told to, after so long, and notes when it was asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio

from grouper import NotReady

YES = "yes"
NO = NotReady("no")


class Asked:
    """Each answer is a value or an exception, and the seconds it takes; the last is given for ever."""

    def __init__(self, answers: Iterable[tuple[Any, float]] = ((NO, 0),), *, name: str = "asked") -> None:
        self.answers = list(answers)
        self.name = name
        self.asked: list[float] = []
        self.cancelled = 0

    async def __call__(self) -> Any:
        answer, seconds = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(trio.current_time())
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer


def noted(error: BaseException | None) -> list[str]:
    return getattr(error, "__notes__", [])
