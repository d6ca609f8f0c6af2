"""What all groups promise (section 1.4 of the contract)."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import ErrorTrace, ExitedBeforeReady, Ordered, Parallel, QueueOrdered

from .runners import Actor, Stage, ended, names, trace_of, watched

STATIC = [Ordered, QueueOrdered, Parallel]


@pytest.mark.contract("21")
@pytest.mark.parametrize("kind", STATIC)
async def test_21_a_signal_reaches_all_running_members(kind: Any) -> None:
    """A group passes what it is sent on to each member that runs, in the order sent."""
    stage = Stage("abc", ready=True)
    async with watched(kind(stage.members(grace=0.0))) as process:
        await stage.set_out()
        process.signal(signal.SIGUSR1)
        process.signal(signal.SIGHUP)
        await stage.news()
        assert [actor.heard for actor in stage] == [[signal.SIGUSR1, signal.SIGHUP]] * 3


@pytest.mark.contract("22")
@pytest.mark.parametrize("kind", STATIC)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_22_an_exit_sends_the_termination_signal_to_the_rest(kind: Any, number: signal.Signals) -> None:
    """When a member exits by itself, each of the others is told to stop with the group's termination signal."""
    stage = Stage("abc", ready=True, polite=True)
    async with watched(kind(stage.members(), termination_signal=number)) as process:
        await stage.set_out()
        stage["b"].exit()
        await ended(process)
    assert [actor.heard for actor in stage] == [[number], [], [number]]


@pytest.mark.contract("23")
@pytest.mark.parametrize("kind", STATIC)
async def test_23_a_group_exits_after_the_last_of_its_members(kind: Any) -> None:
    """A static group has not exited while any member that it started has not."""
    stage = Stage("abc", ready=True, polite=True)
    for name in "ac":
        stage[name].polite = False
    async with watched(kind(stage.members(grace=float("inf")))) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        await stage.news()
        stage["a"].exit()
        await stage.news()
        assert process.exit is None
        stage["c"].exit()
        assert (await ended(process)).ok


@pytest.mark.contract("24")
@pytest.mark.parametrize("kind", STATIC)
@pytest.mark.parametrize("fails", [False, True])
async def test_24_any_exit_ends_a_static_group(kind: Any, fails: bool) -> None:
    """A group of services ends when one of them has exited, with an error or without."""
    stage = Stage("abc", ready=True, polite=True)
    async with watched(kind(stage.members())) as process:
        await stage.set_out()
        stage["b"].exit(ValueError("broken") if fails else None)
        assert (await ended(process)).ok is not fails


@pytest.mark.contract("25")
@pytest.mark.parametrize("kind", STATIC)
async def test_25_a_group_ends_cleanly_if_all_its_members_did(kind: Any) -> None:
    """No member failed, so the group returns."""
    stage = Stage("abc", ready=True, polite=True)
    async with watched(kind(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGINT)
        assert (await ended(process)).error is None


@pytest.mark.contract("25")
@pytest.mark.parametrize("kind", STATIC)
async def test_25_a_group_raises_a_trace_if_a_member_failed(kind: Any) -> None:
    """One failure is enough, and is in a trace even if it is the only one."""
    stage = Stage("abc", ready=True, polite=True)
    error = ValueError("broken")
    async with watched(kind(stage.members())) as process:
        await stage.set_out()
        stage["b"].exit(error)
        assert trace_of(await ended(process)).exceptions == (error,)


@pytest.mark.contract("26")
async def test_26_the_trace_has_an_exit_for_each_started_member() -> None:
    """`exits` holds all that were started, the clean ones too, in exit order; the exceptions are those that failed."""
    stage = Stage("abc", ready=True, polite=True)
    stage["c"].ready = False
    stage.add("never")
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        stage["b"].exit(ValueError("broken"))
        trace = trace_of(await ended(process))
        assert names(trace.exits) == ["b", "c", "a"]
        assert [exit.ok for exit in trace.exits] == [False, True, True]
        assert len(trace.exceptions) == 1


@pytest.mark.contract("27")
async def test_27_the_text_of_a_trace_is_a_tree() -> None:
    """One line for each failure, indented beneath its group, with the member's name and the error; the first is marked."""
    leaves = {name: Actor(name, [], ready=True) for name in "abc"}
    tree = Parallel([("left", Parallel([("a", leaves["a"]), ("b", leaves["b"])])), ("c", leaves["c"])])
    async with watched(tree) as process:
        await wait_all_tasks_blocked()
        leaves["b"].exit(ValueError("broken"))
        await trio.sleep(1)
        leaves["a"].exit(KeyError("a"))
        await trio.sleep(1)
        leaves["c"].exit(OSError("no disk"))
        trace = trace_of(await ended(process))
    assert str(trace).splitlines() == [
        "2 of 2 members failed:",
        "  left",
        "    b: ValueError: broken  <- first",
        "    a: KeyError: 'a'",
        "  c: OSError: no disk",
    ]


@pytest.mark.contract("28")
@pytest.mark.parametrize("kind", STATIC)
async def test_28_an_exit_before_ready_is_an_error_of_the_group(kind: Any) -> None:
    """A service that returns before it was ready has failed: the group stops, was never ready, and raises."""
    stage = Stage("ab", polite=True)
    stage["a"].ready = True
    async with watched(kind(stage.members())) as process:
        await stage.set_out()
        stage["b"].exit()
        exit = await ended(process)
        assert not exit.was_ready
        (error,) = trace_of(exit).exceptions
        assert isinstance(error, ExitedBeforeReady)
        assert "'b'" in str(error)


@pytest.mark.contract("28")
@pytest.mark.parametrize("kind", STATIC)
async def test_28_an_exit_before_ready_is_clean_if_it_was_told_to_stop(kind: Any) -> None:
    """A member that returns unready because it is being stopped has not failed, and neither has its group."""
    stage = Stage("a", polite=True)
    async with watched(kind(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        exit = await ended(process)
        assert exit.ok
        assert not exit.was_ready


@pytest.mark.contract("28")
async def test_28_a_group_that_a_clean_exit_ended_before_it_was_ready_has_failed() -> None:
    """A ready member's clean exit while others start leaves the group unready, which is its error."""
    stage = Stage("ab", polite=True)
    stage["a"].ready = True
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        stage["a"].exit()
        exit = await ended(process)
        assert isinstance(exit.error, ExitedBeforeReady)
        assert not isinstance(exit.error, ErrorTrace)
