"""The file beside a store: who may write, who is alive, and a bell for those who wait.

Three jobs, one file, because each is a property of an open file that the kernel ends with its process:

* `flock` on it is the gate through which writers go, one at a time and in the order of their coming. SQLite's own busy handler
  sleeps and tries again, and with 64 writers some wait for seconds (measured: 1 change in the time of 9,259 by another). It also
  keeps writers and checkpoints apart, which closes the race that corrupts the log in SQLite 3.7.0 to 3.51.2.
* A POSIX lock on byte number `owner` says that this owner's process lives. Unlike a pid it is true across pid namespaces, through
  reboots and for numbers that are used again; a child made by fork does not hold it; nobody has to renew it. An open file
  description's lock is not used: a forked child goes on holding it.
* A byte written to it after a commit wakes everybody who has a watch on it, with no list of who waits.

Two quirks of POSIX locks shape this module: closing *any* descriptor of the file drops all locks that the process has on it, so a
process has one `Gate` for a file, shared and counted; and a child made by fork has the descriptor but not the locks, and shares its
parent's `flock`, so it makes a gate of its own.

A store whose gate file was removed would have two gates. So each change looks whether its own is still the one, and else goes to
the new one: meanwhile SQLite's own lock keeps writers apart, and the pid of an owner speaks for it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import Final

__all__ = ["Gate", "GateRemoved", "open_gate"]


AGAIN: Final = 0.005
"""Seconds between tries of who has not for ever."""


class GateRemoved(Exception):  # noqa: N818 (what happened)
    """The file is no longer there: there is, or will be, another one. Nothing was done."""


class Gate:
    """One process's hold on the file beside a store. `enter` and `leave` go in pairs; any thread may."""

    def __init__(self, path: str, key: tuple[int, int, int]) -> None:
        import fcntl

        self.path: str = path
        self.users: int = 0
        self._fcntl = fcntl
        self._key = key
        self._own: set[int] = set()
        self._mutex = threading.Lock()
        self._fd = _opened(path)

    def enter(self, until: float | None = None) -> None:
        """Wait until this is the only writer, by `time.monotonic()` at most so long. Raises: GateRemoved, TimeoutError.

        With a time limit there is no queue: it is tried again and again.
        """
        if not self._mutex.acquire(timeout=-1 if until is None else max(0.0, until - time.monotonic())):
            raise TimeoutError
        try:
            self._lock(until)
            if not os.fstat(self._fd).st_nlink:
                self._fcntl.flock(self._fd, self._fcntl.LOCK_UN)
                raise GateRemoved
        except BaseException:
            self._mutex.release()
            raise

    def _lock(self, until: float | None) -> None:
        if until is None:
            self._fcntl.flock(self._fd, self._fcntl.LOCK_EX)
            return
        while True:
            try:
                self._fcntl.flock(self._fd, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TimeoutError from None
                time.sleep(AGAIN)
            else:
                return

    @property
    def place(self) -> str:
        """What tells this file from all others of the machine."""
        return f"{self._key[1]}:{self._key[2]}"

    def leave(self) -> None:
        """Let the next writer in."""
        self._fcntl.flock(self._fd, self._fcntl.LOCK_UN)
        self._mutex.release()

    def ring(self) -> None:
        """Wake all who watch the file."""
        os.pwrite(self._fd, b"\n", 0)

    def claim(self, owner: int) -> None:
        """Say that an owner lives, for as long as this process does or until `give_up`."""
        self._fcntl.lockf(self._fd, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB, 1, owner)
        self._own.add(owner)

    def give_up(self, owner: int) -> None:
        """Say that an owner of this process lives no more."""
        self._own.discard(owner)
        self._fcntl.lockf(self._fd, self._fcntl.LOCK_UN, 1, owner)

    def is_claimed(self, owner: int) -> bool:
        """Whether some process holds the byte of that owner. Call it inside the gate: it takes the lock to see if it is free."""
        if owner in self._own:
            return True
        try:
            self._fcntl.lockf(self._fd, self._fcntl.LOCK_EX | self._fcntl.LOCK_NB, 1, owner)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return True
            raise
        self._fcntl.lockf(self._fd, self._fcntl.LOCK_UN, 1, owner)
        return False

    def close(self) -> None:
        """Give back one `open_gate`; the last one closes the file, and with it go the claims of this process."""
        with _registry:
            self.users -= 1
            if not self.users and _gates.get(self._key) is self:
                del _gates[self._key]
                os.close(self._fd)


_gates: Final[dict[tuple[int, int, int], Gate]] = {}
_registry = threading.RLock()  # a store that is collected as garbage gives back its gate, wherever this thread is


def open_gate(path: str) -> Gate:
    """The gate of the calling process at that path, made with its file if need be; `close()` gives it back."""
    with _registry:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            os.close(_opened(path))
            found = os.stat(path)
        key = (os.getpid(), found.st_dev, found.st_ino)
        gate = _gates.get(key)
        if gate is None:
            gate = _gates[key] = Gate(path, key)
        gate.users += 1
        return gate


def _opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)


def _after_fork() -> None:
    """In a child: leave the parent's gates, whose `flock` would last as long as the child has them open.

    The lock of the registry may have been held by a thread that is not here.
    """
    global _registry
    _registry = threading.RLock()
    for gate in _gates.values():
        os.close(gate._fd)
    _gates.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
