"""A program that shows its progress: `python program.py fine|fails|forever`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import trio

from grouper.cli.progress import show_progress
from grouper.work import Jobs, job


async def talk() -> None:
    await trio.sleep(0.3)
    print("hello from the job")  # noqa: T201 (what is printed beside the bar)


async def fine() -> None:
    pass


async def fails() -> None:
    raise ValueError("the block has failed")


async def main(last: Callable[[], Awaitable[None]]) -> None:
    before = sys.stdout, sys.stderr
    try:
        jobs = Jobs({"talk": talk, "rest": job(fine, after="talk")})
        async with show_progress(jobs.report):
            await jobs.execute()
            await last()
    finally:
        assert (sys.stdout, sys.stderr) == before


if __name__ == "__main__":
    trio.run(main, {"fine": fine, "fails": fails, "forever": trio.sleep_forever}[sys.argv[1]])
