"""A line in a log file.

Where to begin to read is the question. At the end would be wrong: a program can have written its line before the first probe. So
it is at the beginning, and a poll goes on from probe to probe where it stopped. What it keeps for that (a place in the file, and
the last bytes before it) belongs to that one run of that one poll: `LogLineCheck` is frozen, and a second poll begins anew.

Whether the file is still the one that was read is seen in those last bytes: if they do not stand where they did, it is another,
and is read from its beginning. That covers a file that was truncated and has grown past the old place, and one that was removed
and made again with the same inode, neither of which a size or an inode shows. To hold the file open between probes would do it
too, and would see what is written to it in the moments before it is rotated away; it was rejected, because somebody would have to
close it.
"""

from __future__ import annotations

import os
import re
from typing import Final

import attrs
import trio

from ..errors import NotReady
from ._arguments import plain_path
from .probes import Check

__all__ = ["LogLineCheck", "log_line"]

KNOWN: Final = 1024
"""How many bytes before the place in the file are kept, to see whether it is the same file."""

STEP: Final = 4096
"""After how many lines a reading thread looks whether it was cancelled."""


@attrs.frozen
class LogLineCheck:
    """What `log_line` makes."""

    path: str
    pattern: re.Pattern[str]

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"log line {self.pattern.pattern!r} in {self.path}"

    async def __call__(self) -> re.Match[str]:
        """Read the file from its beginning."""
        return await self.for_poll()()

    def for_poll(self) -> Check[re.Match[str]]:
        """A check that reads at each call what is new since the last, for one task."""
        return _Reader(self.path, self.pattern).next


@attrs.define(eq=False)
class _Reader:
    """A place in a log file: all before it are lines that do not match."""

    path: str
    pattern: re.Pattern[str]
    identity: tuple[int, int] = (0, 0)
    place: int = 0
    before: bytes = b""

    async def next(self) -> re.Match[str]:
        """Look through the new lines."""
        try:
            found = await trio.to_thread.run_sync(self._search)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotReady("there is no such file") from error
        if found is None:
            raise NotReady("no line matches")
        return found

    def _search(self) -> re.Match[str] | None:
        with open(self.path, "rb") as file:
            stat = os.fstat(file.fileno())
            identity = (stat.st_dev, stat.st_ino)
            file.seek(self.place - len(self.before))
            if self.identity != identity or file.read(len(self.before)) != self.before:
                self.identity, self.place, self.before = identity, 0, b""
                file.seek(0)
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # the rest of it is still to come
                self.place += len(line)
                self.before = (self.before + line[-KNOWN:])[-KNOWN:]
                found = self.pattern.search(line.decode(errors="replace").rstrip("\r\n"))
                if found is not None:
                    return found
                if number % STEP == 0:
                    trio.from_thread.check_cancelled()
        return None


def log_line(path: str | os.PathLike[str], pattern: str | re.Pattern[str]) -> LogLineCheck:
    """A check that is ready when a line of a file matches a regular expression anywhere in it; its value is the `re.Match`.

    A line counts when its newline is written: half of one could match what the whole does not. The text is taken as UTF-8, and
    bytes that are not as U+FFFD. A file that was rotated, removed or truncated is read again from its beginning when it is there
    again; what is written to a file between the last probe and its being rotated away is not seen.

    Each poll begins at the beginning of the file, and reads at each probe what is new; asked by anything else than a poll, it reads
    the whole each time. So what an earlier run of the program has
    written to the same file counts: remove the file before the program starts, or look for something that only this run writes.

    Not yet: no such file, no such line. It reads in a thread; a cancellation ends that after some lines.

    Raises, when it is made: TypeError, ValueError. As a check: OSError if the file cannot be read.
    """
    path = plain_path(path, "log_line")
    if isinstance(pattern, str):
        try:
            pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"log_line: pattern={pattern!r} is no regular expression ({error})") from None
    if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
        raise TypeError(f"log_line: pattern={pattern!r} is not a str, nor a compiled pattern of one")
    return LogLineCheck(path, pattern)
