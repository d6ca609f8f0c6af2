"""Code as users write it, which must type-check as it stands: mypy and pyright, both strict, read it as they read all tests.

There is no `Any` here that the package does not give, no cast and no ignored error.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Awaitable, Callable
from typing import Any, assert_type

import trio

import grouper
from grouper import (
    EntranceEvent,
    ErrorTrace,
    Event,
    EventStream,
    Exit,
    ExitEvent,
    Member,
    MemberEntrance,
    MemberExit,
    Process,
    Role,
    Signals,
    StartEvent,
    State,
)
from grouper.runner import RunnerLike

# Runners


async def ticker(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
    """A plain function, ready without a value."""
    task_status.started()
    with signals.cancelling() as scope:
        assert_type(scope, trio.CancelScope)
        await trio.sleep_forever()
    await trio.lowlevel.checkpoint()  # the block ends: what comes after it is no dead code


async def listener(signals: Signals, /, *, task_status: trio.TaskStatus[int]) -> None:
    """A plain function, ready with a value."""
    task_status.started(8080)
    assert_type(await signals.wait(), int)
    async for number in signals:
        assert_type(number, int)
        if signals.received is not None:
            assert_type(signals.received, int)
            return


async def configured(port: int, signals: Signals, /, *, task_status: trio.TaskStatus[int]) -> None:
    """A function with a parameter more, for functools.partial."""
    task_status.started(port)
    await signals.wait()


async def returns_something(signals: Signals, *, task_status: trio.TaskStatus[None]) -> str:
    """What a runner returns is nobody's business; nor need its parameter be positional only."""
    return "done"


class Database:
    """A class with `run`, and a grace of its own."""

    grace = 5.0

    def __init__(self, url: str) -> None:
        self.url = url

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[str]) -> None:
        task_status.started(self.url)
        await signals.wait()


class Wrapper:
    """A wrapper around any runner."""

    def __init__(self, runner: RunnerLike) -> None:
        self.runner = runner

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> object:
        return await Member("inner", self.runner).run(signals, task_status=task_status)


runners: list[RunnerLike] = [
    ticker,
    listener,
    functools.partial(configured, 80),
    returns_something,
    Database("sqlite://"),
    Wrapper(ticker),
    Member("a", ticker),
    grouper.Startable(trio.sleep, 3),
    grouper.Startable(trio.serve_tcp, ticker, 0),
    grouper.Proxy(Signals(), ticker),
    grouper.Sigmon(ticker, signal.SIGHUP),
    grouper.restart_on(Database("sqlite://"), OSError, ValueError, delay=0.5),
    grouper.Ordered([]),
    grouper.Dynamic(3),
]
database: grouper.Runner = Database("sqlite://")


# Trees


def verbose() -> bool:
    return False


members = grouper.Ordered(
    [
        Member("db", Database("sqlite://"), grace=3, ready_within=10.0),
        Member("migrations", returns_something, role=Role.JOB, after=()),
        ("ticker", ticker),
        ("debugger", ticker) if verbose() else None,
    ],
    termination_signal=signal.SIGINT,
    cancel_grace=1.5,
    event_buffer=10,
)
mapping = grouper.Parallel({"web": listener, "db": Database("sqlite://"), "both": members}, termination_signal=None)
queue = grouper.QueueOrdered([("a", ticker), ("b", listener)])
graph = grouper.Graph([Member("db", database), Member("web", listener, after="db"), Member("ui", ticker, after=["db", "web"])])
pairs: list[tuple[str, RunnerLike]] = [("a", ticker), ("b", Database("sqlite://"))]
from_pairs = grouper.Ordered(pairs)
mixed: list[Member | tuple[str, RunnerLike] | None] = [None, *pairs, Member("c", ticker)]
from_mixed = grouper.Parallel(mixed)
by_name: dict[str, RunnerLike] = {"a": ticker, "b": members}
from_mapping = grouper.Parallel(by_name)
conditional: dict[str, RunnerLike | None] = {"a": ticker, "b": members if verbose() else None}
from_conditional = grouper.Parallel(conditional)
generated = grouper.Parallel((str(number), functools.partial(configured, number)) for number in range(3))


async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
    """A callback for a Restarter."""
    return runner if isinstance(error, OSError) else None


restarter = grouper.Restarter(ticker, load)


def main() -> int:
    """A program's `main()`."""
    return grouper.run(members, forward=[signal.SIGHUP, 35])


# Running


async def look_at_a_process() -> None:
    async with grouper.invoke(mapping) as process:
        assert_type(process, Process)
        assert_type(process.path, str)
        assert_type(process.state, State)
        assert_type(process.member, Member)
        assert_type(process.children, tuple[Process, ...])
        assert_type(process.started_at, float | None)
        assert_type(process.exit, Exit | None)
        port: int = await process.children[0].wait_ready()
        assert port == 8080
        process.signal(signal.SIGTERM)
        exit = await process.wait()
    assert_type(exit, Exit)
    assert_type(exit.error, BaseException | None)
    exit.raise_for_error()


async def listen_to_events() -> list[str]:
    told: list[str] = []
    async with grouper.background(queue) as process, process.events() as stream:
        assert_type(stream, EventStream[Process, Event])
        await process.wait_ready()
        process.signal(signal.SIGTERM)
        async for event in stream:
            assert_type(event, Event)
            match event:
                case StartEvent(path=path):
                    told.append(f"{path} started")
                case EntranceEvent():
                    assert_type(event.time, float)
                case ExitEvent(exit=exit):
                    assert_type(exit, Exit)
                    told.append(f"{event.path} ended")
                case _:
                    pass
        assert_type(stream.missed, int)
    return told


async def insert_members() -> None:
    group = grouper.Dynamic(capacity=3)
    async with grouper.invoke(group):
        client = group.client()
        assert_type(client, grouper.Client)
        async with client.entrances() as entrances, client.exits() as exits:
            process = await client.insert(Member("a", listener))
            assert_type(process, Process)
            assert_type(client.insert_nowait(("b", ticker)), Process)
            assert_type(client.get("a"), Process | None)
            entrance = await anext(entrances)
            assert_type(entrance, MemberEntrance)
            assert_type(entrance.member, Member)
            assert_type(entrance.process, Process)
            process.signal(signal.SIGTERM)
            process.signal(signal.SIGTERM)
            assert_type(await client.remove("b"), Exit)
            left = await anext(exits)
            assert_type(left, MemberExit)
            assert_type(left.exit, Exit)
        client.close()
        await client.wait_closed()


async def read_a_trace() -> str:
    async def fails(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        raise OSError("gone")

    try:
        async with grouper.invoke(grouper.Ordered([("a", fails)])):
            pass
    except ErrorTrace as trace:
        assert_type(trace.exits, tuple[Exit, ...])
        assert_type(trace.path, str)
        assert_type(trace.derive([OSError()]), ErrorTrace)
        for error in trace.exceptions:
            assert isinstance(error, OSError)
        return str(trace)
    return ""


async def start_in_a_nursery() -> None:
    signals = Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(from_pairs.run, signals)
        signals.send(signal.SIGTERM)


every: list[Callable[[], Awaitable[object]]] = [
    look_at_a_process,
    listen_to_events,
    insert_members,
    read_a_trace,
    start_in_a_nursery,
]
