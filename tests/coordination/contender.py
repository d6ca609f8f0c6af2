"""A program that holds a lock again and again: `python -m tests.coordination.contender URL FOLDER`.

While it holds it, it writes itself into FOLDER/holder, where nobody may be but the dead, and appends its token to FOLDER/tokens.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import trio

from grouper.coordination import Lock, open_store


def runs(pid: int) -> bool:
    """Whether the process is neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def main(url: str, folder: Path) -> None:
    holder = folder / "holder"
    async with open_store(url, lease=2.0) as store:
        lock = Lock(store, "leader")
        while True:
            async with lock.hold() as token:
                before = holder.read_text()
                if before and runs(int(before)):
                    sys.exit(f"two holders: {before} and {os.getpid()}")
                holder.write_text(str(os.getpid()))
                with (folder / "tokens").open("a") as tokens:
                    tokens.write(f"{token}\n")
                await trio.sleep(random.random() / 500)
                holder.write_text("")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
