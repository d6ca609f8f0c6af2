"""Wait groups in etcd: to join and to leave, against raw puts of a key through the same HTTP client."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Awaitable, Callable

import trio

from grouper.coordination.etcd import EtcdStore, from_url
from grouper.coordination.etcd.gateway import Call
from grouper.coordination.etcd.wire import encoded

from ..coordination.etcd_server import running
from .measuring import show

TASKS = 64


async def rate(one: Callable[[int], Awaitable[int]], seconds: float) -> float:
    """Operations per second of 64 tasks, each of which calls `one` again and again; it returns how many operations it did."""
    total = 0
    began = time.perf_counter()

    async def repeat(task: int) -> None:
        nonlocal total
        while time.perf_counter() - began < seconds:
            done = await one(task)  # not in one line: `total` would be read before the wait
            total += done

    async with trio.open_nursery() as nursery:
        for task in range(TASKS):
            nursery.start_soon(repeat, task)
    return total / (time.perf_counter() - began)


async def puts_and_members(url: str, pairs: int, seconds: float) -> list[tuple[float, float]]:
    """Raw puts and joins with leaves, in turns: operations per second of each."""
    store: EtcdStore = from_url(url)
    async with store, store.owner():
        gateway = store.session().gateway
        await store.create("batch", None, 0)

        async def put(task: int) -> int:
            body = {"key": encoded(f"/raw/{task}"), "value": encoded("x" * 100)}
            await gateway.post("/v3/kv/put", body, Call(10.0))
            return 1

        async def join_and_leave(task: int) -> int:
            entry = await store.register("member", "batch", f"m{task}", "")
            await store.withdraw("member", entry)
            return 2

        return [(await rate(put, seconds), await rate(join_and_leave, seconds)) for _ in range(pairs)]


def etcd_join_and_leave(quick: bool) -> None:
    """Join and leave, which are two operations, at 64 tasks."""
    with running() as etcd:
        pairs, seconds = (1, 0.5) if quick else (5, 3.0)
        found = trio.run(functools.partial(puts_and_members, f"{etcd.url}/benchmark", pairs, seconds))
    puts, members = statistics.median([each[0] for each in found]), statistics.median([each[1] for each in found])
    ratio = statistics.median([both[1] / both[0] for both in found])
    what = f"etcd, {TASKS} tasks: join and leave ({members:,.0f}/s) / raw puts ({puts:,.0f}/s)"
    show(what, f"{ratio:.2f}", "at least 0.4")


PARTS: list[Callable[[bool], None]] = [etcd_join_and_leave]
