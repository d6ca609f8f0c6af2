"""Sockets, HTTP and files, real ones: what is ready, what is not yet, what never will be."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import HTTPServer, NotReady
from grouper.readiness import Check, CheckFailed, CheckTimeout, file, http, poll, probe, tcp, unix

from ..runners.running import running

pytestmark = pytest.mark.real_time


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def place() -> Generator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


async def cancelled_within(check: Check[Any]) -> None:
    """Cancel a check that waits, and see that the cancellation is all that comes out."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def cancel() -> None:
                await wait_all_tasks_blocked(0.05)
                scope.cancel()

            nursery.start_soon(cancel)
            await probe(check, timeout=60)
        assert scope.cancelled_caught


# tcp


async def test_tcp_is_ready_when_somebody_listens() -> None:
    """The connection is closed at once."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        await probe(tcp("127.0.0.1", listener.socket.getsockname()[1]))
        stream = await listener.accept()
        async with stream:
            assert await stream.receive_some() == b""


async def test_tcp_of_a_name() -> None:
    """It is looked up."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        await probe(tcp("localhost", listener.socket.getsockname()[1]))


async def test_tcp_is_not_ready_where_nobody_listens() -> None:
    """The reason is the operating system's."""
    port = free_port()
    with pytest.raises(NotReady, match=rf"^check 'tcp 127.0.0.1:{port}' is not ready: .*[Rr]efused") as told:
        await probe(tcp("127.0.0.1", port))
    assert isinstance(told.value.__cause__, NotReady)
    assert isinstance(told.value.__cause__.__cause__, OSError)


async def test_tcp_of_a_name_that_nobody_knows_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be known when what it names has started."""

    async def unknown(*args: object, **kwargs: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", unknown)
    with pytest.raises(NotReady, match="'tcp db:5432' is not ready: Name or service not known"):
        await probe(tcp("db", 5432))


async def test_tcp_of_what_is_no_name_has_failed() -> None:
    """Waiting does not cure that."""
    with pytest.raises(CheckFailed, match=r"Unicode(Encode)?Error"):
        await probe(tcp("x" * 70 + ".example", 80))


async def test_a_poll_sees_the_server_come() -> None:
    """Which is what all this is for."""
    port = free_port()
    refused = trio.Event()

    async def check() -> None:
        try:
            await tcp("127.0.0.1", port)()
        except NotReady:
            refused.set()
            raise

    async def serve() -> None:
        await refused.wait()
        await trio.serve_tcp(trio.aclose_forcefully, port, host="127.0.0.1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await poll(check, every=0.01, timeout=60)
        nursery.cancel_scope.cancel()


async def test_tcp_can_be_cancelled_while_it_connects() -> None:
    """To a server whose queue is full, which does not answer at all; an open socket would be a warning, and so an error here."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        check = tcp(*listener.getsockname())
        await cancelled_within(check)
        with pytest.raises(CheckTimeout):
            await probe(check, timeout=0.01)


# unix


async def test_unix_is_ready_when_somebody_listens(place: Path) -> None:
    """The connection is closed at once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "s"))
        with pytest.raises(NotReady, match=r"[Rr]efused"):
            await probe(unix(place / "s"))
        listener.listen()
        await probe(unix(place / "s"))
        await probe(unix(str(place / "s")))
        with listener.accept()[0] as accepted:
            assert accepted.recv(1) == b""


async def test_unix_is_not_ready_without_a_file_or_a_listener(place: Path) -> None:
    """Neither a path where nothing is, nor a socket that was left behind."""
    with pytest.raises(NotReady, match=r"'unix .*/s' is not ready: No such file"):
        await probe(unix(place / "s"))
    (place / "s").touch()
    with pytest.raises(NotReady, match=r"[Rr]efused"):
        await probe(unix(place / "s"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a connection is refused")
async def test_unix_is_not_ready_if_its_queue_is_full(place: Path) -> None:
    """Trio takes that for a connection."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(place / "s"))
        listener.listen(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(place / "s"))
        with pytest.raises(NotReady, match="queue of connections is full"):
            await probe(unix(place / "s"))


async def test_unix_with_a_path_that_is_too_long_has_failed(place: Path) -> None:
    """Waiting does not make it shorter."""
    with pytest.raises(CheckFailed, match="too long"):
        await probe(unix(place / ("x" * 200)))


