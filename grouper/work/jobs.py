"""A graph of jobs: each runs when those that it is after have succeeded.

`trio.lowlevel` is used for protection from KeyboardInterrupt.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from typing import Any, ClassVar, TypeAlias

import attrs
import trio

from ..exit import only_cancelled
from ..graph import Edges
from ..member import Role
from ..process import State
from ..signals import STOP_SIGNALS, Signals
from .crew import Crew
from .job import Job, JobSpec, all_ok, require_job
from .ledger import NOBODYS, OnError, require_bounds
from .pool import DEFAULT_LIMIT
from .report import Report

__all__ = ["Jobs", "run_jobs"]

Body: TypeAlias = Callable[[], Awaitable[Any]]
Given: TypeAlias = (
    Mapping[str, Body | JobSpec[Any]] | Sequence[tuple[str, Body | JobSpec[Any]]] | Iterator[tuple[str, Body | JobSpec[Any]]]
)
"""A graph as `run_jobs` takes it: functions and `job(...)`s by name, or pairs of the two."""


def _as_specs(given: Given) -> tuple[tuple[str, JobSpec[Any]], ...]:
    pairs: list[Any] = list(given.items() if isinstance(given, Mapping) else given)
    fix = "give a mapping of names to functions or job(...)s, or pairs of the two"
    try:
        for place, (name, spec) in enumerate(pairs):
            if not isinstance(name, str):
                raise TypeError(f"{name!r} is not the name of a job: {fix}")
            if not isinstance(spec, JobSpec):
                require_job(spec, name, None, math.inf, all_ok)
                pairs[place] = name, JobSpec(spec)
    except ValueError:
        raise TypeError(f"{pairs!r} is no graph of jobs: {fix}") from None
    return tuple(pairs)


@attrs.define(eq=False)
class Jobs:
    """A graph of jobs that can be run any number of times: by `execute()`, or as a member of a group.

    As a member it is a JOB: ready when the graph is done, so that in `Ordered([("migrations", Jobs(...)), ("server", server)])` the
    server starts after the last of them. It fails unless the report is `ok`. A stop signal lets the jobs that run finish, within
    the member's grace, and begins no other. `limit`, `timeout` and `on_error` as in `run_jobs`.

    Raises: TypeError, ValueError for what is no graph or no limit; DuplicateNames, UnknownDependency or CycleError, the first
    with the others as notes.
    """

    specs: tuple[tuple[str, JobSpec[Any]], ...] = attrs.field(converter=_as_specs, repr=lambda specs: f"<{len(specs)} jobs>")
    limit: float = attrs.field(default=DEFAULT_LIMIT, kw_only=True)
    timeout: float = attrs.field(default=math.inf, kw_only=True)
    on_error: OnError = attrs.field(default="cancel", kw_only=True)
    _edges: Edges = attrs.field(init=False, repr=False)
    _report: Report | None = attrs.field(default=None, init=False, repr=False)

    role: ClassVar[Role] = Role.JOB

    def __attrs_post_init__(self) -> None:
        require_bounds("Jobs", self.limit, self.on_error, self.timeout)
        self._edges = Edges.named([(name, spec.after) for name, spec in self.specs], kind="job")

    @property
    def report(self) -> Report:
        """The report of the run that was begun last, or of the next one if there was none: readable at any time."""
        if self._report is None:
            self._report = self._prepared()
        return self._report

    @trio.lowlevel.enable_ki_protection
    async def execute(self) -> Report:
        """Run the graph and report. What jobs raise is in the report and not raised.

        A cancellation cancels the jobs and waits for each; `report` is there afterwards too. Raises: what is no Exception, such as
        KeyboardInterrupt, if a job raised it.
        """
        report = self._next()
        await self._perform(report)
        return report

    @trio.lowlevel.enable_ki_protection
    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Report]) -> None:
        """Run the graph; ready, with the report as value, when it is done.

        Raises: as `Report.raise_for_status`; cut short by a stop signal to its group it returns, if no job failed.
        """
        if signals.received is not None:
            return
        report = self._next()
        error: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey, signals, report._crew)
            try:
                await self._perform(report)
            except BaseException as raised:
                error = raised
            nursery.cancel_scope.shield = True  # so that a Cancelled in `_obey` is this nursery's own, and wraps nothing
            nursery.cancel_scope.cancel("the jobs are done")
        if error is not None:
            raise error
        if report.ok:
            task_status.started(report)
        elif report.errors or not _is_being_stopped(signals):
            report.raise_for_status()

    async def _obey(self, signals: Signals, crew: Crew) -> None:
        async for number in signals:
            if number in STOP_SIGNALS:
                crew.stopping = True
                crew.give_up()

    def _next(self) -> Report:
        if self._report is None or self._report._begun:
            self._report = self._prepared()
        self._report._begun = True
        return self._report

    async def _perform(self, report: Report) -> None:
        crew = report._crew
        await crew.enter()
        error: BaseException | None = None
        try:
            self._begin(report)
            await crew.watch()
        except BaseException as raised:
            error = raised
        raised_too = await crew.leave(type(error) if error else None, error, error.__traceback__ if error else None)
        others = [*(each for each in raised_too if not only_cancelled(each)), *crew.interrupts]
        if len(others) > 1:
            raise BaseExceptionGroup("a run of jobs was interrupted", others)
        for each in others or raised_too:
            raise each

    def _begin(self, report: Report) -> None:
        crew = report._crew
        context = copy_context()
        crew.queue.clear()
        for job in report._jobs.values():
            job._context = context
            if not job._left and job.ended is None:
                if job._more is None or job._more.when is None:
                    crew.queue.append(job)
                else:
                    crew.handed[job] = None
        for job in list(crew.handed):
            if job.ended is None:
                del crew.handed[job]
                crew.may_begin(job, trio.current_time())
                crew.settle(job)
        crew.closed = True
        crew.call()

    def _prepared(self) -> Report:
        crew = Crew(self.limit, self.on_error, self.timeout)
        jobs = [Job(crew, name, spec.fn, spec.args, NOBODYS) for name, spec in self.specs]
        crew.unfinished = len(jobs)
        self._edges.link_start(jobs)
        for place, (_, spec) in enumerate(self.specs):
            if spec.retry is not None or spec.timeout != math.inf or spec.when is not all_ok:
                more = jobs[place]._extra()
                more.retry, more.timeout, more.when = spec.retry, spec.timeout, None if spec.when is all_ok else spec.when
                more.after = tuple([jobs[before] for before in self._edges.after[place]])
        return Report({name: job for (name, _), job in zip(self.specs, jobs, strict=True)}, self._edges, crew)


def _is_being_stopped(signals: Signals) -> bool:
    """Whether a group stops the member that was given the signals; sent to it alone they leave those after it waiting."""
    return signals._owner is None or signals._owner.state is State.STOPPING


async def run_jobs(
    graph: Given, *, limit: float = DEFAULT_LIMIT, timeout: float = math.inf, on_error: OnError = "cancel"
) -> Report:
    """Run a graph of jobs, at most `limit` at a time, and report: `run_jobs({"a": fetch, "b": job(build, after="a")})`.

    A job that raises has failed: `on_error` "cancel" then cancels the run (what has not ended is UNKNOWN), "drain" begins no more
    jobs, "continue" skips those after it. A job that raises NotReady ends NOT_READY, and those after it are skipped. After
    `timeout` seconds the run is cancelled and has `timed_out`. Never raises for jobs: see the report,
    `report.raise_for_status()`.

    A cancellation cancels the jobs and waits for each; use `Jobs(graph)`, its `execute()` and `report` to look at it afterwards, or
    meanwhile. Raises: as `Jobs`, before anything has run; what is no Exception if a job raised it.
    """
    return await Jobs(graph, limit=limit, timeout=timeout, on_error=on_error).execute()
