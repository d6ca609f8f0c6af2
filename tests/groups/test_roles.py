"""What a member's own exit does to its group: the whole table, with and without a termination signal."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import ErrorTrace, Graph, Member, Ordered, Parallel, Role, Signals, State
from grouper.groups.verdict import AFTER_EXIT

from .members import Cast, Puppet, child, deaf, fails, returns, service, watched

TERM = signal.SIGTERM
ENTRIES = [
    pytest.param(role, clean, termination, id=f"{role.value}-{'clean' if clean else 'fails'}-{termination}")
    for (role, clean), termination in itertools.product(AFTER_EXIT, [TERM, None])
]
each_entry = pytest.mark.parametrize(("role", "clean", "termination"), ENTRIES)


async def unready(signals: Signals, /, *, task_status: Any) -> None:
    """Lives on, and is not ready."""
    await signals.wait()


def test_table_is_total() -> None:
    """There is an entry for each role and each kind of exit."""
    assert set(AFTER_EXIT) == set(itertools.product(Role, [True, False]))


@each_entry
async def test_whether_the_group_stops(role: Role, clean: bool, termination: int | None) -> None:
    """The others are stopped as the table says, and never with `termination_signal=None`."""
    a = Puppet()
    async with watched(Parallel([Member("a", a, role=role), ("peer", service)], termination_signal=termination)) as root:
        a.fail(OSError()) if not clean else a.end.set()
        await wait_all_tasks_blocked()
        stopped = child(root, "peer").exit is not None
        assert stopped is (AFTER_EXIT[role, clean].stops and termination is not None)
        assert (root.exit is not None) is stopped


@each_entry
async def test_whether_the_failure_is_raised(role: Role, clean: bool, termination: int | None) -> None:
    """The group's trace has the failures that the table says, also where they did not stop it."""
    a = Puppet()
    async with watched(Parallel([Member("a", a, role=role), ("peer", service)], termination_signal=termination)) as root:
        a.fail(OSError("gone")) if not clean else a.end.set()
        await wait_all_tasks_blocked()
        root.signal(TERM)
        exit = await root.wait()
        assert isinstance(exit.error, ErrorTrace) is AFTER_EXIT[role, clean].raised


@each_entry
async def test_whether_those_after_it_start(role: Role, clean: bool, termination: int | None) -> None:
    """An exit before ready satisfies those after the member as the table says, whatever the termination signal."""
    group = Graph(
        [Member("a", returns if clean else fails, role=role), Member("b", service, after="a"), ("peer", service)],
        termination_signal=termination,
    )
    async with watched(group) as root:
        assert (child(root, "b").started_at is not None) is AFTER_EXIT[role, clean].satisfies


@each_entry
async def test_every_exit_is_told(role: Role, clean: bool, termination: int | None) -> None:
    """The exit of every member is in the exits of the trace, in exit order, raised or not."""
    a, last = Puppet("a"), Puppet("last")
    group = Parallel([Member("a", a, role=role), ("last", last)], termination_signal=termination)
    async with watched(group) as root:
        a.fail(OSError("gone")) if not clean else a.end.set()
        await wait_all_tasks_blocked()
        last.fail(KeyError())
        error = (await root.wait()).error
        if isinstance(error, ErrorTrace):
            assert [exit.path for exit in error.exits] == ["a", "last"]
            assert error.exits[0].ok is clean
        else:
            assert AFTER_EXIT[role, clean].stops
            assert termination is not None


@pytest.mark.parametrize("role", Role)
async def test_exit_while_the_group_stops_stops_nothing_more(role: Role) -> None:
    """The order of a stop is not disturbed by a member that ends before its turn."""
    cast = Cast("abc", polite=False)
    async with watched(
        Ordered([Member(name, puppet, role=Role.OPTIONAL if name != "b" else role) for name, puppet in cast.pairs()])
    ) as root:
        if role is Role.JOB:
            cast["b"].end.set()
        await cast.news()
        root.signal(TERM)
        cast["b"].end.set()
        news = await cast.news()
        assert "SIGTERM a" not in news
        cast["c"].end.set()
        assert (await cast.news())[-1] == "SIGTERM a"
        cast["a"].end.set()
        assert (await root.wait()).ok


async def test_service_that_returned_before_it_was_ready_has_failed() -> None:
    """Though it returned cleanly; the error names the member and both ways to put it right."""
    async with watched(Ordered([("db", returns)])) as root:
        text = str((await root.wait()).error)
    assert "db: ExitedBeforeReady: member 'db' returned before it was ready" in text
    assert "call `task_status.started()`, or give it Role.JOB if it is to return" in text


@pytest.mark.parametrize("role", [Role.JOB, Role.OPTIONAL])
async def test_only_a_service_must_be_ready(role: Role) -> None:
    """A job, or an optional member, that returns without having said so is fine."""
    async with watched(Ordered([Member("a", returns, role=role), ("b", service)])) as root:
        exit = child(root, "a").exit
        assert exit is not None
        assert exit.ok
        assert child(root, "b").state is State.READY


async def test_job_is_ready_when_it_has_returned() -> None:
    """What is after a job waits for its end, though it called `started()`."""
    job = Puppet(polite=False)
    async with watched(Ordered([Member("a", job, role=Role.JOB), ("b", service)])) as root:
        a, b = root.children
        assert (a.ready_at, b.state) == (None, State.WAITING)
        job.end.set()
        await wait_all_tasks_blocked()
        assert (a.ready_at, b.state) == (a.ended_at, State.READY)


