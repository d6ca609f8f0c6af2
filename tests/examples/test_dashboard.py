"""Three services asked at once, one of which is late and one of which fails."""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

import grouper

from .program import Program, started

pytestmark = pytest.mark.real_time

dashboard: Any = importlib.import_module("examples.dashboard")

WEATHER = "weather   12 °C, says the quick mirror"
LATE = "traffic   LATE: "
FAILED = "news      FAILED: AnswerError: 503 the press stands still"


@contextlib.asynccontextmanager
async def serving(*options: object) -> AsyncGenerator[tuple[Program, httpx2.AsyncClient]]:
    """A dashboard that is ready, and a client of it; at the end of the block it is told to stop, which it does, with 0."""
    async with started("dashboard.py", "--serve", 0, *options) as program:
        url = (await program.line("the dashboard is at (http://127.0.0.1:[0-9]+)"))[1]
        await program.line("the root is ready")
        async with httpx2.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:
            yield program, client
        program.signal(signal.SIGTERM)
        assert await program.end() == 0


async def test_what_there_is_is_shown_and_what_is_missing_is_named() -> None:
    """The quick mirror counts, the late service and the failed one are told apart; status 1."""
    async with started("dashboard.py", "--deadline", 1) as program:
        assert await program.end() == 1
    shown = [line for line in program.lines if not line.startswith("job ")]
    assert [shown[0], shown[1][: len(LATE)], shown[2]] == [WEATHER, LATE, FAILED]
    assert "within 1 s" in shown[1]


async def test_it_ends_well_if_all_have_answered() -> None:
    """With status 0."""
    async with started("dashboard.py", "--fair", "--deadline", 20) as program:
        assert await program.end() == 0
    assert program.lines == [WEATHER, "traffic   flows", "news      none, which is good"]


async def test_it_is_served() -> None:
    """Asked again for each request; SIGTERM ends it with 0, though the late service has an hour's work before it."""
    async with serving("--deadline", 1) as (program, client):
        for _ in range(2):
            response = await client.get("/")
            assert response.status_code == 200
            lines = response.text.splitlines()
            assert [lines[0], lines[1][: len(LATE)], lines[2]] == [WEATHER, LATE, FAILED]
        assert (await client.get("/nothing")).status_code == 404
    assert len(program.told("(job 'traffic' failed)")) == 2


async def test_it_is_stopped_before_the_services_and_started_after_they_are_loaded() -> None:
    """A mirror that listens is not ready yet."""
    async with serving() as (program, _):
        pass
    told = program.told("member '(.*is ready|.*exited)")
    for mirror in ("services/weather-slow", "services/weather-quick"):
        assert told.index(f"{mirror}' is ready") < told.index("web' is ready")
        assert told.index("web' exited") < told.index(f"{mirror}' exited")


async def test_a_mirror_is_ready_when_it_has_loaded() -> None:
    """Its health is asked until then; before, it has a URL and no answer."""
    answers = [False, False, True]
    mirror = dashboard.Server("mirror", dashboard.Service("12", loaded=lambda: answers.pop(0) if len(answers) > 1 else answers[0]))
    with pytest.raises(grouper.NotReady, match="not bound"):
        await mirror.is_loaded()
    async with grouper.invoke(grouper.Ordered([grouper.Member("mirror", mirror, ready_when=mirror.is_loaded)])):
        assert answers == [True]


async def test_it_fails_if_both_mirrors_do() -> None:
    """Each of their errors is in the report, under the service's name."""
    broken = [dashboard.Server(f"mirror-{n}", dashboard.Service(f"broken {n}", status=500 + n)) for n in range(2)]
    fine = [dashboard.Server(name, dashboard.Service(name)) for name in ("traffic", "news")]
    board = dashboard.Dashboard(broken, *fine, deadline=20)
    members = grouper.Parallel([(server.name, server) for server in [*broken, *fine]])
    async with grouper.invoke(members):
        report = await board.ask()
    assert sorted(map(str, report["weather"].error.exceptions)) == ["500 broken 0", "501 broken 1"]
    assert dashboard.shown(report).splitlines()[1:] == ["traffic   traffic", "news      news"]
    assert not report.ok


async def test_a_service_that_is_gone_has_failed() -> None:
    """The client's error is shown."""
    servers = [dashboard.Server(name, dashboard.Service(name)) for name in ("mirror", "traffic", "news")]
    async with grouper.invoke(servers[2]):
        pass
    async with grouper.invoke(grouper.Parallel([(server.name, server) for server in servers[:2]])):
        report = await dashboard.Dashboard([servers[0]], *servers[1:], deadline=20).ask()
    shown = dashboard.shown(report).splitlines()
    assert shown[:2] == ["weather   mirror", "traffic   traffic"]
    assert shown[2].startswith("news      FAILED: ConnectError")
