"""Random work, what becomes of it by a model without concurrency, and how it is played in a mock time."""

from __future__ import annotations

import contextlib
import enum
import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from random import Random
from typing import Any, TypeVar
from unittest import mock

import attrs
import outcome
import trio
import trio.testing

from grouper.work import Backoff, Job, JobCancelled, JobError, Jobs, JobTimeout, NotReady, Pool, Status, all_done, all_ok, open_pool
from grouper.work import job as spec_of
from grouper.work.crew import Crew
from grouper.work.job import When
from grouper.work.ledger import Ledger, OnError
from grouper.work.slots import WORKERS
from tests.conftest import SCHEDULER

T = TypeVar("T")

HANG_AT = 100_000.0
DELAY = 0.5
STARTED_BY: ContextVar[int | None] = ContextVar("STARTED_BY", default=None)
DEEPEST = 5


class BrokenError(AssertionError):
    """A promise that was not kept."""


class Hang(BaseException):
    """Thrown into what hangs, to end the run at all."""


class BoomError(Exception):
    """What bodies raise."""


class Ends(enum.Enum):
    """What a body does in the end."""

    RETURN = enum.auto()
    RAISE = enum.auto()
    NOT_READY = enum.auto()


class Rule(enum.Enum):
    """The `when` of a job."""

    OK = enum.auto()
    DONE = enum.auto()
    ANY = enum.auto()
    RAISES = enum.auto()


@attrs.frozen
class Node:
    """A job: it sleeps, starts its children, waits for them and for others, and then sleeps, raises in its first tries, and ends.

    Those it is after and those it waits for come before it in the plan; `parent` is the one whose body starts it. Of those with the
    same `key` no two may be waiting at a time: one would be covered by the other.
    """

    after: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()
    lasts: float = 0.0
    then: float = 0.0
    fails: int = 0
    ends: Ends = Ends.RETURN
    tries: int = 1
    timeout: float = math.inf
    when: Rule = Rule.OK
    parent: int | None = None
    together: bool = False
    swallows: bool = False
    key: str | None = None


class What(enum.Enum):
    """What is done to a run from outside."""

    CANCEL_JOB = enum.auto()
    CANCEL_RUN = enum.auto()


@attrs.frozen
class Act:
    """Something done at a time."""

    at: float
    what: What
    target: int = 0


@attrs.frozen
class Plan:
    """The work of a run, and what is done to it."""

    nodes: tuple[Node, ...]
    limit: float = math.inf
    on_error: OnError = "continue"
    timeout: float = math.inf
    acts: tuple[Act, ...] = ()
    pool: bool = False
    seed: int = 0

    def children(self, number: int) -> list[int]:
        """Those that the body of a job starts."""
        return [place for place, node in enumerate(self.nodes) if node.parent == number]

    @property
    def left_alone(self) -> bool:
        """Whether what becomes of each job depends on no time."""
        return self.on_error == "continue" and not self.acts and self.timeout == math.inf


# What becomes of them


@attrs.frozen
class Fate:
    """How a job ends where nothing is cancelled; None for one that is never started."""

    status: Status
    attempts: int


def fates(plan: Plan) -> list[Fate | None]:
    """What becomes of each job of a plan that is left alone."""
    found: dict[int, Fate | None] = {}

    def fate(number: int) -> Fate | None:
        if number not in found:
            found[number] = decide(number, plan.nodes[number])
        return found[number]

    def status(number: int) -> Status:
        known = fate(number)
        assert known is not None, "nobody is after, or waits for, what is not started"
        return known.status

    def begins(number: int) -> bool:
        """Whether the body of a job is begun, and so starts its children."""
        node = plan.nodes[number]
        if node.parent is not None and not begins(node.parent):
            return False
        befores = [status(each) is Status.SUCCESS for each in node.after]
        return {Rule.OK: all(befores), Rule.DONE: True, Rule.ANY: any(befores), Rule.RAISES: False}[node.when]

    def decide(number: int, node: Node) -> Fate | None:
        if node.parent is not None and not begins(node.parent):
            return None
        if not begins(number):
            return Fate(Status.FAILED if node.when is Rule.RAISES else Status.SKIPPED, 0)
        endings = [end_of_try(number, node, attempt) for attempt in range(1, node.tries + 1)]
        if Ends.RETURN in endings:
            return Fate(Status.SUCCESS, endings.index(Ends.RETURN) + 1)
        return Fate(Status.NOT_READY if endings[-1] is Ends.NOT_READY else Status.FAILED, node.tries)

    def end_of_try(number: int, node: Node, attempt: int) -> Ends:
        if node.lasts > node.timeout:
            return Ends.RAISE
        if not node.swallows:
            for other in (*plan.children(number), *node.waits):
                if status(other) is not Status.SUCCESS:
                    return Ends.NOT_READY if status(other) is Status.NOT_READY else Ends.RAISE
        return Ends.RAISE if attempt <= node.fails else node.ends

    return [fate(number) for number in range(len(plan.nodes))]


