"""`run_jobs` and `Jobs`: graphs of jobs, alone and in a group."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
import trio.testing

import grouper
from grouper import CycleError, DuplicateNames, ErrorTrace, Graph, Member, Ordered, Role, Signals, State, UnknownDependency
from grouper.testing import FakeRunner
from grouper.work import Jobs, JobSpec, Status, job, run_jobs


async def noop() -> None:
    """Do nothing."""


async def fails() -> None:
    """Raise."""
    raise ValueError("no")


class Log:
    """Bodies that say that they ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def body(self, name: str, seconds: float = 0) -> None:
        """Take so long, and say so."""
        await trio.sleep(seconds)
        self.ran.append(name)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no graph": (3, TypeError, "not iterable"),
    "no pairs": ([noop], TypeError, "cannot unpack"),
    "three": ([("a", noop, 3)], TypeError, "is no graph of jobs: give a mapping"),
    "name": ([(3, noop)], TypeError, "3 is not the name of a job"),
    "not callable": ({"a": 3}, TypeError, "job 'a': 3 is not callable"),
    "duplicate": ([("a", noop), ("a", noop)], DuplicateNames, "more than one job is called 'a'"),
    "unknown": ({"a": job(noop, after="x")}, UnknownDependency, "'a' is after 'x', which no job of the graph is called"),
    "cycle": (
        {"a": job(noop, after="b"), "b": job(noop, after="a")},
        CycleError,
        "jobs are after each other in a circle: 'a' -> 'b'",
    ),
    "self": ({"a": job(noop, after="a")}, CycleError, "'a' -> 'a'"),
}


@pytest.mark.parametrize(("graph", "kind", "told"), BAD.values(), ids=BAD)
async def test_bad_graphs_are_refused_before_anything_has_run(graph: Any, kind: type[Exception], told: str) -> None:
    """By name."""
    with pytest.raises(kind, match=told):
        await run_jobs(graph)


def test_all_problems_of_a_graph_are_told_at_once() -> None:
    """The first, with the others as notes."""
    log = Log()
    with pytest.raises(DuplicateNames) as caught:
        Jobs([("a", job(log.body, "a", after="x")), ("a", noop), ("b", job(noop, after="c")), ("c", job(noop, after="b"))])
    assert [note.split(":")[0] for note in caught.value.__notes__] == ["also UnknownDependency", "also CycleError"]
    assert log.ran == []


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: job(3), "3 is not callable"),  # type: ignore[arg-type]  # pyright: ignore
        (lambda: job(noop, timeout=-1), "timeout=-1"),
        (lambda: job(noop, after=[3]), r"after=\[3\]"),  # type: ignore[list-item]  # pyright: ignore
        (lambda: job(noop, retry=1), "retry=1 is no Backoff"),  # type: ignore[arg-type]  # pyright: ignore
        (lambda: Jobs({}, limit=0), "Jobs: limit=0"),
    ],
)
def test_bad_jobs_are_refused_where_they_are_written(make: Any, told: str) -> None:
    """By name."""
    with pytest.raises((TypeError, ValueError), match=told):
        make()


def test_a_job_of_a_graph_is_a_description() -> None:
    """What `after` names twice is there once."""
    spec = job(Log().body, "a", 3.0, after=["x", "y", "x"], timeout=5)
    assert isinstance(spec, JobSpec)
    assert (spec.args, spec.after, spec.timeout, spec.retry) == (("a", 3.0), ("x", "y"), 5, None)


async def test_an_empty_graph_is_done() -> None:
    """There is nothing that did not succeed."""
    report = await run_jobs({})
    assert report.ok
    assert report.finished


async def test_jobs_can_be_run_again() -> None:
    """Each run has a report of its own."""
    log = Log()
    jobs = Jobs({"a": job(log.body, "a"), "b": job(log.body, "b", after="a")})
    before = jobs.report
    first, second = await jobs.execute(), await jobs.execute()
    assert first is before
    assert second is jobs.report
    assert second is not first
    assert first.ok
    assert log.ran == ["a", "b", "a", "b"]


async def test_a_cancelled_run_can_be_looked_at() -> None:
    """What was done, and what was cut short."""
    jobs = Jobs({"a": noop, "b": job(trio.sleep_forever, after="a"), "c": job(noop, after="b")})
    with trio.move_on_after(5) as scope:
        await jobs.execute()
    assert scope.cancelled_caught
    assert [each.state for each in jobs.report.values()] == ["success", "cancelled", "unknown"]
    assert not jobs.report.timed_out


async def test_jobs_before_a_server() -> None:
    """As a member a graph is a job, whatever role it was given: the server starts when all of it has succeeded."""
    log, server = Log(), FakeRunner(ready_at_once=True, stops=True)
    migrations = Jobs({"users": job(log.body, "users", 1), "orders": job(log.body, "orders", 1, after="users")})
    assert Member("migrations", migrations).role is Role.JOB
    async with grouper.invoke(Ordered([("migrations", migrations), ("server", server)])) as process:
        assert log.ran == ["users", "orders"]
        assert process.children[0].value is migrations.report
        assert migrations.report.ok