@pytest.mark.parametrize("clean", [True, False])
async def test_optional_member_that_was_ready_settles_its_edges_once(clean: bool) -> None:
    """Its end after ready satisfies nobody a second time: what waits for another too goes on waiting."""
    a = Puppet("a")
    group = Graph([Member("a", a, role=Role.OPTIONAL), ("slow", unready), Member("b", service, after=["a", "slow"])])
    async with watched(group) as root:
        a.fail(OSError()) if not clean else a.end.set()
        await wait_all_tasks_blocked()
        assert child(root, "b").state is State.WAITING


async def test_group_of_jobs_ends_with_them() -> None:
    """A group of jobs alone is over when they have returned, and ready then."""
    group = Parallel([Member("a", returns, role=Role.JOB), Member("b", returns, role=Role.JOB)])
    async with watched(group) as root:
        exit = await root.wait()
        assert (exit.ok, exit.was_ready) == (True, True)


async def test_without_termination_signal_the_group_ends_when_all_have() -> None:
    """And raises then what failed, of services and jobs."""
    cast = Cast("abc")
    members = [Member("a", cast["a"]), Member("b", cast["b"], role=Role.OPTIONAL), Member("c", cast["c"])]
    async with watched(Parallel(members, termination_signal=None)) as root:
        for name in "abc":
            assert root.exit is None
            cast[name].fail(OSError(name))
            await wait_all_tasks_blocked()
        error = (await root.wait()).error
        assert isinstance(error, ErrorTrace)
        assert [str(each) for each in error.exceptions] == ["a", "c"]


async def test_without_termination_signal_what_cannot_start_any_more_does_not_keep_the_group() -> None:
    """The group ends when all that were started have ended; it was never ready, and its error has the reason."""
    async with watched(Ordered([("a", fails), ("b", service)], termination_signal=None)) as root:
        exit = await root.wait()
        assert not exit.was_ready
        assert isinstance(exit.error, ErrorTrace)
        assert child(root, "b").started_at is None


async def test_clean_exit_that_ends_a_group_before_it_is_ready_is_an_error() -> None:
    """The group's error says whose exit left others unstarted."""
    a = Puppet("a")
    async with watched(Ordered([("web", Ordered([("a", a), ("b", unready), ("c", service)]))])) as root:
        a.end.set()
        text = str((await root.wait()).error)
    assert "ExitedBeforeReady: the group 'web' was never ready: member 'web/a' ended" in text


async def test_error_of_a_group_that_was_never_ready_has_the_cause() -> None:
    """The exit that ended it, in time the first, is the cause of the trace."""
    async with watched(Ordered([("a", Puppet("a")), ("b", fails), ("c", service)])) as root:
        error = (await root.wait()).error
        assert isinstance(error, ErrorTrace)
        assert isinstance(error.__cause__, OSError)


async def test_trace_of_a_group_that_was_ready_has_no_cause() -> None:
    """Its own errors are reason enough."""
    a = Puppet()
    async with watched(Ordered([("a", a)])) as root:
        a.fail(OSError())
        error = (await root.wait()).error
        assert error is not None
        assert error.__cause__ is None


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("termination", [TERM, None])
async def test_what_is_no_exception_stops_every_group(role: Role, termination: int | None) -> None:
    """SystemExit of any member passes through bare, after an ordered stop, whatever its role and the termination signal."""
    cast = Cast("a")
    quits = Puppet("q")

    async def quit_it() -> None:
        async with watched(Ordered([*cast.pairs(), Member("q", quits, role=role)], termination_signal=termination)) as root:
            quits.fail(SystemExit(7))
            await root.wait()

    with pytest.raises(SystemExit) as caught:
        await quit_it()
    assert caught.value.code == 7
    assert cast.log[-2:] == ["SIGTERM a", "-a"]


async def test_what_is_no_exception_comes_out_with_the_trace() -> None:
    """Where members failed too, both are in one group."""
    a, b = Puppet("a"), Puppet("b")

    async def fail_and_quit() -> None:
        async with watched(Parallel([("a", a), ("b", b)], termination_signal=None)) as root:
            a.fail(OSError())
            await wait_all_tasks_blocked()
            b.fail(SystemExit(7))
            await root.wait()

    with pytest.raises(BaseExceptionGroup) as caught:
        await fail_and_quit()
    leaves = {type(error) for error in caught.value.exceptions}
    assert leaves == {SystemExit, ErrorTrace}


async def test_killed_service_stops_the_group() -> None:
    """A kill by hand is a failure like any other."""
    async with watched(Parallel([("a", deaf), ("peer", service)])) as root:
        child(root, "a").kill()
        error = (await root.wait()).error
        assert isinstance(error, ErrorTrace)
        assert "a: MemberKilled" in str(error)


async def test_killed_job_has_not_been_ready() -> None:
    """A job that was killed while its group stopped did not return: nothing enters."""
    async with watched(Parallel([Member("a", deaf, role=Role.JOB, grace=1), ("peer", service)])) as root:
        root.signal(TERM)
        exit = await child(root, "a").wait()
        assert (exit.killed, exit.was_ready) == (True, False)


async def test_summary_counts() -> None:
    """The headline says how many of those that were started have failed."""
    async with watched(Parallel([("a", fails), ("b", service), Member("c", fails, role=Role.OPTIONAL)])) as root:
        await trio.lowlevel.checkpoint()
        assert str((await root.wait()).error).startswith("1 of 3 members failed:")
