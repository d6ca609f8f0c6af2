"""How the benchmarks measure: ratios of CPU time, in one run."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import trio

Main = Callable[[], Awaitable[object]]


def cpu(main: Main) -> float:
    """Seconds of CPU time of one `trio.run`."""
    gc.collect()
    before = time.process_time()
    trio.run(main)
    return time.process_time() - before


def ratio(measured: Main, reference: Main, pairs: int) -> float:
    """The median over pairs that are run in turns."""
    return statistics.median([cpu(measured) / cpu(reference) for _ in range(pairs)])


def show(what: str, value: str, bound: str) -> None:
    """Print a line of the table."""
    sys.stdout.write(f"{what:<72} {value:>12}   {bound}\n")
    sys.stdout.flush()