async def test_jobs_that_fail_keep_the_server_from_starting() -> None:
    """The group fails with what the job raised."""
    server = FakeRunner(ready_at_once=True, stops=True)
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([("migrations", Jobs({"users": fails})), ("server", server)])):
            pytest.fail("the group was ready")
    assert server.runs == []
    assert "1 of 1 jobs failed" in str(caught.value)


async def test_a_stop_lets_the_jobs_finish_that_run_and_begins_no_other() -> None:
    """The group is stopped cleanly, and the server never starts."""
    log, server = Log(), FakeRunner(ready_at_once=True, stops=True)
    migrations = Jobs({"users": job(log.body, "users", 5), "orders": job(log.body, "orders", after="users")})
    async with grouper.background(Ordered([("migrations", migrations), ("server", server)])):
        await trio.sleep(1)
    assert log.ran == ["users"]
    assert migrations.report["orders"].status is Status.UNKNOWN
    assert server.runs == []


async def test_jobs_that_are_stopped_alone_have_failed_and_release_nobody() -> None:
    """What is after them must not start on half of what they were to do."""
    log, server = Log(), FakeRunner(ready_at_once=True, stops=True)
    migrations = Jobs({"users": job(log.body, "users", 5), "orders": job(log.body, "orders", after="users")})
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.background(Ordered([("migrations", migrations), ("server", server)])) as process:
            await trio.sleep(1)
            process.children[0].signal(signal.SIGTERM)
            await process.wait()
    assert "'orders' was not begun before its run was over" in str(caught.value.exceptions[0])
    assert server.runs == []


async def test_jobs_that_are_killed_are_cancelled() -> None:
    """And waited for."""
    jobs = Jobs({"a": trio.sleep_forever})
    with pytest.raises(ErrorTrace):
        async with grouper.background(Ordered([("jobs", jobs)])) as process:
            await trio.testing.wait_all_tasks_blocked()
            process.children[0].kill()
            await process.wait()
    assert jobs.report["a"].state == "cancelled"


async def test_jobs_given_signals_that_say_stop_run_nothing() -> None:
    """As a group does."""
    log, signals = Log(), Signals()
    signals.send(signal.SIGTERM)
    await Jobs({"a": job(log.body, "a")}).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert log.ran == []


async def test_services_and_jobs_mix_in_a_graph() -> None:
    """One graph, and one reverse stop of what still runs."""
    log, order = Log(), list[str]()

    def service(name: str) -> Any:
        async def run(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
            log.ran.append(name)
            task_status.started()
            await signals.wait()
            order.append(name)

        return run

    graph = Graph(
        [
            Member("db", service("db")),
            Member("migrate", Jobs({"m": job(log.body, "m", 1)}), after="db"),
            Member("web", service("web"), after="migrate"),
            Member("warm", Jobs({"w": job(log.body, "w", 1)}), after="web"),
            Member("proxy", service("proxy"), after=["web", "warm"]),
        ]
    )
    async with grouper.invoke(graph) as process:
        assert log.ran == ["db", "m", "web", "w", "proxy"]
        states = [child.state for child in process.children]
    assert states == [State.READY, State.EXITED, State.READY, State.EXITED, State.READY]
    assert order == ["proxy", "web", "db"]


async def test_what_is_no_exception_comes_out_bare() -> None:
    """After all jobs have ended."""
    cleaned: list[bool] = []

    async def leaves() -> None:
        raise SystemExit(3)

    async def other() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit):
        await run_jobs({"other": other, "leaves": leaves})
    assert cleaned == [True]


def test_a_graph_can_be_drawn_where_no_trio_runs() -> None:
    """Its report is there before any run."""
    assert "waiting" in Jobs({"a": noop}).report.render()


def test_nothing_is_said_of_a_run_that_is_not_over() -> None:
    """Neither that it is fine nor that it is not."""
    with pytest.raises(RuntimeError, match="not done yet: await"):
        Jobs({"a": noop}).report.raise_for_status()


async def test_jobs_that_were_cut_short_are_not_ready() -> None:
    """They return, and whoever started them is not told that the graph is done."""
    signals, told = Signals(), list[object]()

    class Noted:
        def started(self, value: object = None) -> None:
            told.append(value)

    jobs = Jobs({"a": job(trio.sleep, 5), "b": job(noop, after="a")})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: jobs.run(signals, task_status=Noted()))
        await trio.sleep(1)
        signals.send(signal.SIGTERM)
    assert (jobs.report["a"].ready, jobs.report["b"].ready, told) == (True, False, [])