async def test_unix_where_there_are_none_says_so(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """And what to do."""
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(CheckFailed, match=r"no Unix sockets on this platform: use tcp\(host, port\)"):
        await probe(unix(place / "s"))


# http


@attrs.define(eq=False)
class Web:
    """A server that answers each request with its status, and counts the requests."""

    status: int = 200
    requests: int = 0
    answers: bool = True
    gone: trio.Event = attrs.field(factory=trio.Event)
    url: str = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            while b"\r\n\r\n" not in await stream.receive_some():
                pass
            self.requests += 1
            if not self.answers:
                assert await stream.receive_some() == b""
                self.gone.set()
                return
            await stream.send_all(
                f"HTTP/1.1 {self.status} x\r\nlocation: /elsewhere\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".encode()
            )


@contextlib.asynccontextmanager
async def serving(web: Web) -> AsyncGenerator[Web]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        web.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/health"
        nursery.start_soon(trio.serve_listeners, web.handle, [listener])
        yield web
        nursery.cancel_scope.cancel()


async def test_http_is_ready_with_an_answer() -> None:
    """Which is its value."""
    async with serving(Web()) as web:
        response = await probe(http(web.url))
        assert response.status_code == 200
        assert isinstance(response, httpx2.Response)
        assert response.text == "ok"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_http_asks_this_machine_without_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says is for what is far away."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serving(Web()) as web:
        assert (await probe(http(web.url.replace("127.0.0.1", host)))).status_code == 200


async def test_http_with_a_server_of_ours() -> None:
    """From the first moment in which it is ready."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with running(HTTPServer(app, "127.0.0.1:0")) as process:
        await probe(http(process.value[0], status=[204]))


@pytest.mark.parametrize(("status", "ready"), [(200, True), (302, True), (399, True), (400, False), (404, False), (503, False)])
async def test_http_takes_200_to_399_for_ready(status: int, ready: bool) -> None:
    """A redirect is an answer, and is not followed."""
    async with serving(Web(status)) as web:
        if ready:
            await probe(http(web.url))
        else:
            with pytest.raises(NotReady, match=f"the status is {status}$"):
                await probe(http(web.url))
        assert web.requests == 1


async def test_http_with_other_statuses() -> None:
    """Any collection of them."""
    async with serving(Web(404)) as web:
        await probe(http(web.url, status={404}))
        with pytest.raises(NotReady):
            await probe(http(web.url, status=range(200, 300)))


async def test_http_is_not_ready_without_a_connection() -> None:
    """With the reason of the operating system."""
    port = free_port()
    with pytest.raises(NotReady, match=rf"^check 'http http://127.0.0.1:{port}/' is not ready: .*[Rr]efused"):
        await probe(http(f"http://127.0.0.1:{port}/"))


async def test_http_is_not_ready_with_a_server_that_closes_the_connection() -> None:
    """As one does that is just starting."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, trio.aclose_forcefully, [listener])
        with pytest.raises(NotReady):
            await probe(http(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"))
        nursery.cancel_scope.cancel()


async def test_http_can_be_cancelled_while_it_waits_for_the_answer() -> None:
    """Its connection is closed."""
    async with serving(Web(answers=False)) as web:
        await cancelled_within(http(web.url))
        await web.gone.wait()


async def test_http_has_no_time_limit_but_the_probes() -> None:
    """The client's own is off."""
    async with serving(Web(answers=False)) as web:
        with pytest.raises(CheckTimeout):
            await probe(http(web.url), timeout=0.1)


@pytest.mark.parametrize(("scheme", "verify"), [("http", False), ("https", True), ("HTTPS", True)])
async def test_http_makes_a_client_that_verifies_and_waits(monkeypatch: pytest.MonkeyPatch, scheme: str, verify: bool) -> None:
    """It has no time limit of its own; certificates are loaded where there are some to verify, and not elsewhere."""
    made: list[dict[str, Any]] = []

    class Noted(httpx2.AsyncClient):
        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__(transport=httpx2.MockTransport(lambda request: httpx2.Response(200)), **options)

    monkeypatch.setattr(httpx2, "AsyncClient", Noted)
    await probe(http(f"{scheme}://x/"))
    assert made == [{"timeout": None, "verify": verify, "trust_env": True}]


async def test_http_with_a_client_of_ones_own() -> None:
    """It is not closed, and what it can do with a URL can be done."""
    async with serving(Web()) as web, httpx2.AsyncClient(base_url=web.url.removesuffix("/health")) as client:
        check = http("/health", client=client)
        assert check.name == "http /health"
        await probe(check)
        await probe(check)
        assert not client.is_closed
        web.status = 500
        with pytest.raises(NotReady):
            await probe(check)
    with pytest.raises(CheckFailed, match="RuntimeError"):
        await probe(check)  # it is closed now, and does not open again


@attrs.frozen
class Answer:
    status_code: int


@attrs.define
class Client:
    """A client that has nothing to do with httpx."""

    outcome: int | Exception
    asked: list[str] = attrs.field(factory=list[str])

    async def get(self, url: str) -> Answer:
        self.asked.append(url)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Answer(self.outcome)


class TransportError(Exception):
    """What httpx and httpx2 call the base of their errors of a connection."""


async def test_http_with_any_client() -> None:
    """It needs a `get` whose answer has a `status_code`."""
    client = Client(200)
    assert await probe(http("any:thing", client=client)) == Answer(200)
    assert client.asked == ["any:thing"]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("gone"),
        trio.BrokenResourceError("gone"),
        trio.TooSlowError("gone"),
        TransportError("gone"),
        httpx2.ReadTimeout("gone"),
        ExceptionGroup("", [OSError("gone")]),
    ],
)
async def test_http_is_not_ready_with_what_clients_raise_for_connections(error: Exception) -> None:
    """Also of a client whose classes are not known."""
    with pytest.raises(NotReady, match="gone"):
        await probe(http("x", client=Client(error)))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("never"),
        httpx2.UnsupportedProtocol("never"),
        httpx2.LocalProtocolError("never"),
        httpx2.InvalidURL("never"),
        ExceptionGroup("", [OSError("gone"), ValueError("never")]),
    ],
)
async def test_http_has_failed_with_what_cannot_be_requested(error: Exception) -> None:
    """Waiting does not cure that."""
    with pytest.raises(CheckFailed, match="never"):
        await probe(http("x", client=Client(error)))


