"""Prices from a server that comes and goes: `python flaky_upstreams.py 127.0.0.1:9000`.

A server to play with is `nc -l 9000`: type `tea 3`, end it, start it again.

    screen           shows the other as it heals
    prices           Graph, Strategy.REST: with a member that fails, what depends on it is restarted, and nothing else
      connection       TCP to the server; fails when the server closes it, or cannot be reached
      cache            the last price of each item, by the lines of this connection; ready when there is one, fails at nonsense
      cheapest         tells which item is the cheapest
      total            tells what one of each costs

A start that fails ends the program, a connection that was lost is opened again, later and later. If that does not help, the group
gives up and the program ends with status 1. The tree is printed at each step on the way, and whenever SIGUSR1 asks for it.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable

import attrs
import trio

import grouper


@attrs.define(eq=False)
class Connection:
    """Open until the server closes it, which is a failure. Each life has lines of its own: an old connection's are nobody's."""

    host: str
    port: int
    lines: trio.MemoryReceiveChannel[str] = attrs.field(init=False)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[str]) -> None:
        received, self.lines = trio.open_memory_channel[str](100)
        rest = b""
        with signals.cancelling():
            async with await trio.open_tcp_stream(self.host, self.port) as stream:
                task_status.started(f"{self.host}:{self.port}")
                async for data in stream:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        await received.send(line.decode(errors="replace"))
                raise ConnectionError("the server has closed the connection")


@attrs.define(eq=False)
class Cache:
    """What the connection has told so far. Empty at each start: what was true before it may not be so any more."""

    connection: Connection
    prices: dict[str, float] = attrs.field(factory=dict[str, float], init=False)
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        self.prices = {}
        with signals.cancelling():
            self.take(await self.connection.lines.receive())
            task_status.started()
            async for line in self.connection.lines:
                self.take(line)

    def take(self, line: str) -> None:
        """Note a price. Raises: ValueError if it is none."""
        item, _, price = line.rpartition(" ")
        self.prices[item] = float(price)
        self.changed.set()
        self.changed = trio.Event()


@attrs.frozen(eq=False)
class Consumer:
    """Tells what follows from the prices, now and whenever they change."""

    cache: Cache
    text: Callable[[dict[str, float]], str]

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with signals.cancelling():
            while True:
                print(self.text(self.cache.prices), flush=True)
                await self.cache.changed.wait()


def prices(host: str, port: int, limit: int) -> grouper.Graph:
    """The group that heals. It counts the restarts; its members say which of their failures a restart may mend."""
    connection = Connection(host, port)
    cache = Cache(connection)
    cheapest = Consumer(cache, lambda prices: f"the cheapest is {min(prices, key=prices.__getitem__)}")
    total = Consumer(cache, lambda prices: f"one of each is {sum(prices.values()):g}")
    lost = grouper.Restart(on=(OSError, trio.BrokenResourceError))
    nonsense = grouper.Restart(on=ValueError)
    return grouper.Graph(
        [
            grouper.Member("connection", connection, restart=lost),
            grouper.Member("cache", cache, after="connection", restart=nonsense),
            grouper.Member("cheapest", cheapest, after="cache"),
            grouper.Member("total", total, after="cache"),
        ],
        strategy=grouper.Strategy.REST,
        restart=grouper.Restart(limit=limit, period=60, backoff=grouper.Backoff(0.1, cap=5)),
    )


async def screen(signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
    """Print the tree at each restart, and when it is whole again."""
    process = grouper.tree_of(signals)["prices"]
    task_status.started()
    was_whole = False
    with signals.cancelling():
        async with process.events() as stream:
            async for event in stream:
                if isinstance(event, grouper.RestartEvent):
                    was_whole = False
                    print(f"it heals: {event}\n{process.snapshot().render()}", flush=True)
                elif not was_whole and all(child.state is grouper.State.READY for child in process.children):
                    was_whole = True
                    print(f"it is whole\n{process.snapshot().render()}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Prices from a server that comes and goes.")
    parser.add_argument("address", help="of the server, HOST:PORT; it sends lines such as `tea 3`")
    parser.add_argument("--limit", type=int, default=10, help="restarts in a minute (default: %(default)s)")
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tree = grouper.Ordered([("screen", screen), ("prices", prices(host, int(port), options.limit))])
    return grouper.run(tree, snapshot_signal=signal.SIGUSR1)


if __name__ == "__main__":
    sys.exit(main())
