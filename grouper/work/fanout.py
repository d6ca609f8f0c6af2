"""The same for many things at once, and the results together: `map`, `as_completed`, `gather`, `first`.

All are pools. What `map` is given is taken from its iterator when there is a slot for it, some ahead, so that it may be endless
or slow and what is ahead costs no memory. There are no names and no report; the errors say which item they belong to.

`trio.lowlevel` is used for protection from KeyboardInterrupt.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

import trio

from .job import Job, require_job, title
from .ledger import OnError
from .pool import DEFAULT_LIMIT, Opened, Pool, crew_of, open_pool
from .submitting import PoolCrew

__all__ = ["as_completed", "first", "gather", "map"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")

Call: TypeAlias = Callable[[], Awaitable[T]]


async def map(  # as the builtin, of which it is the concurrent form
    fn: Callable[[A], Awaitable[T]],
    items: Iterable[A],
    *,
    limit: float = DEFAULT_LIMIT,
    on_error: OnError = "cancel",
    timeout: float = math.inf,
) -> list[T]:
    """Call an async function for each item, at most `limit` at a time, and return the values in the order of the items.

    A cancellation cancels all and waits for each. Raises: an ExceptionGroup of what was raised, each noting its item's number; with
    `on_error` "cancel" (the default) the first cancels the others. `timeout` (seconds, for all): `trio.TooSlowError`.
    """
    jobs: list[Job[T]] = []
    require_job(fn, title(fn) if callable(fn) else repr(fn), None, math.inf, bool)
    async with open_pool(limit=limit, on_error=on_error, timeout=timeout) as pool:
        crew_of(pool).feed_from(_made(pool, fn, items, jobs.append))
    return [cast("T", job.value) for job in jobs]  # all have succeeded: else the pool has raised


def _made(
    pool: Pool, fn: Callable[[A], Awaitable[Any]], items: Iterable[A], keep: Callable[[Job[Any]], object] | None
) -> Iterator[Job[Any]]:
    """The jobs for the items, made when they are wanted. One that is not ready has failed: there is no value to go on with."""
    crew, context = crew_of(pool), copy_context()
    crew.strict = True

    def make() -> Iterator[Job[Any]]:
        for place, item in enumerate(items):
            job: Job[Any] = Job(crew, place, fn, (item,), context)
            if keep is not None:
                keep(job)
            yield job

    return make()


def as_completed(
    fn: Callable[[A], Awaitable[T]],
    items: Iterable[A],
    *,
    limit: float = DEFAULT_LIMIT,
    on_error: OnError = "cancel",
    timeout: float = math.inf,
) -> Completed[A, T]:
    """As `map`, but the values come as they are there, in pairs with their items, and none is kept.

        async with as_completed(fetch, urls, limit=16) as pages:
            async for url, page in pages:
                ...

    Who reads slowly holds the others back. The end of the block cancels what has not been read. Raises, at the end: as `map`.
    """
    return Completed(fn, items, Pool(limit=limit, on_error=on_error, timeout=timeout))


class Completed(Generic[A, T]):
    """A block in which results are read."""

    def __init__(self, fn: Callable[[A], Awaitable[T]], items: Iterable[A], pool: Pool) -> None:
        require_job(fn, title(fn) if callable(fn) else repr(fn), None, math.inf, bool)
        self._fn = fn
        self._items = items
        self._opened = Opened(pool)
        self._send, self._receive = trio.open_memory_channel[tuple[A, T]](0)

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> AsyncIterator[tuple[A, T]]:
        pool = await self._opened.__aenter__()
        crew = crew_of(pool)
        crew.feed_from(_made(pool, self._one, self._items, None))
        crew.beside(self._close_at_end, crew)
        return self._receive

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        crew_of(self._opened.pool).abandon()
        try:
            return await self._opened.__aexit__(kind, error, tb)
        finally:
            self._receive.close()
            self._send.close()

    async def _one(self, item: A) -> None:
        value = await self._fn(item)
        await self._send.send((item, value))

    async def _close_at_end(self, crew: PoolCrew) -> None:
        await crew.until_drained(())
        self._send.close()


@overload
async def gather(a: Call[A], b: Call[B], /) -> tuple[A, B]: ...
@overload
async def gather(a: Call[A], b: Call[B], c: Call[C], /) -> tuple[A, B, C]: ...
@overload
async def gather(a: Call[A], b: Call[B], c: Call[C], d: Call[D], /) -> tuple[A, B, C, D]: ...
@overload
async def gather(*fns: Call[T]) -> tuple[T, ...]: ...
async def gather(*fns: Call[Any]) -> tuple[Any, ...]:
    """Call async functions all at once and return their values in the order in which they were given.

    The first failure cancels the others. A cancellation cancels all and waits for each. Raises: an ExceptionGroup of what was
    raised.
    """
    async with open_pool(limit=math.inf) as pool:
        crew_of(pool).strict = True
        jobs = [pool.start(fn) for fn in fns]
    return tuple(job.value for job in jobs)


async def first(*fns: Call[T]) -> T:
    """Call async functions all at once, return the value of the first that returns, and cancel the others.

    What others raised before is logged. A cancellation cancels all and waits for each. Raises: an ExceptionGroup of all errors if
    none returns; ValueError if none is given.
    """
    if not fns:
        raise ValueError("first() of nothing has no value: give it async functions")
    won: list[T] = []

    async def race(fn: Call[T]) -> None:
        value = await fn()
        if not won:
            won.append(value)
            crew_of(pool).abandon()

    pool = Pool(limit=math.inf, on_error="continue")
    for fn in fns:
        require_job(fn, repr(fn), None, math.inf, bool)
    try:
        async with Opened(pool):
            crew_of(pool).strict = True
            for fn in fns:
                pool.start(race, fn, name=title(fn))
    except ExceptionGroup:
        if not won:
            raise
    return won[0]
