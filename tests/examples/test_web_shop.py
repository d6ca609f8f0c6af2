"""The main job: a shop on HTTP, stopped politely and less politely under load."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import signal
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
import trio

import grouper

from .program import Program, started

pytestmark = pytest.mark.real_time

CUSTOMERS = 200
RAW_CUSTOMERS = 20
ENDLESS = ("--report-pause", 3600)  # a report that is begun and does not get on


@contextlib.asynccontextmanager
async def shop(database: Path, *options: object) -> AsyncGenerator[tuple[Program, str]]:
    """A shop that is ready, and its URL."""
    async with started("web_shop.py", database, "--port", 0, *options) as program:
        url = (await program.line("The shop is open at (http://127.0.0.1:[0-9]+)"))[1]
        await program.line("the root is ready")
        yield program, url


def client(url: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=CUSTOMERS, max_keepalive_connections=CUSTOMERS)
    return httpx2.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False)


async def connect(url: str) -> trio.SocketStream:
    host, port = url.removeprefix("http://").split(":")
    return await trio.open_tcp_stream(host, int(port))


def stored(database: Path) -> dict[int, tuple[str, int, int]]:
    """What is in the file: item, quantity and whether it was shipped, by id."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        return {id: rest for id, *rest in map(tuple, db.execute("SELECT id, item, quantity, shipped FROM orders"))}  # type: ignore[misc]


@attrs.define(eq=False)
class Crowd:
    """Customers who order one thing after the other, each until the shop does not answer."""

    url: str
    after: int
    """So many answers are waited for by `busy`."""
    busy: trio.Event = attrs.field(factory=trio.Event)
    promised: dict[int, tuple[str, int]] = attrs.field(factory=dict[int, tuple[str, int]])
    """The orders that got a 2xx, by id."""
    turned_away: int = 0
    cut: list[str] = attrs.field(factory=list[str])
    """Answers that broke off after their first byte."""

    async def come(self) -> None:
        async with client(self.url) as http, trio.open_nursery() as nursery:
            for number in range(CUSTOMERS):
                nursery.start_soon(self.customer, http, f"tea {number}")
            for number in range(RAW_CUSTOMERS):
                nursery.start_soon(self.raw_customer, f"raw {number}")

    def answered(self, status: int, body: bytes, item: str, quantity: int) -> None:
        assert status == 201, body
        self.promised[json.loads(body)["id"]] = (item, quantity)
        if len(self.promised) >= self.after:
            self.busy.set()

    async def customer(self, http: httpx2.AsyncClient, item: str) -> None:
        for quantity in range(1, 1000):
            begun = False
            try:
                async with http.stream("POST", "/orders", json={"item": item, "quantity": quantity}) as response:
                    begun = True
                    body = await response.aread()
            except httpx2.TransportError as error:
                self.turned_away += 1
                if begun:
                    self.cut.append(repr(error))
                return
            self.answered(response.status_code, body, item, quantity)

    async def raw_customer(self, item: str) -> None:
        """The same without a library, which sees also a head that breaks off."""
        for quantity in range(1, 1000):
            order = json.dumps({"item": item, "quantity": quantity}).encode()
            answer = b""
            try:
                async with await connect(self.url) as stream:
                    await stream.send_all(
                        b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n%s" % (len(order), order)
                    )
                    while not (whole := whole_answer(answer)):
                        data = await stream.receive_some()
                        if not data:
                            raise trio.BrokenResourceError("closed")
                        answer += data
            except (OSError, trio.BrokenResourceError):
                self.turned_away += 1
                if answer:
                    self.cut.append(repr(answer))
                return
            self.answered(*whole, item, quantity)


def whole_answer(text: bytes) -> tuple[int, bytes] | None:
    """Status and body, if all of it is there."""
    head, _, body = text.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1.1 (\d+) .*content-length: (\d+)", head, re.DOTALL)
    return (int(match[1]), body) if match and len(body) == int(match[2]) else None


def assert_stopped_in_order(program: Program) -> None:
    """The doors, http, the workers in either order, the store."""
    exited = program.told("member '(.*)' (?:exited|was killed)")
    assert sorted(exited[2:4]) == ["workers/shipping", "workers/summary"]
    assert exited[:2] + exited[4:] == ["doors", "http", "workers", "store"]


