"""An HTTP server: where it listens, its drain, the app's lifespan, and what hypercorn would do wrong."""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import math
import os
import pathlib
import signal
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpx2
import pytest
import trio
import trustme
from hypercorn.config import Config
from trio.testing import wait_all_tasks_blocked

from grouper.runners import HTTPServer
from grouper.runners._hypercorn import Worker

from .running import Running, refused, running

pytestmark = pytest.mark.real_time

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
HERE = "127.0.0.1:0"


async def respond(send: Send, *chunks: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def hello(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An app that has no lifespan, and says so as ASGI 2 taught."""
    assert scope["type"] == "http"
    await respond(send, b"hello")


class App:
    """An app with a lifespan; /slow says "begun" and waits until `go` is set."""

    def __init__(self) -> None:
        self.startup = trio.Event()
        self.startup.set()
        self.starting = trio.Event()
        self.requested = trio.Event()
        self.go = trio.Event()
        self.notes: list[str] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "lifespan":
                await self.lifespan(scope, receive, send)
            elif scope["path"] == "/slow":
                await self.slow(send)
            elif scope["path"] == "/flood":
                await self.flood(send)
            elif scope["path"] == "/fail":
                raise LookupError("gone")
            else:
                await respond(send, json.dumps(scope["state"]).encode())
        except trio.Cancelled:
            self.notes.append(f"{scope['type']} cancelled")
            raise

    async def lifespan(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        self.starting.set()
        await self.startup.wait()
        scope["state"]["answer"] = 42
        await send({"type": "lifespan.startup.complete"})
        self.notes.append("started")
        assert (await receive())["type"] == "lifespan.shutdown"
        self.notes.append("shut down")
        await send({"type": "lifespan.shutdown.complete"})

    async def slow(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        self.requested.set()
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"finished"})

    async def flood(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(2**25), "more_body": True})  # more than any buffer holds


def with_config(**settings: Any) -> Config:
    return Config.from_mapping(settings)


def port_of(process: Running, index: int = 0) -> int:
    return int(process.value[index].rsplit(":", 1)[1])


@contextlib.asynccontextmanager
async def connect(process: Running, request: bytes = b"") -> AsyncGenerator[trio.SocketStream]:
    async with await trio.open_tcp_stream("127.0.0.1", port_of(process)) as stream:
        await stream.send_all(request)
        yield stream


def get(path: str) -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: here\r\n\r\n" % path.encode()


async def receive_all(stream: trio.abc.Stream) -> bytes:
    received = b""
    async for data in stream:
        received += data
    return received


async def receive_until(stream: trio.abc.Stream, end: bytes) -> bytes:
    received = b""
    while end not in received:
        data = await stream.receive_some()
        assert data, f"{received!r} ends without {end!r}"
        received += data
    return received


# Where it listens


async def test_its_value_is_the_urls_it_serves() -> None:
    """The kernel's choice of a port is told, and requests are served when it is ready."""
    async with running(HTTPServer(hello, HERE)) as process, httpx2.AsyncClient() as client:
        (url,) = process.value
        assert url.startswith("http://127.0.0.1:")
        response = await client.get(url)
        assert response.text == "hello"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this system has no IPv6")
async def test_ipv6() -> None:
    """The URL has the brackets that a URL needs."""
    async with running(HTTPServer(hello, "[::1]:0")) as process, httpx2.AsyncClient() as client:
        (url,) = process.value
        assert url.startswith("http://[::1]:")
        assert (await client.get(url)).text == "hello"


async def test_all_interfaces() -> None:
    """A bind without a host is on every one."""
    async with running(HTTPServer(hello, ":0")) as process, httpx2.AsyncClient() as client:
        ports = [port_of(process, index) for index, url in enumerate(process.value) if url.startswith("http://0.0.0.0:")]
        assert (await client.get(f"http://127.0.0.1:{ports[0]}")).text == "hello"


async def test_several_binds(tmp_path: pathlib.Path) -> None:
    """Each has its URL, in their order."""
    path = tmp_path / "web.sock"
    async with running(HTTPServer(hello, [f"unix:{path}", HERE])) as process:
        first, second = process.value
        assert first == f"http://unix:{path}"
        async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://here")).text == "hello"
        async with httpx2.AsyncClient() as client:
            assert (await client.get(second)).text == "hello"


async def test_an_inherited_descriptor_stays_open_for_the_next_run() -> None:
    """A server that is run again finds its socket still there, with those who wait on it."""
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.1", 0))
        inherited.listen()
        runner = HTTPServer(hello, f"fd://{inherited.fileno()}")
        for _ in range(2):
            async with running(runner) as process, httpx2.AsyncClient() as client:
                assert process.value == [f"http://127.0.0.1:{inherited.getsockname()[1]}"]
                assert (await client.get(process.value[0])).text == "hello"


async def test_a_descriptor_that_is_no_socket_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which, and the copy of it that was made is closed."""
    copies: list[int] = []
    dup = os.dup

    def remember(number: int) -> int:
        copies.append(dup(number))
        return copies[-1]

    monkeypatch.setattr(os, "dup", remember)
    with open(os.devnull) as file:  # noqa: ASYNC230 (it does not block)
        async with running(HTTPServer(hello, f"fd://{file.fileno()}")) as process:
            with pytest.raises(OSError, match="socket") as caught:
                await process.end()
        assert caught.value.__notes__ == [f"while binding descriptor {file.fileno()}"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copies[0])


async def test_a_port_in_use_is_an_error_before_ready() -> None:
    """The error says which; the app was never started, and what was bound before is closed."""
    app = App()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        async with running(HTTPServer(app, [HERE, bind])) as process:
            with pytest.raises(OSError, match="in use") as caught:
                await process.end()
    assert caught.value.__notes__ == [f"while binding port {bind[10:]} of 127.0.0.1"]
    assert (process.was_ready, app.starting.is_set()) == (False, False)


# Unix sockets


async def test_the_file_of_a_unix_socket_is_removed_at_the_end(tmp_path: pathlib.Path) -> None:
    """Hypercorn would leave it behind."""
    path = tmp_path / "web.sock"
    async with running(HTTPServer(hello, f"unix:{path}")) as process:
        assert path.is_socket()
        process.stop()
        await process.end()
    assert not path.exists()


async def test_a_stale_file_is_replaced(tmp_path: pathlib.Path) -> None:
    """One that a killed server left, and nobody listens on."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(HTTPServer(hello, f"unix:{path}")) as process:
        assert process.value == [f"http://unix:{path}"]


async def test_a_file_that_somebody_listens_on_is_left_alone(tmp_path: pathlib.Path) -> None:
    """It is an error, as with a port; hypercorn would take it over without a word."""
    path = tmp_path / "web.sock"
    async with running(HTTPServer(hello, f"unix:{path}")), running(HTTPServer(hello, f"unix:{path}")) as second:
        with pytest.raises(OSError, match="in use") as caught:
            await second.end()
        async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://here")).text == "hello"
    assert caught.value.__notes__ == [f"while binding {path}"]


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: pathlib.Path) -> None:
    """It is somebody's data."""
    path = tmp_path / "web.sock"
    path.write_text("data")
    async with running(HTTPServer(hello, f"unix:{path}")) as process:
        with pytest.raises(OSError, match="in use"):
            await process.end()
    assert path.read_text() == "data"


async def test_a_path_that_cannot_be_made_is_an_error_before_ready(tmp_path: pathlib.Path) -> None:
    """The error names it."""
    path = tmp_path / "nowhere" / "web.sock"
    async with running(HTTPServer(hello, f"unix:{path}")) as process:
        with pytest.raises(FileNotFoundError) as caught:
            await process.end()
    assert not process.was_ready
    assert caught.value.__notes__ == [f"while binding {path}"]


@pytest.mark.parametrize("successor", [True, False])
async def test_a_file_that_is_not_ours_any_more_stays(successor: bool, tmp_path: pathlib.Path) -> None:
    """While it drained, a successor put its own there, or somebody removed it."""
    path = tmp_path / "web.sock"
    async with running(HTTPServer(hello, f"unix:{path}")):
        path.unlink()
        if successor:
            path.touch()
    assert path.exists() is successor


async def test_the_rights_of_a_unix_socket(tmp_path: pathlib.Path) -> None:
    """Those of the configuration: the umask, the user and the group."""
    path = tmp_path / "web.sock"
    config = Config()
    config.umask, config.user, config.group = 0o117, os.getuid(), os.getgid()
    async with running(HTTPServer(hello, f"unix:{path}", config=config)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


# The drain


async def test_a_stop_signal_lets_the_requests_under_way_finish() -> None:
    """Begun before the signal, a response arrives whole after it; new connections are refused meanwhile."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, httpx2.AsyncClient() as client:
        async with client.stream("GET", f"{process.value[0]}/slow") as response:
            await app.requested.wait()
            process.stop()
            await wait_all_tasks_blocked()
            assert await refused(port_of(process))
            assert not process.ended.is_set()
            assert "shut down" not in app.notes
            app.go.set()
            assert await response.aread() == b"begun finished"
        await process.end()
    assert app.notes == ["started", "shut down"]


async def test_a_stop_signal_closes_idle_connections() -> None:
    """Who keeps a connection open for later does not hold up the stop."""
    async with (
        running(HTTPServer(hello, HERE, config=with_config(keep_alive_timeout=math.inf))) as process,
        connect(process, get("/")) as stream,
    ):
        await receive_until(stream, b"0\r\n\r\n")
        process.stop()
        await process.end()
        assert await stream.receive_some() == b""


async def test_a_stop_signal_closes_connections_on_which_nothing_was_said() -> None:
    """As with the idle ones."""
    async with (
        running(HTTPServer(hello, HERE, config=with_config(keep_alive_timeout=math.inf))) as process,
        connect(process) as stream,
    ):
        await wait_all_tasks_blocked()
        process.stop()
        await process.end()
        assert await stream.receive_some() == b""


async def test_a_connection_that_comes_as_the_drain_begins_ends_too() -> None:
    """One whose handshake was finished in the same moment."""
    worker = Worker(hello, with_config(keep_alive_timeout=math.inf), {})
    await worker.drain()
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    async with ours, theirs:
        await worker.handle(ours)
        assert await theirs.receive_some() == b""


async def test_a_second_stop_signal_cuts_the_requests_under_way() -> None:
    """A response ends in the middle, and that is a clean exit."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, connect(process, get("/slow")) as stream:
        await app.requested.wait()
        process.stop()
        await wait_all_tasks_blocked()
        process.stop()
        await process.end()
        received = await receive_all(stream)
    assert b"begun" in received
    assert b"finished" not in received
    assert sorted(app.notes) == ["http cancelled", "lifespan cancelled", "started"]


async def test_a_peer_that_does_not_read_does_not_hold_up_a_second_stop_signal() -> None:
    """Hypercorn sends under a shield: the socket is closed below it."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, connect(process, get("/flood")):
        await wait_all_tasks_blocked(0.01)
        process.stop()
        await wait_all_tasks_blocked()
        assert not process.ended.is_set()
        process.stop()
        await process.end()
    assert "http cancelled" in app.notes


async def test_a_signal_that_stops_nothing_does_nothing() -> None:
    """HUP is dropped."""
    async with running(HTTPServer(hello, HERE)) as process:
        process.signals.send(signal.SIGHUP)
        await wait_all_tasks_blocked()
        assert not await refused(port_of(process))


async def test_told_to_stop_before_the_start_it_does_nothing() -> None:
    """The app is not started, nothing is bound, and it ends cleanly."""
    app = App()
    async with running(HTTPServer(app, HERE), signal.SIGTERM) as process:
        await process.end()
    assert (process.was_ready, app.starting.is_set()) == (False, False)


async def test_a_cancellation_goes_through_and_leaves_nothing_open() -> None:
    """From outside, while it serves: no connection, no listener is left, and the app was cancelled."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, connect(process, get("/slow")) as stream:
        await app.requested.wait()
        process.scope.cancel()
        await process.end()
        assert process.scope.cancelled_caught
        assert b"finished" not in await receive_all(stream)
        assert await refused(port_of(process))
    assert sorted(app.notes) == ["http cancelled", "lifespan cancelled", "started"]


async def test_a_cancellation_goes_through_a_drain() -> None:
    """A kill after the grace."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, connect(process, get("/slow")):
        await app.requested.wait()
        process.stop()
        await wait_all_tasks_blocked()
        process.scope.cancel()
        await process.end()
        assert process.scope.cancelled_caught


async def test_it_can_be_run_again() -> None:
    """Nothing of a run is kept in the runner or in the system."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process:
        pass
    runner = HTTPServer(app, process.value[0].removeprefix("http://"))
    for _ in range(2):
        async with running(runner) as process, httpx2.AsyncClient() as client:
            assert (await client.get(process.value[0])).status_code == 200
            process.stop()
            await process.end()


# Errors of requests and connections


async def test_an_error_of_the_app_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With 500; the server goes on."""
    async with running(HTTPServer(App(), HERE)) as process, httpx2.AsyncClient() as client:
        assert (await client.get(f"{process.value[0]}/fail")).status_code == 500
        assert (await client.get(process.value[0])).status_code == 200
    assert [record.name for record in caplog.records] == ["hypercorn.error"]
    assert "LookupError: gone" in caplog.text


class HTTP2:
    """A client that knows what it does, stream by stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.connection.initiate_connection()
        self.answers: dict[int, tuple[str, bytes]] = {}
        self.whole: set[int] = set()

    async def request(self, path: str, *, method: str = "GET", end: bool = True, **more: str) -> int:
        number = self.connection.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "here")]
        headers += [(name.replace("protocol", ":protocol").replace("_", "-"), value) for name, value in more.items()]
        self.connection.send_headers(number, headers, end_stream=end)
        self.answers[number] = "", b""
        await self.stream.send_all(self.connection.data_to_send())
        return number

    async def send(self, number: int, data: bytes) -> None:
        self.connection.send_data(number, data, end_stream=True)
        await self.stream.send_all(self.connection.data_to_send())

    async def whole_answer(self, number: int) -> tuple[str, bytes]:
        while number not in self.whole:
            data = await self.stream.receive_some()
            assert data, f"the connection ends, with {self.answers}"
            for event in self.connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    self.answers[event.stream_id or 0] = dict(event.headers or ())[b":status"].decode(), b""
                elif isinstance(event, h2.events.DataReceived):
                    status, body = self.answers[event.stream_id or 0]
                    self.answers[event.stream_id or 0] = status, body + (event.data or b"")
                elif isinstance(event, h2.events.StreamEnded):
                    self.whole.add(event.stream_id or 0)
        return self.answers[number]


