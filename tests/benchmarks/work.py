"""Bounded work and job graphs, against `graphlib`, trio tasks behind a limiter, and worker tasks on a channel."""

from __future__ import annotations

import functools
import gc
import graphlib
import math
import random
import statistics
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping

import trio

from grouper import NotReady
from grouper.work import Job, JobSpec, job, map, open_pool, run_jobs
from grouper.work.pool import DEFAULT_LIMIT

from .measuring import ratio, show

Graph = dict[str, list[str]]


async def noop() -> None:
    """Do nothing."""


async def take(item: object) -> None:
    """Do nothing with something."""


def chain(n: int) -> Graph:
    """Each after the one before."""
    return {str(place): [str(place - 1)] if place else [] for place in range(n)}


def wide(n: int) -> Graph:
    """None after any other."""
    return {str(place): [] for place in range(n)}


def layered(layers: int, width: int) -> Graph:
    """Each after all of the layer before."""
    return {
        f"{layer}/{place}": [f"{layer - 1}/{before}" for before in range(width)] if layer else []
        for layer in range(layers)
        for place in range(width)
    }


def random_graph(n: int, edges: int) -> Graph:
    """So many edges, from one to a later one; given in an order that is not one in which they can run."""
    chance = random.Random(0)
    after: dict[int, set[int]] = {place: set() for place in range(n)}
    for _ in range(edges):
        before, place = sorted(chance.sample(range(n), 2))
        after[place].add(before)
    names = list(after)
    chance.shuffle(names)
    return {str(place): [str(before) for before in after[place]] for place in names}


async def by_graphlib(graph: Graph) -> None:
    """The order alone; nothing is run."""
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    while sorter.is_active():
        for name in sorter.get_ready():
            sorter.done(name)


async def by_tasks(graph: Graph, limit: float = math.inf) -> None:
    """The order, and a trio task for each job, so many of which run at a time."""
    limiter = trio.CapacityLimiter(limit)
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    send, receive = trio.open_memory_channel[str](math.inf)

    async def one(name: str) -> None:
        if limit == math.inf:
            await noop()
        else:
            async with limiter:
                await noop()
        send.send_nowait(name)

    async with trio.open_nursery() as nursery:
        while sorter.is_active():
            for name in sorter.get_ready():
                nursery.start_soon(one, name)
            sorter.done(await receive.receive())


async def by_us(specs: Mapping[str, JobSpec[None]]) -> None:
    """A run of the graph."""
    assert (await run_jobs(specs)).ok


async def by_us_from(graph: Graph) -> None:
    """The same, with the making of the jobs."""
    await by_us({name: job(noop, after=befores) for name, befores in graph.items()})


def graphs(quick: bool) -> None:
    """Graphs of jobs that do nothing."""
    n, side = (1_000, 30) if quick else (10_000, 100)
    shapes = {
        f"chain of {n:,}": chain(n),
        f"{n:,} side by side": wide(n),
        f"layered {side} x {side}, each after all of the layer before": layered(side, side),
        f"random, {n:,} jobs, {5 * n:,} edges, in a shuffled order": random_graph(n, 5 * n),
    }
    pairs = 3 if quick else 9
    found: dict[str, float] = {}
    for what, graph in shapes.items():
        specs = {name: job(noop, after=befores) for name, befores in graph.items()}
        ours = functools.partial(by_us, specs)
        found[what] = ratio(ours, functools.partial(by_graphlib, graph), pairs)
        show(f"run_jobs, {what} / graphlib alone", f"{found[what]:.2f}", "at most 1.5")
        made = ratio(functools.partial(by_us_from, graph), functools.partial(by_graphlib, graph), pairs)
        show("    with the making of the `job(...)`s", f"{made:.2f}", "printed only")
        for bound, limit in (("as bounded as ours", DEFAULT_LIMIT), ("unbounded", math.inf)):
            tasks = ratio(ours, functools.partial(by_tasks, graph, limit), 3)
            show(f"    / graphlib and a trio task per job, {bound}", f"{tasks:.2f}", "at most 0.25")
    mean = statistics.geometric_mean(found.values())
    show("run_jobs / graphlib alone, geometric mean of the four", f"{mean:.2f}", "at most 1.25, aim 1.0")


async def by_limiter(n: int) -> None:
    """A task per job, 16 of which run."""
    limiter = trio.CapacityLimiter(16)

    async def one() -> None:
        async with limiter:
            await noop()

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(one)


async def by_channel(n: int) -> None:
    """Sixteen tasks that take functions from a channel."""
    send, receive = trio.open_memory_channel[Callable[[], Awaitable[None]]](math.inf)

    async def work() -> None:
        async for fn in receive:
            await fn()

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(work)
        for _ in range(n):
            send.send_nowait(noop)
        send.close()


async def by_pool(n: int) -> None:
    """A pool."""
    async with open_pool(limit=16) as pool:
        for _ in range(n):
            pool.start(noop)


async def by_pool_with_items(n: int) -> None:
    """A pool, with an argument for each job, as `map` has."""
    async with open_pool(limit=16) as pool:
        for item in range(n):
            pool.start(take, item)


async def by_map(n: int) -> None:
    """The same by `map`."""
    await map(take, range(n), limit=16)


def pools(quick: bool) -> None:
    """Jobs that do nothing, at a limit of 16."""
    n = 2_000 if quick else 100_000
    pairs = 3 if quick else 9
    found = ratio(functools.partial(by_pool, n), functools.partial(by_limiter, n), 3)
    show(f"pool, {n:,} jobs / a trio task per job and a CapacityLimiter", f"{found:.3f}", "at most 0.06")
    found = ratio(functools.partial(by_pool, n), functools.partial(by_channel, n), pairs)
    show(f"pool, {n:,} jobs / 16 worker tasks on a memory channel", f"{found:.2f}", "at most 0.75")
    found = ratio(functools.partial(by_map, n), functools.partial(by_pool_with_items, n), pairs)
    show(f"map over {n:,} items / the pool alone", f"{found:.2f}", "at most 1.2")


def memory(quick: bool) -> None:
    """What a queued job holds."""
    n = 1_000 if quick else 100_000

    async def measured() -> float:
        async with open_pool(limit=16) as pool:
            jobs: list[Job[None] | None] = [None] * n
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for place in range(n):
                jobs[place] = pool.start(noop)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
        return held / n

    show(f"memory per queued job, of {n:,}", f"{trio.run(measured):.0f} B", "at most 512")


def skipping(quick: bool) -> None:
    """What is skipped in diamonds above one that is not ready."""

    async def not_ready() -> None:
        raise NotReady

    def diamonds(layers: int) -> dict[str, JobSpec[None]]:
        jobs = {"root": job(not_ready)}
        befores = ["root"]
        for layer in range(layers):
            names = [f"{layer}a", f"{layer}b"]
            jobs.update({name: job(noop, after=befores) for name in names})
            befores = names
        return jobs

    async def skip(jobs: dict[str, JobSpec[None]]) -> None:
        assert (await run_jobs(jobs)).counts() == {"not ready": 1, "skipped": len(jobs) - 1}

    layers = 300 if quick else 3_000
    whole, half = diamonds(layers), diamonds(layers // 2)
    found = ratio(functools.partial(skip, whole), functools.partial(skip, half), 3 if quick else 9)
    show(f"skipping 2 x {layers:,} diamonds / half as many", f"{found:.2f}", "about 2: linear")


PARTS: list[Callable[[bool], None]] = [graphs, pools, memory, skipping]
