"""Whether a runner keeps the contract that groups rely on.

Each point is tried with runs of its own, and after each end that is no ordinary stop a fresh runner is run, to see whether the one
before has given back what it held.
"""

from __future__ import annotations

import inspect
import logging
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs

from ..member import GRACE, require_seconds
from ..runner import RunnerLike, require_runner
from ..signals import signal_name
from .trial import Trial, on_trial

__all__ = ["ContractBroken", "Violation", "check_runner"]

logger: logging.Logger = logging.getLogger("grouper")

FIX: Final = {
    "setup": "call `task_status.started()` as soon as the work can be done, and wait for the end after that",
    "once": "call `task_status.started()` in one place, outside of loops",
    "stop": "read the signals (`async for number in signals`, or the work in `with signals.cancelling():`), clean up and return",
    "pending": "do not wait for signals to come only: `async for` gives first what is pending, and so does `signals.cancelling()`",
    "kill": "let trio.Cancelled go on (`finally`, or `except Exception`, which does not catch it), and give a shield a deadline",
    "again": "give back in `finally` or `async with` what a run takes, so also when it is cancelled; keep its state local to `run`",
    "tasks": "start tasks in a nursery of the runner's own, which it closes",
}
"""What to do about a violation of each point of the contract; the names are those of `Violation.point`."""

LINGER: Final = 0.1
"""Seconds, at most, for which a runner may go on before what is done to it; it ends as soon as all tasks wait."""


@attrs.frozen
class Violation:
    """What a runner did against one point of the contract: setup, once, stop, pending, kill, again or tasks."""

    point: str
    text: str

    @property
    def fix(self) -> str:
        """What to change."""
        return FIX[self.point]


class ContractBroken(AssertionError):  # noqa: N818 (what happened, as GroupClosed)
    """A runner broke the contract; `violations` has how, each once. Its cause is the first exception that the runner raised."""

    def __init__(self, runner: str, violations: tuple[Violation, ...]) -> None:
        self.violations = violations
        lines = [f"{runner} breaks the contract of runners:"]
        lines += [f"- {each.point}: it {each.text}\n  to fix: {each.fix}" for each in violations]
        super().__init__("\n".join(lines))


async def check_runner(make_runner: Callable[[], RunnerLike], *, setup_within: float = 5.0, grace: float = GRACE) -> None:
    """Run fresh runners from `make_runner`, about ten, and see whether they keep the contract of runners.

    It is: to set up within `setup_within` seconds and call `started()` once; to return within `grace` seconds of a SIGTERM or
    SIGINT, also of one that was pending before the runner's first step; to end in that time, without an error, when it is killed,
    that is, cancelled, before it is ready or after; that the same runner can be run again, and a fresh one after any end; and to
    leave no tasks behind. Seconds are those of trio's clock.

    A cancellation kills the runner of the moment. A runner that ignores its kill is ended by force, and the check with it. Raises:
    ContractBroken, an AssertionError, with all violations that were seen; TypeError if `make_runner` is not a function that gives a
    runner.
    """
    require_factory(make_runner)
    require_seconds(setup_within, "check_runner: setup_within")
    require_seconds(grace, "check_runner: grace")
    check = Check(make_runner, setup_within, grace)
    await check.all()
    if check.violations:
        raise ContractBroken(repr(check.runner), tuple(check.violations)) from check.cause


def require_factory(make_runner: Callable[[], object]) -> None:
    """Raises: TypeError for what cannot be called without arguments, such as a runner."""
    try:
        inspect.signature(make_runner).bind()
    except ValueError:  # built in C, with no signature to look at
        return
    except TypeError:
        raise TypeError(
            f"check_runner takes a function that makes a fresh runner, such as `lambda: runner`, and not {make_runner!r}"
        ) from None


