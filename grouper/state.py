"""Where a process can be in its life, and how those who wait learn of it.

`trio.lowlevel` is named as the type of a task, whose stack tells where it sits.
"""

from __future__ import annotations

import enum
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import trio

from .errors import ExitedBeforeReady
from .exit import Exit

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["REMIND", "TRANSITIONS", "Change", "Ended", "State"]

REMIND: Final = 2.0
"""Seconds after which, again and again, a member that ignores its kill is named in the log."""

Ended: TypeAlias = tuple[BaseException | None, bool, bool, float, float]
"""How a life has ended, as the ring keeps it: error, was ready, killed, started at, ended at."""


class State(enum.Enum):
    """Where a process is in its life; `TRANSITIONS` says what can follow what.

    WAITING: for those it is after. STARTING: it runs and is not ready. READY. DRAINING: it was told to take no new work. STOPPING:
    it was told to stop, or killed. BACKOFF: it has ended and will be started again. The rest are ends: EXITED; STOPPED by hand,
    which `start` undoes; EXHAUSTED, which is past its limit of restarts.
    """

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    EXITED = "exited"
    STOPPED = "stopped"
    EXHAUSTED = "exhausted"


_ENDS: Final = frozenset({State.EXITED, State.STOPPED, State.EXHAUSTED})
_LEFT: Final = _ENDS | {State.BACKOFF}
TRANSITIONS: Final = {
    State.WAITING: frozenset({State.STARTING, State.BACKOFF}) | _ENDS,
    State.STARTING: frozenset({State.READY, State.DRAINING, State.STOPPING}) | _LEFT,
    State.READY: frozenset({State.DRAINING, State.STOPPING}) | _LEFT,
    State.DRAINING: frozenset({State.STOPPING}) | _ENDS,
    State.STOPPING: _LEFT,
    State.BACKOFF: frozenset({State.WAITING, State.STOPPING}) | _ENDS,
    State.EXITED: frozenset({State.WAITING}),
    State.STOPPED: frozenset({State.WAITING}),
    State.EXHAUSTED: frozenset({State.WAITING}),
}
"""Every transition that there is: a restart goes through BACKOFF (unless it is by hand) and WAITING to STARTING."""


@attrs.define(eq=False)
class Change:
    """That a process becomes ready or ends, with what was so at that moment; those who wait miss none of them."""

    event: trio.Event = attrs.field(factory=trio.Event)
    exit: Exit | None = None
    comes_again: bool = False
    value: Any = None
    next: Change | None = None

    def told(self, exit: Exit | None, value: Any, *, comes_again: bool) -> Change:
        """Let those who wait go on, and return the change that comes next."""
        self.exit, self.value, self.comes_again = exit, value, comes_again
        self.next = Change()
        self.event.set()
        return self.next

    async def settled(self) -> Change:
        """Wait until the process is ready or has ended."""
        await self.event.wait()
        return self

    async def ended(self) -> Exit:
        """Wait until the process has ended."""
        change = self
        while True:
            await change.event.wait()
            if change.exit is not None:
                return change.exit
            assert change.next is not None
            change = change.next

    async def ready(self, title: str) -> Any:
        """Wait until the process is ready, and return its value. Raises: ExitedBeforeReady."""
        change = await self.settled()
        while change.comes_again:
            assert change.next is not None
            change = await change.next.settled()
        if change.exit is not None:
            raise ExitedBeforeReady(f"{title} ended before it was ready") from change.exit.error
        return change.value


def where(task: Task | None) -> str:
    """The stack of a task and of the tasks in its nurseries, to tell where it sits."""
    lines: list[str] = []
    todo = [task] if task is not None else []
    while todo:
        task = todo.pop()
        lines.append(f"task {task.name}:\n")
        lines.extend(traceback.StackSummary.extract(task.iter_await_frames(), capture_locals=False).format())
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
    return "".join(lines).rstrip()
