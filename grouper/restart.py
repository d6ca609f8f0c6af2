"""Starting again what has exited: policies as data, the account of restarts, and runners that are run again.

There is one loop in which something is run again and again (`lives`), and one place where it is said whether and when (`Account`,
which reads the table `RESTARTS`). A member's life in a group and `Restarter` differ only in whom they ask.

The account keeps the last `limit` times at which something was started again, no more: only they tell whether one more would be too
many (OTP keeps all that are in the window, so that each restart costs as much as there were before it).

`trio.lowlevel` is used for a checkpoint in each turn, without which a runner that fails at once could not be cancelled.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

import attrs
import trio

from .backoff import Backoff, Classes, as_classes
from .errors import DoNotRestart, RestartLimitExceeded, TerminateTree, contains
from .runner import RunnerLike, entry_point, require_runner
from .signals import Signals

__all__ = ["Account", "Ending", "Load", "Restart", "RestartType", "Restarter", "Strategy", "restart_on"]


class RestartType(enum.Enum):
    """After which of its exits a member is started again; `RESTARTS` is the table.

    PERMANENT: after each. TRANSIENT: after a failure. TEMPORARY: never, and it does not come back with its siblings either.
    """

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(enum.Enum):
    """What is started again with a member that is.

    ONE: that member alone. ALL: all that are up. REST: it and what depends on it, transitively. The affected are stopped in stop
    order and started in start order; what had finished or was stopped by hand stays as it is.
    """

    ONE = "one"
    ALL = "all"
    REST = "rest"


class Ending(enum.Enum):
    """The kinds of exit that a restart policy tells apart.

    REFUSED is a failure after which nothing may be restarted: `DoNotRestart`, `TerminateTree`, or none of those in `on`.
    """

    CLEAN = "clean"
    FAILURE = "failure"
    REFUSED = "refused"
    SIBLING = "stopped because a sibling is restarted"
    BY_HAND = "stopped by hand"


RESTARTS: Final = {
    (RestartType.PERMANENT, Ending.CLEAN): True,
    (RestartType.PERMANENT, Ending.FAILURE): True,
    (RestartType.PERMANENT, Ending.REFUSED): False,
    (RestartType.PERMANENT, Ending.SIBLING): True,
    (RestartType.PERMANENT, Ending.BY_HAND): False,
    (RestartType.TRANSIENT, Ending.CLEAN): False,
    (RestartType.TRANSIENT, Ending.FAILURE): True,
    (RestartType.TRANSIENT, Ending.REFUSED): False,
    (RestartType.TRANSIENT, Ending.SIBLING): True,
    (RestartType.TRANSIENT, Ending.BY_HAND): False,
    (RestartType.TEMPORARY, Ending.CLEAN): False,
    (RestartType.TEMPORARY, Ending.FAILURE): False,
    (RestartType.TEMPORARY, Ending.REFUSED): False,
    (RestartType.TEMPORARY, Ending.SIBLING): False,
    (RestartType.TEMPORARY, Ending.BY_HAND): False,
}
"""Whether a member of that type is started again after such an exit."""

PAUSE: Final = Backoff(0.1, cap=30.0)


@attrs.frozen
class Restart:
    """When a member is started again, how soon, and when that is given up.

    `type` says after which exits, `on` which exceptions count as failures that a restart may mend (a group counts if any in it
    does; one that gave up is a `RestartLimitExceeded`, whatever its cause). The delay before each restart is `backoff`'s, by
    default 0.1 s, doubling up to 30 s, each shorter at random by up to half; after `reset_after` seconds of being ready it begins
    anew. Where one more restart would be more than `limit` within any `period` seconds, the edge included, the member fails with
    `RestartLimitExceeded`; `limit=0` allows none, `limit=math.inf` any number.

    A member that fails before it was ever ready is not restarted: that is a failed start, which a retry would hide. With
    `start_errors=True` it is; a JOB, which is ready only when it has returned, always.

    Given to a group as `restart`, beside `strategy` ALL or REST, it says how soon and how often the group restarts its members.

    Raises: TypeError or ValueError that names the argument and the fix.
    """

    type: RestartType = RestartType.PERMANENT
    backoff: Backoff = attrs.field(default=PAUSE, kw_only=True)
    limit: float = attrs.field(default=5, kw_only=True)
    period: float = attrs.field(default=10.0, kw_only=True)
    reset_after: float = attrs.field(default=10.0, kw_only=True)
    on: Classes = attrs.field(default=(Exception,), kw_only=True, converter=as_classes)
    start_errors: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.type, RestartType):
            raise TypeError(f"Restart: type={self.type!r} is not one of RestartType.PERMANENT, TRANSIENT, TEMPORARY")
        if not isinstance(self.backoff, Backoff):
            raise TypeError(f"Restart: backoff={self.backoff!r} is not a Backoff: Restart(backoff=Backoff(0.5, cap=10))")
        if self.backoff.attempts != math.inf or self.backoff.timeout != math.inf or self.backoff.on != (Exception,):
            raise ValueError(
                "Restart: its backoff has attempts, timeout or on, which are for what is tried until it works: "
                "use the Restart's own limit, period and on"
            )
        for name in ("limit", "period", "reset_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Restart: {name}={value!r} is not a number")
            if not value >= 0:
                raise ValueError(f"Restart: {name}={value!r} is not {'a positive number' if name == 'period' else '0 or more'}")
        if self.limit != math.inf and self.limit != int(self.limit):
            raise ValueError(f"Restart: limit={self.limit!r} is not a whole number of restarts, or math.inf")
        if self.period == 0:
            raise ValueError("Restart: period=0 is no time in which restarts could be counted: use a positive number of seconds")
        if not self.on:
            raise ValueError("Restart: on=() names no failure that a restart may mend: use RestartType.TEMPORARY, or name one")
        for kind in self.on:
            if not inspect.isclass(kind) or not issubclass(kind, Exception):
                raise TypeError(f"Restart: on={self.on!r} has something that is no class of exceptions")

    def ending(self, error: Exception | None) -> Ending:
        """Which kind of exit an error, or None, is if the member ended by itself."""
        if error is None:
            return Ending.CLEAN
        return Ending.FAILURE if not forbids_restart(error) and _is_any(error, self.on) else Ending.REFUSED

    def restarts(self, ending: Ending) -> bool:
        """Whether the member is started again after such an exit, as far as the table goes."""
        return RESTARTS[self.type, ending]


def forbids_restart(error: BaseException | None) -> bool:
    """Whether a runner has said that it, or the tree, is not to be started again."""
    return error is not None and contains(error, (DoNotRestart, TerminateTree))


class Account:
    """The restarts that were made under one policy."""

    __slots__ = ("_stamps", "delay", "policy", "tries", "used")

    def __init__(self, policy: Restart) -> None:
        self.policy: Restart = policy
        self._stamps: deque[float] = deque(maxlen=None if policy.limit > sys.maxsize else int(policy.limit))
        self.tries: int = 0
        self.used: int = 0
        self.delay: float = 0.0

    def grants(self, now: float, healthy: float, pending: int = 0) -> bool:
        """Whether one more restart is allowed after an exit now and `healthy` seconds of being ready; `delay` tells how soon.

        `pending` are those that were granted and are still to be made.
        """
        policy = self.policy
        self.tries = 1 if healthy >= policy.reset_after else self.tries + 1
        self.delay = policy.backoff.delay(self.tries)
        if policy.limit == math.inf:
            return True
        earliest = now + self.delay - policy.period
        stamps = self._stamps
        while stamps and stamps[0] < now - policy.period:
            stamps.popleft()
        old = 0
        for stamp in stamps:
            if stamp >= earliest:
                break
            old += 1
        self.used = len(stamps) - old + pending
        return self.used < policy.limit

    def spend(self, now: float) -> None:
        """Note that a restart is made now."""
        self.used += 1
        if self.policy.limit != math.inf:
            self._stamps.append(now)

    def forget(self) -> None:
        """Begin anew, because somebody restarts it by hand."""
        self._stamps.clear()
        self.tries = self.used = 0

    def exceeded(self, who: str, now: float, error: Exception | None) -> RestartLimitExceeded:
        """The error for who gives up; the last error is its cause, and is told so in a note."""
        number = self.used
        took = now - self._stamps[0] if self._stamps else 0.0
        tried = f"{number} restart{'' if number == 1 else 's'} in {took:.3g} s"
        policy = self.policy
        exceeded = RestartLimitExceeded(
            f"{who} gave up after {tried}: one more would be over the limit of {policy.limit:g} in {policy.period:g} s"
        )
        exceeded.__cause__ = error
        if error is not None:
            with contextlib.suppress(Exception):  # a frozen exception takes no notes
                error.add_note(f"given up after {tried}")
        return exceeded


async def lives(
    runner: RunnerLike,
    live: Callable[[RunnerLike], Awaitable[Exception | None]],
    following: Callable[[RunnerLike, Exception | None], Awaitable[RunnerLike | None]],
) -> Exception | None:
    """Let a runner live, then what follows it, until nothing does; return the last one's error."""
    while True:
        error = await live(runner)
        after = await following(runner, error)
        if after is None:
            return error
        runner = after


