"""What reviews have found, each as small as it gets."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import grouper
from grouper import (
    Dynamic,
    ErrorTrace,
    Member,
    MemberKilled,
    Ordered,
    Parallel,
    Proxy,
    Restarter,
    Role,
    RunnerLike,
    Sigmon,
    Signals,
)
from grouper.signals import TERMINATE


async def idle(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    await signals.wait()


async def fails_in_cleanup(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("cleanup failed")


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that takes no notes, and no traceback either where it is raised for long."""

    number: int


class CancelWhenReady:
    """A task status that cancels a scope."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope

    def started(self, value: object = None) -> None:
        self.scope.cancel()


@pytest.mark.real_time
async def test_a_sigmon_that_is_cancelled_keeps_what_its_runner_raises() -> None:
    """The failure wins over the cancellation, as without the Sigmon."""
    with pytest.raises(ErrorTrace) as caught, trio.CancelScope() as scope:
        status: Any = CancelWhenReady(scope)
        await Ordered([("s", Sigmon(fails_in_cleanup))]).run(Signals(), task_status=status)
    assert caught.group_contains(ValueError, match="cleanup failed")


async def test_an_exception_that_takes_no_notes_is_raised_all_the_same() -> None:
    """The engine does not stumble over it: the trace has it, and the others are stopped politely."""
    told: list[int] = []

    async def polite(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        told.append(await signals.wait())

    async def fails(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise FrozenError(1)

    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([("a", polite), ("b", fails)])):
            await trio.sleep_forever()
    assert isinstance(caught.value.exceptions[0], FrozenError)
    assert told == [TERMINATE]


async def test_a_stream_of_a_root_that_was_never_started_ends() -> None:
    """Told to stop before it began, it has no events, and its listeners are not left waiting."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def listen(process: grouper.Process) -> None:
                async with process.events() as stream:
                    assert [event async for event in stream] == []

            async with grouper.background(idle) as process:
                nursery.start_soon(listen, process)


