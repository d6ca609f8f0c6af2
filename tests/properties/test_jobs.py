"""Random pools and graphs of jobs keep all their promises, and deliberate mistakes in the engine are noticed."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
from collections import deque
from collections.abc import Callable, Generator
from random import Random
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from grouper.work import Backoff, Job, JobSkipped, Status, open_pool
from grouper.work.crew import Crew
from grouper.work.job import More
from grouper.work.keys import Keys
from grouper.work.ledger import Ledger
from grouper.work.run import Run
from grouper.work.slots import Slots, Worker
from grouper.work.submitting import PoolCrew
from tests.conftest import SCHEDULER

from .jobs_model import Act, BrokenError, Ends, Node, Plan, Rule, What, big, fates, play, small

# To have a failing plan shrunk, add Phase.shrink.
PHASES = (Phase.generate,)
SETTINGS = settings(
    derandomize=True, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(autouse=True)
def quiet() -> Generator[None, None, None]:
    """The engine logs each failure, of which there are many here."""
    logger = logging.getLogger("grouper")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


# Scenarios that are always there

RETURNS, FAILS, IS_NOT_READY = Node(), Node(ends=Ends.RAISE), Node(ends=Ends.NOT_READY)
PARENTS = (*(Node(waits=()) for _ in range(3)), *(Node(parent=place, lasts=1.0) for place in range(3)))

SURE = {
    "parents_fill_the_pool": Plan(PARENTS, limit=1, pool=True),
    "parents_wait_in_nurseries": Plan(
        (Node(together=True), Node(together=True), *(Node(parent=place % 2, lasts=1.0) for place in range(6))), limit=1, pool=True
    ),
    "three_layers": Plan((Node(), Node(parent=0), Node(parent=1), Node(parent=2), Node(parent=3, lasts=1.0)), limit=1, pool=True),
    "a_failed_child_fails_its_parents": Plan((Node(), Node(parent=0), Node(parent=1, ends=Ends.RAISE)), limit=1, pool=True),
    "a_diamond": Plan((RETURNS, Node(after=(0,)), Node(after=(0,)), Node(after=(1, 2)))),
    "a_diamond_of_blame": Plan((IS_NOT_READY, Node(after=(0,)), Node(after=(0,)), Node(after=(1, 2)), Node(after=(3,)))),
    "two_roots_of_blame": Plan(
        (Node(lasts=1.0, ends=Ends.NOT_READY), Node(lasts=2.0, ends=Ends.RAISE), Node(after=(0, 1)), Node(after=(2,)))
    ),
    "clean_up": Plan((FAILS, Node(after=(0,)), Node(after=(0, 1), when=Rule.DONE), Node(after=(1, 2), when=Rule.ANY))),
    "retries": Plan((Node(fails=2, tries=3), Node(after=(0,), fails=2, tries=2), Node(after=(1,))), limit=1),
    "timeouts": Plan((Node(lasts=2.0, timeout=1.5), RETURNS, Node(lasts=1.0, timeout=1.5), Node(lasts=2.0)), limit=1),
    "a_timeout_and_what_is_next": Plan((Node(timeout=1.5), *(Node(lasts=2.0) for _ in range(3))), limit=1, pool=True),
    "keys": Plan((Node(key="a", lasts=2.0), Node(lasts=1.0), Node(after=(1,), key="a", lasts=1.0)), pool=True),
    "keys_whose_first_fails": Plan(
        (Node(key="a", lasts=2.0, ends=Ends.RAISE), Node(lasts=1.0), Node(after=(1,), key="a", lasts=1.0)), pool=True
    ),
    "cancel_while_children_run": Plan(PARENTS, limit=2, acts=(Act(0.5, What.CANCEL_RUN),), pool=True),
    "cancel_while_queued": Plan((Node(lasts=1.0),) * 5, limit=1, acts=(Act(1.5, What.CANCEL_RUN),), pool=True),
    "cancel_one_that_waits_for_a_child": Plan(PARENTS, limit=1, acts=(Act(0.5, What.CANCEL_JOB, 0),), pool=True),
    "cancel_one_that_is_to_be_tried_again": Plan(
        (Node(fails=1, tries=2), Node(after=(0,))), acts=(Act(0.25, What.CANCEL_JOB, 0),), pool=True
    ),
    "a_failure_cancels": Plan((Node(lasts=1.0, ends=Ends.RAISE), Node(lasts=2.0), Node(after=(0,))), on_error="cancel"),
    "a_failure_drains": Plan(
        (Node(lasts=1.0, ends=Ends.RAISE), Node(lasts=2.0), Node(after=(0,)), Node(after=(1,))), on_error="drain", pool=True
    ),
    "a_failure_drains_what_is_to_be_tried_again": Plan(
        (Node(lasts=1.0, ends=Ends.RAISE), Node(lasts=2.0, fails=1, tries=2)), on_error="drain"
    ),
    "a_failure_cancels_one_that_waits_for_a_queued_job": Plan(
        (Node(lasts=1.0, ends=Ends.RAISE), Node(lasts=9.0), Node(after=(1,)), Node(waits=(2,))), on_error="cancel", pool=True
    ),
    "a_cancellation_of_one_that_waits_for_a_queued_job": Plan(
        (Node(lasts=9.0), Node(after=(0,)), Node(waits=(1,))), acts=(Act(1.0, What.CANCEL_RUN),), pool=True
    ),
    "a_timeout_of_one_that_waits_for_a_queued_job": Plan(
        (Node(lasts=9.0), Node(after=(0,)), Node(waits=(1,))), timeout=1.25, pool=True
    ),
    "a_when_that_raises_after_what_is_not_ready": Plan(
        (IS_NOT_READY, Node(after=(0,), when=Rule.RAISES), Node(after=(1,))), on_error="cancel"
    ),
    "out_of_time": Plan((Node(lasts=9.0), Node(after=(0,))), timeout=1.25),
    "no_time_at_all": Plan((Node(lasts=9.0), Node(after=(0,))), timeout=0.0, pool=True),
}


@pytest.mark.parametrize("name", SURE)
def test_every_promise_is_kept_in(name: str) -> None:
    """What one would try first, with each order in which trio may run the tasks."""
    for seed in range(4):
        plan = SURE[name]
        play(Plan(plan.nodes, plan.limit, plan.on_error, plan.timeout, plan.acts, plan.pool, seed)).check()


# Properties


@pytest.mark.parametrize("hundred", range(4))
def test_statuses_blame_and_attempts_are_what_a_model_without_concurrency_says(hundred: int) -> None:
    """Without a cancellation and with "continue" they depend on no time, no limit and no order."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        play(small(seed, rough=False)).check()