def assert_promises_were_kept(crowd: Crowd, orders: dict[int, tuple[str, int, int]]) -> None:
    """What got a 2xx is in the file."""
    assert len(crowd.promised) >= crowd.after
    assert {id: tuple(orders.get(id, ())[:2]) for id in crowd.promised} == crowd.promised


async def test_sigterm_under_load_loses_nothing_and_cuts_nobody(tmp_path: Path) -> None:
    """220 customers order until they are turned away. All that got a 2xx is stored and shipped, no answer broke off, status 0."""
    database = tmp_path / "shop.db"
    async with shop(database) as (program, url), trio.open_nursery() as nursery:
        crowd = Crowd(url, after=100)
        nursery.start_soon(crowd.come)
        await crowd.busy.wait()
        program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert crowd.turned_away == CUSTOMERS + RAW_CUSTOMERS
    assert crowd.cut == []
    orders = stored(database)
    assert_promises_were_kept(crowd, orders)
    assert all(shipped for _, _, shipped in orders.values())
    assert_stopped_in_order(program)


async def test_a_second_sigint_stops_it_at_once(tmp_path: Path) -> None:
    """While a report that would take for ever keeps it from stopping politely; in order, status 130, and 2xx still means stored."""
    database = tmp_path / "shop.db"
    async with shop(database, *ENDLESS) as (program, url), trio.open_nursery() as nursery:
        crowd = Crowd(url, after=100)
        nursery.start_soon(crowd.come)
        await crowd.busy.wait()
        async with begun_report(url):
            program.signal(signal.SIGINT)
            await program.line("member 'doors' exited")
            program.signal(signal.SIGINT)
            with trio.fail_after(5):
                assert await program.end() == 130
    assert_promises_were_kept(crowd, stored(database))
    assert_stopped_in_order(program)


async def test_two_sigints_under_load_stop_it_at_once(tmp_path: Path) -> None:
    """Whatever the customers were told by then is true; status 130."""
    database = tmp_path / "shop.db"
    async with shop(database) as (program, url), trio.open_nursery() as nursery:
        crowd = Crowd(url, after=100)
        nursery.start_soon(crowd.come)
        await crowd.busy.wait()
        program.signal(signal.SIGINT)
        await program.line("received SIGINT")
        program.signal(signal.SIGINT)
        with trio.fail_after(5):
            assert await program.end() == 130
    assert_promises_were_kept(crowd, stored(database))
    assert_stopped_in_order(program)


@contextlib.asynccontextmanager
async def begun_report(url: str, *, requests: int = 1) -> AsyncGenerator[trio.SocketStream]:
    """A report whose first line has come, maybe asked for several times at once; leaving the block disconnects."""
    async with await connect(url) as stream:
        await stream.send_all(b"GET /report HTTP/1.1\r\nHost: shop\r\n\r\n" * requests)
        text = b""
        while b"pieces" not in text:
            text += await stream.receive_some()
        yield stream


async def order(http: httpx2.AsyncClient, item: str, quantity: int = 1) -> int:
    response = await http.post("/orders", json={"item": item, "quantity": quantity})
    assert response.status_code == 201
    id: int = response.json()["id"]
    return id


async def test_a_report_that_is_being_written_is_finished_on_sigterm(tmp_path: Path) -> None:
    """A response that has begun is not cut by a polite stop."""
    async with shop(tmp_path / "shop.db", "--report-pause", 0.05) as (program, url), client(url) as http:
        for item in ("cake", "tea"):
            await order(http, item, 2)
        async with http.stream("GET", "/report") as response:
            program.signal(signal.SIGTERM)  # it has begun: its head is here
            await program.line("member 'doors' exited")
            report = [line.split() async for line in response.aiter_lines()]
        assert report == [["orders", "pieces", "item"], ["1", "2", "cake"], ["1", "2", "tea"], ["end", "of", "report"]]
        assert await program.end() == 0


async def test_a_request_that_waits_behind_another_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    """Of two requests on one connection the first is answered to its end, then the connection is closed; status 0."""
    async with shop(tmp_path / "shop.db", "--report-pause", 0.05) as (program, url):
        async with client(url) as http:
            await order(http, "tea")
        async with begun_report(url, requests=2) as stream:
            program.signal(signal.SIGTERM)
            text = b"".join([data async for data in stream])
            assert await program.end() == 0
    assert text.endswith(b"end of report\n\r\n0\r\n\r\n")


