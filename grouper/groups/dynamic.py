"""The group whose members come and go while it runs; `client.py` has what inserts them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import MutableSequence, Sequence
from typing import Any, ClassVar

import attrs
import trio

from ..errors import DuplicateNames
from ..events import EntranceEvent, ExitEvent
from ..member import Member
from ..process import Process
from ..signals import Signals
from ..state import State
from .client import Client, capacity_of
from .engine import Engine
from .inbox import nothing
from .static import require_drain, require_policy
from .verdict import After

__all__ = ["Dynamic"]


def goes_on(process: Process) -> bool:
    """Whether a member runs, or comes again by its policy; its end may be still to be looked at."""
    policy, error = process.member.restart, process._error
    if process._last or not process._over:
        return not process._last
    return policy is not None and isinstance(error, Exception | None) and policy.restarts(policy.ending(error))


@attrs.frozen(eq=False)
class Dynamic:
    """A group that starts empty, ready at once, and whose members a client inserts and removes.

    At most `capacity` members run at a time (None: any number). It ends when it was closed and all members have exited, or when it
    is told to stop. With the default `termination_signal=None` members come and go without effect on each other; with a stop
    signal, the first exit that the role table counts stops all. `event_buffer` is how many events a late listener is told, and how
    many failures and exits its trace keeps (one at least).

    With `keep_members`, those that run when the group is stopped are inserted again when it is next run, as happens where a
    strategy or an operation restarts it; without, they are gone with it. What was closed keeps nobody. `drain_signal` and
    `drain_within` are as in the other groups.

    A description like any group, but run once at a time: its client addresses the current run.
    """

    capacity: int | None = None
    event_buffer: int = attrs.field(default=64, kw_only=True)
    termination_signal: int | None = attrs.field(default=None, kw_only=True)
    cancel_grace: float = attrs.field(default=0.0, kw_only=True)
    drain_signal: int | None = attrs.field(default=None, kw_only=True)
    drain_within: float = attrs.field(default=10.0, kw_only=True)
    keep_members: bool = attrs.field(default=False, kw_only=True)
    _client: Client = attrs.field(init=False, repr=False)

    grace: ClassVar[float] = math.inf
    """As a member: the graces of its own members bound its stop."""

    def __attrs_post_init__(self) -> None:
        require_policy(self, self.termination_signal, self.cancel_grace, self.event_buffer)
        require_drain(self, self.drain_signal, self.drain_within)
        capacity_of(self.capacity)
        object.__setattr__(self, "_client", Client(self.capacity, self.event_buffer))

    def client(self) -> Client:
        """The group's client, always the same one; it may be had before the group runs."""
        return self._client

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run until closed and empty, or told to stop.

        A cancellation kills the members, the last inserted first. Raises: ErrorTrace with the last failures; RuntimeError if the
        group is running already.
        """
        await DynamicRun(self, signals, task_status).run(())


class DynamicRun(Engine):
    """One run of a dynamic group."""

    def __init__(self, group: Dynamic, signals: Signals, task_status: trio.TaskStatus[Any]) -> None:
        super().__init__(
            signals,
            task_status,
            termination_signal=group.termination_signal,
            cancel_grace=group.cancel_grace,
            event_buffer=group.event_buffer,
            drain_signal=group.drain_signal,
            drain_within=group.drain_within,
        )
        self.keep_members: bool = group.keep_members
        self.over: trio.Event = trio.Event()
        self.client: Client = group.client()
        if self.client._run is not None:
            raise RuntimeError("this Dynamic group is running already: its client can address one run at a time")
        kept = max(1, group.event_buffer)
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
        """Let in those who wait."""
        client = self.client
        if client._ran and not client._close_next:
            client._open()
        client._close_next = False
        client._run = self
        kept, client._kept = client._kept, ()
        super().begin()
        if self.stopping and self.keep_members:
            client._kept = kept  # it was told to stop before it began
        for member in kept if not client._closed.is_set() else ():
            self.admit(member)
        client._serve()

    def is_over(self) -> bool:
        """Whether the group was closed, or stopped, and is empty."""
        return not self.running and (self.stopping or self.client._closed.is_set())

    def has_room(self) -> bool:
        """Whether one more member may run."""
        return len(self.running) < capacity_of(self.client.capacity)

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
        process._last = True  # whatever its policy says, and also if its life has just ended
        if process.state is not State.STOPPING and not process._over:
            self._removed.add(process)
            self.look_at_clock()
            self.stop(process)
            self.post(nothing)  # it may have ended by that
        elif process._recovery is not None:  # it was being restarted by hand
            self._removed.add(process)

    def _ended_life(self, process: Process, error: BaseException | None) -> None:
        """Expect it to enter anew."""
        self.starting += process.ready_at is not None
        super()._ended_life(process, error)

    def members(self) -> Sequence[Process]:
        """Those that run."""
        return self.children

    def stop_by_hand(self, process: Process, *, cascade: bool) -> None:
        """Remove a member."""
        self.remove(process)

    def propagates(self, process: Process) -> bool:
        """Whether the exit was the member's own."""
        return process not in self._removed

    def close(self) -> None:
        """Take no more members; the loop looks whether that was all."""
        self.client._shut()
        self.post(nothing)

    def tell_to_stop(self, number: int) -> None:
        """Stop the group, unless it stops already or has ended."""
        if not self.is_closed:
            self.post(number)

    def closing(self) -> None:
        """A group that stops is closed from the same step on."""
        if self.keep_members and not self.client._closed.is_set():
            self.client._kept = [process.member for process in self.running.values() if goes_on(process)]
        self.client._shut()

    def entered(self, process: Process) -> None:
        """Tell also the client's listeners."""
        self.starting -= 1
        super().entered(process)
        self.client._entered.publish(EntranceEvent, self.now, process)

    def record(self, process: Process, error: BaseException | None, *, quiet: bool = False) -> After:
        """Tell also the client's listeners."""
        after = super().record(process, error, quiet=quiet)
        self.starting -= process.ready_at is None
        self._exits += 1
        self._failures += after.raised
        self._removed.discard(process)
        client = self.client
        client._left.publish(ExitEvent, self.now, process, process._ending)
        if client._closed.is_set():
            client._entered.wake()
        return after

    def finish(self, process: Process, error: BaseException | None, *, quiet: bool = False) -> None:
        """Let in the next, once it is clear that the group goes on."""
        super().finish(process, error, quiet=quiet)
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
            self.over.set()
