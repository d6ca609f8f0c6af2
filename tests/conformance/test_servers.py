"""What servers promise (section 1.12 of the contract), on real sockets of this host."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import httpx2
import pytest
import trio
import trustme

import grouper
from grouper import HTTPServer, Process, TCPServer

from .runners import watched

pytestmark = pytest.mark.real_time

CA = trustme.CA()
Make: TypeAlias = Callable[["Place"], HTTPServer]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app that says hello."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@attrs.define(eq=False)
class Slow:
    """An ASGI app whose answer takes until it may end."""

    asked: trio.Event = attrs.field(factory=trio.Event)
    go: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.asked.set()
            await self.go.wait()
        await hello(scope, receive, send)


@attrs.define
class Place:
    """A directory for a test's certificate and sockets."""

    path: Path

    @property
    def certificate(self) -> str:
        path = self.path / "cert.pem"
        if not path.exists():
            CA.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def plain(place: Place, app: Any = hello, port: int = 0) -> HTTPServer:
    return HTTPServer(app, f"127.0.0.1:{port}")


def with_tls(place: Place, app: Any = hello, port: int = 0) -> HTTPServer:
    return HTTPServer(app, f"127.0.0.1:{port}", certfile=place.certificate)


def on_unix(place: Place, app: Any = hello, port: int = 0) -> HTTPServer:
    return HTTPServer(app, f"unix:{place.path}/http.sock")


def on_unix_with_tls(place: Place, app: Any = hello, port: int = 0) -> HTTPServer:
    return HTTPServer(app, f"unix:{place.path}/http.sock", certfile=place.certificate)


FORMS = pytest.mark.parametrize("make", [plain, with_tls, on_unix, on_unix_with_tls])
Form: TypeAlias = Callable[..., HTTPServer]


def client(process: Process) -> httpx2.AsyncClient:
    """A client whose requests to "/" go to the server."""
    (url,) = process.value
    scheme, _, rest = url.partition("://")
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=CA.cert_pem.bytes().decode())
    path = rest.removeprefix("unix:") if rest.startswith("unix:") else None
    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=path, verify=context),
        base_url=f"{scheme}://localhost" if path is not None else url,
        timeout=30,
    )


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def port_of(process: Process) -> int:
    return int(process.value[0][1])


@pytest.mark.contract("70")
@FORMS
async def test_70_a_server_that_cannot_bind_fails_before_it_is_ready(make: Form, place: Place) -> None:
    """The error of the bind is the server's, whatever it binds to, and it was never ready."""
    async with watched(make(place), seconds=20) as first:
        url: str = (await first.wait_ready())[0]
        port = 0 if "unix:" in url else int(url.rpartition(":")[2])
        async with watched(make(place, port=port), seconds=20) as second:
            exit = await second.wait()
            assert isinstance(exit.error, OSError)
            assert not exit.was_ready


@pytest.mark.contract("70")
async def test_70_a_tcp_server_that_cannot_bind_fails_before_it_is_ready() -> None:
    """The error of the bind is the server's, and it was never ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with watched(TCPServer(echo, taken.getsockname()[1], host="127.0.0.1"), seconds=20) as process:
            exit = await process.wait()
    assert isinstance(exit.error, OSError)
    assert not exit.was_ready


@pytest.mark.contract("71")
@FORMS
async def test_71_a_ready_server_answers(make: Form, place: Place) -> None:
    """A request that is sent as soon as the server is ready is answered."""
    with trio.fail_after(60):
        async with grouper.invoke(make(place)) as process, client(process) as http:
            response = await http.get("/")
            assert (response.status_code, response.text) == (200, "hello")


@pytest.mark.contract("71")
async def test_71_a_ready_tcp_server_answers() -> None:
    """A connection that is made as soon as the server is ready is served."""
    with trio.fail_after(60):
        async with grouper.invoke(TCPServer(echo, 0, host="127.0.0.1")) as process:
            stream = await trio.open_tcp_stream("127.0.0.1", port_of(process))
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
            await stream.aclose()


@pytest.mark.contract("72")
@FORMS
async def test_72_a_stop_signal_lets_requests_under_way_finish(make: Form, place: Place) -> None:
    """From the stop signal on new requests fail; the one under way is answered; then the server ends cleanly."""
    app = Slow()
    responses: list[httpx2.Response] = []
    async with watched(make(place, app), seconds=20) as process, trio.open_nursery() as nursery:
        await process.wait_ready()

        async def ask() -> None:
            async with client(process) as http:
                responses.append(await http.get("/"))

        nursery.start_soon(ask)
        await app.asked.wait()
        process.signal(signal.SIGTERM)
        await refuses(process)
        assert process.exit is None
        app.go.set()
        assert (await process.wait()).ok
    assert [response.text for response in responses] == ["hello"]


async def refuses(process: Process) -> None:
    """Wait until a new request fails, which is not one that gets no answer."""
    while True:
        try:
            async with client(process) as http:
                await http.get("/", timeout=5)
        except (httpx2.NetworkError, httpx2.RemoteProtocolError):
            return
        await trio.sleep(0.01)


@pytest.mark.contract("72")
async def test_72_a_pass_through_signal_stops_no_server(place: Place) -> None:
    """A signal that is no stop signal leaves the server as it is."""
    with trio.fail_after(60):
        async with grouper.invoke(plain(place)) as process, client(process) as http:
            process.signal(signal.SIGHUP)
            assert (await http.get("/")).text == "hello"
            assert process.exit is None


@pytest.mark.contract("73")
async def test_73_a_tls_server_answers_plain_http_with_400(place: Place) -> None:
    """Whoever speaks plain HTTP to a TLS server gets the answer 400, in plain HTTP."""
    with trio.fail_after(60):
        async with grouper.invoke(with_tls(place)) as process, httpx2.AsyncClient(timeout=30) as http:
            response = await http.get(process.value[0].replace("https:", "http:"))
            assert response.status_code == 400
