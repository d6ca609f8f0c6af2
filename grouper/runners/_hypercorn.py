"""Hypercorn's part of an HTTP server: what it does on one connection, and what has to be done around it.

Some of its names are used that it does not promise, the same in 0.17 and 0.18 (the extra `http` admits no others): `TCPServer`,
which is one connection, and `WorkerContext`, by which a connection learns that it is to end. And for three faults, `_read_data` and
`_close` (an HTTP/1 connection whose next request is there already when it closes reads for ever), and the `stream_buffers` of
HTTP/2 (the end of a response under way is lost when it drains, and a response to a peer that is gone waits for ever).
"""

from __future__ import annotations

import functools
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from ._lifespan import ASGIApp
from ._serving import socket_of

if TYPE_CHECKING:
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext

__all__ = ["Worker"]

_LOOK_SECONDS: Final = 0.02


def _streams(server: Any) -> MutableMapping[int, Any]:
    """Return the requests of HTTP/2 whose response has not been sent to its end, by number. HTTP/1 has none."""
    protocol = getattr(getattr(server, "protocol", None), "protocol", None)
    return getattr(protocol, "stream_buffers", {})


@functools.cache
def _server_class() -> type[TCPServer]:
    from hypercorn.trio.tcp_server import TCPServer

    class Server(TCPServer):
        _reading: trio.CancelScope | None = None

        async def _close(self) -> None:
            await super()._close()
            if self._reading is not None:
                self._reading.cancel("the connection was closed")

        async def _read_data(self) -> None:
            with trio.CancelScope() as self._reading:
                await super()._read_data()
            streams = _streams(self)
            for buffer in list(streams.values()):  # whose app waits for somebody to send it
                await buffer.close()
            streams.clear()

    return Server


@attrs.frozen(eq=False)
class _Connection:
    socket: trio.socket.SocketType
    context: WorkerContext
    server: TCPServer


@attrs.define(eq=False)
class Worker:
    """The connections of one run: `handle` is for `serve`, and so is `drain`; `close_if_cancelled` is a task beside them."""

    app: ASGIApp
    config: Config
    state: dict[str, Any]
    _draining: bool = attrs.field(default=False, init=False)
    _open: set[_Connection] = attrs.field(factory=set[_Connection], init=False)

    async def handle(self, stream: Any) -> None:
        """Serve one connection until it ends."""
        from hypercorn.trio.worker_context import WorkerContext
        from hypercorn.typing import ConnectionState

        context = WorkerContext(None)
        server = _server_class()(self._call, self.config, context, ConnectionState(self.state.copy()), stream)
        connection = _Connection(socket_of(stream), context, server)
        if self._draining:
            await context.terminated.set()
        self._open.add(connection)
        try:
            await server
        finally:
            self._open.discard(connection)

    async def drain(self) -> None:
        """Let each connection end when its requests under way are answered; the idle ones end at once.

        Hypercorn does that well for HTTP/1. With HTTP/2 it says goodbye when an app has handed over the end of its response, and
        then cannot send that end any more. So such a connection is told when all was sent, for which there is no event. Until
        then it would begin further requests, which `_call` refuses.
        """
        self._draining = True
        under_way = {connection: set(_streams(connection.server)) for connection in self._open}
        while under_way:
            for connection, streams in list(under_way.items()):
                if streams.isdisjoint(_streams(connection.server)) or connection not in self._open:
                    await connection.context.terminated.set()
                    del under_way[connection]
            if under_way:
                await trio.sleep(_LOOK_SECONDS)

    async def close_if_cancelled(self) -> None:
        """Close the sockets below their streams at a cancellation: hypercorn sends under a shield, to a peer that may not read."""
        try:
            await trio.sleep_forever()
        finally:
            for connection in self._open:
                connection.socket.close()

    async def _call(self, scope: Any, receive: Any, send: Any, sync_spawn: object, call_soon: object) -> None:
        if not (self._draining and scope["http_version"] == "2"):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