async def test_an_error_of_a_connection_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """An HTTP/2 client that sends what nobody waits for any more would end a server of hypercorn's own."""
    async with running(HTTPServer(hello, HERE)) as process:
        async with connect(process) as stream:
            http2 = HTTP2(stream)
            number = await http2.request("/", method="POST", end=False)
            assert await http2.whole_answer(number) == ("200", b"hello")
            await http2.send(number, b"the rest")
            await receive_all(stream)
        async with httpx2.AsyncClient() as client:
            assert (await client.get(process.value[0])).text == "hello"
    assert [record.name for record in caplog.records] == ["grouper.http"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "GET"}, "503"),
        ({"method": "CONNECT", "end": False, "protocol": "websocket", "sec_websocket_version": "13"}, "403"),
    ],
    ids=["request", "websocket"],
)
async def test_requests_on_an_open_connection_are_refused_after_a_stop_signal(request_: dict[str, Any], status: str) -> None:
    """HTTP/2 has several at once: those under way get their whole response, the app is asked no more."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, connect(process) as stream:
        client = HTTP2(stream)
        slow = await client.request("/slow")
        await app.requested.wait()
        process.stop()
        await wait_all_tasks_blocked()
        refused_ = await client.request("/", **request_)
        assert await client.whole_answer(refused_) == (status, b"")
        assert not process.ended.is_set()
        app.go.set()
        assert await client.whole_answer(slow) == ("200", b"begun finished")
        await process.end()


async def test_a_connection_that_is_lost_does_not_hold_up_the_stop() -> None:
    """Nobody is there to get the rest, and the app is not kept waiting for somebody."""
    app = App()
    async with running(HTTPServer(app, HERE, config=with_config(keep_alive_timeout=math.inf))) as process:
        async with connect(process) as stream:
            await HTTP2(stream).request("/slow")
            await app.requested.wait()
            process.stop()
        app.go.set()
        await process.end()


async def test_a_connection_that_fails_does_not_hold_up_the_stop(caplog: pytest.LogCaptureFixture) -> None:
    """Its other requests end with it."""
    app = App()
    async with running(HTTPServer(app, HERE)) as process, connect(process) as stream:
        client = HTTP2(stream)
        answered = await client.request("/", method="POST", end=False)
        await client.whole_answer(answered)
        await client.request("/slow")
        await app.requested.wait()
        process.stop()
        await wait_all_tasks_blocked()
        await client.send(answered, b"the rest")
        await process.end()
    assert "http cancelled" in app.notes
    assert [record.name for record in caplog.records] == ["grouper.http"]


async def test_a_listener_that_breaks_is_an_error() -> None:
    """It neither hangs nor ends cleanly, and the requests under way are cut."""
    app = App()
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.1", 0))
        inherited.listen()
        async with running(HTTPServer(app, f"fd://{inherited.fileno()}")) as process, connect(process, get("/slow")):
            await app.requested.wait()
            inherited.shutdown(socket.SHUT_RDWR)
            with pytest.raises(OSError, match="Invalid argument"):
                await process.end()


# The app's lifespan


async def test_what_the_app_keeps_in_its_state_is_in_its_requests() -> None:
    """As ASGI's lifespan state has it."""
    async with running(HTTPServer(App(), HERE)) as process, httpx2.AsyncClient() as client:
        assert (await client.get(process.value[0])).json() == {"answer": 42}


