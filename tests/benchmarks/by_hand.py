"""The same things written by hand in raw trio, as a careful engineer would for one program."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


async def parallel(n: int, up: Callable[[], Awaitable[None]] | None = None) -> None:
    """N tasks, each under a shield of its own, ready by a counter, woken by an Event each, in reverse; `up` is awaited between."""
    wakes = [trio.Event() for _ in range(n)]
    missing = n
    ready = trio.Event()

    async def task(wake: trio.Event) -> None:
        nonlocal missing
        with trio.CancelScope(shield=True):
            missing -= 1
            if not missing:
                ready.set()
            await wake.wait()

    async with trio.open_nursery() as nursery:
        for wake in wakes:
            nursery.start_soon(task, wake)
        await ready.wait()
        if up is not None:
            await up()
        for wake in reversed(wakes):
            wake.set()


async def ordered(n: int) -> None:
    """N tasks by `nursery.start`, one after the other, each under a shield; stopped and waited for one by one, in reverse."""

    async def task(wake: trio.Event, gone: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope(shield=True):
            task_status.started()
            await wake.wait()
        gone.set()

    events: list[tuple[trio.Event, trio.Event]] = []
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            wake, gone = trio.Event(), trio.Event()
            events.append((wake, gone))
            await nursery.start(task, wake, gone)
        for wake, gone in reversed(events):
            wake.set()
            await gone.wait()


async def nested(depth: int) -> None:
    """A nursery and a shield in each of `depth` tasks; ready from the innermost, stopped from the outside."""
    ready, stop = trio.Event(), trio.Event()

    async def task(left: int) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                if left:
                    nursery.start_soon(task, left - 1)
                else:
                    ready.set()
                    await stop.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(task, depth)
        await ready.wait()
        stop.set()


async def bounded(n: int, capacity: int) -> None:
    """N short-lived tasks of which `capacity` run at a time."""
    semaphore = trio.Semaphore(capacity)

    async def task() -> None:
        await trio.lowlevel.checkpoint()
        semaphore.release()

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            await semaphore.acquire()
            nursery.start_soon(task)
