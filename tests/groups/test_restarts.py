"""Restarts by a member's own policy: when, how soon, how often."""

from __future__ import annotations

import math
from typing import Any

import trio
from trio.testing import MockClock

import grouper
from grouper import (
    Backoff,
    Member,
    Ordered,
    Restart,
    Signals,
    State,
)

AT_ONCE = Restart(backoff=Backoff(0, jitter=0), limit=math.inf)


class Flaky:
    """Ready at once; does what the next of its lives says: raise, return, or (None) wait to be told to stop."""

    def __init__(self, *lives: Exception | str | None) -> None:
        self.lives = list(lives)
        self.begun: list[float] = []

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        self.begun.append(trio.current_time())
        life = self.lives.pop(0) if self.lives else None
        task_status.started(len(self.begun))
        if life is None:
            await signals.wait()
        elif isinstance(life, Exception):
            raise life


async def test_it_is_started_again(autojump_clock: MockClock) -> None:
    """After its delay, in the same process, until a life lasts."""
    flaky = Flaky(OSError("1"), OSError("2"))
    restart = Restart(backoff=Backoff(1, jitter=0))
    async with grouper.invoke(Ordered([Member("web", flaky, restart=restart)])) as group:
        web = group["web"]
        await trio.sleep(10)
        assert flaky.begun == [0, 1, 3]
        assert (web.state, web.restarts, web.value) == (State.READY, 2, 3)
        assert str(web.last_error) == "2"
