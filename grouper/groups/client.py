"""What inserts members into a dynamic group, and finds, stops and watches them.

Inserting is one synchronous step of the engine, done in the inserter's own call or, where it had to wait for room, in the step in
which the room appeared. Closing is one too. So there is no moment in which a member has been accepted and the group is already
stopping without it (in ifrit, an insert that was taken after the signal was waited for, for ever).

`trio.lowlevel` is used to park those who wait for room, and to keep these steps from KeyboardInterrupt.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio

from ..errors import GroupClosed
from ..events import EntranceEvent, Entry, EventRing, EventStream, ExitEvent
from ..exit import Exit
from ..member import Member, as_member, require_seconds
from ..process import Process
from ..runner import RunnerLike
from ..signals import TERMINATE

__all__ = ["Client", "MemberEntrance", "MemberExit", "capacity_of"]


def capacity_of(capacity: object) -> float:
    """How many members may run. Raises: ValueError."""
    if capacity is None:
        return math.inf
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise ValueError(f"Dynamic: capacity={capacity!r} is no whole number of members: use 1 or more, or None for no limit")
    if capacity < 1:
        raise ValueError(f"Dynamic: capacity={capacity!r} leaves no room for a member: use 1 or more, or None for no limit")
    return capacity


@attrs.frozen
class MemberEntrance(EntranceEvent):
    """A member of the client's group is ready."""

    member: Member
    process: Process


@attrs.frozen
class MemberExit(ExitEvent):
    """A member of the client's group has ended."""

    member: Member
    process: Process


class Run(Protocol):
    """What a client needs of a run of its group."""

    running: dict[str, Process]
    starting: int
    over: trio.Event

    def has_room(self) -> bool: ...
    def admit(self, member: Member) -> Process: ...
    def remove(self, process: Process) -> None: ...
    def close(self) -> None: ...
    def tell_to_stop(self, number: int) -> None: ...


@attrs.define(eq=False)
class Turn:
    """An inserter that waits for room."""

    member: Member
    task: trio.lowlevel.Task
    process: Process | None = None
    error: Exception | None = None


