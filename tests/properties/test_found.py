"""What the random trees have found, each as small as it gets."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from grouper import Ordered, Parallel, Role, Signals, State, background

from .invariants import check
from .playing import play
from .scenarios import INT, TERM, Action, Doing, End, Kind, Leaf, Scenario, Spec, Step, Tree, What


def test_a_returned_job_still_stands_between_those_before_and_after_it() -> None:
    """Of X, a job after X, and D after that job (and after something slow), X is stopped after D, though the job ended long ago."""
    slow, x, job, d = Spec(Leaf(setup=1.0)), Spec(Leaf()), Spec(Leaf(life=0.0), (0,), Role.JOB), Spec(Leaf(stop_delay=2.0), (1, 2))
    check(play(Scenario(Tree(Kind.GRAPH, (x, job, slow, d)), actions=(Action(3.0, 0, What.SIGNAL, TERM),))))


def test_an_optional_member_that_is_ready_and_returns_at_once_is_settled() -> None:
    """Who is after an optional member that says ready and returns in one step starts."""
    check(play(Scenario(Tree(Kind.ORDERED, (Spec(Leaf(life=0.0), role=Role.OPTIONAL), Spec(Leaf()))))))


def test_an_optional_member_that_says_ready_when_it_is_killed_is_settled() -> None:
    """Who is after an optional member that was killed as late, and says ready in its cleanup, starts."""
    late = Spec(Leaf(ready=False, late_ready=True), role=Role.OPTIONAL, ready_within=1.0)
    check(play(Scenario(Tree(Kind.ORDERED, (late, Spec(Leaf()))))))


def test_what_stops_the_group_starts_nobody() -> None:
    """A SystemExit of an optional member stops the group, and does not first start those after the member."""
    leaving = Spec(Leaf(ready=False, life=1.0, end=End.EXIT), role=Role.OPTIONAL)
    check(play(Scenario(Tree(Kind.ORDERED, (Spec(Leaf()), leaving, Spec(Leaf()))))))


def test_what_stops_the_group_does_not_make_it_ready() -> None:
    """A SystemExit of the last optional member stops the group, and does not first make it ready."""
    leaving = Spec(Leaf(ready=False, life=1.0, end=End.EXIT), role=Role.OPTIONAL)
    check(play(Scenario(Tree(Kind.ORDERED, (Spec(Leaf()), leaving)))))


def test_a_member_being_removed_hears_the_stop_signal_of_its_group() -> None:
    """A member that a client removes is being stopped: it hears the first stop signal to the group too."""
    steps = (Step(0.0, Doing.INSERT, "a", Spec(Leaf(stop_delay=2.0), grace=math.inf)), Step(1.0, Doing.REMOVE, "a"))
    check(play(Scenario(Tree(Kind.DYNAMIC, steps=steps), actions=(Action(2.0, 0, What.SIGNAL, INT),))))


def test_a_member_that_is_removed_while_it_dies_of_its_own_still_stops_its_group() -> None:
    """A member that was killed as late has failed; that a client then removes it takes that back no more than a restart would."""
    late = Spec(Leaf(ready=False, cleanup=1.0), ready_within=1.0)
    steps = (
        Step(0.0, Doing.INSERT, "a", late),
        Step(1.5, Doing.REMOVE, "a"),
        Step(0.0, Doing.INSERT, "b", Spec(Leaf())),
    )
    check(play(Scenario(Tree(Kind.DYNAMIC, steps=steps, capacity=1))))


async def idle(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
    await signals.wait()


async def test_a_process_that_never_ran_is_not_disturbed_by_a_late_kill() -> None:
    """Killing a process whose group ended before it was started does nothing."""
    async with background(Ordered([("first", idle), ("never", idle)])) as process:
        await trio.testing.wait_all_tasks_blocked()
        process.signal(TERM)
        await process.wait()
        never = process.children[1]
        never.kill()
        assert never.state is State.EXITED


@pytest.mark.parametrize("late", [False, True])
async def test_a_ring_that_keeps_more_than_it_has_drops_nothing(late: bool) -> None:
    """With an `event_buffer` of 100, the first 70 events are all told, to a stream that was there and to one that comes after."""
    group = Parallel([(f"m{place}", idle) for place in range(70)], event_buffer=100)
    async with background(group) as process, process.events() as early:
        await trio.testing.wait_all_tasks_blocked()
        async with process.events() as stream:
            paths = [(await anext(stream if late else early)).path for _ in range(70)]
    assert paths == [f"m{place}" for place in range(70)]
