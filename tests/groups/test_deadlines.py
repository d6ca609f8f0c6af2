"""By when something is expected of a member: to be ready, to stop, to end when it was killed."""

from __future__ import annotations

import logging
import math
import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import Dynamic, ErrorTrace, Member, Ordered, Parallel, Process, ReadyTimeout, Role, Signals, State, StopTimeout

from .members import Puppet, child, deaf, never_ready, service, trace_of, watched

TERM, INT = signal.SIGTERM, signal.SIGINT


def errors(trace: ErrorTrace) -> list[str]:
    return [f"{type(error).__name__}: {error}" for error in trace.exceptions]


async def lasted(process: Process) -> float:
    """The seconds that a process was there."""
    exit = await process.wait()
    return exit.ended_at - exit.started_at


# ready_within


async def test_member_that_is_not_ready_in_time_is_killed() -> None:
    """Its error names it and the seconds; those beside it are stopped."""
    async with watched(Parallel([Member("a", never_ready, ready_within=2.5), ("peer", service)])) as root:
        assert errors(await trace_of(root)) == ["ReadyTimeout: member 'a' was not ready within 2.5 s and was killed"]
        a = child(root, "a")
        assert a.exit is not None
        assert a.exit.killed
        assert await lasted(a) == 2.5


async def test_member_that_was_ready_in_time_lives_on() -> None:
    """The deadline is over when the member is ready."""
    a = Puppet(ready=False)
    async with watched(Ordered([Member("a", a, ready_within=5)])) as root:
        await trio.sleep(4)
        a.go.set()
        await trio.sleep(100)
        assert root.state is State.READY


async def test_ready_within_begins_with_the_members_own_start() -> None:
    """The time in which it waits for others does not count."""
    a = Puppet(ready=False)
    async with watched(Ordered([("a", a), Member("b", never_ready, ready_within=5)])) as root:
        await trio.sleep(100)
        a.go.set()
        await trace_of(root)
        assert await lasted(child(root, "b")) == 5


async def test_earlier_deadline_is_kept_though_a_later_one_was_first() -> None:
    """One timer serves all members, in the order of their deadlines and not of their starts."""
    members = [Member(name, never_ready, ready_within=seconds) for name, seconds in [("a", 9), ("b", 3), ("c", 6)]]
    async with watched(Parallel(members, termination_signal=None)) as root:
        trace = await trace_of(root)
        assert [exit.path for exit in trace.exits] == ["b", "c", "a"]
        assert [exit.ended_at - exit.started_at for exit in trace.exits] == [3, 6, 9]


async def test_job_must_return_within_the_time_to_be_ready() -> None:
    """A job is ready when it has returned; `started()` does not stop its clock."""
    async with watched(Parallel([Member("a", deaf, role=Role.JOB, ready_within=5), ("peer", service)])) as root:
        (error,) = (await trace_of(root)).exceptions
        assert isinstance(error, ReadyTimeout)


async def test_member_that_is_stopped_need_not_be_ready_any_more() -> None:
    """Its grace takes the place of the time to be ready."""
    async with watched(Ordered([Member("a", Puppet(ready=False, polite=False), ready_within=5, grace=20)])) as root:
        root.signal(TERM)
        (error,) = (await trace_of(root)).exceptions
        assert isinstance(error, StopTimeout)
        assert await lasted(child(root, "a")) == 20


async def test_optional_member_that_is_late_is_not_raised() -> None:
    """It is killed all the same, and settles its edges."""
    async with watched(Ordered([Member("a", never_ready, role=Role.OPTIONAL, ready_within=1), ("b", service)])) as root:
        await root.wait_ready()
        exit = child(root, "a").exit
        assert exit is not None
        assert isinstance(exit.error, ReadyTimeout)


# grace


@pytest.mark.parametrize("number", [TERM, INT])
async def test_member_that_does_not_stop_is_killed(number: int) -> None:
    """After its grace; its error names it, the seconds and the signal."""
    name = signal.Signals(number).name
    async with watched(Ordered([("web", Ordered([Member("api", deaf, grace=1.5)]))])) as root:
        root.signal(number)
        assert f"StopTimeout: member 'web/api' had not stopped 1.5 s after {name} and was killed" in str(await trace_of(root))


@pytest.mark.parametrize(
    ("policy", "seconds"), [({}, 10.0), ({"grace": 0}, 0.0), ({"grace": 33}, 33.0)], ids=["default", "0", "33"]
)
async def test_grace_is_counted_from_the_stop_signal(policy: dict[str, Any], seconds: float) -> None:
    """Ten seconds if nobody says otherwise."""
    async with watched(Ordered([Member("a", deaf, **policy)])) as root:
        await trio.sleep(5)
        root.signal(TERM)
        await root.wait()
        assert await lasted(child(root, "a")) == 5 + seconds


