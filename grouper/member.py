"""A named runner with the policy that a group keeps for it."""

from __future__ import annotations

import enum
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias, cast

import attrs
import trio

from .backoff import Backoff
from .errors import NotReady
from .restart import Restart, RestartType, restarter
from .runner import RunnerLike, entry_point, require_runner, said
from .signals import Signals

__all__ = ["GRACE", "Member", "Members", "Role"]

logger: logging.Logger = logging.getLogger("grouper")

GRACE: Final = 10.0
"""Seconds between a member's stop signal and its kill, where neither the member nor its runner says otherwise."""


Around: TypeAlias = AbstractAsyncContextManager[object] | Callable[[], AbstractAsyncContextManager[object]]
"""What a member's `around` is."""


class Role(enum.Enum):
    """What a member's own exit does to its group; `engine.py` holds the table.

    SERVICE: it should run until it is stopped; any exit stops the group, a failure is raised in its trace.
    JOB: ready when it has returned; the group goes on. A failure stops the group and is raised.
    OPTIONAL: the group goes on in either case; a failure is told, not raised.
    """

    SERVICE = "service"
    JOB = "job"
    OPTIONAL = "optional"


def _names(after: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(after)) if isinstance(after, Iterable) and not isinstance(after, str) else (after,)


@attrs.frozen(eq=False)
class Member:
    """A runner with a name that is unique in its group.

    `after` names the members that must be satisfied first (in a `Graph`). `grace` is the seconds between stop signal and kill; None
    takes the runner's own `grace` if it has one (a group's is infinite: its members' graces bound it), else 10. A member that is
    not ready `ready_within` seconds after its start is killed with `ReadyTimeout`. A member is itself a runner.

    `ready_when` is an async function that returns when the member is ready: it then is, whatever the runner says, of whose
    `started(value)` the value is kept. Where it raises NotReady or returns False it is called again after a while (50 ms at first,
    then longer, up to a second); what else it raises is the member's failure, and the runner is cancelled. `grouper.readiness` has
    such checks.

    `restart` says after which of its exits the member is started again, how soon and how often; it comes before the `role`, which
    holds for the exits that it lets pass. The member's process stays the same.

    `around` is an async context manager, or a function that returns one, in which the runner runs: it is held from the member's
    first start to its last exit, across restarts, and is part of that exit, so those that the member is after are stopped later;
    an end by hand is a last exit. `ready_when` is asked inside of it.
    What entering it raises is the member's failure; a stop signal cancels the entering, and the runner is not called. It is given
    the runner's exception, and makes a clean exit of it by returning true. For a manager that can be entered only once, as one that
    `@asynccontextmanager` makes, give the function: the member may run again.

    A group made of jobs alone ends when they have, so as a member it is itself a JOB: `role` says so, also where SERVICE was given.

    Raises: TypeError or ValueError, naming the member and the fix.
    """

    name: str
    runner: RunnerLike = attrs.field(repr=False)
    after: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_names)
    role: Role = attrs.field(default=Role.SERVICE, kw_only=True)
    grace: float | None = attrs.field(default=None, kw_only=True)
    ready_within: float = attrs.field(default=math.inf, kw_only=True)
    restart: Restart | None = attrs.field(default=None, kw_only=True)
    ready_when: Callable[[], Awaitable[object]] | None = attrs.field(default=None, kw_only=True, repr=False)
    around: Around | None = attrs.field(default=None, kw_only=True, repr=False)
    _grace: float = attrs.field(init=False, repr=False)
    _runs: RunnerLike = attrs.field(init=False, repr=False)
    _lives: bool = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"a member's name is a string, not {self.name!r}")
        if not self.name or "/" in self.name:
            raise ValueError(f'member {self.name!r}: a name has at least one character and no "/", which separates names in a path')
        who = f"member {self.name!r}"
        require_runner(self.runner, who)
        if not isinstance(self.role, Role):
            raise TypeError(f"{who}: role={self.role!r} is not one of Role.SERVICE, Role.JOB, Role.OPTIONAL")
        for before in self.after:
            if not isinstance(before, str):
                raise TypeError(f"{who}: after={self.after!r} has something that is not the name of a member")
        if self.grace is not None:
            require_seconds(self.grace, f"{who}: grace")
            grace = self.grace
        else:
            grace = said(self.runner, "grace")
            if grace is None:
                grace = GRACE
            require_seconds(grace, f"{who}: its runner's attribute `grace`")
        object.__setattr__(self, "_grace", grace)
        require_seconds(self.ready_within, f"{who}: ready_within")
        if self.ready_within == 0:
            raise ValueError(f"{who}: ready_within=0 gives it no time to become ready: use a positive number or math.inf")
        if self.role is Role.SERVICE and said(self.runner, "role") is Role.JOB:
            object.__setattr__(self, "role", Role.JOB)
        if self.restart is not None:
            if not isinstance(self.restart, Restart):
                raise TypeError(f"{who}: restart={self.restart!r} is not a policy: restart=Restart(RestartType.PERMANENT) is one")
            if self.role is Role.JOB and self.restart.type is RestartType.PERMANENT:
                raise ValueError(
                    f"{who}: a JOB that is restarted after each exit never ends: use restart=Restart(RestartType.TRANSIENT)"
                )
        object.__setattr__(self, "_lives", self.restart is not None or self.around is not None)
        object.__setattr__(self, "_runs", self.runner)
        if self.ready_when is not None:
            if not callable(self.ready_when):
                raise TypeError(
                    f"{who}: ready_when={self.ready_when!r} is not callable: give the function itself, without the call"
                )
            if self.role is Role.JOB:
                raise ValueError(f"{who}: ready_when has no meaning for a job, which is ready when it has returned")
            object.__setattr__(self, "_runs", Checked(self.runner, self.ready_when, who))
        if self.around is not None and not _is_manager(self.around) and not callable(self.around):
            raise TypeError(
                f"{who}: around={self.around!r} is neither an async context manager, which has __aenter__ and __aexit__, "
                "nor a function that returns one"
            )

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> object:
        """Run the member's runner, by its `ready_when`, `restart` and `around`."""
        who = f"member {self.name!r}"
        runner = self._runs
        if self.restart is not None:
            start_errors = self.restart.start_errors or self.role is Role.JOB
            runner = restarter(runner, self.restart, who, start_errors=start_errors)
        if self.around is not None:
            runner = Held(runner, self.around, who)
        return await entry_point(runner)(signals, task_status=task_status)


