"""Metrics for Prometheus: what is up, what was restarted, what has exited, and how long it took."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import Backoff, Dynamic, Member, Ordered, Parallel, Process, Restart, Role, Signals, Strategy
from grouper.metrics import Collector
from grouper.runner import RunnerLike

from .groups.members import Cast, deaf, fails_later, never_ready, returns_ready, service

SECOND = Backoff(1, jitter=0)
FOREVER = Restart(backoff=Backoff(60, cap=60, jitter=0))
real_time = pytest.mark.real_time

Samples = dict[tuple[str, str] | tuple[str, str, str], float]


def parsed(text: str) -> Samples:
    """What a scrape says: name, member, and the outcome or the bucket if there is one."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            rest = [value for key, value in sample.labels.items() if key != "member"]
            found[sample.name.removeprefix("grouper_"), sample.labels["member"], *rest] = sample.value  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    return found


def scraped(collector: Collector) -> Samples:
    registry = CollectorRegistry()
    registry.register(collector)
    return parsed(generate_latest(registry).decode())


def exits(samples: Samples, member: str) -> tuple[float, ...]:
    """Clean, failed, killed."""
    return tuple(samples["exits_total", member, outcome] for outcome in ("clean", "failed", "killed"))


class Flaky:
    """Is ready after `start` seconds and fails a second later, `lives` times; then it stops `stop` seconds after it is told to."""

    def __init__(self, lives: float = 0, start: float = 0, stop: float = 0) -> None:
        self.lives, self.start, self.stop = lives, start, stop

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await trio.sleep(self.start)
        task_status.started()
        self.lives -= 1
        if self.lives >= 0:
            await trio.sleep(1)
            raise OSError("gone")
        await signals.wait()
        await trio.sleep(self.stop)


# up


async def test_up_is_one_while_ready(autojump_clock: MockClock) -> None:
    """Neither before nor afterwards; members that were not started are 0."""
    cast = Cast("ab", ready=False)
    async with grouper.background(Ordered(cast.pairs())) as process:
        await cast.news()
        with Collector(process) as collector:
            assert [scraped(collector)["up", each] for each in ("", "a", "b")] == [0, 0, 0]
            cast["a"].go.set()
            await cast.news()
            assert [scraped(collector)["up", each] for each in ("", "a", "b")] == [0, 1, 0]
            cast["b"].go.set()
            await cast.news()
            assert [scraped(collector)["up", each] for each in ("", "a", "b")] == [1, 1, 1]
            process.signal(signal.SIGTERM)
            await process.wait()
            assert [scraped(collector)["up", each] for each in ("", "a", "b")] == [0, 0, 0]


async def test_up_is_zero_while_waiting_for_a_restart(autojump_clock: MockClock) -> None:
    """It was ready, and will be."""
    async with grouper.invoke(Ordered([Member("web", Flaky(1), restart=Restart(backoff=SECOND))])) as process:
        collector = Collector(process)
        ups: list[float] = []
        for _ in range(3):
            await trio.sleep(0.75)
            ups.append(scraped(collector)["up", "web"])
    assert ups == [1, 0, 1]


async def test_member_is_its_path(autojump_clock: MockClock) -> None:
    """From the root, whose own is empty, as everywhere."""
    async with grouper.invoke(Ordered([("web", Ordered([("api", service)]))])) as process:
        samples = scraped(Collector(process))
    assert [member for name, member, *_ in samples if name == "up"] == ["", "web", "web/api"]


async def test_strange_names_come_through(autojump_clock: MockClock) -> None:
    """The format has its ways to quote."""
    name = 'a "b"\\ \n ü'
    async with grouper.invoke(Ordered([(name, service)])) as process:
        assert scraped(Collector(process))["up", name] == 1


async def test_only_what_is_beneath_the_process_is_counted(autojump_clock: MockClock) -> None:
    """A collector of a part of the tree tells nothing of the rest."""
    fails = Member("b", fails_later, role=Role.OPTIONAL)
    async with grouper.invoke(Parallel([("web", Ordered([("a", service), fails])), fails, ("c", service)])) as process:
        collector = Collector(process["web"])
        await trio.sleep(2)
        samples = scraped(collector)
    assert {member for _, member, *_ in samples} == {"web", "web/a", "web/b"}
    assert exits(samples, "web/b") == (0, 1, 0)


