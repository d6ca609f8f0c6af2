"""Sleep until a store's bell rings or the process of an owner dies.

On Linux one epoll instance has all that: a watch on the gate file (inotify) and a pidfd for each owner that is heeded. As an epoll
instance is itself something to poll, a trio task waits for it like for a socket, and the command's short verbs, which have no trio,
block in it. `trio.lowlevel` is used to wait for that descriptor.

Without inotify (no extra `sqlite`, another system, no watches left) the bell is looked at instead: 20 ms after the last change,
then less often, down to 10 times a second.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["BlockingWaker", "TrioWaker"]

BACKSTOP: Final = 1.0
"""Seconds after which it is time to look for the dead, whatever was heard."""
FIRST, LONGEST = 0.02, 0.1
"""Seconds between looks where there is no bell."""
MODIFIED: Final = 2
"""What inotify says when a file was written to."""
MOST: Final = 200
"""Processes that are heeded, each by a descriptor; the others' deaths are seen when it is time to look."""


class Ears:
    """What is listened to."""

    def __init__(self, path: str) -> None:
        self.poll: Any = None
        self.pids: dict[int, int] = {}
        self.deaf: bool = True
        self._inotify: Any = None
        self._path = path
        self._flags = 0
        self._gone = False
        self._removed = False
        if sys.platform != "linux":
            return
        with contextlib.suppress(ImportError, OSError):
            from inotify_simple import INotify, flags  # type: ignore[import-untyped]  # it has no annotations

            self._inotify = INotify()
            self._flags = flags.MODIFY | flags.ATTRIB  # the latter also when the file is removed
            self._inotify.add_watch(path, self._flags)
            self.poll = select.epoll()
            self.poll.register(self._inotify.fileno(), select.EPOLLIN)
            self.deaf = False

    @property
    def is_late(self) -> bool:
        """Whether there is something to look after that no descriptor tells any more: a death, a gate file that was removed."""
        return self._gone or self._removed

    def heed(self, pids: Iterable[int]) -> None:
        """Listen for the death of these, and of no others."""
        if self.deaf:
            return
        wanted = set(pids)
        for pid in self.pids.keys() - wanted:
            self._drop(pid)
        for pid in wanted - self.pids.keys():
            if len(self.pids) >= MOST:
                break
            try:
                number = os.pidfd_open(pid)
            except OSError as error:
                self._gone |= error.errno == errno.ESRCH
                continue
            self.pids[pid] = number
            self.poll.register(number, select.EPOLLIN)

    def heard(self) -> bool:
        """Take what was heard; whether somebody died."""
        died, self._gone = self.is_late, False
        if self._removed:
            with contextlib.suppress(OSError):
                self._inotify.add_watch(self._path, self._flags)
                self._removed = False
        if not self.deaf:
            ready = {number for number, _ in self.poll.poll(0)}
            if self._inotify.fileno() in ready:
                self._removed = any(event.mask & ~MODIFIED for event in self._inotify.read(timeout=0))
            for pid in [pid for pid, number in self.pids.items() if number in ready]:
                self._drop(pid)
                died = True
        return died

    def close(self) -> None:
        """Give back the descriptors."""
        for pid in list(self.pids):
            self._drop(pid)
        if self.poll is not None:
            self.poll.close()
        if self._inotify is not None:
            self._inotify.close()

    def _drop(self, pid: int) -> None:
        number = self.pids.pop(pid)
        self.poll.unregister(number)
        os.close(number)


class Clocked:
    """When it is time to look for the dead, and how long one sleeps without a bell."""

    def __init__(self, path: str) -> None:
        self.ears: Ears = Ears(path)
        self._looked = time.monotonic()
        self._pause = FIRST

    def heed(self, pids: Iterable[int], /) -> None:
        """End a sleep also at the death of one of these processes."""
        self.ears.heed(pids)

    def close(self) -> None:
        """Give back the descriptors."""
        self.ears.close()

    def longest(self, seconds: float) -> float:
        """How long to sleep, where something runs out in so many seconds."""
        if self.ears.is_late:
            return 0.0
        left = min(seconds, max(0.0, self._looked + BACKSTOP - time.monotonic()))
        if self.ears.deaf:
            left = min(left, self._pause)
            self._pause = min(LONGEST, self._pause * 1.2)
        return left

    def woken(self, in_time: bool) -> bool:
        """After a sleep; whether it is time to look for the dead."""
        now = time.monotonic()
        died = self.ears.heard()
        if not died and not in_time and now < self._looked + BACKSTOP:
            return False
        self._looked = now
        self._pause = FIRST
        return True


class BlockingWaker(Clocked):
    """Sleeps with its whole thread, until `deadline` (by `time.monotonic()`) at the latest. Raises: TimeoutError then."""

    def __init__(self, path: str, deadline: float | None = None) -> None:
        super().__init__(path)
        self.deadline: float | None = deadline

    async def sleep(self, seconds: float, /) -> bool:
        """Sleep for at most so long; whether it is time to look for the dead. Raises: TimeoutError."""
        longest = self.longest(seconds)
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            longest = min(longest, left)
        self._block(longest)
        return self.woken(longest == seconds)

    def _block(self, seconds: float) -> None:
        if self.ears.deaf:
            time.sleep(seconds)
        else:
            self.ears.poll.poll(seconds)


class TrioWaker(Clocked):
    """Sleeps as a trio task. A cancellation loses nothing."""

    async def sleep(self, seconds: float, /) -> bool:
        """Sleep for at most so long; whether it is time to look for the dead."""
        import trio

        longest = self.longest(seconds)
        with trio.move_on_after(longest):
            if self.ears.deaf:
                await trio.sleep_forever()
            await trio.lowlevel.wait_readable(self.ears.poll.fileno())
        return self.woken(longest == seconds)