ASKED_AGAIN: Final = Backoff(0.05, cap=1.0, jitter=0.0)
"""When a member's `ready_when` is asked again that has said "not yet"."""


class Noted:
    """A task status that keeps what a runner says, where something else says that it is ready."""

    def __init__(self, who: str) -> None:
        self.who: str = who
        self.said: bool = False
        self.value: Any = None

    def started(self, value: object = None) -> None:
        """Keep the value. Raises: RuntimeError if it was called before."""
        if self.said:
            raise RuntimeError(f"{self.who} called task_status.started() a second time: a runner is ready once")
        self.said = True
        self.value = value


@attrs.frozen(eq=False)
class Checked:
    """Run a runner that is ready when a check says so."""

    runner: RunnerLike
    check: Callable[[], Awaitable[object]]
    who: str

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run the runner, and the check beside it until it has passed. Raises: what either raises."""
        noted = Noted(self.who)
        errors: list[BaseException] = []
        running = trio.CancelScope()

        async def check() -> None:
            try:
                await self._passed()
            except trio.Cancelled:
                raise
            except BaseException as error:
                errors.append(error)
                running.cancel("its ready_when has failed")
            else:
                task_status.started(noted.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(check)
            try:
                with running:
                    await entry_point(self.runner)(signals, task_status=noted)
            except BaseException as error:
                errors.append(error)
            nursery.cancel_scope.shield = True  # so that a Cancelled in the check is this nursery's own, and wraps nothing
            nursery.cancel_scope.cancel("the runner has exited")
        if len(errors) > 1:
            raise BaseExceptionGroup(f"{self.who} and its ready_when failed", errors)
        if errors:
            raise errors[0]

    async def _passed(self) -> None:
        tries = 0
        while True:
            tries += 1
            try:
                if await self.check() is not False:
                    return
            except NotReady as error:
                logger.debug("%s is not ready yet: %s", self.who, error)
            await trio.sleep(ASKED_AGAIN.delay(tries))


def _is_manager(given: object) -> bool:
    return hasattr(type(given), "__aenter__") and hasattr(type(given), "__aexit__")


@attrs.frozen(eq=False)
class Held:
    """Run a runner inside a context manager."""

    runner: RunnerLike
    around: Around
    who: str

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> object:
        """Enter the manager, unless told to stop; then run the runner. Raises: what either raises."""
        if signals.received is not None:
            return None
        # One scope for all: a scope that began before the manager's own and ended before them would break trio's nesting.
        with signals.cancelling() as entering:
            async with self._manager():
                if signals.received is None:
                    signals._scopes = [scope for scope in signals._scopes or () if scope is not entering]  # it is entered
                    return await entry_point(self.runner)(signals, task_status=task_status)
        return None

    def _manager(self) -> AbstractAsyncContextManager[object]:
        manager = self.around if _is_manager(self.around) else cast("Callable[[], object]", self.around)()
        if not _is_manager(manager):
            if inspect.iscoroutine(manager):
                manager.close()
            raise TypeError(
                f"{self.who}: its `around` returned {manager!r}, which is no async context manager: decorate an `async def` that "
                "yields once with contextlib.asynccontextmanager"
            )
        return cast("AbstractAsyncContextManager[object]", manager)


Given: TypeAlias = Member | tuple[str, RunnerLike] | None
Members: TypeAlias = Sequence[Given] | Iterator[Given] | Mapping[str, RunnerLike | None]
"""Members as a group takes them; None is skipped, so that a member can be conditional.

Not `Iterable`: a dict is one too, and a type checker could not tell which of the two a literal is meant to be.
"""


def grace_of(member: Member) -> float:
    """The seconds between stop signal and kill that hold for the member."""
    return member._grace


def require_seconds(seconds: float, what: str) -> None:
    """Raises: TypeError or ValueError if `seconds` is not a number of seconds, 0 or more."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what}={seconds!r} is not a number of seconds")
    if not seconds >= 0:
        raise ValueError(f"{what}={seconds!r} is not 0 or more seconds (math.inf is allowed)")


def as_members(given: Members) -> tuple[Member, ...]:
    """Make members of what a group was given. Raises: TypeError that says what was wrong and how members are given."""
    if isinstance(given, Member | str) or not isinstance(given, Iterable):
        raise TypeError(f"members are a list or a mapping, not {given!r}: write [{given!r}] for a single one")
    if not isinstance(given, Mapping):
        return tuple([as_member(each) for each in given if each is not None])
    return tuple([as_member((name, runner)) for name, runner in given.items() if runner is not None])


def as_member(given: Member | tuple[str, RunnerLike]) -> Member:
    """Make a member of a pair; a member in a pair gets the pair's name."""
    if isinstance(given, Member):
        return given
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(
            f"{given!r} is not a member: give Member(name, runner), a pair (name, runner) or a mapping of names to runners"
        )
    name, runner = given
    return attrs.evolve(runner, name=name) if isinstance(runner, Member) else Member(name, runner)