async def test_it_is_not_ready_before_the_app_has_started_but_does_listen() -> None:
    """A request that comes meanwhile waits for the app rather than fail."""
    app = App()
    app.startup = trio.Event()
    with socket.socket() as inherited:
        inherited.bind(("127.0.0.1", 0))
        inherited.listen()
        async with trio.open_nursery() as nursery:
            process = Running()
            nursery.start_soon(process.run, HTTPServer(app, f"fd://{inherited.fileno()}"))
            await app.starting.wait()
            async with await trio.open_tcp_stream(*inherited.getsockname()) as stream:
                await stream.send_all(get("/"))
                await wait_all_tasks_blocked()
                assert not process.ready.is_set()
                app.startup.set()
                assert b"42" in await receive_until(stream, b"}")
            process.stop()


def lifespan(steps: Callable[[Receive, Send], Awaitable[None]]) -> HTTPServer:
    """Serve an app whose lifespan is `steps`."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await steps(receive, send)
        else:
            await hello(scope, receive, send)

    return HTTPServer(app, HERE)


async def complete(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def raises_at_startup(receive: Receive, send: Send) -> None:
    await receive()
    raise LookupError("no database")


async def raises_late_at_startup(receive: Receive, send: Send) -> None:
    await receive()
    await trio.lowlevel.checkpoint()
    raise LookupError("no database")


async def says_and_raises_at_startup(receive: Receive, send: Send) -> None:
    await receive()
    try:
        raise LookupError("no database")
    except LookupError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise


@pytest.mark.parametrize("steps", [raises_at_startup, raises_late_at_startup, says_and_raises_at_startup])
async def test_what_the_app_raises_at_its_startup_is_an_error(steps: Any) -> None:
    """Before ready, as itself, whether or not the app also said so; hypercorn would serve an app that only raises."""
    async with running(lifespan(steps)) as process:
        with pytest.raises(LookupError, match="no database"):
            await process.end()
    assert not process.was_ready


async def says_it_failed(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def says_it_failed_and_waits(receive: Receive, send: Send) -> None:
    await says_it_failed(receive, send)
    await receive()


@pytest.mark.parametrize("steps", [says_it_failed, says_it_failed_and_waits])
async def test_a_startup_that_says_it_failed_is_an_error(steps: Any) -> None:
    """Before ready, with the app's words."""
    async with running(lifespan(steps)) as process:
        with pytest.raises(RuntimeError, match="the app failed to start: no database"):
            await process.end()
    assert not process.was_ready


