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


def rounds(seconds: str) -> Iterator[float]:
    """Say that it can begin; then, for each time that it shall, until when by `time.monotonic()`."""
    tell("!")
    while sys.stdin.readline():
        yield time.monotonic() + float(seconds)


def tokens(wanted: str) -> Iterator[str | None]:
    """One for each call, or none."""
    prefix = f"{os.getpid()}-"
    return (prefix + str(number) for number in itertools.count()) if wanted == "tokens" else itertools.repeat(None)


def core(url: str, seconds: str, wanted: str) -> None:
    """Add and be done, as the command does."""
    store = opened(url)
    inline(store.status(GROUP))
    each = tokens(wanted)
    for end in rounds(seconds):
        n = 0
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
    for end in rounds(seconds):
        n = 0
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
        while time.monotonic() < end:
            await group.add(token=next(each))
            await group.done(token=next(each))
            n += 2

    async def main() -> None:
        nonlocal n
        async with open_store(url) as store:
            group = store.waitgroup(GROUP)
            await group.status()
            for end in rounds(seconds):
                n = 0
                async with trio.open_nursery() as nursery:
                    for _ in range(int(tasks)):
                        nursery.start_soon(one, group, end)
                tell(n)

    trio.run(main)


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
    tell("!")
    sys.stdin.readline()


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
        self._name = arguments[0]
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
            raise RuntimeError(f"{self._name} has ended")
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


def changes(running: list[Program]) -> int:
    """How many changes they make when they are let go."""
    for one in running:
        one.go()
    return sum([int(one.hear()[0]) for one in running])


def compare(quick: bool, what: str, bound: str, processes: int, *ours: object) -> None:
    """Show the median ratio to as many raw processes, of pairs that are measured in turns, in one file."""
    pairs, seconds = (1, 0.3) if quick else (7, 1.5)
    _, kind, *_ = ours
    with at_hand(BASE) as (url, _), contextlib.ExitStack() as stack:

        def start(program: object, *arguments: object) -> Program:
            return stack.enter_context(Program(program, url, seconds, *arguments))

        mine = [start(*ours) for _ in range(processes)]
        theirs = [start("raw", kind) for _ in range(processes)]
        for one in mine + theirs:
            one.hear()
        found = [(changes(mine), changes(theirs)) for _ in range(pairs)]
    rates = [statistics.median(counts) / seconds for counts in zip(*found, strict=True)]
    ratio = statistics.median([both[0] / both[1] for both in found])
    show(f"SQLite, add and done, {what}: {rates[0]:,.0f}/s, raw {rates[1]:,.0f}/s", f"{ratio:.2f}", bound)


KINDS: Final = {"": "plain", " with tokens": "tokens"}


def cores(quick: bool) -> None:
    """The synchronous core, which the command uses, in several processes."""
    for (text, kind), n in itertools.product(KINDS.items(), (1, 8, 64)):
        compare(quick, f"processes: {n}{text}", "at least 0.5", n, "core", kind)


def tasks(quick: bool) -> None:
    """The same awaited, in one process of trio."""
    for (text, kind), n in itertools.product(KINDS.items(), (1, 8, 64)):
        compare(quick, f"awaited, tasks: {n}{text}", "at least 0.15", 1, "awaited", kind, n)


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