# Playing


RULES: dict[Rule, When] = {
    Rule.OK: all_ok,
    Rule.DONE: all_done,
    Rule.ANY: lambda after: any(each.ready for each in after),
}


def raises(after: Sequence[Job[Any]]) -> bool:
    raise BoomError("when")


RULES[Rule.RAISES] = raises


@attrs.define(eq=False)
class World:
    """One play of a plan, and what was seen in it."""

    plan: Plan
    jobs: dict[int, Job[Any]] = attrs.field(factory=dict[int, "Job[Any]"])
    numbers: dict[Job[Any], int] = attrs.field(factory=dict["Job[Any]", int])
    ends: dict[Job[Any], list[Status]] = attrs.field(factory=dict["Job[Any]", "list[Status]"])
    order: list[Job[Any]] = attrs.field(factory=list["Job[Any]"])
    begun: Counter[int] = attrs.field(factory=Counter[int])
    raised: dict[int, BaseException] = attrs.field(factory=dict[int, BaseException])
    running: set[int] = attrs.field(factory=set[int])
    bodies: Counter[int] = attrs.field(factory=Counter[int])
    by_hand: dict[int, float] = attrs.field(factory=dict[int, float])
    cut_at: float = math.inf
    asked: set[int] = attrs.field(factory=set[int])
    told: dict[int, object] = attrs.field(factory=dict[int, object])
    failed: bool = False
    cut: bool = False
    hung: bool = False
    out: BaseException | None = None
    timed_out: bool = False
    crew: Crew | None = None
    outer: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    wrong: list[str] = attrs.field(factory=list[str])

    def complain(self, text: str) -> None:
        self.wrong.append(f"at {trio.current_time():g}: {text}")

    def require(self, fact: bool, text: str) -> None:
        if not fact:
            self.wrong.append(text)

    # Bodies

    def enters(self, number: int) -> None:
        self.running.add(number)
        if len(self.running) > self.plan.limit and not self.cut and trio.current_time() < self.plan.timeout:
            self.complain(f"{sorted(self.running)} run, and the limit is {self.plan.limit}")

    def begins(self, number: int) -> None:
        job, node = self.jobs[number], self.plan.nodes[number]
        if self.cut:
            self.complain(f"{number} began after all was cancelled")
        if self.failed and self.plan.on_error != "continue":
            self.complain(f"{number} began after a failure")
        if trio.current_time() > self.plan.timeout:
            self.complain(f"{number} began after the time was over")
        if job.ended is not None:
            self.complain(f"{number} began after its end")
        if self.bodies[number]:
            self.complain(f"{number} runs twice at once")
        for other in node.after:
            before = self.jobs[other]
            if before.ended is None or (node.when is Rule.OK and not before.ready):
                self.complain(f"{number} began, but {other}, which it is after, is {before.state}")
        if node.key is not None:
            for other, there in self.jobs.items():
                same = self.plan.nodes[other].key == node.key and other != number
                if same and self.begun[other] and there.ended is None:
                    self.complain(f"{number} began before {other}, of the same key, had ended")
        self.begun[number] += 1
        self.bodies[number] += 1
        if job.attempts != self.begun[number]:
            self.complain(f"{number} began {self.begun[number]} times, and says {job.attempts}")
        if job not in self.crew_running():
            self.complain(f"{number} runs, and `running` does not have it")
        if STARTED_BY.get() != node.parent:
            self.complain(f"{number} has the context of {STARTED_BY.get()}")
        STARTED_BY.set(number)
        self.enters(number)

    def crew_running(self) -> list[Job[Any]]:
        return [] if self.crew is None else list(self.crew.running())

    async def body(self, number: int) -> int:
        node = self.plan.nodes[number]
        self.begins(number)
        try:
            return await self.live(number, node)
        except Exception as error:
            self.raised[number] = error
            raise
        finally:
            self.running.discard(number)
            self.bodies[number] -= 1

    async def live(self, number: int, node: Node) -> int:
        if node.lasts:
            await trio.sleep(node.lasts)
        if self.begun[number] == 1:
            for child in self.plan.children(number):
                self.start(child)
        others = [*self.plan.children(number), *node.waits]
        errors: dict[int, JobError] = {}
        if node.together and others:
            self.running.discard(number)
            async with trio.open_nursery() as nursery:
                for other in others:
                    nursery.start_soon(self.wait, other, errors)
            self.enters(number)
        else:
            for other in others:
                self.running.discard(number)
                await self.wait(other, errors)
                self.enters(number)
                if errors and not node.swallows:
                    break
        if node.then and others:
            await trio.sleep(node.then)
        if errors and not node.swallows:
            raise errors[next(other for other in others if other in errors)]
        if self.begun[number] <= node.fails or node.ends is Ends.RAISE:
            raise BoomError(number)
        if node.ends is Ends.NOT_READY:
            raise NotReady(number)
        return number

    async def wait(self, other: int, errors: dict[int, JobError]) -> None:
        if other not in self.jobs:  # its pool was over when it was to be started
            return
        try:
            value = await self.jobs[other]
        except JobError as error:
            errors[other] = error
            if self.jobs[other].ended is None:
                self.complain(f"a wait for {other} failed before its end")
        else:
            if value != other:
                self.complain(f"a wait for {other} returned {value}")

    def start(self, number: int) -> None:
        pool, node = self.pool, self.plan.nodes[number]
        if self.crew is not None and self.crew.over:
            return
        job = pool.start(
            self.body,
            number,
            name=str(number),
            after=[self.jobs[other] for other in node.after],
            key=node.key,
            retry=retry_of(node),
            timeout=node.timeout,
            when=RULES[node.when],
        )
        self.know(number, job)

    def know(self, number: int, job: Job[Any]) -> None:
        self.jobs[number] = job
        self.numbers[job] = number
        self.asked.add(number)
        self.helpers.start_soon(self.ask, number, job)

    async def ask(self, number: int, job: Job[Any]) -> None:
        """Wait for a job from outside, to its end and beyond."""
        try:
            self.told[number] = await job
        except JobError as error:
            self.told[number] = error

    # The run

    pool: Pool = attrs.field(init=False)
    helpers: trio.Nursery = attrs.field(init=False)

    async def main(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch, trio.lowlevel.current_task())
            try:
                await self.play()
            except BaseException:
                if not self.hung:
                    raise
            nursery.cancel_scope.cancel()

    async def watch(self, main: trio.lowlevel.Task) -> None:
        await trio.sleep(HANG_AT)
        self.hung = True
        me = trio.lowlevel.current_task()
        with trio.CancelScope(shield=True):
            for _ in range(1_000):
                todo = [main]
                while todo:
                    task = todo.pop()
                    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks if child is not me]
                    todo.extend(children)
                    if not children and task._next_send_fn is None:
                        trio.lowlevel.reschedule(task, outcome.Error(Hang("thrown into what hangs")))
                await trio.sleep(1)

    async def play(self) -> None:
        async with trio.open_nursery() as self.helpers:
            living = trio.lowlevel.current_statistics().tasks_living
            async with trio.open_nursery() as actors:
                for act in self.plan.acts:
                    actors.start_soon(self.act, act)
                with self.outer:
                    try:
                        await (self.run_pool() if self.plan.pool else self.run_graph())
                    except BaseException as error:
                        self.out = error
                        if isinstance(error, trio.Cancelled):
                            raise
                actors.cancel_scope.cancel()
            now = trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
            self.require(set(self.told) == self.asked, f"{self.asked - set(self.told)} were not told of the end")
            left = trio.lowlevel.current_statistics().tasks_living - living
            self.require(left == len(self.asked - set(self.told)), f"{left} tasks are left")
            self.require(trio.current_time() == now, "the block was left before the end")
            self.helpers.cancel_scope.cancel()

    async def run_pool(self) -> None:
        plan = self.plan
        async with open_pool(limit=plan.limit, on_error=plan.on_error, timeout=plan.timeout) as self.pool:
            self.crew = self.pool._crew
            for number, node in enumerate(plan.nodes):
                if node.parent is None:
                    self.start(number)

    async def run_graph(self) -> None:
        plan = self.plan
        graph = Jobs(
            {
                str(number): spec_of(
                    self.body,
                    number,
                    after=map(str, node.after),
                    retry=retry_of(node),
                    timeout=node.timeout,
                    when=RULES[node.when],
                )
                for number, node in enumerate(plan.nodes)
            },
            limit=plan.limit,
            on_error=plan.on_error,
            timeout=plan.timeout,
        )
        self.crew = graph.report._crew
        for number in range(len(plan.nodes)):
            self.know(number, graph.report[str(number)])
        report = graph.report
        try:
            assert await graph.execute() is report
        finally:
            self.timed_out = report.timed_out
            errors = [each for each in report.errors if not isinstance(each, trio.TooSlowError)]
            failed = [job for job in self.order if job.status is Status.FAILED]
            self.require(errors == [job.error for job in failed], "the report's errors are not those of the failed in time order")
            self.require(report.failed == tuple(failed), "the report's failed are not those that failed, in time order")
            self.require(report.ok == (all(job.ready for job in report.values()) and not report.timed_out), "`ok` is wrong")
            self.require(report.finished, "the report is not finished")

    async def act(self, act: Act) -> None:
        await trio.sleep(act.at)
        if act.what is What.CANCEL_RUN:
            self.is_cut()
            self.outer.cancel()
        elif act.target in self.jobs:
            job = self.jobs[act.target]
            if job.ended is None:
                self.by_hand[act.target] = trio.current_time()
                self.running.discard(act.target)
            job.cancel()

    # What was seen

    def ended(self, job: Job[Any], status: Status) -> None:
        self.ends.setdefault(job, []).append(status)
        self.order.append(job)
        if status is Status.FAILED:
            self.failed = True
            if self.plan.on_error == "cancel":
                self.is_cut()

    def is_cut(self) -> None:
        """All is cancelled, from now on."""
        self.cut = True
        self.cut_at = min(self.cut_at, trio.current_time())

    def check(self) -> None:
        """Raises: BrokenError if a promise was not kept."""
        self.require(not self.hung, "it hangs")
        if not self.hung:
            self.check_jobs()
            self.check_errors()
            self.check_blame()
            self.check_empty()
            if self.plan.left_alone:
                self.check_fates()
        if self.wrong:
            raise BrokenError("\n".join([repr(self.plan), *self.wrong[:10]]))

    def check_jobs(self) -> None:
        plan = self.plan
        over = bool(self.acts_on_run() or (self.failed and plan.on_error != "continue") or plan.timeout != math.inf)
        for number, job in self.jobs.items():
            ends = self.ends.get(job, [])
            self.require(len(ends) == 1, f"{number} ended {len(ends)} times")
            self.require(ends[-1:] == [job.status] and job.ended is not None, f"{number} did not stay what it was at its end")
            self.require(job.attempts == self.begun[number], f"{number} has the wrong number of attempts")
            self.require(not self.bodies[number], f"{number} still runs")
            late = min(self.cut_at, plan.timeout, self.by_hand.get(number, math.inf))
            self.require((job.ended or 0) <= late, f"{number} was cancelled at {late} and ended at {job.ended}")
            raised, node = self.raised.get(number), plan.nodes[number]
            told = self.told.get(number)
            match job.status:
                case Status.SUCCESS:
                    self.require(job.value == number == told, f"{number} has lost its value")
                case Status.FAILED:
                    slow = isinstance(job.error, JobTimeout) and node.lasts > node.timeout
                    asked = node.when is Rule.RAISES and isinstance(job.error, BoomError)
                    self.require(job.error is raised or slow or asked, f"{number} failed with {job.error!r}")
                    if isinstance(job.error, JobCancelled) and plan.on_error != "drain":
                        why = self.numbers[job.error.job] in self.by_hand
                        self.require(why, f"{number} failed because all was cancelled")
                case Status.NOT_READY:
                    self.require(isinstance(job.error, NotReady) and job.error is raised, f"{number} is not ready: {job.error!r}")
                case Status.SKIPPED:
                    self.require(not job.attempts, f"{number} was skipped and ran")
                case Status.UNKNOWN:
                    self.require(over or number in self.by_hand, f"{number} is unknown")
            if not job.ready:
                self.require(isinstance(told, JobError) and told.job is job, f"a wait for {number} got {told!r}")
                self.require(isinstance(told, JobError) and told.__cause__ is job.error, f"a wait for {number} lost the cause")
            if job.attempts and job.status is not Status.UNKNOWN:
                self.require(job.started is not None and job.started <= (job.ended or 0), f"{number} has no beginning")

    def acts_on_run(self) -> bool:
        return any(act.what is What.CANCEL_RUN for act in self.plan.acts)

    def check_blame(self) -> None:
        """Those after what has not succeeded were skipped because of it, or never reached where a failure ended all."""
        for number, job in self.jobs.items():
            node = self.plan.nodes[number]
            bad = [self.jobs[other] for other in node.after if not self.jobs[other].ready]
            if job.status is not Status.SKIPPED:
                self.require(job.blame is None, f"{number} blames somebody")
                if node.when is Rule.OK and bad:
                    self.require(job.status is Status.UNKNOWN, f"{number} is {job.status} after what was not ok")
                continue
            if node.when is Rule.OK:
                first = min((other.ended or 0 for other in bad), default=None)
                might: list[Job[Any] | None] = [other.blame or other for other in bad if other.ended == first]
            else:
                might = [next((other.blame or other for other in bad), None)]
            self.require(job.blame in might, f"{number} blames {job.blame!r}, and it may be {might!r}")
            blamed = job.blame
            if blamed is not None:
                self.require(blamed.blame is None and not blamed.ready, f"{number} blames {blamed!r}, which is no root")
        if self.plan.on_error != "continue":
            for number in self.after_the_first_failure():
                status = self.jobs[number].status
                self.require(status is Status.UNKNOWN, f"{number}, after what failed, is {status}")

    def after_the_first_failure(self) -> list[int]:
        """Those that are after the job that failed first, and that had not ended before."""
        first = next((place for place, job in enumerate(self.order) if job.status is Status.FAILED), None)
        if first is None:
            return []
        before = set(self.order[:first])
        origin = self.numbers[self.order[first]]
        reached = {origin}
        for number in sorted(self.jobs):
            if self.jobs[number] not in before and reached & set(self.plan.nodes[number].after):
                reached.add(number)
        return sorted(reached - {origin})

    def check_errors(self) -> None:
        leaves = [] if self.out is None else list(flat(self.out))
        late = [each for each in leaves if isinstance(each, trio.TooSlowError)]
        cancelled = [each for each in leaves if isinstance(each, trio.Cancelled)]
        others = [each for each in leaves if each not in late and each not in cancelled]
        if self.plan.pool:
            self.timed_out = bool(late)
            failed = [job.error for job in self.order if job.status is Status.FAILED]
            self.require(others == failed, f"{others!r} came out, and {failed!r} were raised")
            self.require(not (failed and cancelled), "failures came out together with a cancellation")
        else:
            self.require(others == late == [], f"{leaves!r} came out of a graph")
        self.require(not cancelled or self.outer.cancel_called, "a cancellation came out, and nobody cancelled")
        unreached = any(job.status is Status.UNKNOWN and number not in self.by_hand for number, job in self.jobs.items())
        stops = self.failed and self.plan.on_error != "continue"
        if self.plan.timeout == math.inf:
            self.require(not self.timed_out, "it timed out without a timeout")
        elif unreached and not stops and not self.outer.cancel_called:
            self.require(self.timed_out, "it was cut short and does not say that it timed out")

    def check_empty(self) -> None:
        crew = self.crew
        assert crew is not None
        self.require(not WORKERS, "there are workers left")
        for name in ("held", "unfinished", "idle", "turns", "queue", "keys", "asleep", "handed", "workers", "coming"):
            self.require(not getattr(crew, name), f"crew.{name} is {getattr(crew, name)!r} in the end")
        self.require(crew.gone, "the crew is not gone")

    def check_fates(self) -> None:
        for number, fate in enumerate(fates(self.plan)):
            job = self.jobs.get(number)
            seen = None if job is None else Fate(job.status, job.attempts)
            self.require(seen == fate, f"{number} has {seen}, and should have {fate}")