Load: TypeAlias = Callable[[RunnerLike, Exception | None], Awaitable[RunnerLike | None]]
"""What is asked after each exit: given the runner and its error (None for a clean exit), it returns what to run next, or None."""


class FirstReady:
    """A task status that passes on the first `started()` of several runs."""

    def __init__(self, outer: trio.TaskStatus[Any]) -> None:
        self._outer = outer
        self._was_ready = False
        self._is_ready = False

    def renew(self) -> None:
        """The next run may call `started()` once."""
        self._is_ready = False

    def started(self, value: object = None) -> None:
        """Be ready. Raises: RuntimeError if the same run was."""
        if self._is_ready:
            raise RuntimeError("a restarted runner called task_status.started() a second time: a runner is ready once")
        self._is_ready = True
        if not self._was_ready:
            self._was_ready = True
            self._outer.started(value)


@attrs.frozen(eq=False)
class Restarter:
    """Run a runner; when it has exited, run what `await load(runner, error)` returns; None ends it with the last error.

    It is ready when the first of its runners is that gets ready. Signals go to the runner of the moment, unread ones to the next.
    No runner is started once a stop signal was received; `load`, which may sleep to back off, is cancelled by it, and the Restarter
    ends with the error that `load` was asked about. A pass-through signal changes nothing. After `DoNotRestart` and `TerminateTree`
    `load` is not asked.

    To its group all of that is one life: no line in the log, no event, no count. `Member(restart=...)` has these.
    """

    runner: RunnerLike
    load: Load

    def __attrs_post_init__(self) -> None:
        require_runner(self.runner, "Restarter")
        if not callable(self.load):
            raise TypeError(
                f"Restarter: load={self.load!r} is no function: use `async def load(runner, error)`, which returns a runner or None"
            )

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run until `load` returns None or a stop signal was received. Raises: the last runner's error."""
        if signals.received is not None:
            return
        status = FirstReady(task_status)

        async def live(runner: RunnerLike) -> Exception | None:
            status.renew()
            with signals._relayed() as inner:
                try:
                    await entry_point(runner)(inner, task_status=status)
                except Exception as error:
                    return error
            return None

        async def following(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
            after: RunnerLike | None = None
            if signals.received is None and not forbids_restart(error):
                with signals.cancelling():
                    await trio.lowlevel.checkpoint()
                    after = await self._load(runner, error)
            if after is None or signals.received is not None:
                return None
            require_runner(after, "Restarter: what load returned")
            return after

        error = await lives(self.runner, live, following)
        if error is not None:
            raise error

    async def _load(self, runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        try:
            return await self.load(runner, error)
        except Exception as failed:
            raise failed from error


def restart_on(runner: RunnerLike, *classes: type[Exception], delay: float = 1.0) -> Restarter:
    """A Restarter that runs the same runner again, `delay` seconds after it failed with one of the classes.

    An exception group counts if any exception in it does, so the trace of a group does. Anything else ends it. Raises: TypeError,
    ValueError for what are no classes of exceptions or no seconds.
    """
    if not classes or not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
        raise TypeError(f"restart_on: {classes!r} are not classes of exceptions: restart_on(runner, OSError) is how it is meant")
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not delay >= 0:
        raise ValueError(f"restart_on: delay={delay!r} is not 0 or more seconds")
    policy = Restart(RestartType.TRANSIENT, on=classes, limit=math.inf)

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        if not policy.restarts(policy.ending(error)):
            return None
        await trio.sleep(delay)
        return runner

    return Restarter(runner, load)


@attrs.define(eq=False)
class Readied:
    """A runner, and since when it is ready."""

    runner: RunnerLike
    ready_at: float | None = None
    was_ready: bool = False
    _status: trio.TaskStatus[Any] | None = None

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> object:
        """Run it."""
        self._status, self.ready_at = task_status, None
        return await entry_point(self.runner)(signals, task_status=self)

    def started(self, value: object = None) -> None:
        """Pass it on. Raises: RuntimeError if it was called before."""
        assert self._status is not None
        self._status.started(value)
        self.ready_at, self.was_ready = trio.current_time(), True


def restarter(runner: RunnerLike, policy: Restart, who: str, *, start_errors: bool) -> Restarter:
    """A Restarter by a policy, for a member that is run by something that is no group."""
    account = Account(policy)
    noted = Readied(runner)

    async def load(_: RunnerLike, error: Exception | None) -> RunnerLike | None:
        now = trio.current_time()
        if not policy.restarts(policy.ending(error)) or not (noted.was_ready or start_errors):
            return None
        if not account.grants(now, 0.0 if noted.ready_at is None else now - noted.ready_at):
            raise account.exceeded(who, now, error)
        await trio.sleep(account.delay)
        account.spend(trio.current_time())
        return noted

    return Restarter(noted, load)


def _is_any(error: Exception, classes: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, classes):
        return True
    if isinstance(error, ExceptionGroup):
        return cast("ExceptionGroup[Exception]", error).subgroup(classes) is not None
    return False
