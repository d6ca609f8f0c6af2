"""The four groups whose members are fixed: the four shapes of one graph."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import attrs
import trio

from ..graph import Edges
from ..member import Member, Role, as_members, require_seconds
from ..process import Process
from ..restart import Account, Restart, RestartType, Strategy
from ..signals import KILL, STOP_SIGNALS, TERMINATE, Signals, signal_name, signal_number
from .engine import Engine

__all__ = ["Graph", "Ordered", "Parallel", "QueueOrdered"]


def require_policy(group: object, termination_signal: int | None, cancel_grace: float, event_buffer: int) -> None:
    """Check what all groups take. Raises: TypeError or ValueError that names the group and the fix."""
    who = type(group).__name__
    known = termination_signal is None or (isinstance(termination_signal, int) and termination_signal in STOP_SIGNALS)
    if not known:
        given = signal_name(termination_signal) if isinstance(termination_signal, int) else repr(termination_signal)
        raise ValueError(
            f"{who}: termination_signal={given} does not stop a member: use SIGTERM, SIGINT or SIGQUIT, "
            "or None to let the others go on when one has exited"
        )
    require_seconds(cancel_grace, f"{who}: cancel_grace")
    if isinstance(event_buffer, bool) or not isinstance(event_buffer, int) or event_buffer < 0:
        raise ValueError(f"{who}: event_buffer={event_buffer!r} is not a number of events, 0 or more")


def require_drain(group: object, drain_signal: int | None, drain_within: float) -> None:
    """Check what a group takes for its drain. Raises: TypeError or ValueError that names the group and the fix."""
    who = type(group).__name__
    if drain_signal is not None and signal_number(drain_signal) in STOP_SIGNALS | {KILL}:
        raise ValueError(
            f"{who}: drain_signal={signal_name(drain_signal)} would stop the members: use one that they take for "
            "'no new work', such as SIGUSR1"
        )
    require_seconds(drain_within, f"{who}: drain_within")


COUNTING: Final = ("backoff", "limit", "period", "reset_after")
"""What a policy has that says how soon and how often."""


@attrs.frozen(eq=False)
class StaticGroup:
    """The base of the groups whose members are fixed. A description: it can be run any number of times, also at once.

    `strategy` says what is restarted with a member that has a `restart` policy and fails. Under ONE the member's own policy counts
    its restarts; under ALL and REST the group does, by its `restart` (by default `Restart()`), and the members' say only after
    which exits. A member without a policy is restarted with its siblings; a TEMPORARY one is not.

    With a `drain_signal`, all members are sent that first when the group is to stop, in stop order, and have up to `drain_within`
    seconds to finish what they have; those that end meanwhile have stopped. A further stop signal ends that phase, a kill has none.
    """

    members: tuple[Member, ...] = attrs.field(converter=as_members, repr=lambda members: f"<{len(members)} members>")
    termination_signal: int | None = attrs.field(default=TERMINATE, kw_only=True)
    cancel_grace: float = attrs.field(default=0.0, kw_only=True)
    event_buffer: int = attrs.field(default=64, kw_only=True)
    strategy: Strategy = attrs.field(default=Strategy.ONE, kw_only=True)
    restart: Restart | None = attrs.field(default=None, kw_only=True)
    drain_signal: int | None = attrs.field(default=None, kw_only=True)
    drain_within: float = attrs.field(default=10.0, kw_only=True)
    _edges: Edges = attrs.field(init=False, repr=False)

    grace: ClassVar[float] = math.inf
    """As a member: the graces of its own members bound its stop."""

    def __attrs_post_init__(self) -> None:
        require_policy(self, self.termination_signal, self.cancel_grace, self.event_buffer)
        require_drain(self, self.drain_signal, self.drain_within)
        self._require_strategy()
        object.__setattr__(self, "_edges", self._shape())

    def _require_strategy(self) -> None:
        """Raises: TypeError or ValueError for a strategy, or a limit, that would mean nothing."""
        who = type(self).__name__
        if not isinstance(self.strategy, Strategy):
            raise TypeError(f"{who}: strategy={self.strategy!r} is not one of Strategy.ONE, Strategy.ALL, Strategy.REST")
        if self.restart is not None and not isinstance(self.restart, Restart):
            raise TypeError(f"{who}: restart={self.restart!r} is not a policy: restart=Restart(limit=3, period=5) is one")
        if self.strategy is Strategy.ONE:
            if self.restart is not None:
                raise ValueError(
                    f"{who}: its restart means nothing under Strategy.ONE: give it to the members, "
                    "or choose Strategy.ALL or REST, where the group counts the restarts"
                )
            return
        if self.restart is not None:
            self._require_limit_only(self.restart)
        policies = {member.name: member.restart for member in self.members if member.restart is not None}
        if not any(policy.type is not RestartType.TEMPORARY for policy in policies.values()):
            raise ValueError(
                f"{who}: strategy={self.strategy} means nothing where no member restarts: give the members that may fail "
                "restart=Restart()"
            )
        for name, policy in policies.items():
            own = [each for each in COUNTING if getattr(policy, each) != getattr(Restart(), each)]
            if own:
                raise ValueError(
                    f"member {name!r}: its restart has {' and '.join(own)} of its own, but under {self.strategy} the group counts: "
                    f"give that to the group, {who}(..., restart=Restart(limit=3))"
                )

    def _require_limit_only(self, policy: Restart) -> None:
        """Raises: ValueError for what says after which exits, which the members' policies do."""
        for each in ("type", "on", "start_errors"):
            if getattr(policy, each) != getattr(Restart(), each):
                raise ValueError(
                    f"{type(self).__name__}: {each} in its restart means nothing: the members' policies say after which exits, "
                    f"give it to them: Member(..., restart=Restart({each}=...))"
                )

    def _shape(self) -> Edges:
        raise NotImplementedError

    def _names(self) -> list[str]:
        """The members' names, where no member may be `after` another."""
        for member in self.members:
            if member.after:
                kind = type(self).__name__
                raise ValueError(f"member {member.name!r} is after {member.after}, but {kind} has an order of its own: use a Graph")
        return [member.name for member in self.members]

    @property
    def role(self) -> Role | None:
        """JOB for a group of jobs alone, which ends when they have; so it is a job itself where it is a member."""
        return Role.JOB if self.members and all(member.role is Role.JOB for member in self.members) else None

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run the members until the group ends.

        A cancellation kills them in stop order and waits for each. Raises: ErrorTrace with the failures of its members;
        ExitedBeforeReady if a clean exit ended the group before it was ready.
        """
        engine = Engine(
            signals,
            task_status,
            termination_signal=self.termination_signal,
            cancel_grace=self.cancel_grace,
            event_buffer=self.event_buffer,
            drain_signal=self.drain_signal,
            drain_within=self.drain_within,
        )
        engine.edges = self._edges
        if self.strategy is not Strategy.ONE:
            engine.strategy = self.strategy
            engine.account = Account(self.restart or Restart())
        processes = [Process(member, engine) for member in self.members]
        self._edges.link(processes)
        await engine.run(processes)


@attrs.frozen(eq=False)
class Ordered(StaticGroup):
    """Members that start one after the other, each when the one before is ready, and stop in reverse, one by one."""

    def _shape(self) -> Edges:
        return Edges.chain(self._names())


@attrs.frozen(eq=False)
class QueueOrdered(StaticGroup):
    """Members that start one after the other, each when the one before is ready, and stop in the same order, one by one."""

    def _shape(self) -> Edges:
        return Edges.chain(self._names(), forwards=True)


@attrs.frozen(eq=False)
class Parallel(StaticGroup):
    """Members that start together and stop together."""

    def _shape(self) -> Edges:
        return Edges.none(self._names())


@attrs.frozen(eq=False)
class Graph(StaticGroup):
    """Members that start when all that they are `after` are satisfied, and stop when all that are after them have exited."""

    def _shape(self) -> Edges:
        return Edges.named((member.name, member.after) for member in self.members)
