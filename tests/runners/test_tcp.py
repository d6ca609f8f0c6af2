"""A TCP server: its value, its drain, its errors."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import struct
from typing import Any

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from grouper.runners import TCPServer

from .running import Running, refused, running

pytestmark = pytest.mark.real_time


def port_of(process: Running) -> int:
    return int(process.value[0][1])


async def connect(process: Running) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port_of(process))


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def receive_all(stream: trio.abc.Stream) -> bytes:
    received = b""
    async for data in stream:
        received += data
    return received


class Handler:
    """Says hello, then waits to be let go; then says goodbye."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.cancelled = False

    async def __call__(self, stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello ")
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        await stream.send_all(b"goodbye")


def local(handler: Any, **others: Any) -> TCPServer:
    return TCPServer(handler, 0, host="127.0.0.1", **others)


async def test_its_value_is_where_it_listens() -> None:
    """The kernel's choice of a port is told, and connections are served when it is ready."""
    async with running(local(echo)) as process:
        ((host, port),) = process.value
        assert host == "127.0.0.1"
        assert port > 0
        stream = await connect(process)
        await stream.send_all(b"abc")
        await stream.send_eof()
        assert await receive_all(stream) == b"abc"
        await stream.aclose()


async def test_a_name_is_bound_on_each_of_its_addresses() -> None:
    """All are in the value."""
    expected = {address[0] for *_, address in await trio.socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    async with running(TCPServer(echo, 0, host="localhost", backlog=5)) as process:
        assert {address[0] for address in process.value} == expected


async def test_a_stop_signal_refuses_new_connections_and_drains_the_open_ones() -> None:
    """What was connected before gets all it would have got."""
    handler = Handler()
    async with running(local(handler)) as process:
        stream = await connect(process)
        assert await stream.receive_some(6) == b"hello "
        process.stop()
        await wait_all_tasks_blocked()
        assert await refused(port_of(process))
        assert not process.ended.is_set()
        handler.go.set()
        assert await receive_all(stream) == b"goodbye"
        await process.end()
        await stream.aclose()


async def test_a_stop_signal_ends_an_idle_server() -> None:
    """With no connection open there is nothing to wait for."""
    async with running(local(echo)) as process:
        process.stop()
        await process.end()
        assert await refused(port_of(process))


async def test_a_second_stop_signal_cancels_the_connections() -> None:
    """They are cut, and that is a clean exit."""
    handler = Handler()
    async with running(local(handler)) as process:
        stream = await connect(process)
        assert await stream.receive_some(6) == b"hello "
        process.stop()
        await wait_all_tasks_blocked()
        process.stop()
        await process.end()
        assert await receive_all(stream) == b""
        assert handler.cancelled
        await stream.aclose()


async def test_two_stop_signals_at_once_are_two() -> None:
    """Sent back to back, before anything could run in between, the second one still cuts."""
    handler = Handler()
    async with running(local(handler)) as process:
        stream = await connect(process)
        assert await stream.receive_some(6) == b"hello "
        process.stop()
        process.stop()
        await process.end()
        assert handler.cancelled
        await stream.aclose()


async def test_a_signal_that_stops_nothing_does_nothing() -> None:
    """HUP is dropped."""
    async with running(local(echo)) as process:
        process.signals.send(signal.SIGHUP)
        await wait_all_tasks_blocked()
        assert not await refused(port_of(process))


async def test_told_to_stop_before_the_start_it_binds_nothing() -> None:
    """It ends cleanly and was never ready."""
    async with running(local(echo), signal.SIGTERM) as process:
        await process.end()
    assert not process.was_ready


async def test_a_port_in_use_is_an_error_before_ready() -> None:
    """The error says which."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(TCPServer(echo, port, host="127.0.0.1")) as process:
            with pytest.raises(OSError, match="in use") as caught:
                await process.end()
    assert not process.was_ready
    assert caught.value.__notes__ == [f"while binding port {port} of 127.0.0.1"]


async def test_a_cancellation_closes_the_listener() -> None:
    """From outside, while nobody is connected; it goes through."""
    async with running(local(echo)) as process:
        process.scope.cancel()
        await process.end()
        assert process.scope.cancelled_caught
        assert await refused(port_of(process))


@pytest.mark.parametrize("draining", [False, True])
async def test_a_cancellation_cancels_the_connections(draining: bool) -> None:
    """From outside, before and after a stop signal; it goes through."""
    handler = Handler()
    async with running(local(handler)) as process:
        async with await connect(process) as stream:
            assert await stream.receive_some(6) == b"hello "
            if draining:
                process.stop()
                await wait_all_tasks_blocked()
            process.scope.cancel()
            await process.end()
            assert process.scope.cancelled_caught
            assert await receive_all(stream) == b""
        assert handler.cancelled
        assert await refused(port_of(process))


async def test_a_connection_that_fails_is_logged_and_the_server_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """With its peer and the traceback; the stream is closed."""

    async def fail(stream: trio.SocketStream) -> None:
        raise LookupError("gone")

    async with running(local(fail)) as process:
        for _ in range(2):
            async with await connect(process) as stream:
                assert await receive_all(stream) == b""
                peer = stream.socket.getsockname()
                await wait_all_tasks_blocked()
                assert caplog.records[-1].getMessage() == f"the connection from 127.0.0.1:{peer[1]} failed"
        assert not process.ended.is_set()
    assert [record.name for record in caplog.records] == ["grouper.tcp"] * 2
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [LookupError] * 2


async def test_a_peer_that_is_gone_before_it_is_served_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """It has no name any more; what the handler makes of it is logged."""
    async with running(local(Handler())) as process:
        with socket.create_connection(("127.0.0.1", port_of(process))) as reset:
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await wait_all_tasks_blocked(0.01)
        assert not process.ended.is_set()
    assert "the connection from a peer that is gone failed" in caplog.text


async def test_a_failure_in_the_moment_of_a_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A nursery of the handler's puts both in one group: the failure is told, the cancellation goes through."""

    async def fail(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await stream.send_all(b"hello")
            await trio.sleep_forever()

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("gone")

    async with running(local(fail)) as process:
        async with await connect(process) as stream:
            assert await stream.receive_some(5) == b"hello"
            process.scope.cancel()
            await process.end()
        assert process.scope.cancelled_caught
    (record,) = caplog.records
    assert "LookupError: gone" in caplog.text
    assert record.name == "grouper.tcp"


async def test_a_group_without_exceptions_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What ends the server is told by its end alone."""

    async def handle(stream: trio.SocketStream) -> None:
        raise BaseExceptionGroup("mine", [Exit()])

    async with running(local(handle)) as process, await connect(process):
        with pytest.raises(BaseExceptionGroup, match="mine"):
            await process.end()
    assert caplog.records == []


class Exit(BaseException):
    """Like KeyboardInterrupt, which pytest would take for itself."""


async def test_what_is_no_exception_ends_the_server() -> None:
    """It comes out as itself; the other connections are cancelled."""
    first = Handler()

    async def handle(stream: trio.SocketStream) -> None:
        if await stream.receive_some(1) == b"x":
            raise Exit
        await first(stream)

    async with running(local(handle)) as process:
        async with await connect(process) as stream, await connect(process) as other:
            await stream.send_all(b"-")
            assert await stream.receive_some(6) == b"hello "
            await other.send_all(b"x")
            with pytest.raises(Exit) as caught:
                await process.end()
        assert caught.value.__context__ is None
        assert first.cancelled
        assert await refused(port_of(process))


async def test_what_is_no_exception_comes_out_of_a_group_with_others(caplog: pytest.LogCaptureFixture) -> None:
    """A group of a handler's own stays the group that it is, but for the exceptions, which are logged."""

    async def handle(stream: trio.SocketStream) -> None:
        raise BaseExceptionGroup("mine", [Exit(), LookupError("gone")])

    async with running(local(handle)) as process, await connect(process):
        with pytest.raises(BaseExceptionGroup, match="mine") as caught:
            await process.end()
    assert [type(error) for error in caught.value.exceptions] == [Exit]
    assert "LookupError: gone" in caplog.text


@pytest.mark.parametrize("how", ["closed", "broken"])
async def test_a_listener_that_breaks_is_an_error(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither hangs nor ends cleanly; what the socket raised comes out as itself."""
    opened: list[trio.SocketListener] = []
    open_tcp_listeners = trio.open_tcp_listeners

    async def remember(*args: Any, **kwargs: Any) -> list[trio.SocketListener]:
        opened.extend(await open_tcp_listeners(*args, **kwargs))
        return list(opened)

    monkeypatch.setattr(trio, "open_tcp_listeners", remember)
    async with running(local(echo)) as process:
        await wait_all_tasks_blocked()
        if how == "closed":
            opened[0].socket.close()
        else:
            opened[0].socket.shutdown(socket.SHUT_RDWR)
        with pytest.raises(trio.ClosedResourceError if how == "closed" else OSError) as caught:
            await process.end()
    assert caught.value.__notes__ == ["while accepting connections"]
    assert caught.value.__context__ is None or not isinstance(caught.value.__context__, BaseExceptionGroup)


async def test_it_can_be_run_again_on_the_same_port() -> None:
    """Nothing of a run is kept in the runner or in the system."""
    async with running(local(echo)) as process:
        pass
    again = TCPServer(echo, port_of(process), host="127.0.0.1")
    for _ in range(2):
        async with running(again) as process:
            assert not await refused(port_of(process))
            process.stop()
            await process.end()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  # trustme's, half annotated
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  # trustme's, half annotated
    return context


async def test_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """With an `ssl_context` the handler speaks through TLS."""
    async with running(local(echo, ssl_context=server_tls)) as process:
        stream = trio.SSLStream(await connect(process), client_tls, server_hostname="127.0.0.1")
        await stream.send_all(b"abc")
        assert await stream.receive_some(3) == b"abc"
        await trio.aclose_forcefully(stream)


async def test_who_does_not_speak_tls_is_not_handled(server_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    """The handler is not called, the connection is closed, and it is no error of the server."""
    caplog.set_level(logging.INFO)
    called = False

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal called
        called = True

    async with running(local(handle, ssl_context=server_tls)) as process:
        async with await connect(process) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            await receive_all(stream)
        await wait_all_tasks_blocked()
        assert not process.ended.is_set()
    assert not called
    assert [(record.name, record.levelname) for record in caplog.records] == [("grouper.tcp", "INFO")]
    assert "no TLS with 127.0.0.1:" in caplog.text


async def test_who_does_not_finish_the_handshake_is_sent_away(server_tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    """A peer that connects and says nothing does not stay for ever."""
    caplog.set_level(logging.INFO)
    async with running(local(echo, ssl_context=server_tls, handshake_timeout=0.01)) as process, await connect(process) as stream:
        assert await receive_all(stream) == b""
    assert "it did not finish the handshake" in caplog.text


async def test_a_handshake_does_not_hold_up_the_stop(server_tls: ssl.SSLContext) -> None:
    """Who has said nothing yet is not in the middle of anything."""
    async with running(local(echo, ssl_context=server_tls)) as process, await connect(process) as stream:
        await wait_all_tasks_blocked()
        process.stop()
        await process.end()
        assert await receive_all(stream) == b""


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TCPServer(print, 0), TypeError, "print"),  # type: ignore[arg-type]  # the mistake that is tested
        (lambda: TCPServer(lambda stream: None, "80"), TypeError, "a port is a number"),  # type: ignore[arg-type]  # likewise
        (lambda: TCPServer(echo, True), TypeError, "a port is a number"),
        (lambda: TCPServer(echo, -1), ValueError, "from 0"),
        (lambda: TCPServer(echo, 65536), ValueError, "to 65535"),
    ],
)
def test_bad_arguments_are_refused(make: Any, error: type[Exception], message: str) -> None:
    """When it is made, not when it is run."""
    with pytest.raises(error, match=message):
        make()
