"""What became of a graph of jobs: readable while it runs, after it, and after it was cancelled, from any thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import trio

from ..events import EventStream
from ..graph import Edges
from .crew import Crew
from .drawing import as_mermaid, as_text
from .job import Job, JobEvent, Status, not_ok

__all__ = ["Front", "Report"]


@attrs.frozen
class Front:
    """A job at which a graph got stuck: its status, which of those it is after have not succeeded, and what is stuck with it."""

    name: str
    status: Status
    blockers: tuple[str, ...]
    subtree: tuple[str, ...]


class Report(Mapping[str, Job[Any]]):
    """The jobs of a run by name, in the order in which they were given."""

    def __init__(self, jobs: Mapping[str, Job[Any]], edges: Edges, crew: Crew) -> None:
        self._jobs = jobs
        self._edges = edges
        self._crew = crew
        self._begun = False

    def __getitem__(self, name: str) -> Job[Any]:
        return self._jobs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        counted = ", ".join(f"{number} {state}" for state, number in self.counts().items())
        return f"<Report of {len(self)} jobs{': ' if counted else ''}{counted}>"

    # What it came to

    @property
    def ok(self) -> bool:
        """Whether every job has succeeded, in time."""
        return not self.timed_out and all(job.status is Status.SUCCESS for job in self._jobs.values())

    @property
    def finished(self) -> bool:
        """Whether every job has ended."""
        return not self._crew.unfinished

    @property
    def timed_out(self) -> bool:
        """Whether the `timeout` of the run cut it short."""
        return self._crew.timed_out_after is not None

    @property
    def running(self) -> tuple[Job[Any], ...]:
        """The jobs whose bodies have begun and not ended."""
        return tuple(self._crew.running())

    @property
    def failed(self) -> tuple[Job[Any], ...]:
        """The jobs that have failed, in time order."""
        return tuple(self._crew.failures)

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """What the failed jobs raised, in time order, and a `trio.TooSlowError` where the run timed out."""
        found = [job.error for job in self.failed if job.error is not None]
        place = self._crew.timed_out_after
        if place is not None:
            found.insert(place, self._too_slow)
        return tuple(found)

    @property
    def first_error(self) -> BaseException | None:
        """The first in time."""
        return next(iter(self.errors), None)

    @property
    def first_not_ready(self) -> Job[Any] | None:
        """The first by name of those that were not ready."""
        return min((job for job in self._jobs.values() if job.status is Status.NOT_READY), key=lambda job: job.name, default=None)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state: `waiting`, `running`, `success`, ..."""
        found: dict[str, int] = {}
        for job in self._jobs.values():
            state = job.state  # once: from another thread it may be another one the next time
            found[state] = found.get(state, 0) + 1
        return found

    def raise_for_status(self) -> None:
        """Do nothing if the run is `ok`, and raise otherwise.

        Raises: an ExceptionGroup of all `errors`; without any, JobNotReady, JobSkipped or JobCancelled of the first by name;
        RuntimeError while the run is not over.
        """
        errors = self.errors
        if errors:
            late = "; the run timed out" if self.timed_out else ""
            raise BaseExceptionGroup(f"{len(self.failed)} of {len(self)} jobs failed{late}", errors)
        if not self.finished:
            raise RuntimeError("the jobs are not done yet: await `execute()` or `run_jobs()` before `raise_for_status()`")
        if not self.ok:
            wrong = [job for job in self._jobs.values() if job.status is not Status.SUCCESS]
            raise not_ok(self.first_not_ready or min(wrong, key=lambda job: job.name))

    # Where it got stuck

    def frontier(self) -> tuple[Front, ...]:
        """The jobs at which the graph got stuck, by name: failed, not ready, or never begun although nothing was in their way."""
        fronts: list[Front] = []
        for name in sorted(self._jobs):
            status = self._jobs[name].status
            if status is Status.SUCCESS:
                continue
            blockers = self.blockers(name)
            if status in (Status.FAILED, Status.NOT_READY) or not blockers:
                fronts.append(Front(name, status, blockers, self.subtree(name)))
        return tuple(fronts)

    def boundary(self) -> tuple[str, ...]:
        """The jobs that have succeeded and have one that has not somewhere after them, by name."""
        jobs = self._listed
        reached = self._walk([place for place, job in enumerate(jobs) if not job.ready], self._edges.after)
        return tuple(sorted(jobs[place].name for place in reached if jobs[place].ready))

    def blockers(self, name: str) -> tuple[str, ...]:
        """Those that a job is directly after and that have not succeeded, by name. Raises: KeyError for no job's name."""
        jobs = self._listed
        return tuple(sorted(jobs[place].name for place in self._edges.after[self._places[name]] if not jobs[place].ready))

    def subtree(self, name: str) -> tuple[str, ...]:
        """A job and all that are after it, directly or not, by name. Raises: KeyError for no job's name."""
        jobs = self._listed
        return tuple(sorted(jobs[place].name for place in self._walk([self._places[name]], self._followers)))

    # To look at

    def after(self, name: str) -> tuple[str, ...]:
        """Those that a job is directly after, in the order in which it named them. Raises: KeyError for no job's name."""
        jobs = self._listed
        return tuple([jobs[place].name for place in self._edges.after[self._places[name]]])

    def render(self) -> str:
        """The graph as text: a line for each job, after those that it is after."""
        return as_text(self)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart, coloured by status."""
        return as_mermaid(self)

    def events(self) -> EventStream[Job[Any], JobEvent]:
        """A stream of the jobs that begin and end from now on, and ends with the run: `async with report.events() as stream`."""
        return self._crew.events()

    @cached_property
    def _too_slow(self) -> trio.TooSlowError:
        return trio.TooSlowError(f"the jobs were not done within {self._crew.timeout:g} s")

    @cached_property
    def _listed(self) -> Sequence[Job[Any]]:
        return tuple(self._jobs.values())

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self._jobs)}

    @cached_property
    def _followers(self) -> Sequence[Sequence[int]]:
        followers: list[list[int]] = [[] for _ in self._jobs]
        for place, befores in enumerate(self._edges.after):
            for before in befores:
                followers[before].append(place)
        return followers

    def _walk(self, start: Iterable[int], ways: Sequence[Sequence[int]]) -> set[int]:
        found = set(start)
        todo = list(found)
        while todo:
            for other in ways[todo.pop()]:
                if other not in found:
                    found.add(other)
                    todo.append(other)
        return found
