"""Metrics of a running tree, for Prometheus (the extra `metrics`): a collector that is registered where it is wanted.

    async with grouper.invoke(root) as process:
        with Collector(process) as collector:
            REGISTRY.register(collector)
            prometheus_client.start_http_server(9100)
            await process.wait()

What happens is counted by a hearer on the ring of the tree's events, in the step in which it happens: a stream that is read when
somebody scrapes would lose what was dropped in between. What is up is read from the tree when it is scraped. Both belong to the
tree's trio run, so a scrape in another thread (`start_http_server` has one for each) goes through `trio.from_thread`, and waits as
long as the event loop is blocked. When the run is over nothing changes any more, and the last values are read where they are.

`trio.lowlevel` is used for the token of that run.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

import attrs
import trio
from prometheus_client import registry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .groups.dynamic import DynamicRun
from .narrating import Hearer, outcome
from .process import Process
from .signals import STOP_SIGNALS
from .state import Ended, State

__all__ = ["Collector"]

OUTCOMES: Final = ("clean", "failed", "killed")
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The upper bounds of the buckets, in seconds: around the default grace of ten."""
EACH: Final = "*"
"""What the members of a `Dynamic` are called: there may be any number of them, and of labels there may not."""


def label_of(process: Process) -> str:
    """A process's path, with `*` for the name of a member of a `Dynamic`."""
    names: list[str] = []
    each: Process | None = process
    while each is not None and not each._host.anonymous:
        names.append(_name(each))
        each = each._host.owner
    return "/".join(reversed(names))


def _name(process: Process) -> str:
    return EACH if isinstance(process._host, DynamicRun) else process.member.name


@attrs.define(eq=False)
class Durations:
    """A histogram."""

    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """For each bound how many were no longer."""
        found: list[tuple[str, float]] = []
        number = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            number += count
            found.append((bound, number))
        return found


