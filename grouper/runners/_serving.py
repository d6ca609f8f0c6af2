"""Accept connections, then drain them: what all servers here do.

`trio.serve_listeners` does the accepting (it knows what to do when the system is out of descriptors). Unlike under
`trio.serve_tcp`, a connection that fails takes neither the server nor the other connections down: whoever can connect could stop
the program otherwise. Its error is logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from ._binding import location
from ._draining import Stop, bare

__all__ = ["Stream", "serve", "socket_of"]

Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Listener: TypeAlias = trio.SocketListener | trio.SSLListener[trio.SocketStream]


def socket_of(stream: Stream) -> trio.socket.SocketType:
    """Return the socket below a stream."""
    return (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket


def _peer(stream: Stream) -> str:
    try:
        return location(socket_of(stream).getpeername())
    except OSError:
        return "a peer that is gone"


async def serve(
    handler: Callable[[Any], Awaitable[object]],
    listeners: list[Listener],
    stop: Stop,
    log: logging.Logger,
    *,
    handshake_seconds: float,
    answer_to_plain: bytes = b"",
    drain: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Handle connections until `stop` is requested; close the listeners; await `drain()`; return when no connection is open.

    A peer that speaks plain HTTP to a TLS listener is sent `answer_to_plain`.
    An Exception of a connection is logged; what is no Exception comes out as itself, and so does the error of a listener that is
    broken or was closed by somebody else. A cancellation cancels the connections.
    """

    async def handle(stream: Stream) -> None:
        peer = _peer(stream)
        try:
            if isinstance(stream, trio.SSLStream) and not await _shake_hands(
                stream, stop, log, peer, handshake_seconds, answer_to_plain
            ):
                return
            await handler(stream)
        except Exception:
            log.exception("the connection from %s failed", peer)
        except BaseExceptionGroup as group:  # a failure in the moment of a cancellation
            failed, rest = group.split(Exception)
            if failed is not None:
                log.error("the connection from %s failed", peer, exc_info=failed)
            raise rest or group from None

    with bare():
        async with trio.open_nursery() as connections:
            with stop.cancelling():
                await _accept(handle, listeners, connections)
            if drain is not None:
                await drain()


async def _accept(handle: Callable[[Stream], Awaitable[None]], listeners: list[Listener], connections: trio.Nursery) -> None:
    try:
        with bare():
            await trio.serve_listeners(handle, listeners, handler_nursery=connections)
    except Exception as broken:
        broken.add_note("while accepting connections")
        raise


async def _shake_hands(
    stream: trio.SSLStream[trio.SocketStream], stop: Stop, log: logging.Logger, peer: str, seconds: float, answer_to_plain: bytes
) -> bool:
    """Begin TLS; False if that came to nothing, which is the peer's business and no error of the server."""
    with trio.move_on_after(seconds) as limit, stop.cancelling():
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            log.info("no TLS with %s: %s", peer, error.__cause__ or error)
            if answer_to_plain and getattr(error.__cause__, "reason", None) == "HTTP_REQUEST":
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.transport_stream.send_all(answer_to_plain)
            return False
        return True
    if limit.cancelled_caught:
        log.info("no TLS with %s: it did not finish the handshake in %g s", peer, seconds)
    return False
