"""A store in memory that fails where a test says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, Self, TypeVar

import trio

from grouper.coordination import Entry, MemoryStore, Status, Unavailable
from grouper.coordination.sqlite.memory import Machine

T = TypeVar("T")

GONE = "no answer from the store: start it"


class FaultyStore(MemoryStore):
    """Fails in what is in `fails`, does not answer to what is in `hangs`, by the names of its methods; `calls` has them all.

    `cut()` ends its streams, as an outage does that comes while they are read.
    """

    def __init__(self, *, _machine: Machine | None = None) -> None:
        super().__init__(_machine=_machine)
        self.fails: dict[str, Exception] = {}
        self.hangs: set[str] = set()
        self.calls: list[str] = []
        self.reading: set[trio.CancelScope] = set()

    def process(self) -> FaultyStore:
        return FaultyStore(_machine=self._machine)

    def fail(self, *verbs: str) -> None:
        """Be unavailable in these, from now on."""
        for verb in verbs:
            self.fails[verb] = Unavailable(GONE)

    def recover(self) -> None:
        self.fails.clear()
        self.hangs.clear()

    def cut(self) -> None:
        """End all streams with an outage."""
        for scope in list(self.reading):
            scope.cancel()

    async def _reach(self, verb: str) -> None:
        self.calls.append(verb)
        if verb in self.hangs:
            await trio.sleep_forever()
        if verb in self.fails:
            raise self.fails[verb]

    async def register(self, space: str, name: str, id: str, value: str) -> Entry:
        await self._reach("register")
        return await super().register(space, name, id, value)

    async def withdraw(self, space: str, entry: Entry) -> bool:
        await self._reach("withdraw")
        return await super().withdraw(space, entry)

    async def status(self, name: str) -> Status:
        await self._reach("status")
        return await super().status(name)

    def watch(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[Status]]:
        return self._watch(name)

    @asynccontextmanager
    async def _watch(self, name: str) -> AsyncGenerator[AsyncIterator[Status]]:
        await self._reach("watch")
        async with super().watch(name) as stream:
            yield Fragile(self, stream)

    def watch_entries(
        self, space: str, name: str, *, by_prefix: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[Entry, ...]]]:
        return self._watch_entries(space, name, by_prefix)

    @asynccontextmanager
    async def _watch_entries(self, space: str, name: str, by_prefix: bool) -> AsyncGenerator[AsyncIterator[tuple[Entry, ...]]]:
        await self._reach("watch_entries")
        async with super().watch_entries(space, name, by_prefix=by_prefix) as stream:
            yield Fragile(self, stream)


class Fragile(Generic[T]):
    """A stream that `cut()` ends."""

    def __init__(self, store: FaultyStore, stream: AsyncIterator[T]) -> None:
        self._store = store
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        with trio.CancelScope() as scope:
            self._store.reading.add(scope)
            try:
                return await anext(self._stream)
            finally:
                self._store.reading.remove(scope)
        raise Unavailable(GONE)