class Counts(Hearer):
    """What has happened to a process and all beneath it, by label."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process: Process = process
        self.restarted: Counter[str] = Counter()
        self.exits: Counter[tuple[str, str]] = Counter()
        self.starts: dict[str, Durations] = {}
        self.stops: dict[str, Durations] = {}
        self.told_at: dict[Process, float] = {}
        for each, _ in self.walk():  # it may have begun long ago
            if each.state in (State.BACKOFF, State.WAITING) and each.started_at is not None:
                self.between.add(each)

    def walk(self) -> Iterator[tuple[Process, str]]:
        """The process and all beneath it, each with its label."""
        todo = [(self.process, label_of(self.process))]
        while todo:
            process, label = todo.pop()
            yield process, label
            before = f"{label}/" if label else ""
            todo.extend([(child, before + _name(child)) for child in process.children])

    def _is_ours(self, process: Process) -> bool:
        root = self.process
        return process is root or root._host.anonymous or root._is_above(process)

    def started(self, time: float, process: Process) -> None:
        """Count a start that is not the first."""
        if process.restarts and self._is_ours(process):
            self.restarted[label_of(process)] += 1

    def entered(self, time: float, process: Process) -> None:
        """Count how long the start took."""
        if process.started_at is not None and self._is_ours(process):
            self.starts.setdefault(label_of(process), Durations()).add(time - process.started_at)

    def exited(self, time: float, process: Process, ended: Ended) -> None:
        """Count the exit, and how long it took since the process was told to stop, if it was."""
        if self._is_ours(process):
            label = label_of(process)
            self.exits[label, outcome(ended)] += 1
            told_at = self.told_at.pop(process, None)
            if told_at is not None:
                self.stops.setdefault(label, Durations()).add(time - told_at)

    def gave_up_waiting(self, time: float, process: Process, ended: Ended) -> None:
        """No life has ended by it: only a failure counts."""
        self.told_at.pop(process, None)
        if ended[0] is not None and self._is_ours(process):
            self.exits[label_of(process), outcome(ended)] += 1

    def told(self, time: float, process: Process, number: int) -> None:
        """Note when it is told to stop."""
        if number in STOP_SIGNALS:
            self._stops(time, process)

    def killed(self, time: float, process: Process, failure: Exception | None) -> None:
        """Note when it is killed, if nobody told it to stop before."""
        self._stops(time, process)

    def _stops(self, time: float, process: Process) -> None:
        if process.state is State.STOPPING and self._is_ours(process):
            self.told_at.setdefault(process, time)


class Families:
    """The metrics, without a value yet."""

    def __init__(self) -> None:
        member = ["member"]
        self.up: GaugeMetricFamily = GaugeMetricFamily("grouper_up", "Whether the member is ready", labels=member)
        self.restarts: CounterMetricFamily = CounterMetricFamily(
            "grouper_restarts", "How often the member was started again", labels=member
        )
        self.exits: CounterMetricFamily = CounterMetricFamily(
            "grouper_exits", "How often the member has ended, and how", labels=[*member, "outcome"]
        )
        self.start: HistogramMetricFamily = HistogramMetricFamily(
            "grouper_start_seconds", "From the member's start until it was ready", labels=member
        )
        self.stop: HistogramMetricFamily = HistogramMetricFamily(
            "grouper_stop_seconds", "From the member's stop signal, or kill, to its exit", labels=member
        )

    @property
    def all(self) -> list[Metric]:
        """The five of them."""
        return [self.up, self.restarts, self.exits, self.start, self.stop]


class Collector(registry.Collector):
    """A collector over a running process and all beneath it: `REGISTRY.register(Collector(process))`.

    `grouper_up{member}`: 1 while it is ready; 0 otherwise. `grouper_restarts_total{member}`: how often it was started again, by
    whatever cause. `grouper_exits_total{member,outcome}`: how often it has ended, `clean`, `failed`, or `killed` where it was to
    stop anyway. `grouper_start_seconds{member}`: a histogram, from start to ready (of a job: until it has returned).
    `grouper_stop_seconds{member}`: from its group's stop signal, or kill, to its exit. A member is its path, the root "".

    All members of a `Dynamic` have one label, the group's path and `/*`, and their `grouper_up` is how many are ready.

    It is made in the tree's trio thread (else RuntimeError), counts from then on until `close()` or the end of its block, and may
    be collected from any thread, also when the run is over.
    """

    def __init__(self, process: Process) -> None:
        if not isinstance(process, Process):
            raise TypeError(f"Collector: {process!r} is no process: it takes what grouper.invoke() or client.insert() gives")
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._counts = Counts(process)
        self._ring = process._host.ring
        self._ring.hearers.append(self._counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Count no more. What was counted can still be collected. A second time it does nothing."""
        self._ring.hearers = [each for each in self._ring.hearers if each is not self._counts]  # the old list may be being told

    def describe(self) -> Iterable[Metric]:
        """The metrics without a value, for the registry."""
        return Families().all

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are. Waits, from another thread, for the tree's event loop."""
        if threading.get_ident() == self._thread:
            return self._collect()
        try:
            return trio.from_thread.run_sync(self._collect, trio_token=self._token)
        except trio.RunFinishedError:
            return self._collect()

    def _collect(self) -> list[Metric]:
        families, counts = Families(), self._counts
        up: Counter[str] = Counter()
        for process, label in counts.walk():
            up[label] += process.state is State.READY
            if isinstance(process._inner, DynamicRun):
                up[f"{label}/{EACH}" if label else EACH] += 0
        labels = dict.fromkeys(up) | dict.fromkeys(counts.restarted) | dict.fromkeys(label for label, _ in counts.exits)
        for label in labels:
            families.up.add_metric([label], up[label])
            families.restarts.add_metric([label], counts.restarted[label])
            for how in OUTCOMES:
                families.exits.add_metric([label, how], counts.exits[label, how])
        for family, durations in ((families.start, counts.starts), (families.stop, counts.stops)):
            for label, each in durations.items():
                family.add_metric([label], each.buckets(), each.total)
        return families.all
