"""Graphs of jobs against daggerpool (section 1.4 of the contract of bounded work)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import Backoff, CycleError, DuplicateNames, UnknownDependency
from grouper.work import Front, Jobs, NotReady, Report, Status, all_done, job, ready_if, run_jobs

SUCCESS, NOT_READY, SKIPPED, FAILED, UNKNOWN = Status


async def ok() -> None:
    """Succeed."""


async def not_yet() -> None:
    raise NotReady


async def fail() -> None:
    raise KeyError("gone")


async def deaf(seconds: float) -> str:
    """Work on through a cancellation."""
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)
    return "done"


def statuses(report: Report) -> dict[str, Status]:
    return {name: each.status for name, each in report.items()}


def stuck() -> dict[str, Any]:
    """The graph a->b->c and {c, d}->e, in which b is not ready."""
    return {"a": ok, "b": job(not_yet, after="a"), "c": job(ok, after="b"), "d": ok, "e": job(ok, after=("c", "d"))}


@pytest.mark.contract("work D1")
async def test_d01_a_job_begins_when_all_it_is_after_have_succeeded() -> None:
    """And no later."""
    log: list[str] = []

    def body(name: str, seconds: float) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            log.append(f"{name} from {trio.current_time():g}")
            await trio.sleep(seconds)

        return run

    report = await run_jobs(
        {
            "end": job(body("end", 0), after=("left", "right")),
            "left": job(body("left", 2), after="begin"),
            "right": job(body("right", 5), after="begin"),
            "begin": body("begin", 1),
            "beside": body("beside", 0),
        }
    )
    assert sorted(log) == ["begin from 0", "beside from 0", "end from 6", "left from 1", "right from 1"]
    assert report.ok


@pytest.mark.contract("work D2")
async def test_d02_at_most_limit_jobs_run_at_a_time() -> None:
    """And no fewer, where so many may."""
    widths: list[int] = []

    async def body() -> None:
        await trio.sleep(1)
        widths.append(len(jobs.report.running))

    jobs = Jobs([(f"{number}", body) for number in range(9)], limit=3)
    assert (await jobs.execute()).ok
    assert max(widths) == 3
    assert trio.current_time() == 3


@pytest.mark.contract("work D2")
@pytest.mark.parametrize("limit", [0, -1])
async def test_d02_a_limit_below_one_is_refused(limit: int) -> None:
    """Before anything runs."""
    ran: list[int] = []

    async def body() -> None:
        ran.append(1)

    with pytest.raises(ValueError, match=f"limit={limit} would let no job run"):
        await run_jobs({"a": body}, limit=limit)
    assert ran == []


@pytest.mark.contract("work D2")
async def test_d02_a_limit_costs_nothing_that_is_not_used() -> None:
    """One job takes no more tasks with a limit of 50,000 than with 1."""
    living: list[int] = []

    async def body() -> None:
        await wait_all_tasks_blocked()
        living.append(trio.lowlevel.current_statistics().tasks_living)

    for limit in (1, 50_000):
        await run_jobs({"a": body}, limit=limit)
    assert living[0] == living[1]


@pytest.mark.contract("work D3")
async def test_d03_a_job_succeeds_is_not_ready_or_fails() -> None:
    """It returns, raises NotReady or raises; an error counts whatever was said about being ready before."""

    async def half() -> None:
        ready_if(True)
        raise KeyError

    async def told() -> None:
        ready_if([], "no leader yet")

    report = await run_jobs({"ok": ok, "not yet": not_yet, "told": told, "fail": fail, "half": half}, on_error="continue")
    assert list(statuses(report).values()) == [SUCCESS, NOT_READY, NOT_READY, FAILED, FAILED]
    assert str(report["told"].error) == "no leader yet"


@pytest.mark.contract("work D4")
async def test_d04_what_is_after_one_that_is_not_ready_is_skipped() -> None:
    """The whole of it, with the one to blame; the rest of the graph goes on."""
    ran: list[str] = []

    async def body() -> None:
        ran.append("d")

    report = await run_jobs({**stuck(), "d": body})
    assert list(statuses(report).values()) == [SUCCESS, NOT_READY, SKIPPED, SUCCESS, SKIPPED]
    assert ran == ["d"]
    assert report["c"].blame is report["e"].blame is report["b"]
    assert report["e"].attempts == 0


@pytest.mark.contract("work D4")
async def test_d04_several_that_are_not_ready_may_have_the_same_after_them() -> None:
    """It is skipped once, also with one slot."""
    roots = {name: job(not_yet) for name in "abc"}
    report = await run_jobs({**roots, "d": job(ok, after=roots), "e": job(ok, after="d"), "f": ok}, limit=1)
    assert list(statuses(report).values()) == [NOT_READY] * 3 + [SKIPPED] * 2 + [SUCCESS]
    assert report["d"].blame is report["e"].blame is report["a"]
    assert report.errors == ()


@pytest.mark.contract("work D5")
async def test_d05_a_failure_cancels_the_run() -> None:
    """What has not ended is UNKNOWN, and so is what is after the failed one: nobody knows what would have become of it."""
    cancelled: list[str] = []

    async def long() -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append("long")

    async def late() -> None:
        await trio.sleep(1)
        await fail()

    report = await run_jobs({"ok": ok, "late": late, "long": long, "after": job(ok, after="late"), "next": job(ok, after="long")})
    assert statuses(report) == {"ok": SUCCESS, "late": FAILED, "long": UNKNOWN, "after": UNKNOWN, "next": UNKNOWN}
    assert cancelled == ["long"]
    assert trio.current_time() == 1


@pytest.mark.contract("work D6")
async def test_d06_what_is_not_done_in_time_is_unknown() -> None:
    """It has no error of its own; the run has one, and says that its time was over."""
    report = await run_jobs({"quick": ok, "slow": trio.sleep_forever, "after": job(ok, after="slow")}, timeout=5)
    assert statuses(report) == {"quick": SUCCESS, "slow": UNKNOWN, "after": UNKNOWN}
    assert [each.error for each in report.values()] == [None] * 3
    assert report.timed_out
    assert isinstance(report.first_error, trio.TooSlowError)
    assert trio.current_time() == 5


@pytest.mark.contract("work D7")
async def test_d07_a_timeout_is_no_job() -> None:
    """The report has the jobs alone, and they may have any name."""
    report = await run_jobs({"timeout_error": fail, "other": ok}, timeout=5)
    assert list(report) == ["timeout_error", "other"]
    assert not report.timed_out
    report = await run_jobs(dict.fromkeys("abcd", trio.sleep_forever), timeout=5)
    assert len(report) == 4
    assert report.timed_out


@pytest.mark.contract("work D8")
async def test_d08_what_was_done_after_the_cancellation_counts() -> None:
    """A job that returned has succeeded, with its value, and one that raised has failed, with its error."""

    async def unlucky() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while it cleaned up")

    report = await run_jobs({"deaf": job(deaf, 1), "unlucky": unlucky, "fail": fail, "after": job(ok, after="deaf")})
    assert statuses(report) == {"deaf": SUCCESS, "unlucky": FAILED, "fail": FAILED, "after": UNKNOWN}
    assert report["deaf"].value == "done"
    assert [repr(error) for error in report.errors] == ["KeyError('gone')", "OSError('while it cleaned up')"]


@pytest.mark.contract("work D9")
async def test_d09_nothing_begins_after_the_cancellation() -> None:
    """Of a thousand that could, with slots free."""
    ran: list[int] = []

    async def body() -> None:
        ran.append(1)

    waiting = {f"{number}": job(body, after="deaf") for number in range(500)}
    queued = {f"queued {number}": body for number in range(500)}
    report = await run_jobs({"deaf": job(deaf, 1), "fail": fail, **queued, **waiting}, limit=2)
    assert ran == []
    assert {each.status for each in report.values()} == {SUCCESS, FAILED, UNKNOWN}
    assert sum(each.attempts for each in report.values()) == 2


@pytest.mark.contract("work D10")
async def test_d10_no_failure_is_lost() -> None:
    """All that fail at the same moment are in the report, and in the group that is raised for it."""
    gate = trio.Event()

    async def body(number: int) -> None:
        await gate.wait()
        raise OSError(number)

    async def opener() -> None:
        await wait_all_tasks_blocked()
        gate.set()

    report = await run_jobs({"open": opener, **{f"{number}": job(body, number) for number in range(10)}}, limit=20)
    assert len(report.failed) == 10
    with pytest.raises(ExceptionGroup, match="10 of 11 jobs failed") as caught:
        report.raise_for_status()
    assert sorted(error.args[0] for error in caught.value.exceptions if isinstance(error, OSError)) == list(range(10))


@pytest.mark.contract("work D10")
async def test_d10_no_failure_is_lost_however_many_there_are() -> None:
    """Of 1,500 the first is the first error, and all are told."""
    report = await run_jobs([(f"{number}", fail) for number in range(1_500)], on_error="continue")
    assert report.failed == tuple(report.values())
    assert report.first_error is report["0"].error
    with pytest.raises(ExceptionGroup, match="1500 of 1500 jobs failed"):
        report.raise_for_status()


@pytest.mark.contract("work D11")
async def test_d11_the_first_error_is_the_first_in_time() -> None:
    """All are in the order in which they happened, the end of the run's time among them."""

    async def body(seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        finally:
            raise OSError(seconds)

    specs = {f"{seconds}": job(body, seconds) for seconds in (3, 1, 99, 2)}
    report = await run_jobs(specs, on_error="continue", timeout=4)
    assert [repr(error)[:12] for error in report.errors] == [
        "OSError(1)",
        "OSError(2)",
        "OSError(3)",
        "TooSlowError",
        "OSError(99)",
    ]
    assert report.first_error is report["1"].error


@pytest.mark.contract("work D12")
async def test_d12_ok_is_that_every_job_has_succeeded_in_time() -> None:
    """A run that did not begin, or was cancelled, is not; nor one that was late, whatever became of its jobs."""
    jobs = Jobs({"a": ok, "b": ok})
    assert not jobs.report.ok
    with trio.CancelScope() as scope:
        scope.cancel()
        await jobs.execute()
    assert set(statuses(jobs.report).values()) == {UNKNOWN}
    assert not jobs.report.ok
    assert (await jobs.execute()).ok

    late = await run_jobs({"a": job(deaf, 9)}, timeout=5)
    assert (late["a"].status, late.ok) == (SUCCESS, False)
    for other in (not_yet, fail):
        assert not (await run_jobs({"a": ok, "b": other})).ok


@pytest.mark.contract("work D13")
async def test_d13_the_first_that_is_not_ready_is_told_by_name() -> None:
    """The first in the alphabet; none where all are."""
    report = await run_jobs({"c": not_yet, "b": not_yet, "a": ok, "d": not_yet})
    assert report.first_not_ready is report["b"]
    assert (await run_jobs({"a": ok})).first_not_ready is None


@pytest.mark.contract("work D14")
def test_d14_what_is_no_graph_is_refused_with_all_that_is_wrong() -> None:
    """Names that nobody has, with those who name them, and jobs that are after themselves, in one error."""
    with pytest.raises(UnknownDependency) as caught:
        Jobs({"a": job(ok, after=("a", "x")), "b": job(ok, after="y")})
    assert caught.value.pairs == (("a", "x"), ("b", "y"))
    assert any("'a' -> 'a'" in note for note in caught.value.__notes__)
    with pytest.raises(CycleError) as own:
        Jobs({"a": job(ok, after="a")})
    assert own.value.path == ("a", "a")


@pytest.mark.contract("work D15")
async def test_d15_jobs_that_are_after_each_other_are_refused_with_the_path() -> None:
    """However long the circle is, and before anything runs."""
    ran: list[int] = []

    async def body() -> None:
        ran.append(1)

    for size in (2, 3, 1_000):
        circle: dict[str, Any] = {f"{number}": job(body, after=f"{(number + 1) % size}") for number in range(size)}
        with pytest.raises(CycleError) as caught:
            await run_jobs({"free": body, **circle})
        path = caught.value.path
        assert path[0] == path[-1]
        assert len(path) == size + 1
        assert all((int(one) + 1) % size == int(other) for one, other in pairwise(path))
    assert ran == []


@pytest.mark.contract("work D16")
async def test_d16_a_job_that_others_are_after_need_not_say_anything() -> None:
    """One that is after nobody begins at once, whether it is a function or described."""
    report = await run_jobs({"b": job(ok, after=("a", "c")), "a": ok, "c": job(ok)})
    assert report.ok


@pytest.mark.contract("work D17")
def test_d17_all_duplicate_names_are_told() -> None:
    """Each once."""
    with pytest.raises(DuplicateNames) as caught:
        Jobs([(name, ok) for name in "abacabd"])
    assert caught.value.names == ("a", "b")


@pytest.mark.contract("work D18")
async def test_d18_to_be_after_a_job_twice_is_to_be_after_it_once() -> None:
    """Whether it succeeds or not."""
    for first, expected in ((ok, SUCCESS), (not_yet, SKIPPED)):
        report = await run_jobs({"a": first, "b": job(ok, after=("a", "a")), "c": job(ok, after=["b", "b", "a"])})
        assert report["b"].status is report["c"].status is expected
        assert report.after("c") == ("b", "a")


@pytest.mark.contract("work D19")
async def test_d19_a_graph_of_nothing_is_done() -> None:
    """At once, and all is well with it."""
    report = await run_jobs({})
    assert len(report) == 0
    assert report.ok
    assert report.finished
    assert report.frontier() == ()


@pytest.mark.contract("work D20")
async def test_d20_skipping_looks_at_each_job_once() -> None:
    """A hundred layers of two have 2 to the 100 ways through them."""
    specs: dict[str, Any] = {"root": not_yet}
    before: tuple[str, ...] = ("root",)
    for layer in range(100):
        names = (f"{layer} left", f"{layer} right")
        specs.update({name: job(ok, after=before) for name in names})
        before = names
    report = await run_jobs(specs)
    assert [each.status for each in report.values()] == [NOT_READY] + [SKIPPED] * 200
    assert {each.blame for each in report.values()} == {None, report["root"]}


@pytest.mark.contract("work D21")
async def test_d21_a_job_that_ignores_its_cancellation_is_waited_for() -> None:
    """The run is over when it is, however late: nothing is left behind."""
    report = await run_jobs({"deaf": job(deaf, 1_500)}, timeout=200)
    assert report.timed_out
    assert report["deaf"].ended == trio.current_time() == 1_500


@pytest.mark.contract("work D22")
async def test_d22_what_a_job_raises_is_in_the_report() -> None:
    """Whatever error it is: the run itself raises nothing."""

    async def broken() -> None:
        raise ZeroDivisionError

    report = await run_jobs({"a": broken})
    assert isinstance(report["a"].error, ZeroDivisionError)


@pytest.mark.contract("work D22")
async def test_d22_a_run_can_be_cancelled_from_outside() -> None:
    """As everything in trio; what was done by then can still be seen."""
    jobs = Jobs({"quick": ok, "slow": trio.sleep_forever})
    with trio.move_on_after(5) as scope:
        await jobs.execute()
    assert scope.cancelled_caught
    assert statuses(jobs.report) == {"quick": SUCCESS, "slow": UNKNOWN}


@pytest.mark.contract("work D22")
async def test_d22_a_job_is_tried_again_if_that_is_wanted() -> None:
    """After a delay in which it has no slot."""
    tries: list[float] = []

    async def flaky() -> str:
        tries.append(trio.current_time())
        if len(tries) < 3:
            raise OSError
        return "at last"

    async def other() -> float:
        return trio.current_time()

    report = await run_jobs({"flaky": job(flaky, retry=Backoff.every(10)), "other": other}, limit=1)
    assert tries == [0, 10, 20]
    assert (report["flaky"].value, report["flaky"].attempts, report["other"].value) == ("at last", 3, 0)


@pytest.mark.contract("work D23")
async def test_d23_a_graph_can_be_run_again() -> None:
    """With the same result each time, in a report of its own."""
    jobs = Jobs(stuck())
    reports = [await jobs.execute() for _ in range(20)]
    assert len({id(report) for report in reports}) == 20
    assert all(statuses(report) == statuses(reports[0]) for report in reports)
    assert all(report.frontier() == reports[0].frontier() for report in reports)


@pytest.mark.contract("work D24")
async def test_d24_blockers_are_what_a_job_is_directly_after_and_has_not_succeeded() -> None:
    """By name."""
    report = await run_jobs({**stuck(), "f": job(ok, after=("e", "d", "c", "a"))})
    assert report.blockers("f") == ("c", "e")
    assert report.blockers("e") == ("c",)
    assert report.blockers("b") == ()


@pytest.mark.contract("work D25")
async def test_d25_the_frontier_is_where_it_got_stuck() -> None:
    """What failed or was not ready, and what nothing kept from running, with all that is stuck behind it."""
    assert (await run_jobs(stuck())).frontier() == (Front("b", NOT_READY, (), ("b", "c", "e")),)
    report = await run_jobs({"slow": trio.sleep_forever, "z": fail, "y": job(ok, after=("z", "slow")), "x": job(ok, after="y")})
    assert report.frontier() == (
        Front("slow", UNKNOWN, (), ("slow", "x", "y")),
        Front("z", FAILED, (), ("x", "y", "z")),
    )


@pytest.mark.contract("work D25")
async def test_d25_what_failed_behind_another_is_a_front_of_its_own() -> None:
    """With that one among its blockers: it ran in spite of it."""
    report = await run_jobs({"a": not_yet, "b": job(fail, after="a", when=all_done)}, on_error="continue")
    assert report.frontier() == (Front("a", NOT_READY, (), ("a", "b")), Front("b", FAILED, ("a",), ("b",)))


@pytest.mark.contract("work D26")
async def test_d26_the_boundary_is_what_succeeded_before_something_that_did_not() -> None:
    """At any distance."""
    assert (await run_jobs(stuck())).boundary() == ("a", "d")
    far: dict[str, Any] = {
        "a": ok,
        "b": job(ok, after="a"),
        "c": job(not_yet, after="b"),
        "alone": ok,
        "end": job(ok, after="alone"),
    }
    assert (await run_jobs(far)).boundary() == ("a", "b")


@pytest.mark.contract("work D27")
async def test_d27_a_subtree_is_what_is_after_a_job() -> None:
    """And the job itself, whatever became of them."""
    report = await run_jobs(stuck())
    assert report.subtree("a") == ("a", "b", "c", "e")
    assert report.subtree("d") == ("d", "e")
    assert report.subtree("e") == ("e",)


@pytest.mark.contract("work D28")
async def test_d28_a_run_can_be_watched() -> None:
    """What runs now, and each begin and end; to look never hurts."""
    seen: list[tuple[str, ...]] = []
    told: list[str] = []
    jobs = Jobs({"snapshot_a": job(trio.sleep, 1), "b": job(trio.sleep, 1, after="snapshot_a")})

    async def listen() -> None:
        async with jobs.report.events() as stream:
            async for event in stream:
                told.append(f"{event.path} {event.job.state}")
                seen.append(tuple(each.name for each in jobs.report.running))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        nursery.start_soon(jobs.execute)
    assert told == ["snapshot_a running", "snapshot_a success", "b running", "b success"]
    assert seen[0] == ("snapshot_a",)
    assert seen[-1] == ()


@pytest.mark.contract("work D28")
async def test_d28_results_travel_by_value() -> None:
    """What a job returned is in its handle, and a job gets what it needs from those that it was given."""
    jobs: Jobs

    async def fetch() -> int:
        return 6

    async def build() -> int:
        fetched: int = await jobs.report["fetch"]
        return 7 * fetched

    jobs = Jobs({"fetch": fetch, "build": job(build, after="fetch")})
    assert (await jobs.execute())["build"].value == 42