async def test_the_work_on_a_report_is_cancelled_when_its_client_disconnects(tmp_path: Path) -> None:
    """The report would take for ever; the log tells of its end, and nothing is left that would keep the shop from stopping."""
    async with shop(tmp_path / "shop.db", *ENDLESS) as (program, url):
        async with client(url) as http:
            await order(http, "tea")
        async with begun_report(url):
            pass
        await program.line("the client of a report has gone: the work on it was cancelled")
        program.signal(signal.SIGTERM)
        assert await program.end() == 0


async def test_it_is_healthy_only_while_all_of_it_is_ready(tmp_path: Path) -> None:
    """200 while it is; refused or 503 once it is stopping, also while a request keeps it from having stopped."""
    async with shop(tmp_path / "shop.db", *ENDLESS) as (program, url), client(url) as http:
        assert (await http.get("/health")).status_code == 200
        await order(http, "tea")
        async with begun_report(url):
            program.signal(signal.SIGTERM)
            await program.line("member 'doors' exited")
            with contextlib.suppress(httpx2.TransportError):
                assert (await http.get("/health")).status_code == 503


async def test_health_follows_the_doors() -> None:
    """503 before they open and after they have closed, which from outside is too short to be seen."""
    web_shop = importlib.import_module("examples.web_shop")
    doors = web_shop.Doors()
    app = web_shop.App(None, None, doors, 0)

    async def health() -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app({"type": "http", "method": "GET", "path": "/health"}, None, send)
        return int(sent[0]["status"])

    before = await health()
    async with grouper.invoke(doors):
        during = await health()
    assert (before, during, await health()) == (503, 200, 503)


async def test_orders_are_served_back(tmp_path: Path) -> None:
    """One by its id, or all; also after a restart."""
    database = tmp_path / "shop.db"
    async with shop(database) as (program, url):
        async with client(url) as http:
            id = await order(http, "tea", 3)
            assert (await http.get(f"/orders/{id}")).json()["quantity"] == 3
            assert [each["id"] for each in (await http.get("/orders")).json()] == [id]
        program.signal(signal.SIGTERM)
        assert await program.end() == 0
    async with shop(database) as (program, url), client(url) as http:
        assert (await http.get(f"/orders/{id}")).json() == {"id": id, "item": "tea", "quantity": 3, "shipped": True}


async def test_what_a_killed_shop_did_not_ship_is_shipped_by_the_next(tmp_path: Path) -> None:
    """A queue in memory is lost with the program, the orders are not."""
    database = tmp_path / "shop.db"
    async with shop(database) as (program, _):
        program.signal(signal.SIGTERM)
        await program.end()
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.execute("INSERT INTO orders (item, quantity) VALUES ('tea', 1)")  # as it is between the commit and the shipping
    async with shop(database) as (program, _):
        program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert [shipped for _, _, shipped in stored(database).values()] == [1]


@pytest.mark.parametrize(
    "body",
    [b"", b"tea", b"[]", b"{}", b'{"item": "", "quantity": 1}', b'{"item": "tea", "quantity": 0}', b'{"item": 1, "quantity": 1}'],
)
async def test_what_is_no_order_is_refused(body: bytes, tmp_path: Path) -> None:
    """With 400 and the reason, and nothing is stored."""
    async with shop(tmp_path / "shop.db") as (_, url), client(url) as http:
        response = await http.post("/orders", content=body)
        assert response.status_code == 400
        assert response.json()["error"]
        assert (await http.get("/orders")).json() == []


@pytest.mark.parametrize("path", ["/", "/orders/1", "/orders/x", "/orders/99999999999999999999", "/nothing"])
async def test_what_is_not_there_is_not_found(path: str, tmp_path: Path) -> None:
    """With 404."""
    async with shop(tmp_path / "shop.db") as (_, url), client(url) as http:
        assert (await http.get(path)).status_code == 404


async def test_a_port_that_is_taken_fails_the_start(tmp_path: Path) -> None:
    """The trace names the member, what was started is stopped, the status is 1."""
    async with shop(tmp_path / "one.db") as (_, url):
        port = url.rpartition(":")[2]
        async with started("web_shop.py", tmp_path / "two.db", "--port", port) as second:
            assert await second.end() == 1
    assert second.told(r"  (http: OSError): ") == ["http: OSError"]
    assert second.told("member '(.*)' exited")[-2:] == ["workers", "store"]
