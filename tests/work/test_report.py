"""What a report says of a graph of jobs: when it has ended, while it runs, after a cancellation, and to another thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper.work import (
    Backoff,
    Front,
    JobCancelled,
    JobEnded,
    JobEvent,
    JobNotReady,
    Jobs,
    JobSkipped,
    JobStarted,
    NotReady,
    Report,
    Status,
    all_done,
    job,
    run_jobs,
)

Body = Callable[[], Awaitable[None]]


async def fine() -> None:
    pass


async def not_yet() -> None:
    raise NotReady("no leader yet")


def takes(seconds: float) -> Body:
    """A body that returns after so many seconds."""

    async def body() -> None:
        await trio.sleep(seconds)

    return body


def fails(after: float = 0, error: Exception | None = None) -> Body:
    """A body that raises after so many seconds."""

    async def body() -> None:
        await trio.sleep(after)
        raise ValueError("wrong") if error is None else error

    return body


def fails_when_cancelled(error: Exception) -> Body:
    """A body that never ends by itself, and whose clean-up fails."""

    async def body() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    return body


async def stuck() -> Report:
    """The report of a graph that got stuck at b: a -> b -> c, and {c, d} -> e."""
    return await run_jobs(
        {"a": fine, "b": job(not_yet, after="a"), "c": job(fine, after="b"), "d": fine, "e": job(fine, after=["d", "c"])}
    )


class Halted:
    """A run of a -> b -> c that is in b until it is let go."""

    def __init__(self) -> None:
        self.go: trio.Event = trio.Event()
        self.jobs: Jobs = Jobs({"a": fine, "b": job(self.go.wait, after="a"), "c": job(fine, after="b"), "d": not_yet})


def names(jobs: tuple[object, ...]) -> list[str]:
    return [getattr(each, "name") for each in jobs]  # noqa: B009 (of jobs and of fronts)


# A mapping of the jobs


async def test_the_jobs_are_in_the_order_in_which_they_were_given() -> None:
    """Not in the order in which they ran, nor by name."""
    report = await run_jobs({"c": job(fine, after="b"), "a": fine, "b": job(fine, after="a")})
    assert list(report) == ["c", "a", "b"]
    assert [each.name for each in report.values()] == ["c", "a", "b"]


async def test_it_is_a_mapping_of_names_to_jobs() -> None:
    """With what every mapping has."""
    report = await run_jobs({"a": fine, "b": fine})
    assert len(report) == 2
    assert "a" in report
    assert "z" not in report
    assert report.get("z") is None
    assert dict(report)["b"] is report["b"]


async def test_what_is_no_name_of_a_job_is_a_key_error() -> None:
    """Wherever a name is given."""
    report = await run_jobs({"a": fine})
    for ask in (report.__getitem__, report.blockers, report.subtree, report.after):
        with pytest.raises(KeyError, match="z"):
            ask("z")


async def test_the_repr_counts() -> None:
    """How many jobs, and how many in each state."""
    assert repr(await stuck()) == "<Report of 5 jobs: 2 success, 1 not ready, 2 skipped>"
    assert repr(await run_jobs({})) == "<Report of 0 jobs>"


# What it came to


async def test_it_is_ok_if_all_have_succeeded() -> None:
    """Also if there were none."""
    assert (await run_jobs({"a": fine, "b": fine})).ok
    assert (await run_jobs({})).ok


@pytest.mark.parametrize("body", [fails(), not_yet], ids=["failed", "not ready"])
async def test_it_is_not_ok_if_one_has_not_succeeded(body: Body) -> None:
    """Be it failed or not ready."""
    assert not (await run_jobs({"a": fine, "b": body}, on_error="continue")).ok


async def test_it_is_not_ok_if_one_was_skipped() -> None:
    """Even where nothing failed: its `when` said no."""
    report = await run_jobs({"a": fine, "b": job(fine, when=lambda after: False)})
    assert report["b"].status is Status.SKIPPED
    assert not report.ok


async def test_it_is_not_ok_before_it_has_run() -> None:
    """Nothing has succeeded yet."""
    assert not Jobs({"a": fine}).report.ok


async def test_it_is_not_ok_if_it_was_late() -> None:
    """A job that returns although it was cancelled has succeeded, but not in time."""

    async def deaf() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    report = await run_jobs({"a": deaf}, timeout=1)
    assert report["a"].status is Status.SUCCESS
    assert report.timed_out
    assert not report.ok


async def test_it_has_timed_out_if_the_timeout_cut_it_short() -> None:
    """And not if it was done in time, or failed."""
    assert (await run_jobs({"a": takes(2)}, timeout=1)).timed_out
    assert not (await run_jobs({"a": takes(1)}, timeout=2)).timed_out
    assert not (await run_jobs({"a": fails(1)}, timeout=2)).timed_out


async def test_a_timeout_of_a_job_is_none_of_the_run() -> None:
    """The job has failed, and the run has not timed out."""
    report = await run_jobs({"a": job(takes(2), timeout=1)}, timeout=3)
    assert report["a"].status is Status.FAILED
    assert not report.timed_out


async def test_the_failed_are_in_time_order() -> None:
    """Neither as they were given nor by name."""
    report = await run_jobs({"a": fails(2), "b": fails(3), "c": fails(1), "d": fine}, on_error="continue")
    assert names(report.failed) == ["c", "a", "b"]


async def test_the_errors_are_in_time_order() -> None:
    """Those of the failed jobs, in the same order."""
    first, second = ValueError("first"), ValueError("second")
    report = await run_jobs({"a": fails(2, second), "b": fails(1, first)}, on_error="continue")
    assert report.errors == (first, second)


async def test_who_was_not_ready_or_skipped_has_no_error_in_errors() -> None:
    """They have not failed."""
    report = await stuck()
    assert report.failed == ()
    assert report.errors == ()


async def test_the_timeout_is_among_the_errors_where_it_was() -> None:
    """After what failed before it, before what failed because of it."""
    before, because = ValueError("before"), ValueError("because")
    graph = {"a": fails_when_cancelled(because), "b": fails(1, before)}
    report = await run_jobs(graph, timeout=2, on_error="continue")
    late = report.errors[1]
    assert report.errors == (before, late, because)
    assert isinstance(late, trio.TooSlowError)
    assert str(late) == "the jobs were not done within 2 s"


async def test_the_first_error_is_the_first_in_time() -> None:
    """Whatever was given first."""
    first = ValueError("first")
    report = await run_jobs({"a": fails(2), "b": fails(1, first)}, on_error="continue")
    assert report.first_error is first


async def test_the_first_error_can_be_the_timeout() -> None:
    """Where nothing had failed before it."""
    report = await run_jobs({"a": fails_when_cancelled(ValueError("because"))}, timeout=1)
    assert isinstance(report.first_error, trio.TooSlowError)
    assert report.first_error is report.errors[0]


async def test_without_an_error_there_is_no_first_one() -> None:
    """It is None."""
    assert (await stuck()).first_error is None


async def test_the_first_not_ready_is_the_first_by_name() -> None:
    """Which does not depend on who was faster; None if all were ready."""
    assert (await run_jobs({"c": not_yet, "b": not_yet, "a": fine})).first_not_ready is not None
    report = await run_jobs({"c": not_yet, "b": not_yet, "a": fine})
    assert report.first_not_ready is report["b"]
    assert (await run_jobs({"a": fine})).first_not_ready is None


async def test_counts_are_of_states() -> None:
    """Only of those there are, and they add up to all."""
    assert (await stuck()).counts() == {"success": 2, "not ready": 1, "skipped": 2}
    assert (await run_jobs({})).counts() == {}


async def test_who_was_cut_short_and_who_was_never_reached_are_counted_apart() -> None:
    """Cancelled, and unknown."""
    report = await run_jobs({"a": fails(1), "b": takes(2), "c": job(fine, after="b")})
    assert report.counts() == {"failed": 1, "cancelled": 1, "unknown": 1}


async def test_raise_for_status_does_nothing_if_it_is_ok() -> None:
    """So it can be called always."""
    (await run_jobs({"a": fine})).raise_for_status()


async def test_raise_for_status_raises_all_errors_in_time_order() -> None:
    """In one group, which says how many."""
    first, second = ValueError("first"), ValueError("second")
    report = await run_jobs({"a": fails(2, second), "b": fails(1, first), "c": fine}, on_error="continue")
    with pytest.raises(ExceptionGroup, match="2 of 3 jobs failed") as caught:
        report.raise_for_status()
    assert caught.value.exceptions == (first, second)


async def test_raise_for_status_says_that_the_run_timed_out() -> None:
    """Also where no job failed."""
    report = await run_jobs({"a": takes(2)}, timeout=1)
    with pytest.raises(ExceptionGroup, match="0 of 1 jobs failed; the run timed out") as caught:
        report.raise_for_status()
    assert isinstance(caught.value.exceptions[0], trio.TooSlowError)


async def test_raise_for_status_raises_for_the_first_that_is_not_ready() -> None:
    """By name, and before those that were skipped, which is what comes of it; a NotReady as well."""
    report = await run_jobs({"c": not_yet, "b": not_yet, "a": job(fine, after="b")})
    with pytest.raises(JobNotReady, match="job 'b' is not ready: no leader yet") as caught:
        report.raise_for_status()
    assert isinstance(caught.value, NotReady)
    assert caught.value.job is report["b"]


async def test_raise_for_status_raises_for_the_first_that_was_skipped() -> None:
    """Where nothing else went wrong."""
    never = job(fine, when=lambda after: False)
    with pytest.raises(JobSkipped, match="job 'b' was skipped"):
        (await run_jobs({"c": never, "b": never, "a": fine})).raise_for_status()


async def test_raise_for_status_raises_for_what_was_cancelled() -> None:
    """A job that was cancelled by its handle has not failed, and the run is not ok."""
    jobs = Jobs({"a": trio.sleep_forever})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await wait_all_tasks_blocked()
        jobs.report["a"].cancel()
    with pytest.raises(JobCancelled, match="job 'a' was cancelled"):
        jobs.report.raise_for_status()


# Where it got stuck


async def test_the_frontier_is_where_the_graph_got_stuck() -> None:
    """The job that was not ready, with what is stuck with it, and not those."""
    assert (await stuck()).frontier() == (Front("b", Status.NOT_READY, (), ("b", "c", "e")),)


async def test_the_frontier_is_by_name() -> None:
    """Whatever the order in which they failed."""
    report = await run_jobs({"c": fails(1), "a": fails(2), "b": not_yet}, on_error="continue")
    assert [(front.name, front.status) for front in report.frontier()] == [
        ("a", Status.FAILED),
        ("b", Status.NOT_READY),
        ("c", Status.FAILED),
    ]


async def test_who_was_never_reached_is_at_the_frontier_if_nothing_was_in_its_way() -> None:
    """Cut short, or never begun; what is after it is not."""
    report = await run_jobs({"a": fails(1), "b": takes(2), "c": job(fine, after="b")})
    assert names(report.frontier()) == ["a", "b"]


async def test_a_front_has_its_blockers() -> None:
    """A clean-up job that fails can be after others that have not succeeded."""
    report = await run_jobs({"a": fails(), "b": job(fails(), after="a", when=all_done)}, on_error="continue")
    assert [(front.name, front.blockers) for front in report.frontier()] == [("a", ()), ("b", ("a",))]


async def test_a_graph_that_is_ok_has_neither_frontier_nor_boundary() -> None:
    """Nothing is stuck."""
    report = await run_jobs({"a": fine, "b": job(fine, after="a")})
    assert report.frontier() == ()
    assert report.boundary() == ()


async def test_the_boundary_is_what_succeeded_before_something_that_has_not() -> None:
    """At any depth, by name."""
    assert (await stuck()).boundary() == ("a", "d")


async def test_who_has_only_succeeded_ones_after_it_is_not_at_the_boundary() -> None:
    """Nor who has none after it."""
    report = await run_jobs({"a": fine, "b": job(fine, after="a"), "c": not_yet})
    assert report.boundary() == ()


async def test_the_blockers_are_those_directly_before_that_have_not_succeeded() -> None:
    """By name, and none that are further away."""
    report = await stuck()
    assert report.blockers("e") == ("c",)
    assert report.blockers("c") == ("b",)
    assert report.blockers("b") == ()
    report = await run_jobs({"z": not_yet, "y": not_yet, "a": job(fine, after=["z", "y"])})
    assert report.blockers("a") == ("y", "z")


async def test_the_subtree_is_the_job_and_all_that_are_after_it() -> None:
    """Directly or not, by name, whatever became of them; each once, also on a diamond."""
    report = await run_jobs({"d": job(fine, after=["b", "c"]), "c": job(fine, after="a"), "b": job(fine, after="a"), "a": fine})
    assert report.subtree("a") == ("a", "b", "c", "d")
    assert report.subtree("c") == ("c", "d")
    assert report.subtree("d") == ("d",)


async def test_after_is_what_the_job_named() -> None:
    """In its order, and each once."""
    report = await run_jobs({"a": fine, "b": fine, "c": job(fine, after=["b", "a", "b"])})
    assert report.after("c") == ("b", "a")
    assert report.after("a") == ()


async def test_a_long_chain_is_no_deeper_than_a_short_one() -> None:
    """Nothing in a report recurses: 10,000 jobs, each after the one before."""
    report = Jobs([(f"j{n}", job(fine, after=f"j{n - 1}" if n else ())) for n in range(10_000)]).report
    assert len(report.subtree("j0")) == 10_000
    assert names(report.frontier()) == ["j0"]
    assert report.boundary() == ()


async def test_diamonds_are_walked_once() -> None:
    """40 layers of two, each after both before it, have 2 ** 40 paths and 80 jobs."""
    graph = {
        f"{layer}{side}": job(fine, after=[f"{layer - 1}a", f"{layer - 1}b"] if layer else ())
        for layer in range(40)
        for side in "ab"
    }
    report = Jobs(graph).report
    assert len(report.subtree("0a")) == 79
    assert names(report.frontier()) == ["0a", "0b"]


# While it runs


async def test_before_the_run_all_wait() -> None:
    """And nothing has begun or ended."""
    report = Halted().jobs.report
    assert report.counts() == {"waiting": 4}
    assert not report.finished
    assert report.running == ()
    assert names(report.frontier()) == ["a", "d"]


async def test_an_empty_graph_is_finished_before_it_has_run() -> None:
    """There is nothing that has not ended."""
    assert Jobs({}).report.finished


async def test_while_it_runs_it_says_where_it_is() -> None:
    """Who runs, what there is in which state, where it is stuck; it is neither finished nor ok, nor has anything failed."""
    halted = Halted()
    report = halted.jobs.report
    async with trio.open_nursery() as nursery:
        nursery.start_soon(halted.jobs.execute)
        await wait_all_tasks_blocked()
        assert names(report.running) == ["b"]
        assert report.counts() == {"success": 1, "running": 1, "waiting": 1, "not ready": 1}
        assert (report.finished, report.ok, report.timed_out, report.failed) == (False, False, False, ())
        assert names(report.frontier()) == ["b", "d"]
        assert report.boundary() == ("a",)
        assert report.blockers("c") == ("b",)
        halted.go.set()
    assert report.finished
    assert report.running == ()
    assert report.counts() == {"success": 3, "not ready": 1}


async def test_the_report_that_was_read_while_it_ran_is_the_one_that_is_returned() -> None:
    """There is one for each run."""
    jobs = Jobs({"a": fine})
    before = jobs.report
    assert await jobs.execute() is before
    assert jobs.report is before
    assert await jobs.execute() is not before


async def test_who_waits_to_be_tried_again_is_counted_as_that() -> None:
    """It does not run meanwhile."""
    tries = 0

    async def flaky() -> None:
        nonlocal tries
        tries += 1
        if tries < 2:
            raise OSError("no network")

    jobs = Jobs({"a": job(flaky, retry=Backoff(10))})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await wait_all_tasks_blocked()
        assert jobs.report.counts() == {"trying again": 1}
        assert jobs.report.running == ()
    assert jobs.report.ok
    assert jobs.report["a"].attempts == 2


async def test_a_failure_is_told_while_others_run() -> None:
    """With its error, before the run has ended."""
    halted = Halted()
    error = ValueError("wrong")
    jobs = Jobs({"a": fails(0, error), "b": halted.go.wait}, on_error="continue")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await wait_all_tasks_blocked()
        assert jobs.report.first_error is error
        assert not jobs.report.finished
        halted.go.set()


# After a cancellation


async def test_after_a_cancellation_the_report_is_there() -> None:
    """What had succeeded has; what ran was cancelled; what had not begun is unknown; nothing has failed, nor timed out."""
    halted = Halted()
    with trio.move_on_after(1) as scope:
        await halted.jobs.execute()
    assert scope.cancelled_caught
    report = halted.jobs.report
    assert report.counts() == {"success": 1, "cancelled": 1, "unknown": 1, "not ready": 1}
    assert report.finished
    assert report.running == ()
    assert (report.ok, report.timed_out, report.errors) == (False, False, ())
    assert names(report.frontier()) == ["b", "d"]
    assert report.boundary() == ("a",)


async def test_after_a_cancellation_the_errors_of_clean_ups_are_there() -> None:
    """Also where the caller cannot be told, as what comes out of `execute` is the cancellation."""
    error = ValueError("because")
    jobs = Jobs({"a": fails_when_cancelled(error)})
    with trio.move_on_after(1) as scope:
        await jobs.execute()
    assert scope.cancelled_caught
    assert jobs.report.errors == (error,)
    with pytest.raises(ExceptionGroup, match="1 of 1 jobs failed"):
        jobs.report.raise_for_status()


async def test_after_a_cancellation_before_anything_began_all_is_unknown() -> None:
    """And finished."""
    jobs = Jobs({"a": fine, "b": job(fine, after="a")})
    with trio.CancelScope() as scope:
        scope.cancel()
        await jobs.execute()
    assert jobs.report.counts() == {"unknown": 2}
    assert jobs.report.finished
    with pytest.raises(JobCancelled, match="job 'a' was not begun before its run was over"):
        jobs.report.raise_for_status()


# Events


async def collected(report: Report, into: list[JobEvent], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    async with report.events() as stream:
        task_status.started()
        async for event in stream:
            into.append(event)  # noqa: PERF401 (what came before an error is wanted too)


async def test_events_are_the_jobs_that_begin_and_end() -> None:
    """Of a report that is listened to before the run, all of them; the stream ends with the run."""
    jobs = Jobs({"a": fine, "b": job(takes(1), after="a"), "c": not_yet, "d": job(fine, after="c")})
    events: list[JobEvent] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(collected, jobs.report, events)
        report = await jobs.execute()
    assert [(type(event), event.path) for event in events if event.path in "ab"] == [
        (JobStarted, "a"),
        (JobEnded, "a"),
        (JobStarted, "b"),
        (JobEnded, "b"),
    ]
    assert [(type(event), event.path) for event in events if event.path == "d"] == [(JobEnded, "d")]
    assert {event.job for event in events} == set(report.values())


async def test_an_event_has_its_time() -> None:
    """In seconds of trio's clock, as the job's own."""
    jobs = Jobs({"a": takes(5)})
    events: list[JobEvent] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(collected, jobs.report, events)
        await jobs.execute()
    assert [event.time for event in events] == [jobs.report["a"].started, jobs.report["a"].ended]


async def test_each_try_is_begun_and_the_job_ends_once() -> None:
    """A job that is tried again is started again."""
    jobs = Jobs({"a": job(fails(), retry=Backoff(attempts=3))})
    events: list[JobEvent] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(collected, jobs.report, events)
        await jobs.execute()
    assert [type(event) for event in events] == [JobStarted, JobStarted, JobStarted, JobEnded]


async def test_after_the_run_there_are_no_events() -> None:
    """They are those from now on: the stream ends at once."""
    events: list[JobEvent] = []
    await collected(await run_jobs({"a": fine}), events)
    assert events == []


async def test_a_stream_ends_with_a_run_that_was_cancelled() -> None:
    """After the ends of the jobs."""
    halted = Halted()
    events: list[JobEvent] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(collected, halted.jobs.report, events)
        with trio.move_on_after(1):
            await halted.jobs.execute()
    assert {event.path for event in events if isinstance(event, JobEnded)} == {"a", "b", "c", "d"}


# To look at


async def test_it_is_rendered_as_text() -> None:
    """A line for each job, and the counts."""
    lines = (await stuck()).render().splitlines()
    assert len(lines) == 6
    assert lines[-1] == "5 jobs: 2 success, 1 not ready, 2 skipped"


async def test_it_is_rendered_as_a_flowchart() -> None:
    """For Mermaid."""
    assert (await stuck()).to_mermaid().startswith("flowchart TD\n")


# From another thread


@pytest.mark.real_time
async def test_another_thread_can_read_all_of_it_while_it_runs() -> None:
    """Nothing in a report needs trio."""
    halted = Halted()
    report = halted.jobs.report

    def read() -> None:
        assert names(report.running) == ["b"]
        assert report.counts() == {"success": 1, "running": 1, "waiting": 1, "not ready": 1}
        assert (report.ok, report.finished, report.timed_out) == (False, False, False)
        assert (report.failed, report.errors, report.first_error) == ((), (), None)
        assert report.first_not_ready is report["d"]
        assert names(report.frontier()) == ["b", "d"]
        assert report.boundary() == ("a",)
        assert report.blockers("c") == ("b",)
        assert report.subtree("a") == ("a", "b", "c")
        assert report.after("c") == ("b",)
        assert "4 jobs: 1 success, 1 running, 1 waiting, 1 not ready" in report.render()
        assert "running" in report.to_mermaid()
        assert repr(report).startswith("<Report of 4 jobs: ")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(halted.jobs.execute)
        await wait_all_tasks_blocked()
        await trio.to_thread.run_sync(read)
        halted.go.set()


@pytest.mark.real_time
async def test_what_another_thread_counts_adds_up_while_jobs_begin_and_end() -> None:
    """Each job is in one state, in counts and in a drawing, although it moves on between two looks."""
    jobs = Jobs([(f"j{n}", job(fine, after=f"j{n - 5}" if n >= 5 else ())) for n in range(2_000)], limit=5)
    report = jobs.report
    over = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not over.is_set():
            try:
                if sum(report.counts().values()) != 2_000 or len(report.render().splitlines()) != 2_001 or not all(report.running):
                    wrong.append(repr(report))
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader.start()
    try:
        await jobs.execute()
    finally:
        over.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    assert report.ok