@attrs.define(eq=False)
class Check:
    """One check, and what it has found so far."""

    make_runner: Callable[[], RunnerLike]
    setup_within: float
    grace: float
    runner: RunnerLike | None = None
    violations: dict[Violation, None] = attrs.field(factory=dict["Violation", None])
    cause: Exception | None = None
    deaf_to: set[int] = attrs.field(factory=set[int])
    forced: bool = False

    async def all(self) -> None:
        """Try each point, while there is a runner that can be set up and be got rid of."""
        if not await self.stopped(signal.SIGTERM, self.fresh(), ""):
            return
        if not await self.stopped(signal.SIGINT, self.runner, "when run again after a stop, "):
            return
        for end, how in (
            (self.pending, "one that was stopped before its first step"),
            (self.killed_at_once, "one that was killed before its first checkpoint"),
            (self.killed_early, "one that was killed while it started"),
            (self.killed, "one that was killed when it was ready"),
        ):
            await end()
            if self.forced or not await self.stopped(signal.SIGTERM, self.fresh(), f"as a fresh one after {how}, "):
                return

    def fresh(self) -> RunnerLike:
        """Make a runner."""
        self.runner = self.make_runner()
        require_runner(self.runner, "check_runner: what was made")
        return self.runner

    def broken(self, point: str, text: str, error: Exception | None = None) -> None:
        """Note a violation."""
        self.violations[Violation(point, text)] = None
        self.cause = self.cause or error

    # The runs

    async def stopped(self, number: int, runner: RunnerLike | None, when: str) -> bool:
        """Set up and stop; tells whether to go on. `when` is said where it could not be set up, and is "" for the first run."""
        assert runner is not None
        async with self.trial(runner) as trial:
            set_up = await self.sets_up(trial, when)
            if set_up and number not in self.deaf_to:  # what is known need not be waited for again
                trial.signals.send(number)
                if not await self.ends(trial, "stop", f"after {signal_name(number)}", self.grace):
                    self.deaf_to.add(number)
        return set_up and not self.forced

    async def pending(self) -> None:
        """Send a stop signal before the first step."""
        if signal.SIGTERM not in self.deaf_to:
            async with self.trial(self.fresh(), signal.SIGTERM) as trial:
                await self.ends(trial, "pending", "after a SIGTERM sent before it ran", self.setup_within + self.grace)

    async def killed_at_once(self) -> None:
        """Kill before the first checkpoint."""
        async with self.trial(self.fresh(), killed=True) as trial:
            await self.ends(trial, "kill", "after it was killed before its first checkpoint", self.grace)

    async def killed_early(self) -> None:
        """Kill where the setup waits first, if it does."""
        async with self.trial(self.fresh()) as trial:
            await trial.linger(LINGER)
            trial.scope.cancel("killed while it started")
            await self.ends(trial, "kill", "after it was killed while it started", self.grace)

    async def killed(self) -> None:
        """Kill when ready and at rest."""
        async with self.trial(self.fresh()) as trial:
            await trial.within(self.setup_within, trial.settled)
            await trial.linger(LINGER)
            trial.scope.cancel("killed when it was ready")
            await self.ends(trial, "kill", "after it was killed when it was ready", self.grace)

    # What is looked at

    @asynccontextmanager
    async def trial(self, runner: RunnerLike, *pending: int, killed: bool = False) -> AsyncGenerator[Trial]:
        """Run a runner; in the end kill it, if it still runs, and look at what holds for every run."""
        async with on_trial(runner, *pending, killed=killed) as run:
            yield run
            if not run.ended.is_set() and not run.scope.cancel_called:
                run.scope.cancel("its trial is over")
                await self.ends(run, "kill", "after it was killed, as it had not stopped", self.grace)
            if run.calls > 1:
                self.broken("once", f"called `task_status.started()` {run.calls} times")
            if not run.ended.is_set():
                self.forced = True
                run.force()
                if not await run.within(self.grace, run.ended):
                    logger.error("%r cannot be ended; it sits at %s", runner, run.where())
                    await run.ended.wait()
            elif not await run.within(self.grace, run.all_gone):
                names = ", ".join(sorted({task.name for task in run.tasks}))
                self.broken("tasks", f"left tasks behind, which still ran {self.grace:g} s after its end: {names}")

    async def sets_up(self, trial: Trial, when: str) -> bool:
        """Wait until it is ready and at rest; tells whether it is."""
        point = "again" if when else "setup"
        if not await trial.within(self.setup_within, trial.settled):
            self.broken(point, f"{when}was not ready within {self.setup_within:g} s; it sat at {trial.where()}")
            return False
        await trial.linger(LINGER)
        if not trial.calls:
            did = "returned" if trial.error is None else f"raised {trial.error!r}"
            self.broken(point, f"{when}{did} before it was ready", trial.error)
        elif trial.error is not None and trial.calls == 1:
            self.broken(point, f"{when}raised {trial.error!r} when it was ready, although nobody had stopped it", trial.error)
        else:
            return True
        return False

    async def ends(self, trial: Trial, point: str, when: str, seconds: float) -> bool:
        """Wait for the end of a run that was told to end, and look at its error; tells whether it ended."""
        if not await trial.within(seconds, trial.ended):
            self.broken(point, f"still ran {seconds:g} s {when}; it sat at {trial.where()}")
            return False
        if trial.error is not None and trial.calls < 2:
            self.broken(point, f"raised {trial.error!r} {when}", trial.error)
        return True
