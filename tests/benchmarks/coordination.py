"""Wait groups in an SQLite file, against `sqlite3` doing the same writes; and how long it takes until others know.

Rates are of whole processes, over the same seconds of wall time, since most of them wait for each other; what they are compared to
takes its turn with them. Latencies are of an idle machine, or of no worth: they go from after the call, or from before the kill, to
the moment at which another process says that it knows.

`python -m tests.benchmarks.coordination PROGRAM ARGUMENT...` is one of the processes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

from grouper.coordination.opening import open_store
from grouper.coordination.sqlite.store import InlineStore
from grouper.coordination.store import LOCK, MEMBER, Store, WaitGroup

from ..coordination.workers import inline, opened
from .measuring import show

GROUP: Final = "batch"
BASE: Final = 1_000_000
"""What the group counts before, so that it never comes to zero."""
SETTLED: Final = 0.02
"""Seconds after which a waiter sleeps."""


# --- the processes


def tell(*what: object) -> None:
    """Tell the benchmark."""
    print(*what, flush=True)  # noqa: T201 (which reads it)


def ready() -> None:
    """Say that it can begin, and wait until it shall."""
    tell("!")
    sys.stdin.readline()


def tokens(wanted: str) -> Iterator[str | None]:
    """One for each call, or none."""
    prefix = f"{os.getpid()}-"
    return (prefix + str(number) for number in itertools.count()) if wanted == "tokens" else itertools.repeat(None)


def core(url: str, seconds: str, wanted: str) -> None:
    """Add and be done, as the command does."""
    store = opened(url)
    inline(store.status(GROUP))
    each = tokens(wanted)
    ready()
    end, n = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        inline(store.add(GROUP, 1, False, None, next(each)))
        inline(store.done(GROUP, 1, None, next(each)))
        n += 2
    tell(n)


def raw(url: str, seconds: str, wanted: str) -> None:
    """The same writes by `sqlite3` alone."""
    connection = sqlite3.connect(url.removeprefix("sqlite:"), timeout=60, isolation_level=None)
    execute = connection.execute
    execute("PRAGMA synchronous = NORMAL")
    each = tokens(wanted)

    def change(by: int) -> None:
        token = next(each)
        execute("BEGIN IMMEDIATE")
        execute("UPDATE waitgroup SET plain = plain + ? WHERE name = ?", (by, GROUP))
        if token is not None:
            execute("INSERT INTO op VALUES (?, ?, ?, ?)", (token, "add 1 1 False None", "", time.time()))
        execute("COMMIT")

    change(0)
    ready()
    end, n = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        change(1)
        change(-1)
        n += 2
    tell(n)


def awaited(url: str, seconds: str, wanted: str, tasks: str) -> None:
    """Add and be done in tasks of trio."""
    import trio

    n = 0
    each = tokens(wanted)

    async def one(group: WaitGroup, end: float) -> None:
        nonlocal n
        while trio.current_time() < end:
            await group.add(token=next(each))
            await group.done(token=next(each))
            n += 2

    async def main() -> None:
        async with open_store(url) as store, trio.open_nursery() as nursery:
            group = store.waitgroup(GROUP)
            await group.status()
            ready()
            end = trio.current_time() + float(seconds)
            for _ in range(int(tasks)):
                nursery.start_soon(one, group, end)

    trio.run(main)
    tell(n)


def watch(url: str, how: str) -> None:
    """Tell what the group counts whenever that changes, and when it was known."""

    async def main(store: Store) -> None:
        async with store, store.watch(GROUP) as statuses:
            async for status in statuses:
                tell(status.counter, time.monotonic())

    if how == "as the command does":
        inline(main(opened(url)))
    else:
        import trio

        trio.run(main, open_store(url))


def own(url: str, space: str) -> None:
    """Own one entry for as long as this lives."""
    store = opened(url)
    inline(store.register(space, GROUP, str(os.getpid()), ""))
    ready()


def contend(url: str) -> None:
    """Take the lock, tell when it was got, keep it until told to try again."""
    import trio

    from grouper.coordination import Lock

    async def main() -> None:
        async with open_store(url) as store:
            while True:
                async with Lock(store, GROUP).hold():
                    tell(time.monotonic())
                    if not await trio.to_thread.run_sync(sys.stdin.readline):
                        return

    trio.run(main)


PROGRAMS: Final[dict[str, Callable[..., None]]] = {
    program.__name__: program for program in (core, raw, awaited, watch, own, contend)
}


# --- what starts them


class Program:
    """One of the processes. Killed at the end of its block."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.coordination", *map(str, arguments)]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.__exit__(None, None, None)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def hear(self) -> list[str]:
        """What it tells next, in words."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} has ended")
        return line.split()

    def go(self) -> None:
        """Let it begin, or go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextlib.contextmanager