# restarts and exits


async def test_restarts_are_counted(autojump_clock: MockClock) -> None:
    """When they are made."""
    async with grouper.invoke(Ordered([Member("web", Flaky(2), restart=Restart(backoff=SECOND)), ("db", service)])) as process:
        collector = Collector(process)
        assert scraped(collector)["restarts_total", "web"] == 0
        await trio.sleep(1.5)
        assert scraped(collector)["restarts_total", "web"] == 0
        await trio.sleep(10)
        samples = scraped(collector)
    assert [samples["restarts_total", each] for each in ("web", "db", "")] == [2, 0, 0]
    assert exits(samples, "web") == (0, 2, 0)


async def test_restarts_with_siblings_and_by_hand_are_counted(autojump_clock: MockClock) -> None:
    """Whatever the cause."""
    db = Member("db", Flaky(1), restart=Restart())
    group = Ordered([db, ("web", service)], strategy=Strategy.ALL, restart=Restart(backoff=SECOND))
    async with grouper.invoke(group) as process:
        collector = Collector(process)
        await trio.sleep(5)
        assert scraped(collector)["restarts_total", "web"] == 1
        await process.restart("web")
        samples = scraped(collector)
    assert samples["restarts_total", "web"] == 2
    assert exits(samples, "web") == (2, 0, 0)


async def test_counts_outlive_the_restart_of_the_group_around(autojump_clock: MockClock) -> None:
    """Its members are other processes then; a counter never falls."""
    api = Member("api", Flaky(2), restart=Restart(backoff=SECOND, limit=1, period=100))
    async with grouper.invoke(Ordered([Member("web", Ordered([api]), restart=Restart(backoff=SECOND))])) as process:
        collector = Collector(process)
        await trio.sleep(3.5)  # it failed at 1 and at 3
        assert scraped(collector)["restarts_total", "web/api"] == 1
        await trio.sleep(1)
        samples = scraped(collector)
    assert process["web"]["api"].restarts == 0
    assert (samples["restarts_total", "web"], samples["restarts_total", "web/api"]) == (1, 1)
    assert exits(samples, "web/api") == (0, 2, 0)


async def kills(process: Process) -> None:
    process["web"].kill()
    await process.wait()


async def stops_and_kills(process: Process) -> None:
    process.signal(signal.SIGTERM)
    await wait_all_tasks_blocked()
    process["web"].kill()
    await process.wait()


async def waits(process: Process) -> None:
    await process.wait()


OUTCOMES: dict[str, tuple[RunnerLike, Callable[[Process], Any], tuple[float, ...]]] = {
    "returns": (returns_ready, waits, (1, 0, 0)),
    "fails": (fails_later, waits, (0, 1, 0)),
    "is killed by hand": (deaf, kills, (0, 1, 0)),
    "is killed while it stops": (deaf, stops_and_kills, (0, 0, 1)),
}


@pytest.mark.parametrize(("runner", "do", "counted"), OUTCOMES.values(), ids=OUTCOMES)
async def test_exits_are_counted_by_outcome(
    autojump_clock: MockClock, runner: RunnerLike, do: Callable[[Process], Any], counted: tuple[float, ...]
) -> None:
    """As the log has it."""
    collector: Any = None
    with contextlib.suppress(Exception):
        async with grouper.background(Ordered([("web", runner)])) as process:
            collector = Collector(process)
            await wait_all_tasks_blocked()
            await do(process)
    assert exits(scraped(collector), "web") == counted


async def test_stop_while_waiting_for_a_restart_is_no_second_exit(autojump_clock: MockClock) -> None:
    """An exit is the end of a life."""
    async with grouper.invoke(Ordered([Member("web", Flaky(1), restart=FOREVER)])) as process:
        collector = Collector(process)
        await trio.sleep(5)
        early = Collector(process)  # it has not heard of the exit
    assert exits(scraped(collector), "web") == (0, 1, 0)
    assert exits(scraped(early), "web") == (0, 0, 0)


