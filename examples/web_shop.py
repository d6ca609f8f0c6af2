"""A shop on HTTP: what a real `main()` looks like. `python web_shop.py shop.db`, then talk to it with the curl lines it prints.

    shop       Ordered: started from the top, stopped from the bottom
      store      orders in an SQLite file; an order is on the disk before it is answered
      workers    Parallel
        summary    every so often, tells the log how sales are
        shipping   ships what is ordered; told to stop, it first ships all that is in its queue
      http       the HTTP server; told to stop, it first answers the requests it has
      doors      the last to start and the first to stop: /health is 200 as long as it runs

One SIGTERM or Ctrl-C stops it in this order and it exits with 0; a second one stops it at once. Orders that were taken but not
shipped then are shipped at the next start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import attrs
import trio

import grouper

T = TypeVar("T")
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

log = logging.getLogger("shop")


@attrs.frozen
class Order:
    id: int
    item: str
    quantity: int
    shipped: bool


@attrs.define(eq=False)
class Store:
    """Orders in an SQLite file. What it is told is on the disk when the call returns; a call that has begun is not cut short."""

    path: Path
    _db: sqlite3.Connection = attrs.field(init=False)
    _turn: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1), init=False)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the file open until told to stop."""
        self._db = await trio.to_thread.run_sync(self._open)
        with contextlib.closing(self._db):
            task_status.started()
            await signals.wait()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # a commit waits for the disk
        db.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (id INTEGER PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL, shipped INTEGER NOT NULL DEFAULT 0)"
        )
        return db

    async def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transact() -> T:
            with self._db:
                return work(self._db)

        return await trio.to_thread.run_sync(transact, limiter=self._turn)

    async def add(self, item: str, quantity: int) -> int:
        """Write an order down and return its id."""
        insert = "INSERT INTO orders (item, quantity) VALUES (?, ?)"
        return await self._transact(lambda db: db.execute(insert, (item, quantity)).lastrowid or 0)

    async def orders(self, where: str = "true", *values: object) -> list[Order]:
        """The orders for which the SQL condition holds, the oldest first."""
        select = f"SELECT id, item, quantity, shipped FROM orders WHERE {where} ORDER BY id"
        rows = await self._transact(lambda db: db.execute(select, values).fetchall())
        return [Order(id, item, quantity, bool(shipped)) for id, item, quantity, shipped in rows]

    async def ship(self, id: int) -> None:
        """Write down that an order was shipped."""
        await self._transact(lambda db: db.execute("UPDATE orders SET shipped = 1 WHERE id = ?", (id,)))

    async def sales(self) -> list[tuple[str, int, int]]:
        """Items, each with the number of its orders and of pieces ordered."""
        select = "SELECT item, count(*), sum(quantity) FROM orders GROUP BY item ORDER BY item"
        return await self._transact(lambda db: db.execute(select).fetchall())


@attrs.define(eq=False)
class Shipping:
    """Ships orders one by one. The queue has no bound: all in it is stored already, and no answer is to wait for it."""

    store: Store
    _queue: trio.MemorySendChannel[int] = attrs.field(init=False)
    _orders: trio.MemoryReceiveChannel[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._queue, self._orders = trio.open_memory_channel[int](math.inf)

    def take(self, id: int) -> None:
        """Queue an order."""
        self._queue.send_nowait(id)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        """Ship until told to stop and the queue is empty, beginning with what the last run left behind."""
        for order in await self.store.orders("NOT shipped"):
            self.take(order.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ship)
            task_status.started()
            await signals.wait()
            self._queue.close()  # whoever orders has stopped by now; what is queued is still received

    async def _ship(self) -> None:
        shipped = 0
        async for id in self._orders:
            await self.store.ship(id)
            shipped += 1
        log.info("shipped %d orders, none is left in the queue", shipped)


async def write_summary(store: Store) -> None:
    sales = await store.sales()
    log.info("sales: %d orders of %d items", sum(orders for _, orders, _ in sales), len(sales))


@attrs.define(eq=False)
class Doors:
    """Open while it runs. As the last in the order it runs only while all others are ready."""

    urls: list[str] = attrs.field(factory=list[str])
    open: bool = False

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        """Open, tell how to talk to the shop, and close when told to stop."""
        self.open = True
        try:
            task_status.started()
            for url in self.urls:
                print(HOW_TO_TALK_TO_IT.format(url=url, pid=os.getpid()), flush=True)
            await signals.wait()
        finally:
            self.open = False


HOW_TO_TALK_TO_IT = """\
The shop is open at {url}
  curl -i {url}/orders -d '{{"item": "tea", "quantity": 2}}'
  curl {url}/orders
  curl {url}/orders/1
  curl -N {url}/report
  curl -i {url}/health
  kill {pid}"""


@attrs.frozen(eq=False)
class Announced:
    """Runs a runner and passes on the value with which it gets ready: here the URLs that a server has got."""

    runner: grouper.Runner
    announce: Callable[[Any], None]

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[Any]) -> object:
        return await self.runner.run(signals, task_status=Status(task_status, self.announce))


