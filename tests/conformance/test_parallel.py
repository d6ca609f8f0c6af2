"""What a parallel group promises (section 1.7 of the contract)."""

from __future__ import annotations

import signal

import pytest
import trio

from grouper import ExitedBeforeReady, Parallel, Signals, State

from .runners import Stage, ended, names, trace_of, watched


@pytest.mark.contract("39")
async def test_39_parallel_starts_all_at_once_and_is_ready_when_all_are() -> None:
    """Nobody waits for anybody, and the group's ready is the last of its members'."""
    stage = Stage("abc", polite=True)
    async with watched(Parallel(stage.members())) as process:
        assert sorted(await stage.news()) == ["a starts", "b starts", "c starts"]
        for name in "cab":
            assert process.state is State.STARTING
            stage[name].make_ready()
            await stage.news()
        assert process.state is State.READY


@pytest.mark.contract("40")
async def test_40_parallel_tells_all_at_once() -> None:
    """A stop signal reaches all members before any of them has exited."""
    stage = Stage("abc", ready=True)
    async with watched(Parallel(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGINT)
        assert sorted(await stage.news()) == ["a SIGINT", "b SIGINT", "c SIGINT"]
        for actor in stage:
            actor.exit()


@pytest.mark.contract("41")
async def test_41_an_exit_tells_the_others_once() -> None:
    """The first exit sends the termination signal to all others; a second exit sends nothing more."""
    stage = Stage("abc", ready=True)
    async with watched(Parallel(stage.members())):
        await stage.set_out()
        stage["b"].exit(ValueError("broken"))
        assert sorted(await stage.news()) == ["a SIGTERM", "b exits", "c SIGTERM"]
        stage["a"].exit(ValueError("broken too"))
        assert await stage.news() == ["a exits"]
        stage["c"].exit()


@pytest.mark.contract("42")
@pytest.mark.parametrize("fails", [False, True])
async def test_42_an_exit_before_ready_ends_the_start(fails: bool) -> None:
    """The others get the termination signal, ready or not; the group is never ready, and its trace holds all of them."""
    stage = Stage("abc", polite=True)
    stage["a"].ready = True
    error = ValueError("broken") if fails else None
    async with watched(Parallel(stage.members())) as process:
        await stage.set_out()
        stage["b"].exit(error)
        exit = await ended(process)
        assert not exit.was_ready
        assert sorted(names(trace_of(exit).exits)) == ["a", "b", "c"]
        assert isinstance(trace_of(exit).exceptions[0], ValueError if fails else ExitedBeforeReady)
    assert [actor.heard for actor in stage] == [[signal.SIGTERM], [], [signal.SIGTERM]]


@pytest.mark.contract("43")
async def test_43_the_trace_is_in_exit_order() -> None:
    """The exits in the trace are in the order in which the members exited."""
    stage = Stage("abcd", ready=True)
    async with watched(Parallel(stage.members())) as process:
        await stage.set_out()
        for name in "cadb":
            stage[name].exit(ValueError(name))
            await stage.news()
        trace = trace_of(await ended(process))
        assert names(trace.exits) == ["c", "a", "d", "b"]
        assert [str(error) for error in trace.exceptions] == ["c", "a", "d", "b"]


@pytest.mark.contract("44")
async def test_44_each_further_stop_signal_is_forwarded_to_all() -> None:
    """While the group stops, all those still running get each stop signal it is sent, equal ones too."""
    stage = Stage("ab", ready=True)
    sent = [signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGQUIT]
    async with watched(Parallel(stage.members())) as process:
        await stage.set_out()
        for number in sent:
            process.signal(number)
        await stage.news()
        assert [actor.heard for actor in stage] == [sent, sent]
        for actor in stage:
            actor.exit()


@pytest.mark.contract("45")
async def test_45_no_exit_is_lost_however_early() -> None:
    """Members that all exit in their first step, before any is ready, are all in the trace."""

    async def fail(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        raise ValueError("at once")

    async with watched(Parallel([(f"m{number}", fail) for number in range(20)])) as process:
        trace = trace_of(await ended(process))
        assert len(trace.exits) == len(trace.exceptions) == 20
