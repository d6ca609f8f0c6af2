"""Stopping under supervision, operations by hand, and what the other supervisors got wrong (sections 5 and 9 of the contract)."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import (
    Backoff,
    Dynamic,
    ErrorTrace,
    Exit,
    Member,
    Ordered,
    Parallel,
    Restart,
    Signals,
    State,
    StopTimeout,
    Strategy,
)
from tests.groups.transitions import known_transitions

from .supervised import AT_ONCE, Troupe, at_once, ended, supervised

__all__ = ["known_transitions"]


def errors(exit: Exit) -> list[str]:
    """What the members of a group failed with."""
    assert isinstance(exit.error, ErrorTrace)
    return [str(error) for error in exit.error.exceptions]


@pytest.mark.contract("V25")
@pytest.mark.parametrize(("kind", "seconds"), [(Ordered, 2.5), (Parallel, 0.125)])
async def test_v25_a_stop_takes_the_sum_in_a_chain_and_the_longest_where_there_is_no_order(
    kind: Callable[[Any], Any], seconds: float
) -> None:
    """One by one, each when the one after it is down, in a chain; together in a Parallel."""
    troupe = Troupe(map(str, range(20)))
    for player in troupe:
        player.closing = 0.125
    async with supervised(kind(troupe.members(AT_ONCE))) as group:
        pass
    assert trio.current_time() == seconds
    if kind is Ordered:
        assert troupe.log[20:] == [f"down {number}" for number in reversed(range(20))]
    assert (await ended(group)).ok


@pytest.mark.contract("V25")
async def test_v25_a_dynamic_group_stops_all_at_once() -> None:
    """The last inserted is told first."""
    troupe = Troupe("abc")
    for player in troupe:
        player.closing = 1
    group = Dynamic()
    async with supervised(group):
        for member in troupe.members(AT_ONCE):
            await group.client().insert(member)
        await troupe.news()
    assert trio.current_time() == 1
    assert sorted(troupe.log) == ["down a", "down b", "down c"]


@pytest.mark.contract("V26")
async def test_v26_a_member_that_does_not_stop_costs_its_grace_and_no_more() -> None:
    """It is killed then, which is told, and those before it are stopped."""
    troupe = Troupe("ab")
    troupe["b"].deaf = True
    async with supervised(Ordered(troupe.members(AT_ONCE, grace=0.5))) as group:
        pass
    assert troupe.log == ["up a", "up b", "killed b", "down a"]
    assert trio.current_time() == 0.5
    exit = await ended(group)
    assert errors(exit) == ["member 'b' had not stopped 0.5 s after SIGTERM and was killed"]
    assert isinstance(exit.error, ErrorTrace)
    assert isinstance(exit.error.exceptions[0], StopTimeout)


@pytest.mark.contract("V26")
async def test_v26_a_member_that_ignores_its_kill_is_waited_for_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """A task cannot be removed: it is named, with where it sits, and the group ends when it does."""

    async def stubborn(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    with caplog.at_level(logging.WARNING, "grouper"):
        async with supervised(Ordered([("web", Ordered([Member("api", stubborn, grace=1, restart=AT_ONCE)]))])):
            pass
    assert trio.current_time() == 10
    assert "member 'web/api'" in caplog.text
    assert "await trio.sleep(10)" in caplog.text


@pytest.mark.contract("V27")
async def test_v27_a_group_in_a_group_has_the_time_that_its_members_need() -> None:
    """Three members that take 8 of their 10 seconds each are stopped in order, 24 seconds long."""
    troupe = Troupe("abcd")
    for player in troupe:
        player.closing = 8
    a, *others = troupe.members(AT_ONCE)
    async with supervised(Ordered([a, ("inner", Ordered(others))])) as group:
        await troupe.news()
    assert troupe.log == ["down d", "down c", "down b", "down a"]
    assert trio.current_time() == 32
    assert (await ended(group)).ok


@pytest.mark.contract("V28")
async def test_v28_who_dies_by_itself_during_the_stop_is_not_restarted() -> None:
    """Whatever it dies of: a clean end is quiet, a failure is raised, and the stop goes on."""
    troupe = Troupe("abcd")
    troupe["d"].closing = 5
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        await troupe.news()
        group.signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        troupe["b"].crash()
        troupe["c"].finish()
        await wait_all_tasks_blocked()
        exit = await ended(group)
    assert troupe.log == ["crash b", "done c", "down d", "down a"] or troupe.log == ["done c", "crash b", "down d", "down a"]
    assert errors(exit) == ["b broke"]
    assert [each.restarts for each in group.children] == [0, 0, 0, 0]


@pytest.mark.contract("V29")
async def test_v29_a_member_that_swallows_its_kill_has_ended_when_it_has() -> None:
    """Also if it says ready only then: the group waits for its task and nothing else."""

    async def late(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            task_status.started()

    troupe = Troupe("a")
    async with supervised(Ordered([*troupe.members(), Member("late", late, restart=AT_ONCE, grace=1)])) as group:
        pass
    assert trio.current_time() == 1
    assert group["late"].state is State.EXITED
    assert troupe.log == ["up a", "down a"]


@pytest.mark.contract("V30")
async def test_v30_to_stop_what_is_down_is_no_error_and_an_unknown_name_is() -> None:
    """The first returns how it had ended; the second names those there are."""
    troupe = Troupe("ab")
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        exit = await group.stop("b")
        assert await group.stop("b") == exit
        with pytest.raises(LookupError, match=r"'x'.*'a', 'b'"):
            await group.stop("x")
        assert [each.state for each in group.children] == [State.READY, State.STOPPED]


@pytest.mark.contract("V30")
async def test_v30_a_stop_by_hand_lasts() -> None:
    """It stays down until it is started by hand, whatever its policy, and that is no failure."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        assert (await group.stop("a")).ok
        await trio.sleep(1000)
        assert (group["a"].state, group.exit) == (State.STOPPED, None)
        assert (await group.start("a")).state is State.READY
    assert (await ended(group)).ok


