"""Checks of what a program that has started offers: a socket, an answer to a request, a file.

Whatever the operating system says against a connection is "not yet": which of its errors end by themselves cannot be told (a name
that is not known, a socket file whose rights are set after it is bound, a route that is not there yet). What cannot be right at
any time, such as a port 70000, is refused when the check is made; what only its use shows, such as a host name that cannot be
encoded, is the check's own error.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Container
from typing import Any, Protocol
from urllib.parse import urlsplit

import attrs
import trio

from ..errors import NotReady
from ._arguments import plain_path
from .errors import leaves, why

__all__ = ["FileCheck", "HTTPCheck", "HTTPClient", "HTTPResponse", "TCPCheck", "UnixCheck", "file", "http", "tcp", "unix"]


@attrs.frozen
class TCPCheck:
    """What `tcp` makes."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"tcp [{self.host}]:{self.port}" if ":" in self.host else f"tcp {self.host}:{self.port}"

    async def __call__(self) -> None:
        """Connect."""
        try:
            stream = await trio.open_tcp_stream(self.host, self.port)
        except OSError as error:
            raise NotReady(why(error)) from error
        stream.socket.close()


def tcp(host: str, port: int) -> TCPCheck:
    """A check that is ready when a TCP connection can be made; the connection is closed at once.

    Not yet: whatever goes wrong with the name or the connection. A cancellation leaves nothing open.

    Raises, when it is made: TypeError, ValueError. As a check: UnicodeError for a host that is no name.
    """
    if not isinstance(host, str):
        raise TypeError(f"tcp: host={host!r} is not a string")
    if not host:
        raise ValueError("tcp: the host is empty: '127.0.0.1' or 'localhost' is this one")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"tcp: port={port!r} is not a number")
    if not 0 < port < 65536:
        raise ValueError(f"tcp: port={port!r} is not a port that can be connected to: 1 to 65535")
    return TCPCheck(host, port)


@attrs.frozen
class UnixCheck:
    """What `unix` makes."""

    path: str

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"unix {self.path}"

    async def __call__(self) -> None:
        """Connect."""
        if not hasattr(socket, "AF_UNIX"):
            raise NotImplementedError(f"{self.name}: Python has no Unix sockets on this platform: use tcp(host, port)")
        try:
            stream = await trio.open_unix_socket(self.path)
        except OSError as error:
            if error.errno is None:  # the path is too long
                raise
            raise NotReady(why(error)) from error
        try:
            stream.socket.getpeername()  # trio takes a socket whose queue of connections is full for a connection
        except OSError as error:
            raise NotReady("its queue of connections is full, or it has closed this one") from error
        finally:
            stream.socket.close()


def unix(path: str | os.PathLike[str]) -> UnixCheck:
    """A check that is ready when a Unix socket can be connected to; the connection is closed at once.

    Not yet: no such file, nobody who listens, a full queue of connections. A cancellation leaves nothing open.

    Raises, when it is made: TypeError, ValueError. As a check: NotImplementedError where Python has no Unix sockets, such as on
    Windows; OSError for a path that is too long.
    """
    return UnixCheck(plain_path(path, "unix"))


class HTTPResponse(Protocol):
    """What a client's request gives."""

    @property
    def status_code(self) -> int:
        """The status, such as 200."""
        ...


class HTTPClient(Protocol):
    """What `http` can ask with, such as an `httpx2.AsyncClient`."""

    def get(self, url: str, /) -> Awaitable[HTTPResponse]:
        """Request a URL."""
        ...


@attrs.frozen
class HTTPCheck:
    """What `http` makes."""

    url: str = attrs.field(repr=False)
    status: Container[int]
    client: HTTPClient | None = attrs.field(repr=False)

    @property
    def name(self) -> str:
        """What errors call it: without the user and the password that the URL may have."""
        parts = urlsplit(self.url)
        return f"http {parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()}"

    async def __call__(self) -> HTTPResponse:
        """Send the request."""
        try:
            response = await self._get()
        except Exception as error:
            if not all(map(_no_connection, leaves(error))):
                raise
            raise NotReady(why(error)) from error
        if response.status_code not in self.status:
            raise NotReady(f"the status is {response.status_code}")
        return response

    async def _get(self) -> HTTPResponse:
        if self.client is not None:
            return await self.client.get(self.url)
        # Without TLS no certificates are loaded, which takes long and blocks; the probe has the time limit.
        secure, here = self.url.lower().startswith("https:"), _is_loopback(urlsplit(self.url).hostname or "")
        async with _httpx2().AsyncClient(timeout=None, verify=secure, trust_env=not here) as client:
            response: HTTPResponse = await client.get(self.url)
            return response


def _httpx2() -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise ImportError("http() needs httpx2: pip install 'trio-grouper[http]', or give it a client=") from error
    return httpx2


def _is_loopback(host: str) -> bool:
    """Whether it is this machine, to which no proxy of the environment leads."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _no_connection(error: BaseException) -> bool:
    """Whether a client raised `error` because it got no answer, and not because the request cannot be one."""
    if isinstance(error, OSError | trio.BrokenResourceError | trio.TooSlowError):
        return True
    # By name: httpx, httpx2 and their likes have the same classes, and none of them need be here.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "TransportError" in kinds and not kinds & {"UnsupportedProtocol", "LocalProtocolError"}


def http(url: str, *, status: Container[int] = range(200, 400), client: HTTPClient | None = None) -> HTTPCheck:
    """A check that is ready when a GET is answered with one of the `status`; its value is the response.

    Without a `client` it makes an `httpx2.AsyncClient` for the one request, with httpx2's defaults but for the time limit: the
    probe's is the only one; and this machine is asked without a proxy. Redirects are not followed. A `client` of yours does as it
    is set, and is not closed; it may be of any kind that has `await client.get(url)`, and the URL may be whatever it takes.

    Not yet: no connection, no answer, another status. A cancellation closes the connection.

    Raises, when it is made: TypeError, ValueError; ImportError without httpx2. As a check: what else the client raises.
    """
    if not isinstance(url, str):
        raise TypeError(f"http: {url!r} is not a URL: give a string")
    if not isinstance(status, Container) or isinstance(status, str | bytes):
        raise TypeError(f"http: status={status!r} is not a collection of numbers: write status=[{status!r}] for one")
    parts = urlsplit(url)
    if client is None:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"http: {url!r} is not a URL that begins with http:// or https:// and a host")
        _httpx2()
    elif not callable(getattr(client, "get", None)):
        raise TypeError(f"http: client={client!r} has no `get(url)`: give something like an httpx2.AsyncClient")
    return HTTPCheck(url, status, client)


@attrs.frozen
class FileCheck:
    """What `file` makes."""

    path: str

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"file {self.path}"

    async def __call__(self) -> None:
        """Look."""
        try:
            await trio.to_thread.run_sync(os.stat, self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotReady("there is no such file") from error


def file(path: str | os.PathLike[str]) -> FileCheck:
    """A check that is ready when there is something at `path`: a file, a directory, anything.

    Not yet: no such file. It looks in a thread, which is waited for also when cancelled.

    Raises, when it is made: TypeError, ValueError. As a check: OSError if it may not look there.
    """
    return FileCheck(plain_path(path, "file"))
