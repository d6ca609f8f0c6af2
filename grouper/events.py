"""What a group tells: the events, the ring that keeps them, and the streams that read it.

One ring serves a whole tree, and a stream is a cursor in it. So publishing is an append, whatever the number of listeners and the
depth of the tree; nobody is waited for; and how far a listener is behind is a subtraction. A queue per listener was rejected: it
makes each event cost as much as there are listeners, and its bound is either a wait (ifrit's groups froze on one) or a loss that
nobody sees. What is kept in the ring is a tuple; events, with their paths, are built by those who read.

`trio.lowlevel` is used to park readers without an Event for each event.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeAlias, TypeVar

import attrs
import trio

from .exit import Exit

if TYPE_CHECKING:
    from trio.lowlevel import Abort, RaiseCancelT, Task

__all__ = ["BACKLOG", "EntranceEvent", "Event", "EventStream", "ExitEvent", "RestartEvent", "StartEvent"]

logger: logging.Logger = logging.getLogger("grouper")

BACKLOG: Final = 65_536
"""How many events are kept for an attached stream that does not read."""


@attrs.frozen
class Event:
    """A fact about the member at `path` (relative to the root), at a `time` of trio's clock."""

    path: str
    time: float


@attrs.frozen
class StartEvent(Event):
    """A member was started."""


@attrs.frozen
class EntranceEvent(Event):
    """A member is ready (a job: has returned)."""


@attrs.frozen
class ExitEvent(Event):
    """A member has ended: for good, or to be restarted."""

    exit: Exit


@attrs.frozen
class RestartEvent(Event):
    """A member will be started again by its policy, `delay` seconds after `time`, unless it is told to stop before.

    With this one, `used` of the `limit` restarts that are allowed in a period will be used. `error` is what it failed with, None
    for a clean exit. Under ALL and REST the limit is the group's.
    """

    error: Exception | None
    delay: float
    used: int
    limit: float

    def __str__(self) -> str:
        used = f"{self.used} of {self.limit:g} used" if self.limit != math.inf else "without limit"
        return f"{f'member {self.path!r}' if self.path else 'the root'} is restarted in {self.delay:.3g} s ({used})"


class Source(Protocol):
    """What the ring needs of a process, to build its events when they are read."""

    @property
    def path(self) -> str: ...
    def _exit_as(self, ending: Any, /) -> Exit: ...


S = TypeVar("S")
E = TypeVar("E")
Entry: TypeAlias = tuple[type[Event], float, S, Any]
"""What the ring keeps of an event: its kind, time and source, and what the kind has besides."""


def build(entry: Entry[Source]) -> Event:
    """Make the event of what the ring keeps."""
    kind, time, source, detail = entry
    if kind is ExitEvent:
        return ExitEvent(source.path, time, source._exit_as(detail))
    if kind is RestartEvent:
        return RestartEvent(source.path, time, *detail)
    return kind(source.path, time)


class EventRing(Generic[S]):
    """The last `keep` events, and beyond them what an attached stream has not read, up to `backlog`.

    `extra` are kept besides, to make up for the root's own, which are not told to those who listen to what is beneath it.
    Old entries are dropped in batches, so that a publish is an append; `total` counts all that were ever published.
    """

    __slots__ = ("_tasks", "_trim_at", "backlog", "entries", "extra", "hearers", "is_telling", "keep", "streams", "total")

    def __init__(self, keep: int, backlog: int = BACKLOG, extra: int = 0) -> None:
        self.keep: int = keep
        self.extra: int = extra
        self.backlog: int = backlog
        self.entries: list[Entry[S]] = []
        self.total: int = 0
        self.streams: set[EventStream[S, Any]] = set()
        self.hearers: list[Callable[[Any, float, S, Any], None]] = []
        self.is_telling: bool = False
        self._tasks: list[Task] | None = None
        self._trim_at = 64

    def publish(self, kind: type[Event], time: float, source: S, detail: Any = None) -> None:
        """Append an event. Never blocks."""
        self.entries.append((kind, time, source, detail))
        self.total += 1
        if self.hearers:
            self.tell(kind, time, source, detail)
        if len(self.entries) >= self._trim_at:
            self._trim()
        if self._tasks is not None:
            self.wake()

    def tell(self, kind: Any, time: float, source: S, detail: Any = None) -> None:
        """Tell those who hear at once, in the order in which it happens: the log, and metrics. What they raise is logged."""
        was_telling, self.is_telling = self.is_telling, True
        try:
            for hear in self.hearers:
                try:
                    hear(kind, time, source, detail)
                except Exception:
                    with contextlib.suppress(Exception):  # a filter of the log may be what raises
                        logger.exception("%r cannot hear of %s", hear, getattr(kind, "__name__", kind))
        finally:
            self.is_telling = was_telling

    def wake(self) -> None:
        """Let waiting streams look again: there is an event, or there will be none."""
        if self._tasks is not None:
            tasks, self._tasks = self._tasks, None
            for task in tasks:
                trio.lowlevel.reschedule(task)

    @property
    def most(self) -> int:
        """How far behind a stream may be."""
        return max(self.backlog, self.keep + self.extra)

    def _trim(self) -> None:
        wanted = min((stream.position for stream in self.streams), default=self.total)
        oldest = max(min(wanted, self.total - self.keep - self.extra), self.total - self.most)
        del self.entries[: max(0, oldest - (self.total - len(self.entries)))]
        self._trim_at = len(self.entries) + max(64, len(self.entries) // 4)

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        task = trio.lowlevel.current_task()
        if self._tasks is None:
            self._tasks = []
        self._tasks.append(task)

        def abort(_: RaiseCancelT) -> Abort:
            assert self._tasks is not None
            self._tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class EventStream(Generic[S, E]):
    """A listener: `async with process.events() as stream: async for event in stream`.

    It begins with the last `event_buffer` events and ends when nothing more can come. It may read as slowly as it likes; one that
    is more than 65,536 events behind goes on with the oldest kept. A cancellation while waiting loses no event.
    """

    __slots__ = ("_ended", "_make", "_missed", "_ring", "position")

    def __init__(self, ring: EventRing[S], make: Callable[[Entry[S]], E | None], ended: Callable[[], bool]) -> None:
        self._ring = ring
        self._make = make
        self._ended = ended
        self._missed = 0
        self.position: int = 0

    async def __aenter__(self) -> Self:
        ring = self._ring
        wanted = ring.keep
        back = 0
        for entry in reversed(ring.entries[-(ring.keep + ring.extra) :] if ring.keep else []):
            if not wanted:
                break
            wanted -= self._make(entry) is not None
            back += 1
        self.position = ring.total - back
        ring.streams.add(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ring.streams.discard(self)

    @property
    def missed(self) -> int:
        """How many events of the tree were dropped unread because this stream was too far behind."""
        return self._missed + max(0, self._behind())

    def _behind(self) -> int:
        return self._ring.total - self.position - self._ring.most

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> E:
        """Return the next event. A cancellation while waiting loses none. Raises: RuntimeError outside of `async with`."""
        ring = self._ring
        if self not in ring.streams:
            raise RuntimeError(
                "an event stream is read inside of `async with process.events() as stream`, where events are kept for it"
            )
        await trio.lowlevel.checkpoint()
        while True:
            behind = self._behind()
            if behind > 0:
                self._missed += behind
                self.position += behind
            while self.position < ring.total:
                entry = ring.entries[self.position - ring.total]
                self.position += 1
                event = self._make(entry)
                if event is not None:
                    return event
            if self._ended():
                raise StopAsyncIteration
            await ring.wait()