async def returns_at_once(receive: Receive, send: Send) -> None: ...


async def raises_at_once(receive: Receive, send: Send) -> None:
    raise NotImplementedError


async def asks_and_returns(receive: Receive, send: Send) -> None:
    await receive()


@pytest.mark.parametrize("steps", [returns_at_once, raises_at_once, asks_and_returns, complete])
async def test_an_app_with_no_lifespan_or_half_of_one_is_served(steps: Any) -> None:
    """It may return from it, or raise before it asked for anything."""
    async with running(lifespan(steps)) as process, httpx2.AsyncClient() as client:
        assert (await client.get(process.value[0])).text == "hello"
        process.stop()
        await process.end()


async def test_an_error_of_the_lifespan_while_serving_ends_the_server() -> None:
    """Something that the app keeps running in the background has failed."""
    fail = trio.Event()

    async def steps(receive: Receive, send: Send) -> None:
        await complete(receive, send)
        await fail.wait()
        await send({"type": "lifespan.shutdown.failed", "message": "background"})
        raise LookupError("background")

    async with running(lifespan(steps)) as process:
        fail.set()
        with pytest.raises(LookupError, match="background"):
            await process.end()
        assert await refused(port_of(process))


async def test_what_the_app_raises_at_its_shutdown_is_an_error() -> None:
    """As itself, whether or not the app also said so."""

    async def steps(receive: Receive, send: Send) -> None:
        await complete(receive, send)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "leak"})
        raise LookupError("leak")

    async with running(lifespan(steps)) as process:
        process.stop()
        with pytest.raises(LookupError, match="leak"):
            await process.end()