def test_http_does_not_tell_the_password() -> None:
    """Neither in its name nor in its repr."""
    check = http("http://me:secret@localhost:80/x?y=1")
    assert check.name == "http http://localhost:80/x?y=1"
    assert "secret" not in repr(check)


def test_http_without_httpx2_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is made; with a client it needs none."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    http("http://x/", client=Client(200))
    with pytest.raises(ImportError, match=r"pip install 'trio-grouper\[http\]'"):
        http("http://x/")


def test_the_package_is_imported_without_extras() -> None:
    """httpx2 is imported when a check needs it."""
    code = "import sys, grouper.readiness; print('httpx2' in sys.modules, 'hypercorn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False False\n"


# file


async def test_file_is_ready_when_there_is_something(tmp_path: Path) -> None:
    """A file or a directory, by a path of either kind."""
    (tmp_path / "here").touch()
    for path in (tmp_path / "here", str(tmp_path / "here"), tmp_path):
        await probe(file(path))


async def test_file_is_not_ready_when_there_is_nothing(tmp_path: Path) -> None:
    """Also where the directory is missing, or a link leads nowhere."""
    (tmp_path / "here").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for path in ("there", "a/b", "here/b", "link"):
        with pytest.raises(NotReady, match=rf"^check 'file .*/{path}' is not ready: there is no such file$"):
            await probe(file(tmp_path / path))


async def test_file_has_failed_where_it_may_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting rarely cures that."""

    def denied(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(CheckFailed, match="Permission denied"):
        await probe(file("/secret/x"))


async def test_file_with_a_path_that_cannot_be_has_failed() -> None:
    """No file is called so."""
    with pytest.raises(CheckFailed, match="ValueError"):
        await probe(file("a\0b"))


# All


def test_names() -> None:
    """They say what is looked at."""
    assert tcp("127.0.0.1", 5432).name == "tcp 127.0.0.1:5432"
    assert tcp("::1", 5432).name == "tcp [::1]:5432"
    assert unix("/run/x").name == "unix /run/x"
    assert http("https://x/y").name == "http https://x/y"
    assert file(Path("a") / "b").name == f"file {Path('a', 'b')}"


def test_checks_are_values() -> None:
    """Two of the same are equal, and nobody changes one."""
    assert tcp("x", 1) == tcp("x", 1) != tcp("x", 2)
    assert {file("x"), file("x")} == {file("x")}
    for check in (tcp("x", 1), unix("x"), http("http://x"), file("x")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            check.path = "y"  # type: ignore


@pytest.mark.parametrize(
    ("make", "given", "kind", "told"),
    [
        (tcp, (5, 80), TypeError, "tcp: host=5 is not a string"),
        (tcp, ("", 80), ValueError, "tcp: the host is empty"),
        (tcp, ("x", "80"), TypeError, "tcp: port='80' is not a number"),
        (tcp, ("x", True), TypeError, "tcp: port=True is not a number"),
        (tcp, ("x", 0), ValueError, "tcp: port=0 is not a port"),
        (tcp, ("x", 65536), ValueError, "tcp: port=65536 is not a port"),
        (unix, (5,), TypeError, "unix: 5 is not a path"),
        (unix, (b"x",), TypeError, "unix: b'x' is not a path"),
        (unix, ("",), ValueError, "unix: the path is empty"),
        (file, (None,), TypeError, "file: None is not a path"),
        (http, (5,), TypeError, "http: 5 is not a URL"),
        (http, ("localhost:80",), ValueError, "http: 'localhost:80' is not a URL that begins with http://"),
        (http, ("ftp://x/",), ValueError, "is not a URL that begins with http://"),
        (http, ("http:///x",), ValueError, "is not a URL that begins with http:// or https:// and a host"),
    ],
)
def test_bad_arguments_are_refused_by_name(make: Any, given: tuple[Any, ...], kind: type[Exception], told: str) -> None:
    """When the check is made."""
    with pytest.raises(kind, match=f"{told}"):
        make(*given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"status": 204}, r"http: status=204 is not a collection of numbers: write status=\[204\] for one"),
        ({"status": "204"}, "http: status='204' is not a collection"),
        ({"client": 5}, r"http: client=5 has no `get\(url\)`"),
    ],
)
def test_http_refuses_bad_options_by_name(given: dict[str, Any], told: str) -> None:
    """When the check is made."""
    with pytest.raises(TypeError, match=told):
        http("http://x/", **given)
