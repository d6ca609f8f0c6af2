"""By when something is expected of the processes of a group: a heap, and one timer task that is there once it is needed.

A scope with a deadline around each member was rejected: it says nothing about what to do when it passes, and it costs every member,
also those of which nothing is expected. A timer task per member costs even more.

`trio.lowlevel` is used to keep the timer from KeyboardInterrupt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import TypeAlias

import trio

from ..process import Process

__all__ = ["Deadlines", "Due"]

Due: TypeAlias = Process | Callable[[], None]
"""What has a time: a process to look at, or a step to take."""


class Deadlines:
    """At most one deadline for each process (`process._deadline`), and steps that the group takes later."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._heap: list[tuple[float, int, list[Due]]] = []
        self._last: tuple[float, list[Due]] = (inf, [])
        self._prune_at = 64
        self._tickets = itertools.count()
        self._alarm: trio.CancelScope | None = None
        self._timer: trio.CancelScope | None = None

    def expect(self, due: Due, when: float, spawn: Callable[..., None]) -> None:
        """Ring at `when`; what was expected of a process before is forgotten. `spawn` starts the timer task."""
        if isinstance(due, Process):
            due._deadline = when
        if when == inf:
            return
        if when == self._last[0]:  # those who are told together share an entry
            self._last[1].append(due)
            return
        if len(self._heap) > self._prune_at:
            self._prune()
        self._last = (when, [due])
        heappush(self._heap, (when, next(self._tickets), self._last[1]))
        if self._alarm is None:
            self._alarm = trio.CancelScope(deadline=when)
            self._timer = trio.CancelScope(shield=True)
            spawn(self._wait, self._timer, name="deadlines")
        elif when < self._alarm.deadline:
            self._alarm.deadline = when

    def expired(self, now: float) -> Iterator[Due]:
        """Those whose time has come, and set the alarm for the next. More may be expected meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            when, _, those = heappop(self._heap)
            if when == self._last[0]:
                self._last = (inf, [])
            for due in those:
                if not isinstance(due, Process) or when == due._deadline:
                    yield due
        if self._heap and self._alarm is not None:
            self._alarm.deadline = self._heap[0][0]

    def _prune(self) -> None:
        """Forget the entries of which nothing is expected any more, so that the heap is as large as the group, not as its past."""
        last = self._last[1]
        self._heap = [
            entry
            for entry in self._heap
            if entry[2] is last or any(not isinstance(due, Process) or due._deadline == entry[0] for due in entry[2])
        ]
        heapify(self._heap)
        self._prune_at = 2 * len(self._heap) + 64

    def end(self) -> None:
        """End the timer task."""
        if self._timer is not None:
            self._timer.cancel("its group has ended")

    @trio.lowlevel.enable_ki_protection
    async def _wait(self, timer: trio.CancelScope) -> None:
        assert self._alarm is not None
        with timer:
            while True:
                with self._alarm:
                    await trio.sleep_forever()
                self._alarm = trio.CancelScope()  # with no deadline until the group has looked at those that are over
                self._ring()