@pytest.mark.parametrize("hundred", range(8))
def test_every_promise_is_kept_by_every_run_of_jobs(hundred: int) -> None:
    """Whatever fails, is cancelled or is late, and whenever it does."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        play(small(seed, rough=True)).check()


@settings(SETTINGS, max_examples=30)
@given(st.integers(0, 2**32), st.integers(30, 300), st.booleans(), st.booleans())
def test_every_promise_is_kept_by_large_runs_of_jobs(seed: int, size: int, pool: bool, rough: bool) -> None:
    """As with few jobs."""
    play(big(seed, size, pool=pool, rough=rough)).check()


Call = tuple[int, str, float, bool]
"""When a job is started, with which key, how long it lasts, and whether it fails."""


def covered(calls: list[Call]) -> list[tuple[float, int]]:
    """When which call is run, one key at a time: the freshest of those meanwhile, as soon as the one before is done."""
    runs: list[tuple[float, int]] = []
    for key in "ab":
        busy_until = -1.0
        waiting: int | None = None
        times = [(time_of(number, call), number) for number, call in enumerate(calls) if call[1] == key]
        for at, number in [*sorted(times), (math.inf, -1)]:
            if waiting is not None and busy_until <= at:
                runs.append((busy_until, waiting))
                busy_until += calls[waiting][2]
                waiting = None
            if busy_until > at:
                waiting = number
            elif number >= 0:
                runs.append((at, number))
                busy_until = at + calls[number][2]
    return sorted(runs)


def time_of(number: int, call: Call) -> float:
    """No two calls are a whole number of seconds apart, so that none comes in the moment in which another ends."""
    return call[0] + (number + 1) / 256


@settings(SETTINGS, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.sampled_from([1.0, 2.0, 4.0]), st.booleans()),
        min_size=1,
        max_size=14,
    )
)
def test_of_the_calls_of_a_key_the_freshest_is_run_after_the_one_that_runs(calls: list[Call]) -> None:
    """What is run, and when, is what a model says; each call has the job that covers it."""
    seen: list[tuple[float, int]] = []
    jobs: dict[int, Job[int]] = {}

    async def body(number: int) -> int:
        seen.append((trio.current_time(), number))
        await trio.sleep(calls[number][2])
        if calls[number][3]:
            raise ValueError(number)
        return number

    async def main() -> None:
        async with open_pool(limit=math.inf, on_error="continue") as pool:

            async def call(number: int) -> None:
                await trio.sleep_until(time_of(number, calls[number]))
                jobs[number] = pool.start(body, number, key=calls[number][1])

            async with trio.open_nursery() as nursery:
                for number in range(len(calls)):
                    nursery.start_soon(call, number)
        assert not pool._crew or not pool._crew.keys

    SCHEDULER._r = Random(0)
    with contextlib.suppress(ExceptionGroup):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    wanted = covered(calls)
    assert sorted(seen) == wanted
    assert {number for _, number in wanted if calls[number][3]} == {
        number
        for number, job in jobs.items()
        if job.status is Status.FAILED and job.error is not None and job.error.args == (number,)
    }
    for number, call in enumerate(calls):
        own = next((at, run) for at, run in wanted if calls[run][1] == call[1] and at >= time_of(number, call))
        assert jobs[number] is jobs[own[1]]


def test_the_model_tells_what_it_is_for() -> None:
    """A model that says the same of everything would show nothing."""
    said = {fate for seed in range(40) for fate in fates(big(seed, 20, pool=True, rough=False))}
    assert {fate.status for fate in said if fate is not None} == {*Status} - {Status.UNKNOWN}
    assert {fate.attempts for fate in said if fate is not None} == {0, 1, 2, 3}


# Mistakes

Mutation = Callable[[], contextlib.AbstractContextManager[object]]
MUTATIONS: dict[str, Mutation] = {}


def mutation(make: Mutation) -> Mutation:
    MUTATIONS[make.__name__] = make
    return make


@mutation
def settle_forgets_one() -> contextlib.AbstractContextManager[object]:
    settle = Ledger.settle

    def mutant(ledger: Ledger, job: Job[Any]) -> None:
        if len(job._unlocks) > 1:
            job._unlocks = job._unlocks[:-1]
        settle(ledger, job)

    return mock.patch.object(Ledger, "settle", mutant)


@mutation
def settle_counts_twice() -> contextlib.AbstractContextManager[object]:
    settle = Ledger.settle

    def mutant(ledger: Ledger, job: Job[Any]) -> None:
        for other in job._unlocks:
            other._left = max(1, other._left - 1)
        settle(ledger, job)

    return mock.patch.object(Ledger, "settle", mutant)


@mutation
def a_turn_is_dropped() -> contextlib.AbstractContextManager[object]:
    def mutant(slots: Slots) -> None:
        if slots.turns:
            slots.turns.popleft()
        slots.held -= 1
        if slots.queue and not slots.coming and slots.held < slots.limit:
            slots.hire()

    return mock.patch.object(Slots, "release", mutant)


@mutation
def the_end_is_not_told() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(More, "tell_end", return_value=None)


@mutation
def it_is_never_over() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Ledger, "give_up", return_value=None)


@mutation
def what_is_queued_is_not_swept() -> contextlib.AbstractContextManager[object]:
    sweep = Ledger.sweep

    def mutant(ledger: Ledger) -> None:
        queue, ledger.queue = ledger.queue, deque()
        sweep(ledger)
        ledger.queue = queue

    return mock.patch.object(Ledger, "sweep", mutant)


@mutation
def the_neighbour_is_blamed() -> contextlib.AbstractContextManager[object]:
    pass_on = Ledger._pass_on

    def mutant(ledger: Ledger, done: Job[Any], other: Job[Any], now: float) -> None:
        pass_on(ledger, done, other, now)
        if other.blame is not None:
            other.blame = done

    return mock.patch.object(Ledger, "_pass_on", mutant)


@mutation
def clean_up_is_skipped() -> contextlib.AbstractContextManager[object]:
    pass_on = Ledger._pass_on

    def mutant(ledger: Ledger, done: Job[Any], other: Job[Any], now: float) -> None:
        if other._more is not None:
            other._more.when = None
        pass_on(ledger, done, other, now)

    return mock.patch.object(Ledger, "_pass_on", mutant)


@mutation
def one_more_than_the_limit() -> contextlib.AbstractContextManager[object]:
    made = Slots.__init__

    def mutant(slots: Slots, limit: float) -> None:
        made(slots, limit + 1)

    return mock.patch.object(Slots, "__init__", mutant)


@mutation
def a_key_is_not_freed() -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Keys, "free", return_value=None)


@mutation
def a_key_means_nothing() -> contextlib.AbstractContextManager[object]:
    may_begin = Ledger.may_begin

    def mutant(ledger: Ledger, job: Job[Any], now: float) -> None:
        if job._more is not None:
            job._more.key = None
        may_begin(ledger, job, now)

    return mock.patch.object(Ledger, "may_begin", mutant)


@mutation
def contexts_are_all_the_same() -> contextlib.AbstractContextManager[object]:
    return mock.patch("grouper.work.crew.same", return_value=True)


@mutation
def a_deadline_stays() -> contextlib.AbstractContextManager[object]:
    begin = Crew._begin

    def mutant(crew: Crew, worker: Worker, job: Job[Any], more: More, now: float) -> None:
        marked = worker.marked
        begin(crew, worker, job, more, now)
        worker.marked = marked

    return mock.patch.object(Crew, "_begin", mutant)


@mutation
def it_is_tried_again_although_it_is_over() -> contextlib.AbstractContextManager[object]:
    again: Callable[..., bool] = Crew._again

    def mutant(crew: Crew, *args: Any) -> bool:
        over, crew.over = crew.over, False
        try:
            return again(crew, *args)
        finally:
            crew.over = over

    return mock.patch.object(Crew, "_again", mutant)


@mutation
def it_is_tried_once_too_often() -> contextlib.AbstractContextManager[object]:
    following = Backoff.next

    def mutant(backoff: Backoff, error: Exception, tries: int, elapsed: float, **more: Any) -> float | None:
        return following(backoff, error, max(1, tries - 1), elapsed, **more)

    return mock.patch.object(Backoff, "next", mutant)


@mutation
def only_the_first_failure_is_kept() -> contextlib.AbstractContextManager[object]:
    fail = Ledger.fail

    def mutant(ledger: Ledger, job: Job[Any], error: BaseException, now: float) -> None:
        fail(ledger, job, error, now)
        ledger.failures = type(ledger.failures)(list(ledger.failures)[:1])

    return mock.patch.object(Ledger, "fail", mutant)


@mutation
def a_slot_is_kept_in_a_wait() -> contextlib.AbstractContextManager[object]:
    def mutant(worker: Worker) -> None:
        worker.marked = True
        worker.waits += 1

    return mock.patch.object(Worker, "let_go", mutant)


@mutation
def a_slot_is_not_taken_again() -> contextlib.AbstractContextManager[object]:
    async def mutant(worker: Worker) -> None:
        if not worker.waits and not worker.holds:
            worker.crew.held += 1
            worker.holds = True

    return mock.patch.object(Worker, "take_up", mutant)


@mutation
def the_timeout_is_not_told() -> contextlib.AbstractContextManager[object]:
    cancelled = Run.cancelled

    def mutant(run: Run) -> None:
        cancelled(run)
        run.timed_out_after = None

    return mock.patch.object(Run, "cancelled", mutant)


@mutation
def what_runs_is_not_cancelled() -> contextlib.AbstractContextManager[object]:
    cancel = Crew.cancel

    def mutant(crew: Crew, job: Job[Any]) -> None:
        if job._running is None:
            cancel(crew, job)

    return mock.patch.object(Crew, "cancel", mutant)


@mutation
def what_is_cancelled_does_not_settle() -> contextlib.AbstractContextManager[object]:
    cancel = Crew.cancel

    def mutant(crew: Crew, job: Job[Any]) -> None:
        with mock.patch.object(Ledger, "settle", return_value=None):
            cancel(crew, job)

    return mock.patch.object(Crew, "cancel", mutant)


@mutation
def what_comes_after_is_bad_at_once() -> contextlib.AbstractContextManager[object]:
    tie = PoolCrew._tie

    def mutant(crew: PoolCrew, job: Job[Any], befores: tuple[Job[Any], ...]) -> None:
        tie(crew, job, befores[:1])

    return mock.patch.object(PoolCrew, "_tie", mutant)


@pytest.fixture(scope="module")
def known() -> list[Plan]:
    """The plans in which a mistake is looked for, the same for each, none of which breaks anything without one."""
    chosen = [*SURE.values()]
    for seed in range(120):
        random = Random(seed)
        chosen.append(big(seed, random.choice([2, 4, 6, 9]), pool=random.random() < 0.6, rough=random.random() < 0.6))
    return [plan for plan in chosen if not breaks(plan)]


def breaks(plan: Plan) -> bool:
    try:
        play(plan).check()
    except BrokenError:
        return True
    except Exception:  # a mistake may well make the engine itself fall over
        return True
    return False


def ignore(_: object) -> None:
    """Nothing."""


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_in_the_engine_is_caught(name: str, known: list[Plan]) -> None:
    """Some plan breaks a promise with the mistake, and none without it."""
    with mock.patch("sys.unraisablehook", new=ignore):
        with MUTATIONS[name]():
            caught = any(breaks(plan) for plan in known)
        for _ in range(3):  # what was thrown away after a hang complains when it is collected, here
            gc.collect()
    assert caught, f"{len(known)} plans saw nothing wrong with {name}"


def test_nearly_all_plans_are_used_to_look_for_mistakes(known: list[Plan]) -> None:
    """Those that break something without a mistake are left out, so there must be none."""
    assert len(known) == len(SURE) + 120


async def test_a_skipped_job_names_its_root_to_who_waits_for_it() -> None:
    """`blame` is the root also for what is started after it was skipped."""
    jobs: list[Job[Any]] = []

    async def fails() -> None:
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with open_pool(on_error="continue") as pool:
            jobs.append(pool.start(fails))
            jobs.append(pool.start(trio.sleep, 0, after=jobs[0]))
            with pytest.raises(JobSkipped):
                await jobs[1]
            jobs.append(pool.start(trio.sleep, 0, after=pool.start(trio.sleep, 0, after=jobs[1])))
    assert jobs[1].blame is jobs[2].blame is jobs[0]
