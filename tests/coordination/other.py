"""Another program: registers an entry, says so by a character, and waits to be ended.

`python -m tests.coordination.other URL SPACE NAME ID`.
"""

from __future__ import annotations

import os
import signal
import sys

import trio

from grouper.coordination import open_store


async def main(url: str, space: str, name: str, id: str) -> None:
    store = open_store(url, lease=2.0)
    async with store.owner():
        entry = await store.register(space, name, id, "")
        os.write(1, b"!")
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        await store.withdraw(space, entry)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
