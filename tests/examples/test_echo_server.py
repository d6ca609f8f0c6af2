"""The README's first example."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Generator

import pytest
import trio

from .program import EXAMPLES, ROOT, Program, started

pytestmark = pytest.mark.real_time


@contextlib.contextmanager
def reserved_port() -> Generator[int]:
    """A port of the kernel's choice, which nobody else gets during the block: it is bound, but nobody listens on it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


async def connect(program: Program, port: int) -> trio.SocketStream:
    await program.line("the root is ready")
    return await trio.open_tcp_stream("127.0.0.1", port)


async def refusal(port: int) -> None:
    """Try until a connection is refused: nothing else tells that the server was told to stop."""
    with contextlib.suppress(OSError):
        while True:
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()


async def echoed(stream: trio.SocketStream, line: bytes) -> bytes:
    await stream.send_all(line)
    received = b""
    while len(received) < len(line):
        data = await stream.receive_some()
        assert data, f"closed after {received!r}"
        received += data
    return received


async def test_it_echoes() -> None:
    """A line comes back."""
    with reserved_port() as port:
        async with started("echo_server.py", port) as program, await connect(program, port) as stream:
            assert await echoed(stream, b"hello\n") == b"hello\n"


async def test_a_connection_in_progress_ends_before_the_program_does() -> None:
    """After SIGTERM it refuses others, but still echoes to whoever is connected; it exits, with 0, when they have gone."""
    with reserved_port() as port:
        async with started("echo_server.py", port) as program:
            async with await connect(program, port) as stream:
                assert await echoed(stream, b"before\n") == b"before\n"
                program.signal(signal.SIGTERM)
                await refusal(port)
                assert await echoed(stream, b"after\n") == b"after\n"
            assert await program.end() == 0


async def test_it_stops_in_the_reverse_order_of_its_start() -> None:
    """The cache is ready before the server and ends after it, when it has saved."""
    with reserved_port() as port:
        async with started("echo_server.py", port) as program:
            await program.line("the root is ready")
            program.signal(signal.SIGINT)
            assert await program.end() == 0
    assert program.told("member ('(?:cache|server)' (?:is ready|exited))") == [
        "'cache' is ready",
        "'server' is ready",
        "'server' exited",
        "'cache' exited",
    ]
    assert program.told("the cache is (.*)") == ["warm", "saved"]


def test_it_is_what_the_readme_shows() -> None:
    """The README's first block of Python is this program, without its docstring."""
    shown = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    docstring, _, code = (EXAMPLES / "echo_server.py").read_text().partition("\n\n")
    assert docstring.startswith('"""')
    assert shown == code