async def test_a_shutdown_that_says_it_failed_is_an_error() -> None:
    """With the app's words."""

    async def steps(receive: Receive, send: Send) -> None:
        await complete(receive, send)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "leak"})

    async with running(lifespan(steps)) as process:
        process.stop()
        with pytest.raises(RuntimeError, match="the app failed to shut down: leak"):
            await process.end()


async def test_an_app_that_never_returns_from_its_lifespan_does_not_hold_up_the_stop() -> None:
    """One that asks for more when it has shut down has done so."""

    async def steps(receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})

    async with running(lifespan(steps)) as process:
        process.stop()
        await process.end()


async def test_an_answer_that_is_none_is_an_error() -> None:
    """An app that mixes up its scopes learns of it."""

    async def steps(receive: Receive, send: Send) -> None:
        await receive()
        await respond(send)

    async with running(lifespan(steps)) as process:
        with pytest.raises(RuntimeError, match=r"sent 'http.response.start' in its lifespan"):
            await process.end()


async def complains_when_cancelled(receive: Receive, send: Send) -> None:
    """As Starlette does."""
    await complete(receive, send)
    try:
        await receive()
    except BaseException:
        await send({"type": "lifespan.shutdown.failed", "message": "cancelled"})
        raise


async def test_an_app_that_complains_when_it_is_cancelled_does_not_fail_a_second_stop_signal() -> None:
    """It stays the clean exit that it is; hypercorn would raise the complaint in the place of the cancellation."""
    async with running(lifespan(complains_when_cancelled)) as process:
        process.signals.send(signal.SIGKILL)
        await process.end()
    async with running(lifespan(complains_when_cancelled)) as process:
        process.scope.cancel()
        await process.end()


