"""A small tree in which all is started again, in each way that there is, and which is operated by hand."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import AsyncGenerator
from typing import Any

import trio

import grouper
from grouper import Backoff, Graph, Member, Ordered, Parallel, Process, Restart, RestartType, Role, Signals, Strategy

from .scenario import Account

SOON = Restart(backoff=Backoff(0.1, jitter=0), limit=math.inf)
AT_ONCE = Restart(backoff=Backoff(0, jitter=0), limit=2)


class MineError(Exception):
    """What members fail with."""


def flaky(account: Account, name: str, *, fails: int = 1, lasts: float = 0.05, slow: float = 0.0) -> Any:
    """A runner of which the first lives fail, and that keeps account."""
    service = account.service(name, slow=slow)
    lives: list[int] = []

    async def run(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        lives.append(1)
        if len(lives) > fails:
            await service(signals, task_status=task_status)
            return
        account.running[name] += 1
        try:
            task_status.started()
            await trio.sleep(lasts)
        finally:
            account.running[name] -= 1
        raise MineError(name)

    return run


def held(account: Account, name: str) -> Any:
    """What is held around a member, and keeps account."""

    @contextlib.asynccontextmanager
    async def around() -> AsyncGenerator[None]:
        account.running[f"around {name}"] += 1
        try:
            await trio.sleep(0.01)
            yield
        finally:
            account.running[f"around {name}"] -= 1

    return around


def tree(account: Account) -> Ordered:
    """Each strategy, a limit that is exceeded, a job that is tried again, and what is held around members."""
    service = account.service
    plain = Restart()
    return Ordered(
        [
            Member("one", flaky(account, "one", fails=2), restart=SOON, around=held(account, "one")),
            Member(
                "job",
                flaky(account, "job"),
                role=Role.OPTIONAL,
                restart=Restart(RestartType.TRANSIENT, backoff=Backoff(0.1, jitter=0), start_errors=True),
            ),
            (
                "all",
                Parallel(
                    [
                        Member("a", flaky(account, "all/a"), restart=plain),
                        Member("b", service("all/b", slow=0.05), around=held(account, "all/b")),
                    ],
                    strategy=Strategy.ALL,
                    restart=SOON,
                ),
            ),
            (
                "rest",
                Graph(
                    [
                        Member("a", service("rest/a")),
                        Member("b", flaky(account, "rest/b"), after="a", restart=plain, around=held(account, "rest/b")),
                        Member("c", service("rest/c", slow=0.02), after="b", restart=Restart(RestartType.TEMPORARY)),
                        Member("d", service("rest/d"), after="b"),
                    ],
                    strategy=Strategy.REST,
                    restart=AT_ONCE,
                ),
            ),
            Member("worn", flaky(account, "worn", fails=9), role=Role.OPTIONAL, restart=AT_ONCE),
        ]
    )


async def operate(root: Process) -> None:
    """Do each operation once, and some that are refused."""
    refused = (LookupError, grouper.CascadeNeeded, grouper.GroupClosed, grouper.ExitedBeforeReady)
    for group, verb, name, cascade in (
        ("", "restart", "one", False),
        ("rest", "restart", "b", True),
        ("rest", "stop", "b", True),
        ("rest", "start", "d", True),
        ("", "start", "worn", False),
        ("all", "stop", "b", False),
        ("all", "start", "b", False),
        ("all", "start", "nobody", False),
        ("", "stop", "one", True),
    ):
        with contextlib.suppress(*refused), trio.move_on_after(1):
            await getattr(root[group] if group else root, verb)(name, cascade=cascade)


async def supervised(account: Account) -> None:
    """Run the tree beside a block that operates it and kills some, until it is stopped."""
    async with grouper.background(tree(account)) as process:
        await trio.sleep(1)
        await operate(process)
        for path in ("all/a", "rest/a"):
            with contextlib.suppress(LookupError):
                process[path].kill()
        with contextlib.suppress(LookupError):
            process["all/b"].signal(signal.SIGTERM)
        await trio.sleep(0.05)