@pytest.mark.real_time
def test_run_logs_the_whole_end_of_a_tree_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Each member's end is told, and the root's, however many there are."""

    async def fails(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.testing.wait_all_tasks_blocked()
        raise ValueError("bad")

    caplog.set_level(logging.INFO, "grouper")
    assert grouper.run(Parallel([("bad", fails), *((f"m{number}", idle) for number in range(50))])) == 1
    told = [record.getMessage() for record in caplog.records]
    assert sum(line.endswith("exited") for line in told) == 50
    assert told[-1].startswith("the root (Parallel) failed")


async def test_a_member_that_sits_under_a_shield_after_its_group_has_ended_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """It had members, but it is the one that ignores the kill."""

    async def wrapper(signals: Signals, *, task_status: trio.TaskStatus[Any]) -> None:
        try:
            await Ordered([("a", idle)]).run(signals, task_status=task_status)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    with trio.move_on_after(1):
        await Ordered([("w", wrapper)]).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert [record.getMessage()[:28] for record in caplog.records] == ["member 'w' ignores its kill "] * 2


async def test_a_body_whose_nursery_was_cancelled_has_not_failed() -> None:
    """The trace of the process comes out bare, as if the body had been cancelled without a nursery."""
    with pytest.raises(ErrorTrace), trio.move_on_after(1):
        async with grouper.invoke(Ordered([("a", fails_in_cleanup)])), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)


class WantsGrace:
    """A runner with an attribute `grace`."""

    def __init__(self, grace: object) -> None:
        self.grace = grace

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        await idle(signals, task_status=task_status)


@pytest.mark.parametrize("grace", [datetime.timedelta(seconds=5), "5", float("nan"), -1])
def test_a_runner_whose_grace_is_no_number_of_seconds_is_refused(grace: object) -> None:
    """When the member is made, and not when it is to stop."""
    with pytest.raises((TypeError, ValueError), match="member 'a': its runner's attribute `grace`"):
        Member("a", WantsGrace(grace))


def test_a_runner_that_wraps_itself_is_looked_into_once() -> None:
    """A member can be made of it."""

    class Selfish:
        def __init__(self) -> None:
            self.runner = self

        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            await idle(signals, task_status=task_status)

    assert Member("a", Selfish()).role is Role.SERVICE


async def test_a_close_between_two_runs_ends_the_next_at_once() -> None:
    """As one before the first run does; the run after that is open again."""
    group = Dynamic()
    client = group.client()
    for closes in (False, True, False):
        if closes:
            client.close()
        signals = Signals()
        async with trio.open_nursery() as nursery:
            await nursery.start(group.run, signals)
            if not closes:
                await client.insert(("a", idle))
                signals.send(TERMINATE)


async def test_a_restarter_that_was_told_to_stop_before_starts_nobody() -> None:
    """As a group."""
    runs: list[int] = []

    async def runner(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        runs.append(1)

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        return None

    signals = Signals()
    signals.send(TERMINATE)
    await Restarter(runner, load).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert runs == []


async def test_what_load_raises_has_the_error_that_it_was_asked_about_as_its_cause() -> None:
    """Neither is lost."""

    async def fails(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        raise ValueError("the real reason")

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        raise RuntimeError("load failed")

    with pytest.raises(RuntimeError, match="load failed") as caught:
        await Restarter(fails, load).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_signal_that_a_restarted_runner_did_not_read_goes_to_the_next(proxied: bool) -> None:
    """Also through a Proxy."""
    heard: list[int] = []
    first = True

    async def runner(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        nonlocal first
        if first:
            first = False
            task_status.started()
            await trio.sleep(2)
            raise ValueError
        async for number in signals:
            heard.append(number)
            if number == TERMINATE:
                return

    async def load(again: RunnerLike, error: Exception | None) -> RunnerLike | None:
        return again if error is not None else None

    async with grouper.invoke(Restarter(Proxy(Signals(), runner) if proxied else runner, load)) as process:
        await trio.sleep(1)
        process.signal(signal.SIGHUP)
        await trio.sleep(3)
    assert heard == [signal.SIGHUP, TERMINATE]


async def test_a_proxy_that_was_stopped_through_extra_runs_again() -> None:
    """A stop signal that an earlier run acted on is not one for the next."""
    extra, started = Signals(), 0

    async def runner(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        nonlocal started
        started += 1
        await idle(signals, task_status=task_status)

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        return runner

    async with grouper.invoke(Restarter(Proxy(extra, Ordered([("a", runner)])), load)):
        await trio.sleep(1)
        extra.send(TERMINATE)
        await trio.sleep(1)
        assert started == 2


async def test_what_invoke_returns_is_entered_once() -> None:
    """A second time is an error that says so, and the first goes on."""
    manager = grouper.invoke(idle)
    async with manager as process:
        with pytest.raises(RuntimeError, match="is entered once"):
            await manager.__aenter__()
        assert process.exit is None


async def test_a_member_as_the_root_keeps_its_policy() -> None:
    """Its `ready_within` holds."""

    async def never(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    with pytest.raises(grouper.ReadyTimeout):
        async with grouper.invoke(Member("db", never, ready_within=2)):
            pytest.fail("it was never ready")


async def test_an_optional_member_as_the_root_fails_like_any_root() -> None:
    """There is no group that could go on without it."""
    with pytest.raises(MemberKilled):
        async with grouper.invoke(Member("a", idle, role=Role.OPTIONAL)) as process:
            process.kill("by hand")
            await trio.sleep_forever()


async def test_one_exception_raised_by_two_members_is_told_for_both() -> None:
    """Each line has its member's name."""
    error = ValueError("shared")

    async def fails(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise error

    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Parallel([("a", fails), ("b", fails)])):
            await trio.sleep_forever()
    lines = {line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]}
    assert lines == {"a", "b"}


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "after nothing": (lambda: Member("a", idle, after=None), "member 'a': after="),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # bad on purpose
    "after a number": (lambda: Member("a", idle, after=(1,)), "member 'a': after="),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
    "a list for a signal": (lambda: Ordered([("a", idle)], termination_signal=[]), "Ordered: termination_signal="),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
    "extra that is no signals": (lambda: Proxy(5, idle), "Proxy: extra=5"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
    "restart on nothing": (lambda: grouper.restart_on(idle), "restart_on"),
    "restart on an instance": (lambda: grouper.restart_on(idle, OSError()), "restart_on"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
    "restart in the past": (lambda: grouper.restart_on(idle, OSError, delay=-1), "restart_on: delay=-1"),
    "a signal for signals": (lambda: grouper.run(idle, forward=9), "forward=9"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # as above
}


@pytest.mark.parametrize(("make", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(make: Callable[[], object], text: str) -> None:
    """At construction, with an error that says what was wrong."""
    with pytest.raises((TypeError, ValueError), match=text):
        make()