async def test_kill_while_waiting_for_a_restart_is_one_more_failure(autojump_clock: MockClock) -> None:
    """The member has failed for good by it, which somebody has to see."""
    web = Member("web", Flaky(1), restart=FOREVER, role=Role.OPTIONAL)
    async with grouper.invoke(Ordered([web, ("db", service)])) as process:
        collector = Collector(process)
        await trio.sleep(5)
        process["web"].kill()
        await process["web"].wait()
        samples = scraped(collector)
    assert exits(samples, "web") == (0, 2, 0)


async def test_counting_begins_with_the_collector(autojump_clock: MockClock) -> None:
    """And ends with it; what was counted is still told."""
    async with grouper.invoke(Ordered([Member("web", Flaky(math.inf), restart=Restart(backoff=SECOND, limit=99))])) as process:
        await trio.sleep(1.5)
        with Collector(process) as collector:
            await trio.sleep(2)
        await trio.sleep(30)
        collector.close()
        assert exits(scraped(collector), "web") == (0, 1, 0)
        assert process["web"].restarts > 2
        assert process._host.ring.hearers == []


# times


async def test_start_takes_until_it_is_ready(autojump_clock: MockClock) -> None:
    """Each start is one more."""
    async with grouper.background(Ordered([Member("web", Flaky(1, start=2), restart=Restart(backoff=SECOND))])) as process:
        collector = Collector(process)
        await trio.sleep(20)
        samples = scraped(collector)
    assert (samples["start_seconds_count", "web"], samples["start_seconds_sum", "web"]) == (2, 4)