class Client:
    """What inserts members into a `Dynamic` group, finds, stops and watches them.

    From another thread, through `trio.from_thread`.
    """

    def __init__(self, capacity: int | None, event_buffer: int) -> None:
        self._capacity = capacity
        self._event_buffer = event_buffer
        self._run: Run | None = None
        self._kept: Sequence[Member] = ()
        self._ran = self._close_next = False
        self._turns: deque[Turn] = deque()
        self._open()

    def _open(self) -> None:
        self._closed = trio.Event()
        self._entered: EventRing[Process] = EventRing(self._event_buffer)
        self._left: EventRing[Process] = EventRing(self._event_buffer)

    @property
    def capacity(self) -> int | None:
        """How many members may run at a time; None for any number. It may be set at any time, and holds for later runs too.

        With less room than members, nobody is stopped: none is inserted until enough have gone. Raises: ValueError.
        """
        return self._capacity

    @capacity.setter
    @trio.lowlevel.enable_ki_protection
    def capacity(self, capacity: int | None) -> None:
        capacity_of(capacity)
        self._capacity = capacity
        self._serve()

    @trio.lowlevel.enable_ki_protection
    async def insert(self, member: Member | tuple[str, RunnerLike]) -> Process:
        """Start a member and return its process, which was started but need not be ready.

        Waits while the group is full or does not run yet; those who wait have their turn in order. A cancellation while waiting
        gives up the turn; nothing was started then. Raises: GroupClosed, also between two runs; DuplicateNames; TypeError or
        ValueError for what is no member of this kind of group.
        """
        member = _checked(member)
        if self._room() and not self._turns:
            await trio.lowlevel.checkpoint_if_cancelled()
            process = self._insert(member)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return process
        turn = Turn(member, trio.lowlevel.current_task())
        self._turns.append(turn)

        def abort(_: object) -> trio.lowlevel.Abort:
            if turn not in self._turns:  # it is being let in
                return trio.lowlevel.Abort.FAILED
            self._turns.remove(turn)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if turn.error is not None:
            raise turn.error
        assert turn.process is not None
        return turn.process

    @trio.lowlevel.enable_ki_protection
    def insert_nowait(self, member: Member | tuple[str, RunnerLike]) -> Process:
        """Start a member and return its process.

        Raises: trio.WouldBlock if the group is full or does not run yet; else as `insert`.
        """
        member = _checked(member)
        if not self._room() or self._turns:
            raise trio.WouldBlock
        return self._insert(member)

    def _room(self) -> bool:
        """Whether an insert can be decided now."""
        return self._closed.is_set() or (self._run is not None and self._run.has_room())

    def _insert(self, member: Member) -> Process:
        if self._run is None or self._closed.is_set():
            raise GroupClosed(f"member {member.name!r} was not started: the dynamic group is closed")
        return self._run.admit(member)

    def _serve(self) -> None:
        """Let in those whose turn it is."""
        while self._turns and self._room():
            turn = self._turns.popleft()  # first, for who hears of the start may come by here
            try:
                turn.process = self._insert(turn.member)
            except Exception as error:
                turn.error = error
            trio.lowlevel.reschedule(turn.task)

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Take no more members; the group ends when those it has have exited. A second time it does nothing.

        Before the group runs, and between two runs, it makes the next run end at once.
        """
        if self._run is not None:
            self._run.close()
        else:
            self._close_next = True
            self._shut()

    async def drain(self, within: float = 10.0) -> None:
        """Close the group, wait up to `within` seconds for its members to finish, stop those that are left, and wait for the end.

        A cancellation of the wait leaves the group closed, and tells nobody to stop. Raises: RuntimeError if the group does not
        run; TypeError or ValueError for what are no seconds.
        """
        require_seconds(within, "drain: within")
        run = self._run
        if run is None:
            raise RuntimeError("this Dynamic group does not run: there is nothing to drain")
        self.close()
        with trio.move_on_after(within):
            await run.over.wait()
        run.tell_to_stop(TERMINATE)
        await run.over.wait()

    def _shut(self) -> None:
        self._closed.set()
        self._serve()
        self._entered.wake()
        self._left.wake()

    async def wait_closed(self) -> None:
        """Wait until the group was closed or told to stop. A cancellation changes nothing."""
        await self._closed.wait()

    def get(self, name: str) -> Process | None:
        """The running member of that name, if there is one. Never blocks."""
        return None if self._run is None else self._run.running.get(name)

    @trio.lowlevel.enable_ki_protection
    async def remove(self, name: str) -> Exit:
        """Stop a member, within its grace, and return how it ended.

        Its exit does not stop the group, whatever the termination signal. A cancellation while waiting leaves it stopping. Raises:
        LookupError if no member of that name is running.
        """
        process = self.get(name)
        if process is None or self._run is None:
            raise LookupError(f"no member {name!r} is running in the dynamic group")
        self._run.remove(process)
        return await process.wait()

    def entrances(self) -> EventStream[Process, MemberEntrance]:
        """The members that became ready: `async with client.entrances() as stream: async for event in stream`.

        Begins with the last `event_buffer`. Ends when the group is closed and no member is still starting.
        """
        ring = self._entered
        return EventStream(ring, _entrance, lambda: ring is not self._entered or self._all_entered())

    def exits(self) -> EventStream[Process, MemberExit]:
        """The members that ended, as `entrances()`. Ends when the group has."""
        ring = self._left
        return EventStream(ring, _exit, lambda: ring is not self._left or (self._closed.is_set() and self._run is None))

    def _all_entered(self) -> bool:
        if not self._closed.is_set():
            return False
        return self._run is None or not self._run.starting


def _checked(given: Member | tuple[str, RunnerLike]) -> Member:
    member = as_member(given)
    if member.after:
        raise ValueError(f"member {member.name!r} is after {member.after}, but a Dynamic group has no order: use a Graph")
    return member


def _entrance(entry: Entry[Process]) -> MemberEntrance:
    _, time, process, _ = entry
    return MemberEntrance(process.path, time, process.member, process)


def _exit(entry: Entry[Process]) -> MemberExit:
    _, time, process, ending = entry
    return MemberExit(process.path, time, process._exit_as(ending), process.member, process)
