"""A worker: a member of the group `batch` until SIGTERM. `python -m tests.coordination.etcd_worker URL ID LEASE`."""

from __future__ import annotations

import signal
import sys

import trio

from grouper.coordination import open_store


async def main(*args: str) -> None:
    url, id, lease = args
    group = open_store(url, lease=float(lease)).waitgroup("batch")
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with group.member(id):
            sys.stdout.write("!")
            sys.stdout.flush()
            async for _ in signals:
                break


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
