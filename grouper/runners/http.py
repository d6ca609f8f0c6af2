"""An HTTP server as a runner: any ASGI app, on hypercorn.

Hypercorn speaks the protocols (HTTP/1, HTTP/2, WebSocket) on a connection (`_hypercorn.py`); the sockets, the connections and the
app's lifespan are kept here. Its own worker (`hypercorn.trio.serve`) was tried first and given up for what it forces on the caller:

* The error of one connection ends the server, and all other connections. An HTTP/2 client that sends the rest of a request which
  was answered already is enough.
* KeyboardInterrupt ends it as a request to stop would, and is swallowed.
* What it raises is two or three exception groups deep.
* A connection whose peer does not read cannot be cancelled: hypercorn sends under a shield.
* Its drain cuts off the end of the responses that are under way in HTTP/2.
* A socket file is taken from whoever listens on it, is left behind, and so are the sockets bound before one that fails.
* Its answers to what an app does in its lifespan: see `_lifespan.py`.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import trio

from ..signals import Signals
from ._binding import Listeners, location, parse_bind
from ._draining import bare, draining
from ._hypercorn import Worker
from ._lifespan import ASGIApp, Lifespan
from ._serving import Listener, serve

if TYPE_CHECKING:
    from hypercorn.config import Config

__all__ = ["HTTPServer"]

_LOG = logging.getLogger("grouper.http")

_SPEAK_TLS = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 22\r\n\r\nThis port speaks TLS.\n"


@attrs.frozen(eq=False, init=False)
class HTTPServer:
    """Serve an ASGI app; it is ready when the app has started and connections are accepted. Needs the extra `http`.

    `bind` is one or several of 'host:port' (port 0 for a free one), '[ipv6]:port', ':port' (all interfaces), 'unix:path' and
    'fd://number' (an inherited socket, which stays open); None means what `config` says, which by default is '127.0.0.1:8000'. Its
    value is the list of URLs it is bound to: 'http://127.0.0.1:43211', 'https://[::1]:443', 'http://unix:/run/web.sock'. It listens
    before the app starts, so that requests wait for the app rather than fail.

    `certfile` and `keyfile` are paths of PEM files and turn on TLS; without `keyfile` the key is looked for in `certfile`. All else
    is set with a `hypercorn.config.Config`, of which a copy is taken. Not used of it: what is about worker processes,
    `graceful_timeout`, `startup_timeout`, `shutdown_timeout`, `max_requests`, StatsD; `quic_bind` is refused. Hypercorn's log goes
    to the logger `hypercorn.error`, with no handler of its own, unless `config` sets `errorlog`.

    The first stop signal closes the listeners at once, so that new connections are refused, closes idle connections and lets
    requests and WebSockets that are under way finish; then it shuts the app down. None of this has a time limit: a member's
    `grace` bounds it. A second one cancels everything. Both are clean exits, and so is a stop signal before it was ready. A
    cancellation closes everything at once and tells the app nothing but the cancellation. Other signals do nothing.

    What the app raises for a request is answered with 500 and logged by hypercorn; what else goes wrong on a connection is logged
    to `grouper.http`. Neither ends the server. What the app raises in its lifespan does, once it has asked for the startup message:
    an app that raises before that has no lifespan.

    Raises, when it runs: OSError if an address cannot be bound, and what the app raises while it starts, both before it is ready;
    what the app raises in its lifespan later; RuntimeError if the app only says that its startup or shutdown failed; what a
    listener that breaks raises. When it is made: ImportError without hypercorn, TypeError, ValueError.
    """

    app: ASGIApp
    bind: tuple[str, ...]
    config: Config = attrs.field(repr=False)

    def __init__(
        self,
        app: ASGIApp,
        bind: str | Iterable[str] | None = None,
        *,
        config: Config | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        if not callable(app) or isinstance(app, type):
            raise TypeError(f"HTTPServer: {app!r} is not an ASGI app: give an instance of one, such as Starlette()")
        config = _own(config)
        if certfile is not None:
            config.certfile, config.keyfile = certfile, None
        if keyfile is not None:
            config.keyfile = keyfile
        if config.keyfile is not None and config.certfile is None:
            raise ValueError("HTTPServer: keyfile= needs certfile=: a key without its certificate is of no use")
        if config.certfile is not None and config.keyfile is None:
            config.keyfile = config.certfile  # hypercorn would serve without TLS
        if config.quic_bind:
            raise ValueError("HTTPServer: quic_bind is not served: hypercorn's QUIC server cannot be told to stop on trio")
        if bind is not None:
            config.bind = [bind] if isinstance(bind, str) else list(bind)
        if not config.bind:
            raise ValueError("HTTPServer: there is nothing to bind: bind='127.0.0.1:8000' is an example")
        for each in (*config.bind, *config.insecure_bind):
            parse_bind(each)
        self.__attrs_init__(app, tuple(config.bind), config)  # pyright: ignore  # attrs makes it, which pyright does not know

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Serve until told to stop, the last request is answered and the app has shut down."""
        lifespan = Lifespan(self.app)
        worker = Worker(self.app, self.config, lifespan.state)
        with draining(signals) as stop, contextlib.closing(Listeners()) as listeners:
            with bare():
                async with trio.open_nursery() as nursery:
                    with stop.cancelling() as starting:
                        served = await self._listen(listeners)
                        nursery.start_soon(lifespan.run)
                        await lifespan.startup()
                    if not starting.cancelled_caught:
                        task_status.started([url for url, _ in served])
                        nursery.start_soon(worker.close_if_cancelled)
                        await serve(
                            worker.handle,
                            [listener for _, listener in served],
                            stop,
                            _LOG,
                            handshake_seconds=self.config.ssl_handshake_timeout,
                            answer_to_plain=_SPEAK_TLS,
                            drain=worker.drain,
                        )
                        await lifespan.shutdown()
                    nursery.cancel_scope.cancel("the server has stopped")
            if lifespan.error is not None:  # it failed while its startup was cancelled
                raise lifespan.error

    async def _listen(self, listeners: Listeners) -> list[tuple[str, Listener]]:
        config = self.config
        tls = config.create_ssl_context()
        served: list[tuple[str, Listener]] = []
        for bind in config.bind:
            for listener in await self._open(bind, listeners):
                url = location(listener.socket.getsockname())
                if tls is None:
                    served.append((f"http://{url}", listener))
                else:
                    served.append((f"https://{url}", trio.SSLListener(listener, tls, https_compatible=True)))
        for bind in config.insecure_bind if tls is not None else ():
            served += [(f"http://{location(each.socket.getsockname())}", each) for each in await self._open(bind, listeners)]
        return served

    async def _open(self, bind: str, listeners: Listeners) -> list[trio.SocketListener]:
        config = self.config
        host, port, path, descriptor = parse_bind(bind)
        if path is not None:
            mode = None if config.umask is None else 0o777 & ~config.umask
            owner = None if config.user is None or config.group is None else (config.user, config.group)
            return [listeners.unix(path, config.backlog, mode=mode, owner=owner)]
        if descriptor is not None:
            return [listeners.descriptor(descriptor, config.backlog)]
        return await listeners.tcp(port, host, config.backlog)


def _own(config: Config | None) -> Config:
    """Return a copy of the configuration that logs through `logging` unless told otherwise."""
    try:
        from hypercorn.config import Config
    except ImportError as error:
        raise ImportError("HTTPServer needs hypercorn: pip install 'trio-grouper[http]'") from error
    config = Config() if config is None else copy.copy(config)
    if config.errorlog == "-" and "errorlog" not in vars(config):
        config.errorlog = logging.getLogger("hypercorn.error")
    return config
