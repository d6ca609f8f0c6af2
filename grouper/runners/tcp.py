"""A TCP server as a runner."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import trio

from ..signals import Signals
from ._binding import Listeners
from ._checks import require_async
from ._draining import draining
from ._serving import serve

__all__ = ["TCPHandler", "TCPServer"]

TCPHandler: TypeAlias = (
    Callable[[trio.SocketStream], Awaitable[object]] | Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[object]]
)

_LOG = logging.getLogger("grouper.tcp")


def _check_port(_: object, __: object, port: Any) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"TCPServer: a port is a number, 0 for a free one, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"TCPServer: a port is from 0 (a free one) to 65535, not {port}")


def _check_handler(_: object, __: object, handler: Any) -> None:
    require_async(handler, "TCPServer")


@attrs.frozen(eq=False)
class TCPServer:
    """Call `handler(stream)` in a task of its own for each connection; it is ready when it listens.

    Its value is the list of addresses it is bound to, as `getsockname()` gives them: with port 0 these tell which one it got. A
    `host` of None means all interfaces, and a name is bound on each of its addresses, where port 0 becomes a different port on
    each. With `ssl_context` the handler gets a `trio.SSLStream` after the handshake, for which a peer has
    `handshake_timeout` seconds.

    The first stop signal closes the listeners at once, so that new connections are refused, and lets open connections go on until
    their handlers return, however long that takes: a member's `grace` bounds it. A second one cancels them. Both are clean exits,
    and so is a stop signal before it was ready. A cancellation closes everything at once. Other signals do nothing.

    An Exception that a handler raises ends its connection and is logged, with the peer, to `grouper.tcp`: the server and the other
    connections go on. What is no Exception (KeyboardInterrupt, SystemExit) ends the server and comes out as itself. A stream that
    the handler leaves open is closed.

    Raises, when it runs: OSError if an address cannot be bound, before it is ready, and what a listener that breaks raises. When
    it is made: TypeError, ValueError.
    """

    handler: TCPHandler = attrs.field(validator=_check_handler)
    port: int = attrs.field(validator=_check_port)
    host: str | None = attrs.field(default=None, kw_only=True)
    backlog: int | None = attrs.field(default=None, kw_only=True)
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, kw_only=True)
    handshake_timeout: float = attrs.field(default=60.0, kw_only=True)

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[list[tuple[Any, ...]]]) -> None:
        """Serve until told to stop and the last connection has ended."""
        with draining(signals) as stop, contextlib.closing(Listeners()) as listeners:
            with stop.cancelling() as opening:
                await listeners.tcp(self.port, self.host, self.backlog)
            if opening.cancelled_caught:
                return
            task_status.started([listener.socket.getsockname() for listener in listeners.opened])
            tls = self.ssl_context
            await serve(
                self.handler,
                [listener if tls is None else trio.SSLListener(listener, tls) for listener in listeners.opened],
                stop,
                _LOG,
                handshake_seconds=self.handshake_timeout,
            )