@pytest.mark.contract("V31")
async def test_v31_a_member_started_by_hand_keeps_its_place() -> None:
    """It is stopped where it was before, and listed there: in start order."""
    troupe = Troupe("abc")
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        await group.restart("a", cascade=True)
        await group.stop("b", cascade=True)
        await group.start("c", cascade=True)
        assert [each.name for each in group.children] == ["a", "b", "c"]
        await troupe.news()
    assert troupe.log == ["down c", "down b", "down a"]


@pytest.mark.contract("V32")
async def test_v32_a_group_is_never_deaf() -> None:
    """While one member takes 10 s to stop, and another to start, all others are looked after, and can be asked about, at once."""
    troupe = Troupe("abcd")
    troupe["a"].closing = troupe["b"].opening = 10
    async with supervised(Parallel(troupe.members(AT_ONCE))) as group, trio.open_nursery() as nursery:
        nursery.start_soon(group.stop, "a")
        await trio.sleep(1)
        assert [each.state for each in group.children] == [State.STOPPING, State.STARTING, State.READY, State.READY]
        troupe["c"].crash()
        await group.restart("d")
        await wait_all_tasks_blocked()
        assert [player.begun for player in troupe] == [[0], [0], [0, 1], [0, 1]]
        assert trio.current_time() == 1
    assert trio.current_time() >= 10


@pytest.mark.contract("V33")
@pytest.mark.parametrize("how", ["signal", "kill", "cancel"])
async def test_v33_a_tree_stops_in_order_at_all_levels(how: str) -> None:
    """On a signal, a kill and a cancellation from outside alike, with all members of one group before those of another."""
    troupe = Troupe("abcdef")
    a, b, c, d, e, f = troupe.members(AT_ONCE)
    tree = Ordered([a, Member("one", Ordered([b, c]), restart=AT_ONCE), Member("two", Ordered([d, e]), restart=AT_ONCE), f])
    with trio.CancelScope() as scope:
        async with supervised(tree) as group:
            await troupe.news()
            if how == "signal":
                group.signal(signal.SIGINT)
            elif how == "kill":
                group.kill()
            else:
                scope.cancel()
            await ended(group)
    word = "down" if how == "signal" else "killed"
    assert troupe.log == [f"{word} {name}" for name in "fedcba"]


@pytest.mark.contract("V34")
@pytest.mark.parametrize("strategy", Strategy)
async def test_v34_a_stop_does_not_wait_for_a_delay(strategy: Strategy) -> None:
    """What backs off is not started any more, and has ended cleanly: its failure was told when it happened."""
    troupe = Troupe("ab")
    slowly = Restart(backoff=Backoff.every(1000))
    if strategy is Strategy.ONE:
        tree = Ordered(troupe.members(slowly))
    else:
        tree = Ordered(troupe.members(Restart()), strategy=strategy, restart=slowly)
    async with supervised(tree) as group:
        await troupe.news()
        troupe["a"].crash()
        await wait_all_tasks_blocked()
        assert group["a"].state is State.BACKOFF
    assert trio.current_time() == 0
    assert (await ended(group)).ok
    assert str(group["a"].last_error) == "a broke"
    assert troupe.log.count("up a") == 0


@pytest.mark.contract("V47")
async def test_v47_ready_is_what_the_member_says() -> None:
    """The next one starts, and an operation returns, when it has said so and not before."""
    troupe = Troupe("ab")
    troupe["a"].opening = 5
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        await group.wait_ready()
        assert [player.begun for player in troupe] == [[0], [5]]
        await group.restart("a", cascade=True)
        assert trio.current_time() == 10


@pytest.mark.contract("V47")
async def test_v47_a_group_does_not_live_on_without_a_member_that_gave_up() -> None:
    """A PERMANENT member that returned too often is a failure like any other."""
    troupe = Troupe("ab")
    async with supervised(Parallel(troupe.members(at_once(limit=0)))) as group:
        troupe["a"].finish()
        (error,) = errors(await ended(group))
    assert error.startswith("member 'a' gave up after 0 restarts")
