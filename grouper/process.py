"""A started runner: the handle `Process`, and the task in which the runner lives.

Why not `nursery.start`: it costs 3.5 times a `start_soon`, turns a polite exit before `started()` into a RuntimeError, and can wait
for ever when the nursery it starts into was cancelled (trio #1431, #2544, #2895). Here the process is itself the `task_status`.

Order under cancellation: each runner lives in its own shielded `CancelScope`, which only its group cancels. A cancellation from
outside reaches the group's loop, and the loop kills its members one after the other, in stop order.

Ctrl-C: shields do not stop a KeyboardInterrupt, which trio raises in whatever line runs (trio #151). What is written here runs
under `trio.lowlevel.enable_ki_protection`, the runner's own code under `disable_ki_protection`, one frame below: so Ctrl-C in a
runner is that runner's exception, and nowhere else can it leave a counter half changed. That is what `trio.lowlevel` is used for,
and to know the task, whose frames show where a member sits that ignores its kill.

A process only records what happened (`started()`, the end of a life) and reports it; what it means, and so every change of
`state`, is decided by the group, in one order. So `exit` and `state` agree with the events at any time.

A member that may be started again lives its lives in one task (`groups/lives.py`): a task for each costs four times as much.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

import trio

from .errors import ExitedBeforeReady, listed
from .events import Event, EventRing, EventStream, build
from .exit import Exit
from .graph import StoppableNode
from .member import Member, Role
from .restart import Account
from .runner import NOT_CALLED, RunnerLike, entry_point, explained, unprotected
from .signals import KILL, STOP_SIGNALS, Signals, signal_number
from .snapshot import Snapshot, taken
from .state import Change, Ended, State

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Process", "State"]


class Host(Protocol):
    """What a process needs of the group that runs it."""

    owner: Process | None
    anonymous: bool
    ring: EventRing[Process]

    @property
    def children(self) -> Sequence[Process]:
        """The group's processes, in start order."""
        ...

    @property
    def post(self) -> Callable[[Process], None]:
        """Where a process reports, first that it is ready (but a job), then that it has ended."""
        ...

    def report(self, process: Process, /) -> None:
        """Look at the end of a life."""

    def kill_by_hand(self, process: Process, reason: str | None, /) -> None:
        """Kill a process because a user said so."""

    async def operate(self, verb: str, name: str, cascade: bool, /) -> tuple[Process, Change]:
        """Start, stop or restart a member because a user said so; return what to wait for."""
        ...


