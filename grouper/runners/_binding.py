"""Listening sockets that do not outlive a block, whatever they are bound to, and the names of what they are bound to.

The file of a unix socket is removed with the socket, if it is still the one that was made here: while a server drains, its
successor may have put its own there. A file that is in the way is removed only if nobody listens behind it. Between the look and
the bind is no `await`, but another program may do the same at the same moment; that cannot be closed without a lock file, which
would itself be left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Generator
from typing import Any, NamedTuple

import attrs
import trio

__all__ = ["Bind", "Listeners", "location", "parse_bind"]

_TCP = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]/]*)):(\d{1,5})", re.ASCII)


class Bind(NamedTuple):
    """What to bind: a port of a host (None: all interfaces), the path of a unix socket, or an open descriptor."""

    host: str | None = None
    port: int = 0
    path: str | None = None
    descriptor: int | None = None


def parse_bind(bind: str) -> Bind:
    """Read 'host:port', '[ipv6]:port', ':port' (all interfaces), 'unix:path' or 'fd://number'. Raises: ValueError."""
    kind, _, rest = bind.partition(":")
    if kind == "unix" and rest:
        return Bind(path=rest)
    if kind == "fd" and rest[2:].isdecimal():
        return Bind(descriptor=int(rest[2:]))
    if (match := _TCP.fullmatch(bind)) and int(match[3]) <= 65535:
        return Bind(host=match[1] or match[2] or None, port=int(match[3]))
    raise ValueError(f"{bind!r} is not 'host:port', '[ipv6]:port', ':port', 'unix:path' or 'fd://number', with a port up to 65535")


def location(address: Any) -> str:
    """Write what `getsockname()` or `getpeername()` returned as in a URL."""
    if isinstance(address, str | bytes):
        return f"unix:{os.fsdecode(address)}"
    host, port, *_ = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _binding(what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        error.add_note(f"while binding {what}")  # the error of bind(2) does not say what was to be bound
        raise


@contextlib.contextmanager
def _owned(made: socket.socket) -> Generator[socket.socket]:
    """Close the socket if the block fails."""
    try:
        yield made
    except BaseException:
        made.close()
        raise


@attrs.define(eq=False)
class Listeners:
    """Listening sockets, all closed by `close()`."""

    opened: list[trio.SocketListener] = attrs.field(factory=list[trio.SocketListener], init=False)
    _files: list[tuple[str, tuple[int, ...]]] = attrs.field(factory=list[tuple[str, tuple[int, ...]]], init=False)

    async def tcp(self, port: int, host: str | None, backlog: int | None) -> list[trio.SocketListener]:
        """Listen on each address that `host` has. A cancellation leaves nothing open. Raises: OSError."""
        with _binding(f"port {port} of {host or 'all interfaces'}"):
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
        self.opened += listeners
        return listeners

    def unix(
        self, path: str, backlog: int, *, mode: int | None = None, owner: tuple[int, int] | None = None
    ) -> trio.SocketListener:
        """Listen on a unix socket at `path`, in the place of one that nobody listens on any more. Raises: OSError."""
        if not hasattr(socket, "AF_UNIX"):  # pragma: no cover (Windows)
            raise OSError(errno.EAFNOSUPPORT, "this system has no unix sockets: bind 'host:port'", path)
        with _binding(path), _owned(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as made:
            try:
                made.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_stale(path):
                    raise
                os.unlink(path)
                made.bind(path)
            self._files.append((path, _identity(path)))
            # Nobody can connect before it listens, so there is no moment with the wrong rights.
            if mode is not None:
                os.chmod(path, mode)
            if owner is not None:
                os.chown(path, *owner)
            return self._listen(made, backlog)

    def descriptor(self, number: int, backlog: int) -> trio.SocketListener:
        """Listen on a copy of an open descriptor; the original stays open, for the next run. Raises: OSError, ValueError."""
        with _binding(f"descriptor {number}"):
            copy = os.dup(number)
            try:
                made = socket.socket(fileno=copy)
            except BaseException:
                os.close(copy)
                raise
            with _owned(made):
                return self._listen(made, backlog)

    def _listen(self, made: socket.socket, backlog: int) -> trio.SocketListener:
        made.listen(backlog)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(made))
        self.opened.append(listener)
        return listener

    def close(self) -> None:
        """Close all, at once, and remove the files of unix sockets that are still ours."""
        for listener in self.opened:
            listener.socket.close()
        for path, identity in self._files:
            with contextlib.suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)


def _identity(path: str) -> tuple[int, ...]:
    """Tell one file from a later one of the same name: the number alone may be used again at once."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _is_stale(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a server with a full backlog would keep it waiting
        return probe.connect_ex(path) == errno.ECONNREFUSED
