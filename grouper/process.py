"""A started runner: the handle `Process`, and the task in which the runner lives.

Why not `nursery.start`: it costs 3.5 times a `start_soon`, turns a polite exit before `started()` into a RuntimeError, and can wait
for ever when the nursery it starts into was cancelled (trio #1431, #2544, #2895). Here the process is itself the `task_status`.

Order under cancellation: each runner lives in its own shielded `CancelScope`, which only its group cancels. A cancellation from
outside reaches the group's loop, and the loop kills its members one after the other, in stop order.

Ctrl-C: shields do not stop a KeyboardInterrupt, which trio raises in whatever line runs (trio #151). What is written here runs
under `trio.lowlevel.enable_ki_protection`, the runner's own code under `disable_ki_protection`, one frame below: so Ctrl-C in a
runner is that runner's exception, and nowhere else can it leave a counter half changed. That is what `trio.lowlevel` is used for,
and to know the task, whose frames show where a member sits that ignores its kill.

A process only records what happened (`started()`, the end of the task) and reports it; what it means, and so every change of
`state`, is decided in the group's loop. So `exit` and `state` agree with the events at any time.
"""

from __future__ import annotations

import enum
import inspect
import math
import traceback
from collections.abc import Awaitable, Callable, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import trio

from .errors import ExitedBeforeReady
from .events import Event, EventRing, EventStream, build
from .exit import Exit
from .graph import StoppableNode
from .member import Member, Role
from .runner import entry_point
from .signals import KILL, Signals, signal_number

if TYPE_CHECKING:
    from trio.lowlevel import Task

__all__ = ["Process", "State"]

T = TypeVar("T")

_NOT_CALLED: Final[Any] = object()