class Process(StoppableNode):
    """A runner that was started: a handle, never an OS process.

    Safe to use at any time, also after the end; from another thread through `trio.from_thread`.
    """

    __slots__ = (
        "_account",
        "_asking",
        "_changed",
        "_deadline",
        "_ending",
        "_error",
        "_exit",
        "_failure",
        "_held",
        "_host",
        "_inner",
        "_killed",
        "_last",
        "_once_ready",
        "_over",
        "_recovery",
        "_reported",
        "_said_ready",
        "_satisfied",
        "_scope",
        "_signals",
        "_task",
        "ended_at",
        "last_error",
        "member",
        "ready_at",
        "restarts",
        "since",
        "started_at",
        "state",
        "value",
    )

    def __init__(self, member: Member, host: Host) -> None:
        self._left = self._blockers = 0
        self._unlocks = self._frees = ()
        self._host = host
        self._signals = Signals()
        self._signals._owner = self
        self._scope = trio.CancelScope(shield=True)
        self._said_ready = self._satisfied = self._over = self._killed = False
        self._held = self._last = self._once_ready = self._reported = False
        self._deadline = math.inf
        self._error: BaseException | None = None
        self._failure: Exception | None = None
        self._task: Task | None = None
        self._inner: Host | None = None
        self._changed: Change | None = None
        self._exit: Exit | None = None
        self._asking: Task | None = None
        self._account: Account | None = None
        self._recovery: Any = None  # the Recovery that it is part of, which is defined below this layer
        self.member: Member = member
        self.state: State = State.WAITING
        self.since: float | None = None
        self.restarts: int = 0
        self.last_error: BaseException | None = None
        self.value: Any = None
        self.started_at: float | None = None
        self.ready_at: float | None = None
        self.ended_at: float | None = None

    def __repr__(self) -> str:
        return f"<Process {self.path!r} {self.state.value}>"

    @property
    def name(self) -> str:
        """The member's name."""
        return self.member.name

    @property
    def path(self) -> str:
        """The names from the root, whose path is "", down to this member: `web/api`."""
        names: list[str] = []
        process: Process | None = self
        while process is not None and not process._host.anonymous:
            names.append(process.member.name)
            process = process._host.owner
        return "/".join(reversed(names))

    @property
    def exit(self) -> Exit | None:
        """How the process ended; None while it runs, and while it is to be started again."""
        if self._exit is None and self.ended_at is not None:
            self._exit = self._exit_as(self._ending)
        return self._exit

    def _exit_as(self, ending: Ended) -> Exit:
        error, was_ready, killed, started_at, ended_at = ending
        return Exit(path=self.path, error=error, was_ready=was_ready, killed=killed, started_at=started_at, ended_at=ended_at)

    def _ends(self, now: float) -> Ended:
        """Note how this life has ended."""
        begun = now if self.started_at is None else self.started_at
        self._ending = (self._error, self.ready_at is not None, self._killed, begun, now)
        return self._ending

    @property
    def children(self) -> tuple[Process, ...]:
        """The processes of a group's members, in start order, those still waiting included; () for what is no group."""
        return () if self._inner is None else tuple(self._inner.children)

    def __getitem__(self, name: str) -> Process:
        """The process of a member, also of one further down: `process["web"]["api"]` or `process["web/api"]`.

        Raises: LookupError that names it and those there are.
        """
        process = self
        for each in name.split("/"):
            children = process.children
            found = next((child for child in children if child.member.name == each), None)
            if found is None:
                raise LookupError(f"{process.title} has no member {each!r}: {listed(child.member.name for child in children)}")
            process = found
        return process

    async def start(self, name: str, *, cascade: bool = False) -> Process:
        """Start a member of this group that has ended, and return its process once it is ready; its account begins anew.

        A running one is waited for. What it is after must be up, or is started first with `cascade=True`. A cancellation of the
        wait leaves it starting. Raises: LookupError for an unknown name; CascadeNeeded without `cascade`; GroupClosed if the group
        is stopping or has ended; ExitedBeforeReady if the member ends before it is ready; TypeError for a member of a `Dynamic`.
        """
        process, change = await self._operate("start", name, cascade)
        await change.ready(process.title)
        return process

    async def stop(self, name: str, *, cascade: bool = False) -> Exit:
        """Stop a member of this group, within its grace, and return how it ended; it stays down until it is started by hand.

        Those that depend on it must be down, or are stopped first, in stop order, with `cascade=True`. It stops nothing else, and
        the group stays up. A member of a `Dynamic` is removed by it. A cancellation of the wait leaves it stopping. Raises:
        LookupError, CascadeNeeded, GroupClosed as `start`.
        """
        _, change = await self._operate("stop", name, cascade)
        return await change.ended()

    async def restart(self, name: str, *, cascade: bool = False) -> Process:
        """Stop a member of this group, start it again, and return its process once it is ready; its account begins anew.

        Those that depend on it must be down, or are restarted with it, in order, with `cascade=True`. One that waits for its
        restart is started at once; one that has ended is started. A cancellation of the wait leaves it on its way. Raises: as
        `start`.
        """
        process, change = await self._operate("restart", name, cascade)
        await change.ready(process.title)
        return process

    async def _operate(self, verb: str, name: str, cascade: bool) -> tuple[Process, Change]:
        if self._inner is None:
            what = "has not begun, or is no group" if self.ended_at is None else "has ended"
            raise LookupError(f"cannot {verb} {name!r}: {self.title} {what}")
        return await self._inner.operate(verb, name, cascade)

    @trio.lowlevel.enable_ki_protection
    def signal(self, number: int) -> None:
        """Send a signal to the runner; SIGKILL kills it. Never blocks; to an exited process it is dropped.

        Raises: TypeError, ValueError for what is no signal number.
        """
        number = signal_number(number)
        if number == KILL:
            self.kill("SIGKILL")
        elif not self._over:
            if self._host.ring.hearers:
                self._host.ring.tell("signal", trio.current_time(), self, number)
            self._signals.send(number)
            if number in STOP_SIGNALS and self.state is State.BACKOFF:
                self._host.post(self)

    @trio.lowlevel.enable_ki_protection
    def kill(self, reason: str | None = None) -> None:
        """Cancel the runner, at once and without a signal. Returns at once; `wait()` tells when it has ended.

        Unless it was being stopped anyway, the process has then failed with `MemberKilled`, which has the reason in its text.
        """
        self._host.kill_by_hand(self, reason)

    async def wait(self) -> Exit:
        """Wait until the process has ended, and return how. Any number of tasks may wait, before and after the end.

        A restart by its policy is no end. A cancellation of the wait does nothing to the process.
        """
        exit = self.exit
        if exit is not None:
            await trio.lowlevel.checkpoint()
            return exit
        return await self._watch().ended()

    async def wait_ready(self) -> Any:
        """Wait until the process is ready, and return its `value`.

        Where it is being restarted: until it is ready again. A cancellation of the wait does nothing to the process. Raises:
        ExitedBeforeReady, from the process's error if it has one, if it ends first.
        """
        if self.ready_at is not None and not self._comes_again:
            await trio.lowlevel.checkpoint()
            return self.value
        if self.ended_at is not None:
            await trio.lowlevel.checkpoint()
            raise ExitedBeforeReady(f"{self.title} ended before it was ready") from self._error
        return await self._watch().ready(self.title)

    def events(self) -> EventStream[Process, Event]:
        """A stream of what happens to the members beneath this group: `async with process.events() as stream`.

        It begins with the last of the events that the outermost group keeps (`event_buffer`), and ends when this process has.
        """
        return EventStream(
            self._host.ring,
            lambda entry: build(entry) if self._is_above(entry[2]) else None,
            lambda: self.ended_at is not None,
        )

    def snapshot(self) -> Snapshot:
        """The process and all beneath it as they are now: values, of which one can make text or JSON.

        Taken in one step; also when it has ended. Raises: RuntimeError in a thread without trio, where it could be inconsistent:
        use `trio.from_thread.run_sync(process.snapshot)`.
        """
        return taken(self)

    @property
    def title(self) -> str:
        """What messages call it: `member 'web/api'`, or the root."""
        return f"member {path!r}" if (path := self.path) else "the root"

    def _is_above(self, process: Process) -> bool:
        owner = process._host.owner
        while owner is not None and owner is not self:
            owner = owner._host.owner
        return owner is self

    async def _settled(self) -> None:
        """Wait until the process is ready or has ended."""
        if self.ready_at is None and self.ended_at is None:
            await self._watch().settled()
        else:
            await trio.lowlevel.checkpoint()

    def _watch(self) -> Change:
        if self._changed is None:
            self._changed = Change()
        return self._changed

    def _tell_waiters(self, exit: Exit | None = None) -> None:
        """Tell that it is ready, or has ended: now, for by the time a waiter runs it may have been started again."""
        if self._changed is not None:
            self._changed = self._changed.told(exit or self.exit, self.value, comes_again=exit is not None)

    @property
    def _comes_again(self) -> bool:
        """Whether it is being stopped to be started again."""
        return self._recovery is not None and bool(self._recovery.again.get(self))

    def _renew(self) -> None:
        """Be as before the first start, but for what tells of the past."""
        self._said_ready = self._over = self._killed = self._last = self._reported = False
        self._error = self._failure = None
        self.ready_at = self.ended_at = self._exit = None
        self._deadline = math.inf
        if self._signals.received is not None:
            self._signals = Signals()
            self._signals._owner = self
        if not self.member._lives:
            self._scope = trio.CancelScope(shield=True)
        self._inner = None

    @trio.lowlevel.enable_ki_protection
    def started(self, value: object = None) -> None:
        """Be ready: this makes the process its own `task_status`. A job is ready when it has returned; its value is kept.

        After the end it does nothing. Raises: RuntimeError if it was called before.
        """
        if self._said_ready:
            raise RuntimeError(f"{self.title} called task_status.started() a second time: a runner is ready once")
        if self._over or self.state is State.BACKOFF:  # called late, by whom the runner gave its task status
            return
        self.value = value
        if self.member.role is not Role.JOB:
            self._host.post(self)
        self._said_ready = True

    @trio.lowlevel.enable_ki_protection
    async def _live(self) -> None:
        """Run the runner in this task, and report its end. Raises nothing: what the runner raised becomes the exit."""
        self._task = trio.lowlevel.current_task()
        awaitable: Awaitable[object] = NOT_CALLED
        try:
            if not self._killed:
                with self._scope:
                    # Caught inside the scope, an exception group is not searched for Cancelled, which is recursive in its depth.
                    try:
                        awaitable = entry_point(self.member._runs)(self._signals, task_status=self)
                        await unprotected(awaitable)
                    except Exception as error:
                        self._error = explained(error, awaitable, self)
        except BaseException as error:
            self._error = error
            if isinstance(awaitable, CoroutineType):
                awaitable.close()  # Ctrl-C can come before its first line
        self._over = True
        self._task = None
        self._host.post(self)

    async def _lived(self, runner: RunnerLike) -> Exception | None:
        """One life of many, in the scope of the moment; how it ended."""
        awaitable: Awaitable[object] = NOT_CALLED
        if self._killed:  # before it began
            return None
        try:
            awaitable = entry_point(runner)(self._signals, task_status=self)
            await unprotected(awaitable)
        except Exception as error:
            return explained(error, awaitable, self)
        except BaseException:
            if isinstance(awaitable, CoroutineType):
                awaitable.close()
            raise
        return None
