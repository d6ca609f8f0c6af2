"""The same tests for every store: where a test's programs meet, and other programs that can be killed.

In memory a program is a handle that can be taken for dead. On the others it is an OS process, which is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from grouper.coordination import MemoryStore, Store, WaitGroup, open_store

from .etcd_server import Etcd, running

LEASE: Final = 2.0
"""Seconds: the shortest that etcd has."""

numbers: Final = itertools.count(1)


class Other(ABC):
    """Another program, which owns one entry."""

    @abstractmethod
    async def die(self) -> None:
        """Be killed: kill -9."""


class Meeting(ABC):
    """Where programs meet. `shortest` is the least time, in seconds, that something can be made to last there."""

    shortest: float = 0.1

    def __init__(self) -> None:
        self.store: Store = self.handle()

    @abstractmethod
    def handle(self) -> Store:
        """The store, as another program would open it."""

    @abstractmethod
    def other(self, space: str, name: str, id: str) -> AbstractAsyncContextManager[Other]:
        """Another program, that owns an entry when the block begins, and is ended with the block."""

    async def group(self, *, count: int = 0, ttl: float | None = None, name: str = "batch") -> WaitGroup:
        """A group that was just made."""
        group = self.store.waitgroup(name)
        assert await group.create(ttl=ttl, count=count)
        return group


class InMemory(Meeting):
    """A meeting in memory."""

    def handle(self) -> Store:
        if not hasattr(self, "store"):
            return MemoryStore()
        assert isinstance(self.store, MemoryStore)
        return self.store.process()

    @contextlib.asynccontextmanager
    async def other(self, space: str, name: str, id: str) -> AsyncGenerator[Other]:
        store = self.handle()
        assert isinstance(store, MemoryStore)
        async with store.owner():
            await store.register(space, name, id, "")
            yield Handle(store)


class Handle(Other):
    """Another program, simulated."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    async def die(self) -> None:
        self.store.die()


class AtUrl(Meeting):
    """A meeting of OS processes."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__()

    def handle(self) -> Store:
        return open_store(self.url, lease=LEASE)

    @contextlib.asynccontextmanager
    async def other(self, space: str, name: str, id: str) -> AsyncGenerator[Other]:
        command = [sys.executable, "-m", "tests.coordination.other", self.url, space, name, id]
        async with trio.open_nursery() as nursery:
            process = await nursery.start(
                partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, cwd=Path(__file__).parents[2])
            )
            assert await process.stdout.receive_some(1) == b"!", "the other program has it"
            yield Killable(process)
            nursery.cancel_scope.cancel()


class OnEtcd(AtUrl):
    """A meeting on etcd."""

    shortest = LEASE


class Killable(Other):
    """Another program, as an OS process."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process

    async def die(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@pytest.fixture(scope="session")
def etcd() -> Iterator[Etcd]:
    """One node of etcd for all tests, each of which has a prefix of its own."""
    with running() as server:
        yield server


@pytest.fixture(
    params=["memory", pytest.param("sqlite", marks=pytest.mark.real_time), pytest.param("etcd", marks=pytest.mark.real_time)]
)
async def meeting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Meeting]:
    """A store of each kind, open for the time of the test."""
    kind: str = request.param
    if kind == "memory":
        place: Meeting = InMemory()
    elif kind == "sqlite":
        place = AtUrl(f"sqlite:{tmp_path / 'store.db'}")
    else:
        server: Etcd = request.getfixturevalue("etcd")
        place = OnEtcd(f"{server.url}/test-{os.getpid()}-{next(numbers)}")
    async with place.store:
        yield place
