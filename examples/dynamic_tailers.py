"""Follow all log files of a directory, as `tail -n 0 -F` follows one: `python dynamic_tailers.py /var/log --pattern '*.log'`.

Each file has a tailer, a member of a `Dynamic` group. A watcher inserts it when the file appears, also in the place of an old one
(log rotation), and removes it when the file is gone. The watcher comes after the group, so it is stopped first: it never inserts
into a group that is stopping.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import logging
import os
import sys
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

import grouper

FileId: TypeAlias = tuple[int, int]

log = logging.getLogger("tailers")


def file_id(found: os.stat_result) -> FileId:
    return found.st_dev, found.st_ino


@attrs.frozen(eq=False)
class Tailer:
    """Prints what is appended to a file, each line after the file's name. Its value tells which file it has open."""

    path: Path
    every: float
    from_start: bool

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[FileId]) -> None:
        """Follow the file until told to stop; what was written by then is still printed, also a last line without an end."""
        rest = b""
        with self.path.open("rb", buffering=0) as file:
            if not self.from_start:
                file.seek(0, os.SEEK_END)
            task_status.started(file_id(os.fstat(file.fileno())))
            while True:
                stopping = signals.received is not None
                if os.fstat(file.fileno()).st_size < file.tell():  # it was truncated
                    file.seek(0)
                while chunk := file.read(65536):
                    *lines, rest = (rest + chunk).split(b"\n")
                    self.print(lines)
                    await trio.lowlevel.checkpoint()
                if stopping:
                    break
                with signals.cancelling():
                    await trio.sleep(self.every)
        if rest:
            self.print([rest])

    def print(self, lines: list[bytes]) -> None:
        for line in lines:
            print(f"{self.path.name}: {line.decode(errors='replace')}", flush=True)


@attrs.define(eq=False)
class Watcher:
    """Keeps one tailer for each file in the directory that matches the pattern and can be read."""

    directory: Path
    pattern: str
    every: float
    tailers: grouper.Client
    followed: set[str] = attrs.field(factory=set[str], init=False)
    from_start: bool = attrs.field(default=False, init=False)

    async def look(self) -> None:
        """Insert and remove tailers, to match what is in the directory now."""
        found = self.files()
        for name in self.followed - found.keys():
            await self.unfollow(name)
        for name, file in found.items():
            tailer = self.tailers.get(name)
            if tailer is not None and tailer.value != file:
                await self.unfollow(name)
            if name not in self.followed:
                await self.follow(name)
        if not self.from_start:
            log.info("following %d file(s); what appears from now on is followed from its first line", len(self.followed))
            self.from_start = True

    def files(self) -> dict[str, FileId]:
        with os.scandir(self.directory) as entries:
            paths = [Path(entry) for entry in entries if fnmatch.fnmatch(entry.name, self.pattern)]
        found: dict[str, FileId] = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and os.access(path, os.R_OK):
                    found[path.name] = file_id(path.stat())
        return found

    async def follow(self, name: str) -> None:
        """Insert a tailer. OPTIONAL: one file that cannot be read is told in the log and does not fail the program."""
        tailer = Tailer(self.directory / name, self.every, self.from_start)
        process = await self.tailers.insert(grouper.Member(name, tailer, role=grouper.Role.OPTIONAL))
        with contextlib.suppress(grouper.ExitedBeforeReady):  # it was gone before it was open: look again next time
            await process.wait_ready()
            self.followed.add(name)

    async def unfollow(self, name: str) -> None:
        """Remove a tailer, which prints what is left first."""
        self.followed.discard(name)
        if self.tailers.get(name) is not None:
            await self.tailers.remove(name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow all log files of a directory, also those that are still to come.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pattern", default="*.log", help="names to follow (default: %(default)s)")
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="how often to look (default: %(default)s)")
    options = parser.parse_args()
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is not a directory")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    tailers = grouper.Dynamic()
    watcher = Watcher(options.directory, options.pattern, options.every, tailers.client())
    return grouper.run(grouper.Ordered([("tailers", tailers), ("watcher", grouper.Periodic(watcher.look, every=options.every))]))


if __name__ == "__main__":
    sys.exit(main())