def at_hand(count: int) -> Generator[tuple[str, InlineStore]]:
    """A new file with one group; its url, and the store."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{folder}/store.db"
        store = opened(url)
        inline(store.create(GROUP, None, count))
        yield url, store
        inline(store.aclose())


def rate(seconds: float, processes: int, program: str, *arguments: object) -> float:
    """Changes per second of so many processes, in a file of their own."""
    with at_hand(BASE) as (url, _), contextlib.ExitStack() as stack:
        running = [stack.enter_context(Program(program, url, seconds, *arguments)) for _ in range(processes)]
        for one in running:
            one.hear()
        for one in running:
            one.go()
        return sum([int(one.hear()[0]) for one in running]) / seconds


def compare(quick: bool, what: str, bound: str, ours: tuple[int, str, *tuple[object, ...]], raw: tuple[int, str, str]) -> None:
    """Show the median ratio of pairs of rates that are measured in turns."""
    pairs, seconds = (1, 0.3) if quick else (5, 2.0)
    found = [(rate(seconds, *ours), rate(seconds, *raw)) for _ in range(pairs)]
    mine, theirs = (statistics.median(rates) for rates in zip(*found, strict=True))
    ratio = statistics.median([both[0] / both[1] for both in found])
    show(f"SQLite, add and done, {what}: {mine:,.0f}/s, raw {theirs:,.0f}/s", f"{ratio:.2f}", bound)


KINDS: Final = {"": "plain", " with tokens": "tokens"}


def cores(quick: bool) -> None:
    """The synchronous core, which the command uses, in several processes."""
    for (text, kind), n in itertools.product(KINDS.items(), (1, 8, 64)):
        compare(quick, f"processes: {n}{text}", "at least 0.5", (n, "core", kind), (n, "raw", kind))


def tasks(quick: bool) -> None:
    """The same awaited, in one process of trio."""
    for (text, kind), n in itertools.product(KINDS.items(), (1, 8, 64)):
        compare(quick, f"awaited, tasks: {n}{text}", "at least 0.15", (1, "awaited", kind, n), (1, "raw", kind))


# --- latencies


def show_times(what: str, times: list[float], bound: str) -> None:
    """Print median and worst."""
    show(f"SQLite: {what}", f"{1000 * statistics.median(times):.1f} ms", f"{bound}; worst of {len(times)}: {1000 * max(times):.1f}")


def until(watcher: Program, counter: int) -> float:
    """When the watcher knew that the group counts so many."""
    while True:
        count, moment = watcher.hear()
        if int(count) == counter:
            return float(moment)


def waking(quick: bool) -> None:
    """From the last done to the waiter, in another process."""
    for how in ("with trio", "as the command does"):
        with at_hand(0) as (url, store), Program("watch", url, how) as watcher:
            times: list[float] = []
            until(watcher, 0)
            for _ in range(5 if quick else 50):
                inline(store.add(GROUP, 1, False, None, None))
                until(watcher, 1)
                time.sleep(SETTLED)
                inline(store.done(GROUP, 1, None, None))
                done = time.monotonic()
                times.append(until(watcher, 0) - done)
        show_times(f"a waiter wakes after the last done, {how}", times, "at most 10 ms")


def losing(quick: bool) -> None:
    """From the kill of a member to the waiter."""
    with at_hand(0) as (url, _), Program("watch", url, "with trio") as watcher:
        times: list[float] = []
        until(watcher, 0)
        for _ in range(5 if quick else 50):
            with Program("own", url, MEMBER) as member:
                until(watcher, 1)
                time.sleep(SETTLED)
                killed = time.monotonic()
                member.kill()
                times.append(until(watcher, 0) - killed)
    show_times("a killed member is gone while somebody waits", times, "at most 100 ms")


def taking_over(quick: bool) -> None:
    """From the kill of the holder of a lock to the next one, who was in the queue."""
    with at_hand(0) as (url, store), contextlib.ExitStack() as stack:
        times: list[float] = []
        holder = stack.enter_context(Program("own", url, LOCK))
        holder.hear()
        contender = stack.enter_context(Program("contend", url))
        for _ in range(5 if quick else 50):
            while len(inline(store.entries(LOCK, GROUP))) < 2:
                time.sleep(0.001)
            time.sleep(SETTLED)
            killed = time.monotonic()
            holder.kill()
            times.append(float(contender.hear()[0]) - killed)
            holder = stack.enter_context(Program("own", url, LOCK))
            holder.hear()
            contender.go()
    show_times("a lock is taken over after a kill -9 of its holder", times, "at most 100 ms")


PARTS: list[Callable[[bool], None]] = [cores, tasks, waking, losing, taking_over]


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