async def test_a_stop_signal_cancels_the_startup() -> None:
    """The app need not start for nothing: it ends cleanly and was never ready."""
    app = App()
    app.startup = trio.Event()
    async with trio.open_nursery() as nursery:
        process = Running()
        nursery.start_soon(process.run, HTTPServer(app, HERE))
        await app.starting.wait()
        process.stop()
        await process.end()
    assert (process.was_ready, app.notes) == (False, ["lifespan cancelled"])


async def test_an_error_of_a_cancelled_startup_is_told() -> None:
    """What fails while it is being stopped has failed."""
    starting = trio.Event()

    async def steps(receive: Receive, send: Send) -> None:
        await receive()
        try:
            starting.set()
            await trio.sleep_forever()
        finally:
            raise LookupError("half a database")

    async with trio.open_nursery() as nursery:
        process = Running()
        nursery.start_soon(process.run, lifespan(steps))
        await starting.wait()
        process.stop()
        with pytest.raises(LookupError, match="half a database"):
            await process.end()


async def test_a_cancellation_goes_through_the_startup() -> None:
    """Of the server and so of the app."""
    app = App()
    app.startup = trio.Event()
    async with trio.open_nursery() as nursery:
        process = Running()
        nursery.start_soon(process.run, HTTPServer(app, HERE))
        await app.starting.wait()
        process.scope.cancel()
        await process.end()
        assert process.scope.cancelled_caught
    assert app.notes == ["lifespan cancelled"]