async def test_each_has_its_own_grace_in_its_turn() -> None:
    """The grace of a member begins when it is told, after those that depend on it have ended."""
    async with watched(Ordered([Member("a", deaf, grace=4), Member("b", deaf, grace=3)])) as root:
        root.signal(TERM)
        trace = await trace_of(root)
        assert [exit.path for exit in trace.exits] == ["b", "a"]
        assert [exit.ended_at - exit.started_at for exit in trace.exits] == [3, 3 + 4]


async def test_infinite_grace() -> None:
    """A member may take all the time in the world."""
    a = Puppet(polite=False)
    async with watched(Ordered([Member("a", a, grace=math.inf)])) as root:
        root.signal(TERM)
        await trio.sleep(1e3)
        a.end.set()
        assert (await root.wait()).ok


async def test_member_that_stops_in_time_is_not_killed() -> None:
    """And nothing happens when the time is over."""
    a = Puppet(polite=False)
    async with watched(Ordered([("first", service), Member("a", a, grace=5)])) as root:
        root.signal(TERM)
        await trio.sleep(4)
        a.end.set()
        assert (await root.wait()).ok


async def test_further_stop_signal_does_not_prolong_the_grace() -> None:
    """It counts from the first."""
    async with watched(Ordered([Member("a", deaf, grace=5)])) as root:
        root.signal(TERM)
        await trio.sleep(3)
        root.signal(INT)
        await root.wait()
        assert await lasted(child(root, "a")) == 5


async def test_stop_signal_by_hand_has_no_grace() -> None:
    """Who signals a process himself may wait, or kill it."""
    async with watched(Ordered([Member("a", deaf, grace=5)])) as root:
        child(root, "a").signal(TERM)
        await trio.sleep(100)
        assert child(root, "a").state is State.READY


async def test_group_is_bounded_by_its_members_graces() -> None:
    """A parent never cuts an orderly child short."""
    inner = Ordered([Member(str(number), deaf, grace=20) for number in range(3)])
    async with watched(Ordered([("web", inner)])) as root:
        root.signal(TERM)
        await root.wait()
        assert await lasted(child(root, "web")) == 60


async def test_grace_that_was_given_to_a_group_cuts_it_short() -> None:
    """The group is killed, in order, and what was being stopped in it has not failed."""
    inner = Ordered([Member(str(number), deaf, grace=20) for number in range(3)])
    async with watched(Ordered([Member("web", inner, grace=30)])) as root:
        root.signal(TERM)
        trace = await trace_of(root)
        assert errors(trace) == ["StopTimeout: member 'web' had not stopped 30 s after SIGTERM and was killed"]
        assert isinstance(trace.exceptions[0].__cause__, ErrorTrace)
        assert [await lasted(each) for each in child(root, "web").children] == [30, 30, 20]


# A member that ignores its kill


async def stubborn(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    task_status.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sulk, name="sulk")


async def sulk() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(7)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING and record.name == "grouper"]


async def test_member_that_ignores_its_kill_is_named_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    """Every two seconds, until it has ended."""
    async with watched(Ordered([Member("a", stubborn, role=Role.OPTIONAL), ("peer", service)])) as root:
        child(root, "a").kill()
        await child(root, "a").wait()
    assert [text.partition(" and ")[0] for text in warnings(caplog)] == ["member 'a' ignores its kill"] * 3


async def test_log_tells_where_it_sits(caplog: pytest.LogCaptureFixture) -> None:
    """The stack of its task and of its nurseries' tasks, with the lines of their code."""
    async with watched(Ordered([Member("a", stubborn, role=Role.OPTIONAL), ("peer", service)])) as root:
        child(root, "a").kill()
        await trio.sleep(3)
        (text,) = warnings(caplog)
    assert "task a:" in text
    assert "in stubborn\n" in text
    assert "task sulk:" in text
    assert "await trio.sleep(7)" in text


async def test_group_above_it_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """A group that was killed waits for its members: only the one that does not end is told of."""
    async with watched(Ordered([("web", Ordered([("api", stubborn)]))])) as root:
        root.kill()
        await trio.sleep(3)
    assert {text.partition(" and ")[0] for text in warnings(caplog)} == {"member 'web/api' ignores its kill"}


async def test_member_that_ends_when_killed_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """The log is for what does not work."""
    async with watched(Ordered([("a", deaf)])) as root:
        root.kill()
        await root.wait()
        await trio.sleep(10)
    assert warnings(caplog) == []


# The heap


async def test_deadlines_that_are_over_are_forgotten() -> None:
    """Members that come and go leave no trace in the heap, however late what was expected of them."""
    group = Dynamic()
    async with watched(group) as root:
        client = group.client()
        run: Any = root._inner
        for number in range(500):
            client.insert_nowait(Member("a", service, ready_within=1e6))
            await wait_all_tasks_blocked()
            await client.remove("a")
            assert len(run.deadlines._heap) < 200, number
        root.signal(TERM)


async def test_timer_ends_with_the_group() -> None:
    """A deadline that is far away keeps nobody."""
    async with watched(Ordered([Member("a", service, ready_within=1e6)])) as root:
        begin = trio.current_time()
        root.signal(TERM)
        await root.wait()
        assert trio.current_time() == begin
