"""What an ordered group promises (section 1.5 of the contract)."""

from __future__ import annotations

import signal

import pytest

from grouper import Ordered

from .runners import Stage, ended, names, trace_of, watched


@pytest.mark.contract("29")
async def test_29_ordered_starts_next_when_previous_ready() -> None:
    """A member is started when the one before it is ready; the group is ready when the last one is."""
    stage = Stage("abc", polite=True)
    async with watched(Ordered(stage.members())) as process:
        assert await stage.news() == ["a starts"]
        stage["a"].make_ready()
        assert await stage.news() == ["b starts"]
        stage["b"].make_ready()
        assert await stage.news() == ["c starts"]
        assert process.ready_at is None
        stage["c"].make_ready()
        assert await stage.news() == []
        assert process.ready_at is not None


@pytest.mark.contract("30")
async def test_30_an_exit_while_a_later_member_starts_ends_the_start() -> None:
    """The member that was starting gets the termination signal, ready or not, and no further one is started."""
    stage = Stage("abc", polite=True)
    stage["a"].ready = True
    async with watched(Ordered(stage.members())) as process:
        assert await stage.news() == ["a starts", "b starts"]
        stage["a"].exit(ValueError("broken"))
        assert await stage.news() == ["a exits", "b SIGTERM", "b exits"]
        assert not (await ended(process)).was_ready


@pytest.mark.contract("31")
async def test_31_a_failed_start_stops_those_started_in_reverse() -> None:
    """The starting member fails: nobody else is started, and those before it are stopped, the last of them first."""
    stage = Stage("abcd", ready=True, polite=True)
    stage["c"].ready = False
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        stage["c"].exit(ValueError("broken"))
        assert await stage.news() == ["c exits", "b SIGTERM", "b exits", "a SIGTERM", "a exits"]
        assert names(trace_of(await ended(process)).exits) == ["c", "b", "a"]


@pytest.mark.contract("32")
async def test_32_ordered_stops_one_by_one_in_reverse() -> None:
    """The last member is told first; the one before it is told when that one has exited, and not earlier."""
    stage = Stage("abc", ready=True)
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        assert await stage.news() == ["c SIGTERM"]
        stage["c"].exit()
        assert await stage.news() == ["c exits", "b SIGTERM"]
        stage["b"].exit()
        assert await stage.news() == ["b exits", "a SIGTERM"]
        stage["a"].exit()
        assert await stage.news() == ["a exits"]
        assert (await ended(process)).ok


@pytest.mark.contract("32")
async def test_32_ordered_stops_in_reverse_after_a_members_own_exit_too() -> None:
    """The first member exits by itself: the others are still stopped one by one from the end."""
    stage = Stage("abc", ready=True)
    async with watched(Ordered(stage.members())):
        await stage.set_out()
        stage["a"].exit()
        assert await stage.news() == ["a exits", "c SIGTERM"]
        stage["c"].exit()
        assert await stage.news() == ["c exits", "b SIGTERM"]
        stage["b"].exit()


@pytest.mark.contract("33")
async def test_33_a_member_that_has_exited_is_skipped() -> None:
    """A member that exits while those after it are being stopped is not told to stop when it would be its turn."""
    stage = Stage("abc", ready=True)
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        await stage.news()
        stage["b"].exit()
        assert await stage.news() == ["b exits"]
        stage["c"].exit()
        assert await stage.news() == ["c exits", "a SIGTERM"]
        stage["a"].exit()
        await ended(process)
    assert stage["b"].heard == []


@pytest.mark.contract("34")
async def test_34_the_received_stop_signal_is_the_one_sent_on() -> None:
    """Members get the stop signal that the group got, whatever its termination signal is."""
    stage = Stage("abc", ready=True, polite=True)
    async with watched(Ordered(stage.members(), termination_signal=signal.SIGTERM)) as process:
        await stage.set_out()
        process.signal(signal.SIGQUIT)
        assert (await ended(process)).ok
    assert [actor.heard for actor in stage] == [[signal.SIGQUIT]] * 3


@pytest.mark.contract("35")
async def test_35_a_further_stop_signal_goes_to_those_being_stopped_and_replaces_the_first() -> None:
    """Each further stop signal, equal or not, is told to the member being stopped; those whose turn comes later get the newest."""
    stage = Stage("abc", ready=True)
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            process.signal(number)
        assert await stage.news() == ["c SIGINT", "c SIGINT", "c SIGTERM"]
        stage["c"].exit()
        assert await stage.news() == ["c exits", "b SIGTERM"]
        stage["b"].exit()
        await stage.news()
        stage["a"].exit()


@pytest.mark.contract("36")
async def test_36_a_stop_signal_during_the_start() -> None:
    """The starting member is told first, then those before it; no further one is started, and the group is never ready."""
    stage = Stage("abcd", ready=True, polite=True)
    stage["c"].ready = False
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        assert await stage.news() == ["c SIGTERM", "c exits", "b SIGTERM", "b exits", "a SIGTERM", "a exits"]
        exit = await ended(process)
        assert not exit.was_ready
        assert exit.ok


@pytest.mark.contract("37")
async def test_37_an_empty_group_is_ready_at_once_and_ends_at_the_first_stop_signal() -> None:
    """With no members the group is ready, and stays until it is told to stop: by a stop signal, not by another one."""
    async with watched(Ordered([])) as process:
        await process.wait_ready()
        process.signal(signal.SIGUSR1)
        await Stage().set_out()
        assert process.exit is None
        process.signal(signal.SIGINT)
        assert (await ended(process)).ok
