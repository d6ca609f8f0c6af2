"""`Member(ready_when=)`: a member that is ready when a check says so."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
import trio.testing

import grouper
from grouper import ErrorTrace, Member, NotReady, Ordered, ReadyTimeout, Role, Signals, State
from grouper.testing import FakeRunner


async def silent(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    """Never says that it is ready."""
    await signals.wait()


class Check:
    """Passes when it is told to."""

    def __init__(self) -> None:
        self.answer: Any = NotReady("the schema is not there yet")
        self.calls = 0

    async def __call__(self) -> object:
        self.calls += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


async def test_a_member_is_ready_when_its_check_returns() -> None:
    """The runner need not say anything; those after it start then, not before."""
    check, after = Check(), FakeRunner(ready_at_once=True, stops=True)
    async with grouper.background(Ordered([Member("db", silent, ready_when=check), ("web", after)])) as process:
        await trio.sleep(10)
        states = [process.children[0].state]
        assert after.runs == []
        check.answer = None
        await after.wait_started()
        states.append(process.children[0].state)
    assert states == [State.STARTING, State.READY]


@pytest.mark.parametrize("answer", [NotReady("why"), False])
async def test_not_yet_is_asked_again(answer: object) -> None:
    """Soon at first, and then about once a second."""
    check = Check()
    check.answer = answer
    async with grouper.background(Member("db", silent, ready_when=check)):
        await trio.sleep(0.2)
        assert check.calls == 3
        await trio.sleep(60)
        assert 60 <= check.calls <= 70


async def test_the_value_is_the_runners() -> None:
    """What it gave to `started` before the check has passed."""

    async def server(signals: Signals, /, *, task_status: trio.TaskStatus[int]) -> None:
        task_status.started(8080)
        await signals.wait()

    async def check() -> None:
        await trio.sleep(1)

    async with grouper.invoke(Member("web", server, ready_when=check)) as process:
        assert process.value == 8080


async def test_started_twice_is_an_error_of_the_member() -> None:
    """As without a check."""

    async def twice(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        task_status.started()

    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([Member("web", twice, ready_when=Check())])):
            pass
    assert "member 'web' called task_status.started() a second time" in str(caught.value.exceptions[0])


async def test_a_failed_check_is_the_members_failure_and_cancels_the_runner() -> None:
    """With its own error, which is not wrapped."""
    check = Check()
    cleaned: list[bool] = []

    async def runner(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    check.answer = OSError("no such host")
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([Member("db", runner, ready_when=check)])):
            pass
    assert [str(error) for error in caught.value.exceptions] == ["no such host"]
    assert cleaned == [True]


async def test_errors_of_both_are_told() -> None:
    """A runner that fails while it is cancelled for the check's failure."""
    check = Check()
    check.answer = OSError("no such host")

    async def runner(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([Member("db", runner, ready_when=check)])):
            pass
    (both,) = caught.value.exceptions
    assert str(both).startswith("member 'db' and its ready_when failed")
    assert [type(error) for error in getattr(both, "exceptions", ())] == [OSError, ValueError]


async def test_the_runners_error_is_not_wrapped() -> None:
    """The check beside it is cancelled."""

    async def fails(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(1)
        raise KeyError("x")

    with pytest.raises(KeyError):
        async with grouper.invoke(Member("db", fails, ready_when=trio.sleep_forever)):
            pass


async def test_ready_within_bounds_the_check() -> None:
    """As it bounds a runner that does not say that it is ready."""
    with pytest.raises(ReadyTimeout, match="within 5 s"):
        async with grouper.invoke(Member("db", silent, ready_when=trio.sleep_forever, ready_within=5)):
            pass


async def test_a_stop_before_the_check_has_passed_is_clean() -> None:
    """The runner gets the signal; the check is cancelled with its return."""
    async with grouper.background(Member("db", silent, ready_when=trio.sleep_forever)) as process:
        await trio.testing.wait_all_tasks_blocked()
    assert process.exit is not None
    assert process.exit.ok
    assert not process.exit.was_ready


async def test_a_kill_cancels_runner_and_check() -> None:
    """Neither is left behind."""
    ended: list[str] = []

    async def forever(what: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(what)

    async def runner(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        await forever("runner")

    with trio.move_on_after(1) as scope:
        async with grouper.background(Member("db", runner, ready_when=functools.partial(forever, "check"))):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert sorted(ended) == ["check", "runner"]


def test_what_is_not_callable_is_refused_by_name() -> None:
    """Such as the value that a check would return."""
    with pytest.raises(TypeError, match="member 'db': ready_when=True is not callable"):
        Member("db", silent, ready_when=True)  # type: ignore[arg-type]  # what is tested  # pyright: ignore[reportArgumentType]


def test_a_job_has_no_ready_when() -> None:
    """It is ready when it has returned."""
    with pytest.raises(ValueError, match="member 'db': ready_when has no meaning for a job"):
        Member("db", silent, ready_when=Check(), role=Role.JOB)


async def test_what_is_no_exception_comes_out_of_a_check_bare() -> None:
    """A KeyboardInterrupt in it is wrapped in nothing."""
    check = Check()
    check.answer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        async with grouper.invoke(Ordered([Member("db", silent, ready_when=check)])):
            pass
