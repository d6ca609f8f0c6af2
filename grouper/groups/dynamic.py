"""The group whose members come and go while it runs, and the client that puts them in.

Inserting is one synchronous step of the engine, done in the inserter's own call or, where it had to wait for room, in the step in
which the room appeared. Closing is one too. So there is no moment in which a member has been accepted and the group is already
stopping without it (in ifrit, an insert that was taken after the signal was waited for, for ever).

`trio.lowlevel` is used to park those who wait for room, and to keep these steps from KeyboardInterrupt.
"""

from __future__ import annotations

import contextvars
import functools
import math
from collections import deque
from collections.abc import MutableSequence, Sequence
from typing import Any, ClassVar

import attrs
import trio

from ..errors import DuplicateNames, GroupClosed
from ..events import EntranceEvent, Entry, EventRing, EventStream, ExitEvent
from ..exit import Exit
from ..member import Member, as_member
from ..process import Process, State
from ..runner import RunnerLike
from ..signals import Signals
from .engine import Engine
from .static import require_policy
from .verdict import After

__all__ = ["Client", "Dynamic", "MemberEntrance", "MemberExit"]


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


@attrs.frozen(eq=False)
class Dynamic:
    """A group that starts empty, ready at once, and whose members a client inserts and removes.

    At most `capacity` members run at a time (None: any number). It ends when it was closed and all members have exited, or when it
    is told to stop. With the default `termination_signal=None` members come and go without effect on each other; with a stop
    signal, the first exit that the role table counts stops all. `event_buffer` is how many events a late listener is told, and how
    many failures and exits its trace keeps (one at least).

    A description like any group, but run once at a time: its client addresses the current run.
    """

    capacity: int | None = None
    event_buffer: int = attrs.field(default=64, kw_only=True)
    termination_signal: int | None = attrs.field(default=None, kw_only=True)
    cancel_grace: float = attrs.field(default=0.0, kw_only=True)
    _client: Client = attrs.field(init=False, repr=False)

    grace: ClassVar[float] = math.inf
    """As a member: the graces of its own members bound its stop."""

    def __attrs_post_init__(self) -> None:
        require_policy(self, self.termination_signal, self.cancel_grace, self.event_buffer)
        capacity: object = self.capacity
        if capacity is not None and (isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1):
            raise ValueError(f"Dynamic: capacity={capacity!r} leaves no room for a member: use 1 or more, or None for no limit")
        object.__setattr__(self, "_client", Client(self.event_buffer))

    def client(self) -> Client:
        """The group's client, always the same one; it may be had before the group runs."""
        return self._client

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run until closed and empty, or told to stop.

        A cancellation kills the members, the last inserted first. Raises: ErrorTrace with the last failures; RuntimeError if the
        group is running already.
        """
        await DynamicRun(self, signals, task_status).run(())


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

    def __init__(self, event_buffer: int) -> None:
        self._event_buffer = event_buffer
        self._run: DynamicRun | None = None
        self._ran = self._close_next = False
        self._turns: deque[Turn] = deque()
        self._open()

    def _open(self) -> None:
        self._closed = trio.Event()
        self._entered: EventRing[Process] = EventRing(self._event_buffer)
        self._left: EventRing[Process] = EventRing(self._event_buffer)

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
            turn = self._turns[0]
            try:
                turn.process = self._insert(turn.member)
            except Exception as error:
                turn.error = error
            trio.lowlevel.reschedule(self._turns.popleft().task)

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
    _, time, process = entry
    return MemberEntrance(process.path, time, process.member, process)


def _exit(entry: Entry[Process]) -> MemberExit:
    _, time, process = entry
    assert process.exit is not None
    return MemberExit(process.path, time, process.exit, process.member, process)


class DynamicRun(Engine):
    """One run of a dynamic group."""

    def __init__(self, group: Dynamic, signals: Signals, task_status: trio.TaskStatus[Any]) -> None:
        super().__init__(
            signals,
            task_status,
            termination_signal=group.termination_signal,
            cancel_grace=group.cancel_grace,
            event_buffer=group.event_buffer,
        )
        self.client: Client = group.client()
        if self.client._run is not None:
            raise RuntimeError("this Dynamic group is running already: its client can address one run at a time")
        kept = max(1, group.event_buffer)
        self.capacity: float = math.inf if group.capacity is None else group.capacity
        self.exited: MutableSequence[Process] = deque(maxlen=kept)
        self.failed: MutableSequence[Process] = deque(maxlen=kept)
        self._exits = self._failures = 0
        self._removed: set[Process] = set()
        self.starting: int = 0

    @property
    def children(self) -> Sequence[Process]:
        """The processes of the members that are running."""
        return list(self.running.values())

    def begin(self) -> None:
        """Let in those who wait, from now on into the group's own context."""
        self.spawn_with(functools.partial(contextvars.copy_context().run, self.spawn))
        client = self.client
        if client._ran and not client._close_next:
            client._open()
        client._close_next = False
        client._run = self
        super().begin()
        client._serve()

    def is_over(self) -> bool:
        """Whether the group was closed, or stopped, and is empty."""
        return not self.running and (self.stopping or self.client._closed.is_set())

    def has_room(self) -> bool:
        """Whether one more member may run."""
        return len(self.running) < self.capacity

    def admit(self, member: Member) -> Process:
        """Start a member, in the group's own context."""
        if member.name in self.running:
            raise DuplicateNames([member.name])
        process = Process(member, self)
        self.look_at_clock()
        self.await_more(1)
        self.starting += 1
        try:
            self.start(process)
        except BaseException:  # it has no task: spawning that is the last thing done
            self.starting -= 1
            self.running.pop(member.name, None)
            raise
        return process

    def remove(self, process: Process) -> None:
        """Stop one member."""
        if process.state is not State.STOPPING and not process._over:
            self._removed.add(process)
            self.look_at_clock()
            self.stop(process)

    def propagates(self, process: Process) -> bool:
        """Whether the exit was the member's own."""
        return process not in self._removed

    def close(self) -> None:
        """Take no more members; the loop looks whether that was all."""
        self.client._shut()
        self.post(_nothing)

    def closing(self) -> None:
        """A group that stops is closed from the same step on."""
        self.client._shut()

    def entered(self, process: Process) -> None:
        """Tell also the client's listeners."""
        self.starting -= 1
        super().entered(process)
        self.client._entered.publish(EntranceEvent, self.now, process)

    def record(self, process: Process) -> After:
        """Tell also the client's listeners."""
        after = super().record(process)
        self.starting -= process.ready_at is None
        self._exits += 1
        self._failures += after.raised
        self._removed.discard(process)
        client = self.client
        client._left.publish(ExitEvent, self.now, process)
        if client._closed.is_set():
            client._entered.wake()
        return after

    def ended(self, process: Process) -> None:
        """Let in the next, once it is clear that the group goes on."""
        super().ended(process)
        self.client._serve()

    def summary(self) -> str:
        """The headline of the trace, which tells what it does not hold."""
        text = f"{self._failures} of {self._exits} members failed"
        return text if self._failures == len(self.failed) else f"{text}, here the last {len(self.failed)}"

    def settle(self) -> None:
        """Leave the client without a run."""
        client = self.client
        try:
            super().settle()
        finally:
            if client._run is self:
                client._run = None
                client._ran = True
                client._shut()


def _nothing() -> None:
    """Wake the loop."""
