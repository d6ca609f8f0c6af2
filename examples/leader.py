"""Three programs of which one leads; it is killed, and the next one takes over.

    python leader.py                   in a temporary folder
    python leader.py FOLDER            the store and the ledger stay there
    python leader.py --store etcd://127.0.0.1:2379/leader

Each program is a tree: it says that it is there, waits until it holds the lock, and only then has a server. The server writes to a
ledger, with the fencing token that the lock gave it: the ledger refuses one that is lower than the last. So a leader that was
paused, and comes back when another leads, can do no harm. All that is left is told to stop at the end, and stops in order.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import attrs
import trio

import grouper
from grouper.coordination import Lock, Presence, Store, open_store

PROGRAMS = 3


@attrs.frozen
class Ledger:
    """A file of lines, each with the token of the leader that wrote it."""

    path: Path

    def write(self, token: int, text: str) -> None:
        """Append a line. Raises: ValueError for the token of a leader that was replaced."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        last = int(lines[-1].split()[0]) if lines else 0
        if token < last:
            raise ValueError(f"the leader with token {token} was replaced: the last has {last}")
        with self.path.open("a") as file:
            file.write(f"{token} {text}\n")


@attrs.define(eq=False)
class Leadership:
    """Runs the lock, and keeps the token that it gets."""

    lock: Lock
    token: int = attrs.field(default=0, init=False)
    _status: trio.TaskStatus[int] = attrs.field(init=False)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[int]) -> None:
        self._status = task_status
        await self.lock.run(signals, task_status=self)

    def started(self, value: Any = None) -> None:
        """Be told by the lock that it is held, and pass it on."""
        self.token = value
        self._status.started(value)


@attrs.frozen(eq=False)
class Server:
    """Exists only in the program that leads. It could serve; here it writes one line."""

    name: str
    leadership: Leadership
    ledger: Ledger

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        self.ledger.write(self.leadership.token, f"{self.name} leads")
        print(f"{self.name} leads with token {self.leadership.token}", flush=True)
        task_status.started()
        await signals.wait()
        print(f"{self.name} has stopped", flush=True)


def program(store: Store, name: str, ledger: Ledger) -> grouper.Ordered:
    """One of the three."""
    leadership = Leadership(Lock(store, "leader"))
    return grouper.Ordered(
        [
            ("presence", Presence(store, name, str(os.getpid()))),
            ("lock", leadership),
            ("server", Server(name, leadership, ledger)),
        ]
    )


@attrs.define(eq=False)
class Show:
    """Starts the programs, and listens to them."""

    url: str
    folder: Path
    processes: dict[str, trio.Process] = attrs.field(factory=dict[str, trio.Process], init=False)

    async def play(self) -> int:
        """Returns the exit status."""
        send, leaders = trio.open_memory_channel[str](PROGRAMS)
        async with trio.open_nursery() as nursery:
            async with send:
                for number in range(1, PROGRAMS + 1):
                    await self.start(f"program-{number}", nursery, send)
            leader = await leaders.receive()
            await self.all_are_there()
            print(f"{leader} is killed", flush=True)
            killed = trio.current_time()
            self.processes.pop(leader).kill()
            follower = await leaders.receive()
            print(f"{follower} took over within {(trio.current_time() - killed) * 1000:.0f} ms", flush=True)
            for process in self.processes.values():
                process.send_signal(signal.SIGTERM)
        return 0 if all(process.returncode == 0 for process in self.processes.values()) else 1

    async def start(self, name: str, nursery: trio.Nursery, leaders: trio.MemorySendChannel[str]) -> None:
        command = [sys.executable, __file__, "--store", self.url, "--program", name, str(self.folder)]
        start = functools.partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        self.processes[name] = await nursery.start(start)
        nursery.start_soon(listen, self.processes[name], leaders.clone())

    async def all_are_there(self) -> None:
        async with open_store(self.url) as store, store.watch_present("program-") as stream:
            async for present in stream:
                if len(present) == PROGRAMS:
                    return


async def listen(process: trio.Process, leaders: trio.MemorySendChannel[str]) -> None:
    """Print what a program prints, and send its name when it leads."""
    assert process.stdout is not None
    rest = b""
    async with leaders:
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                print(line.decode(), flush=True)
                name, _, what = line.decode().partition(" ")
                if what.startswith("leads"):
                    await leaders.send(name)


@contextlib.contextmanager
def folder(given: Path | None) -> Generator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
    else:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)


def main() -> int:
    parser = argparse.ArgumentParser(description="Three programs of which one leads; it is killed, and the next one takes over.")
    parser.add_argument("folder", type=Path, nargs="?", help="where the store and the ledger are (default: a temporary one)")
    parser.add_argument("--store", metavar="URL", help="another store, such as etcd://127.0.0.1:2379/leader")
    parser.add_argument("--program", metavar="NAME", help="be one of the programs")
    options = parser.parse_args()
    with folder(options.folder) as place:
        url = options.store or f"sqlite:{place / 'leader.db'}"
        if options.program is None:
            return trio.run(Show(url, place).play)
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        return grouper.run(program(open_store(url), options.program, Ledger(place / "ledger.txt")))


if __name__ == "__main__":
    sys.exit(main())
