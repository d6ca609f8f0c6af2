"""A connection, a cache and consumers, whose server is killed and revived."""

from __future__ import annotations

import contextlib
import importlib
import re
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import pytest
import trio

import grouper

from .program import Program, started

pytestmark = [pytest.mark.real_time, pytest.mark.skipif(sys.platform == "win32", reason="it is told by signals")]

flaky_upstreams: Any = importlib.import_module("examples.flaky_upstreams")

GROUP = "prices"
CONSUMERS = {f"{GROUP}/cheapest", f"{GROUP}/total"}
MEMBERS = ["connection", "cache", "cheapest", "total"]


@attrs.define(eq=False)
class Server:
    """Tells whoever connects the prices, and what else there is to tell; dead or alive it has the same port."""

    nursery: trio.Nursery
    port: int
    streams: list[trio.SocketStream] = attrs.field(factory=list[trio.SocketStream])
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def revive(self) -> None:
        self._life = await self.nursery.start(self._live)

    def kill(self) -> None:
        """With its connections. The port stays bound, so that nobody else gets it, and refuses."""
        self._life.cancel("the server is killed")

    async def tell(self, line: str) -> None:
        await self.streams[-1].send_all(line.encode() + b"\n")

    async def _live(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.streams.append(stream)
        await stream.send_all(b"tea 3\ncake 5\n")
        await trio.sleep_forever()


@contextlib.asynccontextmanager
async def serving() -> AsyncGenerator[Server]:
    """A server that lives."""
    with trio.socket.socket() as holder:
        holder.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await holder.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            server = Server(nursery, holder.getsockname()[1])
            await server.revive()
            yield server
            nursery.cancel_scope.cancel("the test is over")


@contextlib.asynccontextmanager
async def consuming(server: Server, *, limit: int = 1000) -> AsyncGenerator[Program]:
    """The program, once it is whole and has told so."""
    async with started("flaky_upstreams.py", f"127.0.0.1:{server.port}", "--limit", limit) as program:
        for last in ("the root is ready", f"member '{GROUP}' is ready", "^  total +ready ", "^one of each is 8$"):
            await program.line(last)
        yield program


async def stop(program: Program) -> None:
    """Stop it politely: status 0, in stop order."""
    program.lines.clear()
    program.signal(signal.SIGTERM)
    assert await program.end() == 0
    exited = program.told("^member '(.*)' exited$")
    assert exited[2:] == [f"{GROUP}/cache", f"{GROUP}/connection", GROUP, "screen"]
    assert set(exited[:2]) == CONSUMERS


def trees(program: Program, headline: str) -> list[dict[str, str]]:
    """The states by member of each tree that follows such a line."""
    lines = program.lines
    found = [number for number, line in enumerate(lines) if re.search(headline, line)]
    return [{line.split()[0]: line.split()[1] for line in lines[number + 2 : number + 6]} for number in found]


async def test_all_that_depends_on_a_lost_connection_is_restarted_in_order() -> None:
    """Stopped in stop order, tried until the server lives again, started in start order; the tree is shown as it heals."""
    async with serving() as server, consuming(server) as program:
        program.lines.clear()
        server.kill()
        await program.line(r"^member '.*/connection' is restarted in .* s \(2 of 1000 used\)$")  # it was refused once
        exited = program.told("^member '(.*)' exited$")
        assert set(exited[:2]) == CONSUMERS
        assert exited[2:] == [f"{GROUP}/cache"]
        assert program.told(" failed after .*, (never restarted)$") == ["never restarted"]
        await server.revive()
        await program.line("^it is whole$")
        await program.line("^one of each is 8$")
        await program.line("^  total +ready ")
        ready = program.told("^member '(.*)' is ready$")
        assert ready[:2] == [f"{GROUP}/connection", f"{GROUP}/cache"]
        assert set(ready[2:]) == CONSUMERS
        assert all(tree["connection"] != "ready" for tree in trees(program, r"^it heals: .* \(1 of 1000 used\)$"))
        assert trees(program, "^it is whole$") == [dict.fromkeys(MEMBERS, "ready")]
        await stop(program)


async def test_what_fails_alone_takes_only_what_depends_on_it() -> None:
    """A line of nonsense restarts the cache and the consumers; the connection stays as it is."""
    async with serving() as server, consuming(server) as program:
        program.lines.clear()
        await server.tell("tea for two")
        await program.line(r"^member '.*/cache' is restarted in .* s \(1 of 1000 used\)$")
        await server.tell("milk 1")
        await program.line("^  total +ready ")
        assert "connection" not in " ".join(program.told("^member '(.*)' (?:started|exited)"))
        await program.line("^one of each is 1$")
        await stop(program)
        assert len(server.streams) == 1


async def test_sigusr1_prints_the_whole_tree() -> None:
    """From the root, to stderr; everything goes on."""
    async with serving() as server, consuming(server) as program:
        program.lines.clear()
        program.signal(signal.SIGUSR1)
        await program.line("^    total +ready ")
        assert program.told(r"^ *(\S+) +ready ") == ["root", "screen", "prices", *MEMBERS]
        await stop(program)


async def test_it_gives_up_if_the_server_never_comes_back() -> None:
    """After as many restarts as are allowed; it says so, and which error was the last; status 1."""
    async with serving() as server, consuming(server, limit=3) as program:
        server.kill()
        assert await program.end() == 1
    assert program.told(rf"^member '{GROUP}/connection' is restarted in .* s \((. of 3) used\)$") == ["1 of 3", "2 of 3", "3 of 3"]
    assert program.told("RestartLimitExceeded: (the group '.*'), whose member '.*' failed again, gave up after 3 restarts")
    assert program.told("(all attempts to connect to 127.0.0.1:.* failed)")


async def test_a_server_that_is_not_there_at_first_fails_the_start() -> None:
    """With status 1 and no restart: the address may be wrong."""
    async with serving() as server:
        server.kill()
        async with started("flaky_upstreams.py", f"127.0.0.1:{server.port}") as program:
            assert await program.end() == 1
    assert program.told("(is restarted in)") == []


def test_a_price_is_what_ends_in_a_number() -> None:
    """The item may have spaces in it; what has no price is refused, and nothing is forgotten by that."""
    cache = flaky_upstreams.Cache(flaky_upstreams.Connection("127.0.0.1", 1))
    cache.take("green tea 3.5")
    with pytest.raises(ValueError, match="could not convert"):
        cache.take("green tea")
    assert cache.prices == {"green tea": 3.5}


def test_the_group_is_a_rest_group() -> None:
    """Which counts the restarts."""
    group = flaky_upstreams.prices("127.0.0.1", 1, 3)
    assert group.strategy is grouper.Strategy.REST
    assert group.restart.limit == 3
    assert [member.name for member in group.members] == MEMBERS