async def test_a_second_stop_signal_cancels_the_shutdown() -> None:
    """An app that does not end is cut, cleanly."""
    stopping = trio.Event()

    async def steps(receive: Receive, send: Send) -> None:
        await complete(receive, send)
        await receive()
        stopping.set()
        await trio.sleep_forever()

    async with running(lifespan(steps)) as process:
        process.stop()
        await stopping.wait()
        assert not process.ended.is_set()
        process.stop()
        await process.end()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: pathlib.Path) -> str:
    path = tmp_path / "cert-and-key.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # trustme's, half annotated
    return context


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
async def test_tls_and_its_drain(certificate: str, client_tls: ssl.SSLContext, http2: bool) -> None:
    """A certificate turns it on; a request under way gets its whole response after a stop signal, in either protocol."""
    app = App()
    async with running(HTTPServer(app, HERE, certfile=certificate, keyfile=certificate)) as process:
        async with (
            httpx2.AsyncClient(verify=client_tls, http2=http2) as client,
            client.stream("GET", f"{process.value[0]}/slow") as response,
        ):
            assert process.value[0].startswith("https://")
            assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            await app.requested.wait()
            process.stop()
            await wait_all_tasks_blocked()
            app.go.set()
            assert await response.aread() == b"begun finished"
        await process.end()


async def test_the_key_may_be_in_the_file_of_the_certificate(certificate: str) -> None:
    """Hypercorn alone would serve without TLS."""
    async with running(HTTPServer(hello, HERE, certfile=certificate)) as process:
        assert process.value[0].startswith("https://")