class State(enum.Enum):
    """Where a process is in its life: each of these at most once, in this order."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    EXITED = "exited"


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

    def kill_by_hand(self, process: Process, reason: str | None, /) -> None:
        """Kill a process because a user said so."""
        ...


class Process(StoppableNode):
    """A runner that was started: a handle, never an OS process.

    Safe to use at any time, also after the end; from another thread through `trio.from_thread`.
    """

    __slots__ = (
        "_changed",
        "_deadline",
        "_error",
        "_exit",
        "_failure",
        "_host",
        "_inner",
        "_killed",
        "_over",
        "_said_ready",
        "_satisfied",
        "_scope",
        "_signals",
        "_task",
        "ended_at",
        "member",
        "ready_at",
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
        self._deadline = math.inf
        self._error: BaseException | None = None
        self._failure: Exception | None = None
        self._task: Task | None = None
        self._inner: Host | None = None
        self._changed: trio.Event | None = None
        self._exit: Exit | None = None
        self.member: Member = member
        self.state: State = State.WAITING
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
        """How the process ended; None while it runs."""
        if self._exit is None and self.ended_at is not None:
            self._exit = Exit(
                path=self.path,
                error=self._error,
                was_ready=self.ready_at is not None,
                killed=self._killed,
                started_at=self.ended_at if self.started_at is None else self.started_at,
                ended_at=self.ended_at,
            )
        return self._exit

    @property
    def children(self) -> tuple[Process, ...]:
        """The processes of a group's members, in start order, those still waiting included; () for what is no group."""
        return () if self._inner is None else tuple(self._inner.children)

    @trio.lowlevel.enable_ki_protection
    def signal(self, number: int) -> None:
        """Send a signal to the runner; SIGKILL kills it. Never blocks; to an exited process it is dropped.

        Raises: TypeError, ValueError for what is no signal number.
        """
        number = signal_number(number)
        if number == KILL:
            self.kill("SIGKILL")
        elif not self._over:
            self._signals.send(number)

    @trio.lowlevel.enable_ki_protection
    def kill(self, reason: str | None = None) -> None:
        """Cancel the runner, at once and without a signal. Returns at once; `wait()` tells when it has ended.

        Unless it was being stopped anyway, the process has then failed with `MemberKilled`, which has the reason in its text.
        """
        self._host.kill_by_hand(self, reason)

    async def wait(self) -> Exit:
        """Wait until the process has ended, and return how. Any number of tasks may wait, before and after the end.

        A cancellation of the wait does nothing to the process.
        """
        await self._change_to(lambda: self.ended_at is not None)
        assert self.exit is not None
        return self.exit

    async def wait_ready(self) -> Any:
        """Wait until the process is ready, and return its `value`.

        A cancellation of the wait does nothing to the process. Raises: ExitedBeforeReady, from the process's error if it has one,
        if it ends first.
        """
        await self._settled()
        if self.ready_at is None:
            raise ExitedBeforeReady(f"{self.title} ended before it was ready") from self._error
        return self.value

    def events(self) -> EventStream[Process, Event]:
        """A stream of what happens to the members beneath this group: `async with process.events() as stream`.

        It begins with the last of the events that the outermost group keeps (`event_buffer`), and ends when this process has.
        """
        return EventStream(
            self._host.ring,
            lambda entry: build(entry) if self._is_above(entry[2]) else None,
            lambda: self.ended_at is not None,
        )

    @property
    def title(self) -> str:
        """What messages call it: `member 'web/api'`, or the root."""
        path = self.path
        return f"member {path!r}" if path else "the root"

    def _is_above(self, process: Process) -> bool:
        owner = process._host.owner
        while owner is not None and owner is not self:
            owner = owner._host.owner
        return owner is self

    async def _settled(self) -> None:
        """Wait until the process is ready or has ended."""
        await self._change_to(lambda: self.ready_at is not None or self.ended_at is not None)

    async def _change_to(self, done: Callable[[], bool]) -> None:
        if done():
            await trio.lowlevel.checkpoint()
        while not done():
            if self._changed is None:
                self._changed = trio.Event()
            await self._changed.wait()

    def _tell_waiters(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    @trio.lowlevel.enable_ki_protection
    def started(self, value: object = None) -> None:
        """Be ready: this makes the process its own `task_status`. A job is ready when it has returned; its value is kept.

        After the end it does nothing. Raises: RuntimeError if it was called before.
        """
        if self._said_ready:
            raise RuntimeError(f"{self.title} called task_status.started() a second time: a runner is ready once")
        if self._over:  # called late, by whom the runner gave its task status; the report on its way is of the end
            return
        self.value = value
        if self.member.role is not Role.JOB:
            self._host.post(self)
        self._said_ready = True

    @trio.lowlevel.enable_ki_protection
    async def _live(self) -> None:
        """Run the runner in this task, and report its end. Raises nothing: what the runner raised becomes the exit."""
        self._task = trio.lowlevel.current_task()
        awaitable: Awaitable[object] = _NOT_CALLED
        try:
            if not self._killed:
                with self._scope:
                    # Caught inside the scope, an exception group is not searched for Cancelled, which is recursive in its depth.
                    try:
                        awaitable = entry_point(self.member._runs)(self._signals, task_status=self)
                        await unprotected(awaitable)
                    except Exception as error:
                        self._error = self._explained(error, awaitable)
        except BaseException as error:
            self._error = error
            if isinstance(awaitable, CoroutineType):
                awaitable.close()  # Ctrl-C can come before its first line
        self._over = True
        self._task = None
        self._host.post(self)

    def _explained(self, error: Exception, awaitable: object) -> Exception:
        if not isinstance(error, TypeError) or awaitable is _NOT_CALLED or inspect.isawaitable(awaitable):
            return error
        return TypeError(f"{self.title}: its runner returned {awaitable!r}, which is not awaitable: make it `async def`")

    def _where(self) -> str:
        """The stack of the process's task and of the tasks in its nurseries, to tell where it sits."""
        lines: list[str] = []
        todo = [self._task] if self._task is not None else []
        while todo:
            task = todo.pop()
            lines.append(f"task {task.name}:\n")
            lines.extend(traceback.StackSummary.extract(task.iter_await_frames(), capture_locals=False).format())
            todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        return "".join(lines).rstrip()


@trio.lowlevel.disable_ki_protection
async def unprotected(awaitable: Awaitable[T]) -> T:
    """Await what is user code, where a KeyboardInterrupt may be raised."""
    return await awaitable