def flat(error: BaseException) -> Generator[BaseException]:
    """What is in a group, at any depth."""
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    for each in inside:
        yield from flat(each)
    if not inside:
        yield error


def retry_of(node: Node) -> Backoff | None:
    return None if node.tries == 1 else Backoff(DELAY, factor=2, jitter=0, attempts=node.tries)


@contextlib.contextmanager
def seeing(world: World) -> Generator[None]:
    """Have the world see each end of a job."""
    end = Ledger.end

    def spy(ledger: Ledger, job: Job[Any], status: Status, now: float) -> None:
        world.ended(job, status)
        end(ledger, job, status, now)

    with mock.patch.object(Ledger, "end", spy):
        yield


def play(plan: Plan) -> World:
    """Play a plan to its end."""
    world = World(plan)
    SCHEDULER._r = Random(plan.seed)
    WORKERS.clear()
    with seeing(world):
        trio.run(world.main, clock=trio.testing.MockClock(autojump_threshold=0))
    return world


# Random plans


def make(choose: Callable[[Sequence[Any]], Any], size: int, *, pool: bool, rough: bool) -> Plan:
    """A plan of which `choose` takes each part from a few that there are."""
    nodes: list[Node] = []
    depths: list[int] = []
    for number in range(size):
        parents = [place for place in range(number) if nodes[place].timeout == math.inf]
        parents = [place for place in parents if depths[place] < DEEPEST]
        parent: int | None = choose([None, None, *parents[-2:]]) if pool else None
        depths.append(0 if parent is None else depths[parent] + 1)
        if parent is None:
            others = [place for place in range(number) if nodes[place].parent is None]
        else:
            others = [place for place in range(number) if nodes[place].parent == parent]
        near = others[-4:]
        after = {choose(near) for _ in range(choose([0, 1, 1, 2, 3]))} if near else set[int]()
        waits = {choose(near) for _ in range(choose([0, 0, 1, 2]))} if near else set[int]()
        tries = choose([1, 1, 2, 3])
        nodes.append(
            Node(
                after=tuple(sorted(after)),
                waits=tuple(sorted(waits)),
                lasts=choose([0.0, 0.0, 1.0, 2.0]),
                then=choose([0.0, 0.0, 1.0]),
                fails=choose([0, 0, 0, 1, 2]),
                ends=choose([Ends.RETURN, Ends.RETURN, Ends.RETURN, Ends.RETURN, Ends.RAISE, Ends.NOT_READY]),
                tries=tries,
                timeout=math.inf if waits else choose([math.inf, math.inf, 1.5]),
                when=choose([Rule.OK, Rule.OK, Rule.OK, Rule.DONE, Rule.ANY, Rule.RAISES]) if after else Rule.OK,
                parent=parent,
                together=choose([False, True]),
                swallows=choose([False, True]),
            )
        )
    acts: list[Act] = []
    if rough:
        times = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.5]
        acts = [Act(choose(times), What.CANCEL_JOB, choose(range(size))) for _ in range(choose([0, 0, 1, 2, 3]))]
        if choose([False, False, True]):
            acts.append(Act(choose(times), What.CANCEL_RUN))
    return Plan(
        tuple(nodes),
        limit=choose([1, 2, 3, math.inf]),
        on_error=choose(["cancel", "drain", "continue"]) if rough else "continue",
        timeout=choose([math.inf, math.inf, 0.0, 1.25, 2.0, 3.0]) if rough else math.inf,
        acts=tuple(acts),
        pool=pool,
        seed=choose(range(4)),
    )


def small(seed: int, *, rough: bool) -> Plan:
    """A plan of a few jobs."""
    random = Random(seed)
    return make(random.choice, random.randint(1, 9), pool=random.random() < 0.5, rough=rough)


def big(seed: int, size: int, *, pool: bool, rough: bool) -> Plan:
    """A plan of any size."""
    return make(Random(seed).choice, size, pool=pool, rough=rough)
