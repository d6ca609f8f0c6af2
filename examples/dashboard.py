"""Ask three services at once and show what they say, also if one is late and one has failed.

    python dashboard.py                 ask once; the status is 1 unless all have answered
    python dashboard.py --serve 8000    a dashboard on port 8000, which asks at each request, until SIGTERM or Ctrl-C

The services are members of this program, each an HTTP server on a free port:

    weather    has two mirrors, which are asked both: the first answer counts, and the other is not waited for
    traffic    answers after an hour
    news       answers 503

All are asked at once and given the same time. The mirrors listen before they have loaded what they know; they are ready, and the
dashboard starts, when a check of their /health has passed.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import attrs
import httpx2
import trio

import grouper
from grouper import readiness, work

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

log = logging.getLogger("dashboard")


class AnswerError(Exception):
    """A service has answered, but not with what it was asked for."""


async def answer(send: Send, status: int, text: str) -> None:
    body = f"{text}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@attrs.frozen
class Service:
    """An ASGI app that says one thing."""

    says: str
    status: int = 200
    takes: float = 0
    loaded: Callable[[], bool] = lambda: True

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"a service speaks HTTP only, not {scope['type']}")
        if not self.loaded():
            await answer(send, 503, "still loading")
        elif scope["path"] == "/health":
            await answer(send, 200, "loaded")
        else:
            with trio.move_on_after(self.takes):
                while (await receive())["type"] != "http.disconnect":
                    pass
                return  # who asked has gone: nobody waits for the answer, and neither does a stop
            await answer(send, self.status, self.says)


def loads(seconds: float) -> Callable[[], bool]:
    """What tells whether so many seconds have passed since it was first asked."""
    begun: list[float] = []

    def loaded() -> bool:
        begun.append(trio.current_time())
        return begun[-1] - begun[0] >= seconds

    return loaded


@attrs.define(eq=False)
class Server:
    """Runs an ASGI app, and knows its URL when it has one."""

    name: str
    app: Any
    bind: str = "127.0.0.1:0"
    url: str = attrs.field(default="", init=False)
    _status: trio.TaskStatus[list[str]] = attrs.field(init=False)

    async def run(self, signals: grouper.Signals, /, *, task_status: trio.TaskStatus[list[str]]) -> None:
        self._status = task_status
        await grouper.HTTPServer(self.app, self.bind).run(signals, task_status=self)

    def started(self, value: Any = None) -> None:
        """Be told by the HTTP server what it is bound to, and pass it on."""
        self.url = value[0]
        log.info("%s is at %s", self.name, self.url)
        self._status.started(value)

    async def is_loaded(self) -> None:
        """Raises: NotReady."""
        work.ready_if(self.url, "it is not bound yet")
        await readiness.http(f"{self.url}/health")()


@attrs.frozen
class Dashboard:
    """An ASGI app, or whoever calls `ask`, that asks all services."""

    mirrors: list[Server]
    traffic: Server
    news: Server
    deadline: float

    def members(self) -> grouper.Parallel:
        mirrors = [grouper.Member(each.name, each, ready_when=each.is_loaded, ready_within=10) for each in self.mirrors]
        return grouper.Parallel([*mirrors, ("traffic", self.traffic), ("news", self.news)])

    async def ask(self) -> work.Report:
        """Ask all at once. What went wrong is in the report, by name."""
        async with httpx2.AsyncClient(timeout=None, trust_env=False) as client:
            return await work.run_jobs(
                {
                    "weather": work.job(ask_mirrors, client, self.mirrors, timeout=self.deadline),
                    "traffic": work.job(ask, client, self.traffic, timeout=self.deadline),
                    "news": work.job(ask, client, self.news, timeout=self.deadline),
                },
                on_error="continue",
            )

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the dashboard speaks HTTP only, not {scope['type']}")
        if scope["path"] == "/":
            await answer(send, 200, shown(await self.ask()))
        else:
            await answer(send, 404, f"there is no {scope['path']}, only /")


async def ask(client: httpx2.AsyncClient, server: Server) -> str:
    """Raises: AnswerError; what the client raises, such as ConnectError."""
    response = await client.get(server.url)
    if response.status_code != 200:
        raise AnswerError(f"{response.status_code} {response.text.strip()}")
    return response.text.strip()


async def ask_mirrors(client: httpx2.AsyncClient, mirrors: list[Server]) -> str:
    return await work.first(*[functools.partial(ask, client, mirror) for mirror in mirrors])


def shown(report: work.Report) -> str:
    lines: list[str] = []
    for name, job in report.items():
        match job.error:
            case None:
                lines.append(f"{name:10}{job.value}")
            case work.JobTimeout():
                lines.append(f"{name:10}LATE: {job.error}")
            case error:
                lines.append(f"{name:10}FAILED: {type(error).__name__}: {error}")
    return "\n".join(lines)


async def once(dashboard: Dashboard) -> int:
    async with grouper.invoke(dashboard.members()):
        report = await dashboard.ask()
    print(shown(report))
    return 0 if report.ok else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask three services at once and show what they say.")
    parser.add_argument("--deadline", type=float, default=0.5, metavar="SECONDS", help="for each (default: %(default)s)")
    parser.add_argument("--serve", type=int, metavar="PORT", help="show it on this port, 0 for a free one, instead of once")
    parser.add_argument("--fair", action="store_true", help="have no service that is late or fails")
    options = parser.parse_args()
    slow, quick = Service("12 °C", takes=3600, loaded=loads(0.1)), Service("12 °C, says the quick mirror", loaded=loads(0.1))
    traffic, news = Service("flows", takes=3600), Service("the press stands still", status=503)
    if options.fair:
        traffic, news = Service("flows"), Service("none, which is good")
    mirrors = [Server("weather-slow", slow), Server("weather-quick", quick)]
    dashboard = Dashboard(mirrors, Server("traffic", traffic), Server("news", news), options.deadline)
    if options.serve is None:
        return trio.run(once, dashboard)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else it tells of each request
    web = Server("the dashboard", dashboard, f"127.0.0.1:{options.serve}")
    return grouper.run(grouper.Ordered([("services", dashboard.members()), ("web", web)]))


if __name__ == "__main__":
    sys.exit(main())