async def test_job_takes_until_it_has_returned(autojump_clock: MockClock) -> None:
    """It is ready then."""

    async def migrates(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await trio.sleep(7)

    async with grouper.background(Ordered([Member("migrate", migrates, role=Role.JOB), ("web", service)])) as process:
        collector = Collector(process)
        await process.wait_ready()
        samples = scraped(collector)
    assert samples["start_seconds_sum", "migrate"] == 7
    assert exits(samples, "migrate") == (1, 0, 0)


async def test_stop_takes_from_the_signal_to_the_exit(autojump_clock: MockClock) -> None:
    """Of a group, as long as all its members take."""
    async with grouper.invoke(Ordered([("web", Ordered([("a", Flaky(stop=2)), ("b", Flaky(stop=3))]))])) as process:
        collector = Collector(process)
    samples = scraped(collector)
    assert [samples["stop_seconds_sum", each] for each in ("web", "web/a", "web/b")] == [5, 2, 3]


async def test_stop_that_ends_with_a_kill_began_with_the_signal(autojump_clock: MockClock) -> None:
    """The whole grace."""
    async with grouper.invoke(Ordered([Member("web", deaf, grace=4, role=Role.OPTIONAL)])) as process:
        collector = Collector(process)
    samples = scraped(collector)
    assert (samples["stop_seconds_sum", "web"], *exits(samples, "web")) == (4, 0, 1, 0)


async def test_exit_by_itself_is_no_stop(autojump_clock: MockClock) -> None:
    """Nobody told it to."""
    async with grouper.invoke(Ordered([Member("web", Flaky(1), restart=FOREVER)])) as process:
        collector = Collector(process)
        await trio.sleep(5)
        assert ("stop_seconds_count", "web") not in scraped(collector)


async def test_buckets_add_up(autojump_clock: MockClock) -> None:
    """Each holds those before; the edge belongs to its bucket."""
    pool = Dynamic()
    async with grouper.invoke(pool) as process:
        collector = Collector(process)
        for seconds in (0, 1.0, 2.0, 100):
            await pool.client().insert((f"after {seconds}", Flaky(start=seconds)))
        await trio.sleep(200)
        samples = scraped(collector)
    buckets = [samples["start_seconds_bucket", "*", bound] for bound in ("0.005", "0.5", "1.0", "2.5", "60.0", "+Inf")]
    assert buckets == [1, 1, 2, 3, 3, 4]


# a dynamic group


async def test_members_of_a_dynamic_group_have_one_label(autojump_clock: MockClock) -> None:
    """However many come and go, and whatever is in them."""
    pool = Dynamic()
    async with grouper.invoke(Ordered([("pool", pool)])) as process:
        collector = Collector(process)
        before = scraped(collector)
        for number in range(100):
            await pool.client().insert((f"m{number}", Ordered([("in", service)])))
        await trio.sleep(1)
        full = scraped(collector)
        for number in range(100):
            await pool.client().remove(f"m{number}")
        after = scraped(collector)
    assert {member for _, member, *_ in before} == {"", "pool", "pool/*"}
    assert {member for _, member, *_ in after} == {"", "pool", "pool/*", "pool/*/in"}
    assert [samples["up", "pool/*"] for samples in (before, full, after)] == [0, 100, 0]
    assert exits(after, "pool/*/in") == (100, 0, 0)


async def test_collector_of_a_dynamic_member_has_its_label(autojump_clock: MockClock) -> None:
    """Also where the part that is collected is one of them."""
    pool = Dynamic()
    async with grouper.invoke(pool) as process:
        member = await pool.client().insert(("a", Ordered([("in", service)])))
        await pool.client().insert(("b", service))
        await member.wait_ready()
        samples = scraped(Collector(member))
    assert process.exit is not None
    assert [samples["up", each] for each in ("*", "*/in")] == [1, 1]


# where it is collected


async def test_registry_knows_its_metrics_before_there_is_a_value(autojump_clock: MockClock) -> None:
    """So two collectors in one registry are refused, as Prometheus wants it."""
    registry = CollectorRegistry()
    async with grouper.invoke(service) as process:
        registry.register(Collector(process))
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            registry.register(Collector(process))


async def test_deep_tree_can_be_collected(autojump_clock: MockClock) -> None:
    """Nothing recurses."""
    runner: RunnerLike = service
    for _ in range(500):
        runner = Ordered([("a", runner)])
    async with grouper.invoke(runner) as process:
        samples = scraped(Collector(process))
    assert sum(value for (name, *_), value in samples.items() if name == "up") == 501


def test_collector_is_made_in_the_trees_thread() -> None:
    """It keeps the token of the run."""
    made: list[Process] = []

    async def main() -> None:
        async with grouper.background(never_ready) as process:
            made.append(process)

    trio.run(main)
    with pytest.raises(RuntimeError):
        Collector(made[0])


async def test_collector_of_no_process_is_refused() -> None:
    """It says what it takes."""
    with pytest.raises(TypeError, match="3 is no process: it takes what"):
        Collector(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def fetch(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        return parsed(response.read().decode())


@real_time
async def test_scrape_over_http() -> None:
    """From the server's threads, many at once, while members come and go."""
    pool = Dynamic()
    registry = CollectorRegistry()
    async with grouper.invoke(Ordered([("pool", pool), ("web", service)])) as process:
        with Collector(process) as collector:
            registry.register(collector)
            server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
            ups: list[float] = []

            async def scrape() -> None:
                for _ in range(10):
                    samples = await trio.to_thread.run_sync(fetch, server.server_port)
                    ups.append(samples["up", "web"])
                    assert 0 <= samples["up", "pool/*"] <= 1

            try:
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(scrape)
                    for number in range(50):
                        await pool.client().insert((f"m{number}", service))
                        await pool.client().remove(f"m{number}")
                samples = await trio.to_thread.run_sync(fetch, server.server_port)
            finally:
                server.shutdown()
                server.server_close()
                await trio.to_thread.run_sync(thread.join)
    assert ups == [1] * 40
    assert exits(samples, "pool/*") == (50, 0, 0)


@real_time
def test_scrape_after_the_end_has_the_last_values() -> None:
    """From any thread: nothing changes any more."""
    kept: list[Collector] = []

    async def main() -> None:
        async with grouper.invoke(Ordered([("web", service)])) as process:
            kept.append(Collector(process))

    trio.run(main)
    found: list[Samples] = []
    thread = threading.Thread(target=lambda: found.append(scraped(kept[0])))
    thread.start()
    thread.join()
    assert found == [scraped(kept[0])]
    assert (found[0]["up", "web"], *exits(found[0], "web")) == (0, 1, 0, 0)
