"""Restarts by a member's own policy: when, how soon, how often."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import grouper
from grouper import (
    Backoff,
    Exit,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartLimitExceeded,
    RestartType,
    Role,
    Signals,
    State,
)


class Flaky:
    """Ready at once; does what the next of its lives says: raise, return, or (None) wait to be told to stop."""

    def __init__(self, *lives: Exception | str | None) -> None:
        self.lives = list(lives)
        self.begun: list[float] = []

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        self.begun.append(trio.current_time())
        life = self.lives.pop(0) if self.lives else None
        task_status.started(len(self.begun))
        if life is None:
            await signals.wait()
        elif isinstance(life, Exception):
            await trio.sleep(0.5)
            raise life


async def test_it_is_started_again(autojump_clock: MockClock) -> None:
    """After its delay, in the same process, until a life lasts."""
    flaky = Flaky(OSError("1"), OSError("2"))
    restart = Restart(backoff=Backoff(1, jitter=0))
    async with grouper.invoke(Ordered([Member("web", flaky, restart=restart)])) as group:
        web = group["web"]
        await trio.sleep(10)
        assert flaky.begun == [0, 1.5, 4]
        assert (web.state, web.restarts, web.value) == (State.READY, 2, 3)
        assert str(web.last_error) == "2"


async def test_a_stop_signal_to_the_member_itself_ends_it(autojump_clock: MockClock) -> None:
    """What was told to stop is not started again, however permanent; the role table says what its exit does."""
    async with grouper.invoke(Ordered([Member("web", Flaky(), restart=Restart())])) as group:
        group["web"].signal(signal.SIGTERM)
        assert (await group.wait()).ok
        assert group["web"].restarts == 0


async def test_a_stop_signal_ends_a_backoff_at_once(autojump_clock: MockClock) -> None:
    """Also one that was sent to the member alone."""
    slow = Restart(backoff=Backoff(100, cap=100, jitter=0))
    async with grouper.invoke(Ordered([Member("web", Flaky(OSError()), restart=slow)])) as group:
        await trio.sleep(1)
        assert group["web"].state is State.BACKOFF
        group["web"].signal(signal.SIGTERM)
        assert (await group.wait()).ok
        assert trio.current_time() == 1


async def test_failed_start_is_not_restarted(autojump_clock: MockClock) -> None:
    """Before it was ever ready a failure is a failed start, unless the policy says otherwise."""

    async def never(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        begun.append(trio.current_time())
        raise OSError

    for start_errors, lives in ((False, 1), (True, 3)):
        begun: list[float] = []
        restart = Restart(limit=2, period=100, start_errors=start_errors)
        with pytest.raises(grouper.ErrorTrace):
            async with grouper.invoke(Ordered([Member("web", never, restart=restart)])):
                """It is never ready."""
        assert len(begun) == lives


async def test_job_is_restarted_until_it_has_returned(autojump_clock: MockClock) -> None:
    """Those after it start then; the group goes on."""
    job = Flaky(OSError(), OSError(), "done")
    policy = Restart(RestartType.TRANSIENT, backoff=Backoff(1, jitter=0))
    tree = Ordered([Member("job", job, role=Role.JOB, restart=policy), ("web", Flaky())])
    async with grouper.invoke(tree) as group:
        assert (group["job"].state, group["job"].restarts, trio.current_time()) == (State.EXITED, 2, 4)


async def test_optional_that_gives_up_is_told_and_not_raised(autojump_clock: MockClock) -> None:
    """The group goes on, and what gave up can be started by hand, with a new account."""
    bad = Flaky(OSError("1"), OSError("2"))
    tree = Parallel([Member("bad", bad, role=Role.OPTIONAL, restart=Restart(limit=1)), ("web", Flaky())])
    async with grouper.invoke(tree) as group:
        exit = await group["bad"].wait()
        assert group["bad"].state is State.EXHAUSTED
        assert isinstance(exit.error, RestartLimitExceeded)
        assert "after 1 restart in" in str(exit.error)
        assert exit.error.__cause__ is not None
        assert any("given up after 1 restart" in note for note in exit.error.__cause__.__notes__)
        assert (await group.start("bad")).state is State.READY


async def test_members_policies_hold_where_it_is_run_by_no_group(autojump_clock: MockClock) -> None:
    """A member is a runner, with its policy."""
    flaky = Flaky(OSError(), OSError())
    member = Member("web", flaky, restart=Restart(backoff=Backoff(1, jitter=0)))
    async with grouper.invoke(grouper.Proxy(Signals(), member)):
        await trio.sleep(10)
        assert flaky.begun == [0, 1.5, 4]
    exhausted = Member("web", Flaky(*[OSError()] * 9), restart=Restart(limit=1))
    with pytest.raises(RestartLimitExceeded, match="member 'web' gave up after 1 restart"):
        async with grouper.invoke(grouper.Proxy(Signals(), exhausted)):
            await trio.sleep_forever()


async def test_member_stopped_by_hand_as_seen_by_who_waits(autojump_clock: MockClock) -> None:
    """Its exit is returned even where it is started again before the waiter runs."""
    async with grouper.invoke(Parallel([("a", Flaky()), ("b", Flaky())])) as group:
        a: Process = group["a"]
        exits: list[Exit] = []

        async def wait() -> None:
            exits.append(await a.wait())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(group.stop, "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(group.start, "a")
        assert exits[0].ok
        assert a.state is State.READY


async def test_operations_that_cross_each_other_all_end(autojump_clock: MockClock) -> None:
    """Whatever came last holds; a start that a stop has crossed says that the member has ended."""
    async with grouper.invoke(Parallel([("a", Flaky()), ("b", Flaky())])) as group:

        async def restart() -> None:
            with contextlib.suppress(grouper.ExitedBeforeReady):
                await group.restart("a")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.stop, "a")
            nursery.start_soon(restart)
        assert group["a"].state in (State.READY, State.STOPPED)


async def test_operations_come_from_another_thread(autojump_clock: MockClock) -> None:
    """Through trio.from_thread, as for all of trio."""
    async with grouper.invoke(Parallel([("a", Flaky()), ("b", Flaky())])) as group:

        def operate() -> None:
            assert trio.from_thread.run(group.stop, "a").ok
            trio.from_thread.run(group.start, "a")

        await trio.to_thread.run_sync(operate)
        assert group["a"].state is State.READY


Wrong = Callable[[], object]
WRONG: dict[str, tuple[Wrong, str]] = {
    "period=0": (lambda: Restart(period=0), "period=0"),
    "period=-1": (lambda: Restart(period=-1), "period=-1"),
    "limit=1.5": (lambda: Restart(limit=1.5), "limit=1.5"),
    "limit=-1": (lambda: Restart(limit=-1), "limit=-1"),
    "reset_after=-1": (lambda: Restart(reset_after=-1), "reset_after=-1"),
    "backoff with attempts": (lambda: Restart(backoff=Backoff(attempts=3)), "limit, period and on"),
    "strategy without restarts": (lambda: Parallel([("a", Flaky())], strategy=grouper.Strategy.ALL), "no member restarts"),
    "two limits": (
        lambda: Parallel([Member("a", Flaky(), restart=Restart(limit=1))], strategy=grouper.Strategy.ALL),
        "member 'a': its restart has limit of its own",
    ),
    "a delay of its own": (
        lambda: Parallel([Member("a", Flaky(), restart=Restart(reset_after=3, limit=1))], strategy=grouper.Strategy.ALL),
        "member 'a': its restart has limit and reset_after of its own",
    ),
    "exits for the group": (
        lambda: Parallel(
            [Member("a", Flaky(), restart=Restart())], strategy=grouper.Strategy.ALL, restart=Restart(on=OSError, limit=1)
        ),
        "Parallel: on in its restart means nothing",
    ),
    "no failure": (lambda: Restart(on=()), "on=.. names no failure"),
    "no time": (lambda: Restart(period=-1), "period=-1 is not a positive number"),
    "a limit for nobody": (lambda: Parallel([], restart=Restart()), "means nothing under Strategy.ONE"),
    "a job for ever": (lambda: Member("a", Flaky(), role=Role.JOB, restart=Restart()), "member 'a': a JOB"),
}


@pytest.mark.parametrize(("make", "what"), WRONG.values(), ids=list(WRONG))
def test_what_would_mean_nothing_is_refused(make: Wrong, what: str) -> None:
    """Where it is made, with the name and the fix."""
    with pytest.raises(ValueError, match=what):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Restart("permanent"),  # type: ignore[arg-type]  # that is what is refused
        lambda: Restart(backoff=1),  # type: ignore[arg-type]  # as above
        lambda: Restart(limit="5"),  # type: ignore[arg-type]  # as above
        lambda: Restart(on=(5,)),  # type: ignore[arg-type]  # as above
        lambda: Member("a", Flaky(), restart=True),  # type: ignore[arg-type]  # as above
        lambda: Parallel([], strategy="all"),  # type: ignore[arg-type]  # as above
        lambda: Parallel([], restart=5),  # type: ignore[arg-type]  # as above
    ],
)
def test_what_is_of_another_type_is_refused(make: Wrong) -> None:
    """Also for callers without a type checker."""
    with pytest.raises(TypeError):
        make()