async def test_plain_http_on_the_tls_port_is_answered_with_400(certificate: str, caplog: pytest.LogCaptureFixture) -> None:
    """In plain HTTP; the connection is closed then, and it is no error of the server."""
    caplog.set_level(logging.INFO, "grouper")
    async with running(HTTPServer(hello, HERE, certfile=certificate)) as process:
        async with connect(process, get("/")) as stream:
            assert (await receive_all(stream)).startswith(b"HTTP/1.1 400 ")
        await wait_all_tasks_blocked()
        assert not process.ended.is_set()
    assert "no TLS with 127.0.0.1:" in caplog.text


async def test_a_bind_without_tls_beside_one_with(certificate: str) -> None:
    """Hypercorn's `insecure_bind`."""
    config = Config()
    config.insecure_bind = [HERE]
    async with running(HTTPServer(hello, HERE, config=config, certfile=certificate)) as process:
        secure, insecure = process.value
        assert secure.startswith("https://")
        async with httpx2.AsyncClient() as client:
            assert (await client.get(insecure)).text == "hello"


async def test_a_certificate_that_is_missing_is_an_error_before_ready(tmp_path: pathlib.Path) -> None:
    """Nothing is bound."""
    async with running(HTTPServer(hello, HERE, certfile=str(tmp_path / "none.pem"))) as process:
        with pytest.raises(FileNotFoundError):
            await process.end()
    assert not process.was_ready


# How it is made


async def test_it_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """Hypercorn would say where it runs and how to quit; the log goes to `logging`."""
    async with running(HTTPServer(App(), HERE)) as process, httpx2.AsyncClient() as client:
        await client.get(f"{process.value[0]}/fail")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("hypercorn.error").handlers == []


async def test_a_configuration_may_say_where_the_log_goes(tmp_path: pathlib.Path) -> None:
    """What is set is kept, and the object that was given is not changed."""
    config = Config()
    config.errorlog = logger = logging.getLogger("mine")
    config.bind = [HERE]
    runner = HTTPServer(hello, config=config)
    assert runner.config.errorlog is logger
    assert runner.bind == (HERE,)
    assert HTTPServer(hello, ":80", config=config).bind == (":80",)
    assert config.bind == [HERE]
    config.errorlog = "-"
    assert HTTPServer(hello, config=config).config.errorlog == "-"


def test_what_it_binds_by_default() -> None:
    """Hypercorn's default."""
    assert HTTPServer(hello).bind == ("127.0.0.1:8000",)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: HTTPServer(App, HERE), TypeError, "is not an ASGI app"),  # type: ignore[arg-type]  # the mistake that is tested
        (lambda: HTTPServer("app:app", HERE), TypeError, "'app:app' is not an ASGI app"),  # type: ignore[arg-type]  # likewise
        (lambda: HTTPServer(hello, HERE, keyfile="key.pem"), ValueError, "keyfile= needs certfile="),
        (lambda: HTTPServer(hello, []), ValueError, "there is nothing to bind"),
        (lambda: HTTPServer(hello, config=with_config(quic_bind=HERE)), ValueError, "quic_bind is not served"),
        (lambda: HTTPServer(hello, config=with_config(insecure_bind="here")), ValueError, "'here' is not 'host:port'"),
    ],
)
def test_bad_arguments_are_refused(make: Any, error: type[Exception], message: str) -> None:
    """When it is made, not when it is run."""
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "bind", ["", "localhost", "http://here:80", "::1:80", "here:80:81", "here:65536", "here:-1", "unix:", "fd://x"]
)
def test_a_bind_that_cannot_be_read_is_refused(bind: str) -> None:
    """With the forms that can."""
    with pytest.raises(ValueError, match="is not 'host:port'"):
        HTTPServer(hello, bind)


def test_without_hypercorn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is made; the package imports without it."""
    import_module = builtins.__import__

    def no_hypercorn(name: str, *args: Any) -> Any:
        if name.startswith("hypercorn"):
            raise ModuleNotFoundError(name)
        return import_module(name, *args)

    monkeypatch.setattr(builtins, "__import__", no_hypercorn)
    with pytest.raises(ImportError, match=r"pip install 'trio-grouper\[http\]'"):
        HTTPServer(hello)