@attrs.frozen(eq=False)
class Status:
    outer: trio.TaskStatus[Any]
    announce: Callable[[Any], None]

    def started(self, value: Any = None) -> None:
        self.announce(value)
        self.outer.started(value)


class BadRequestError(Exception):
    """What the client sent cannot be understood; the text says why."""


@attrs.frozen(eq=False)
class App:
    """The shop as an ASGI app."""

    store: Store
    shipping: Shipping
    doors: Doors
    report_pause: float

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the shop speaks HTTP only, not {scope['type']}")
        try:
            match scope["method"], scope["path"].strip("/").split("/"):
                case "GET", ["health"]:
                    await answer(send, 200 if self.doors.open else 503, {"open": self.doors.open})
                case "GET", ["report"]:
                    await self.report(receive, send)
                case "GET", ["orders"]:
                    await answer(send, 200, [attrs.asdict(order) for order in await self.store.orders()])
                case "GET", ["orders", id] if id.isdecimal() and len(id) <= 18:
                    found = await self.store.orders("id = ?", int(id))
                    await (answer(send, 200, attrs.asdict(found[0])) if found else answer(send, 404, {"error": f"no order {id}"}))
                case "POST", ["orders"]:
                    await self.order(receive, send)
                case _:
                    await answer(send, 404, {"error": f"no {scope['method']} for {scope['path']}"})
        except BadRequestError as error:
            await answer(send, 400, {"error": str(error)})

    async def order(self, receive: Receive, send: Send) -> None:
        """Take an order: it is stored, queued, answered, in this order."""
        item, quantity = parse_order(await body(receive))
        id = await self.store.add(item, quantity)
        self.shipping.take(id)
        await answer(send, 201, {"id": id})

    async def report(self, receive: Receive, send: Send) -> None:
        """Write a slow report, a line per item; nobody goes on working for a client that has gone."""
        written = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
            await send({"type": "http.response.body", "body": b"orders  pieces  item\n", "more_body": True})
            for item, orders, pieces in await self.store.sales():
                await trio.sleep(self.report_pause)  # stands for what makes real reports slow
                await send({"type": "http.response.body", "body": f"{orders:6}  {pieces:6}  {item}\n".encode(), "more_body": True})
            written = True
            nursery.cancel_scope.cancel("the report is written")
        if written:
            await send({"type": "http.response.body", "body": b"end of report\n"})
        else:
            log.info("the client of a report has gone: the work on it was cancelled")


async def cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel("the client has gone")


async def body(receive: Receive, limit: int = 10_000) -> bytes:
    whole, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequestError("the client has gone before its request was complete")
        whole += message.get("body", b"")
        more = message.get("more_body", False)
        if len(whole) > limit:
            raise BadRequestError(f"an order has no more than {limit} bytes")
    return whole


def parse_order(text: bytes) -> tuple[str, int]:
    """Item and quantity of an order in JSON."""
    try:
        order = json.loads(text)
    except ValueError as error:
        raise BadRequestError(f"not JSON: {error}") from None
    match order:
        case {"item": str(item), "quantity": int(quantity)} if item and item.isprintable() and 1 <= quantity <= 1000:
            return item, int(quantity)
        case _:
            raise BadRequestError('an order is {"item": "tea", "quantity": 2}, with a quantity from 1 to 1000')


async def answer(send: Send, status: int, value: object) -> None:
    text = json.dumps(value).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def shop(database: Path, bind: str, summary_every: float, report_pause: float) -> grouper.Ordered:
    """The whole program as a tree."""
    store = Store(database)
    shipping = Shipping(store)
    doors = Doors()
    http = grouper.HTTPServer(App(store, shipping, doors, report_pause), bind)
    summary = grouper.Periodic(write_summary, store, every=summary_every)
    return grouper.Ordered(
        [
            ("store", store),
            ("workers", grouper.Parallel([("summary", summary), ("shipping", shipping)])),
            grouper.Member("http", Announced(http, doors.urls.extend), grace=30),
            ("doors", doors),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="A shop that takes orders on HTTP and keeps them in an SQLite file.")
    parser.add_argument("database", type=Path, help="the file; it is made if it is not there")
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one (default: %(default)s)")
    parser.add_argument("--summary-every", type=float, default=60, metavar="SECONDS", help="(default: %(default)s)")
    parser.add_argument("--report-pause", type=float, default=1, metavar="SECONDS", help="for each line (default: %(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    bind = f"{options.host}:{options.port}"
    return grouper.run(shop(options.database, bind, options.summary_every, options.report_pause))


if __name__ == "__main__":
    sys.exit(main())
