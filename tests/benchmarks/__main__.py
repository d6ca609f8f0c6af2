"""`python -m tests.benchmarks`: what grouper costs, against the same written by hand in raw trio.

All in one run: ratios of CPU time, the median of interleaved pairs, with garbage collection left on. Nothing here is asserted,
since a busy machine would fail it; the bounds that the project sets itself are printed beside. `--quick` takes small sizes and few
pairs.
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import trio
import trio.testing

import grouper
from grouper import Dynamic, Ordered, Signals
from grouper.signals import TERMINATE

from ..coordination.etcd_server import binary
from . import by_hand, coordination, coordination_etcd, ours, supervision, work
from .measuring import ratio, show


def sizes(quick: bool) -> list[int]:
    """The numbers of members."""
    return [10, 1_000] if quick else [10, 1_000, 10_000, 100_000]


def start_stop(quick: bool) -> None:
    """Start and stop of the static groups."""
    for name, make, hand, bound in (
        ("Parallel", ours.parallel, by_hand.parallel, 1.5),
        ("Ordered", ours.ordered, by_hand.ordered, 1.0),
    ):
        for n in sizes(quick):
            pairs = 3 if quick else 7
            group: Any = make(n)
            found = ratio(functools.partial(ours.start_and_stop, group), functools.partial(hand, n), pairs)
            show(f"{name}({n:,}): start and stop / by hand", f"{found:.2f}", "printed only" if n == 10 else f"at most {bound}")
    depth = 500
    found = ratio(
        functools.partial(ours.start_and_stop, ours.nested(depth)), functools.partial(by_hand.nested, depth), 3 if quick else 15
    )
    show(f"{depth} nested groups: start and stop / nested nurseries with scopes", f"{found:.2f}", "at most 2.5, aim 2.0")


def memory(quick: bool) -> None:
    """What a running member holds."""
    n = 1_000 if quick else 10_000

    async def held(run: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]) -> float:
        after = 0

        async def measure() -> None:
            nonlocal after
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]

        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await run(measure)
        tracemalloc.stop()
        return (after - before) / n

    group = ours.parallel(n)

    async def grouped(measure: Callable[[], Awaitable[None]]) -> None:
        signals = Signals()
        async with trio.open_nursery() as nursery:
            await nursery.start(group.run, signals)
            await measure()
            signals.send(TERMINATE)

    by_hand_bytes = trio.run(held, functools.partial(by_hand.parallel, n))
    grouped_bytes = trio.run(held, grouped)
    show(
        f"memory per running member, over the {by_hand_bytes:.0f} bytes of a task by hand",
        f"{grouped_bytes - by_hand_bytes:.0f} B",
        "at most 1,024",
    )


def dynamic(quick: bool) -> None:
    """Members that come and go."""
    n = 2_000 if quick else 50_000
    pairs = 3 if quick else 7
    found = ratio(functools.partial(by_hand.bounded, n, 16), functools.partial(ours.bounded, n, 16), pairs)
    show(f"Dynamic(16): {n:,} short-lived members, speed / raw trio with a semaphore", f"{found:.2f}", "at least 0.7")


def events(quick: bool) -> None:
    """What listeners cost that do not receive."""
    n = 500 if quick else 5_000

    async def burst(listeners: int, depth: int) -> float:
        group = Dynamic(16)
        tree: Any = group
        for _ in range(depth - 1):
            tree = Ordered([("g", tree)])
        async with grouper.invoke(tree) as process, AsyncExitStack() as stack:
            for _ in range(listeners):
                await stack.enter_async_context(process.events())
            client = group.client()
            gc.collect()
            before = time.process_time()
            for number in range(n):
                await client.insert((f"m{number}", ours.brief))
            return time.process_time() - before

    for depth in (1, 500):
        found = [trio.run(burst, 1_000, depth) / trio.run(burst, 0, depth) for _ in range(3 if quick else 7)]
        show(
            f"an event for 1,000 listeners that do not receive / for none, at depth {depth}",
            f"{statistics.median(found):.2f}",
            "at most 2",
        )


def importing(quick: bool) -> None:
    """What `import grouper` adds to `import trio, attrs`."""

    def seconds(code: str) -> float:
        program = f"import time; before = time.process_time(); {code}; print(time.process_time() - before)"
        return float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)

    everything = "import grouper; [getattr(grouper, name) for name in grouper.__all__ if name != 'HTTPServer']"
    times = 3 if quick else 11
    base = statistics.median([seconds("import trio, attrs") for _ in range(times)])
    for what, code in (("import grouper", "import grouper"), ("import grouper and use each of its names", everything)):
        added = statistics.median([seconds(f"import trio, attrs; {code}") for _ in range(times)]) - base
        show(f"{what}: added to what `import trio, attrs` costs", f"{added / base:.2f}", "at most 0.5")


def on_etcd(quick: bool) -> None:
    """What needs an etcd, if there is one."""
    try:
        binary()
    except RuntimeError as error:
        sys.stdout.write(f"{error}\n")
        return
    for part in coordination_etcd.PARTS:
        part(quick)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few pairs: whether it works, not how fast")
    quick: bool = parser.parse_args().quick
    sys.stdout.write(f"trio {trio.__version__}, Python {sys.version.split()[0]}\n\n")
    for part in (start_stop, memory, dynamic, events, importing, *supervision.PARTS, *work.PARTS, *coordination.PARTS, on_etcd):
        part(quick)


if __name__ == "__main__":
    main()
