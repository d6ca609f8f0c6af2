"""The two ways to carry out a verb, which is written once, as a coroutine.

On a store of this machine nothing is really awaited, so that the coroutine is called like a function: no event loop, no trio, which
takes five times as long to import as all else together. On etcd it is trio's.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from ..coordination.errors import CoordinationError, Unavailable
from .exit_status import Signalled, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from ..coordination.model import Status
    from ..coordination.sqlite.store import InlineStore
    from ..coordination.store import Store
    from .arguments import Arguments
    from .output import Answer

__all__ = ["Driver", "Verb", "drive"]

T = TypeVar("T")


class Driver(Protocol):
    """What a verb asks for that is not the store's."""

    async def counter(self, name: str) -> int:
        """What a group counts."""
        ...

    async def until(self, name: str, enough: Callable[[Status], bool]) -> Status:
        """The first status of a group that is enough."""
        ...

    def limit(self) -> AbstractContextManager[object]:
        """A block that ends with TimeoutError when the time that was given for the verb is over."""
        ...

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Call a function that blocks."""
        ...


class Inline:
    """Everything in the calling thread."""

    def __init__(self, store: InlineStore) -> None:
        self._store = store

    async def counter(self, name: str) -> int:
        """What a group counts."""
        return await self._store.counter(name)

    async def until(self, name: str, enough: Callable[[Status], bool]) -> Status:
        """The first status of a group that is enough."""
        async with self._store.watch(name) as statuses:
            async for status in statuses:
                if enough(status):
                    return status
        raise AssertionError("the stream of a group ended")  # pragma: no cover (it is endless, or raises)

    def limit(self) -> AbstractContextManager[object]:
        """The store's own deadline, which was set before."""
        return contextlib.nullcontext()

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Call it."""
        return fn(*args)


class Trio:
    """In trio's loop."""

    def __init__(self, store: Store, timeout: float | None) -> None:
        import trio

        self._store = store
        self._deadline = None if timeout is None else trio.current_time() + timeout

    async def counter(self, name: str) -> int:
        """What a group counts."""
        return (await self._store.status(name)).counter

    async def until(self, name: str, enough: Callable[[Status], bool]) -> Status:
        """The first status of a group that is enough, also if the store, once it has answered, is unavailable for a while."""
        from ..coordination.following import Outage
        from ..coordination.waiting import until

        return await until(self._store, name, enough, Outage(f"the wait for wait group {name!r}"), first_too=False)

    @contextlib.contextmanager
    def limit(self) -> Any:
        """A scope of trio's."""
        import trio

        if self._deadline is None:
            yield
            return
        if self._deadline <= trio.current_time():  # no time at all is time for one look
            self._deadline = math.inf
        with trio.CancelScope(deadline=self._deadline) as scope:
            yield
        if scope.cancelled_caught:
            raise TimeoutError

    async def call(self, fn: Callable[..., T], *args: object) -> T:
        """Call it in a thread, which is waited for."""
        import trio

        return await trio.to_thread.run_sync(fn, *args)


Verb: TypeAlias = Callable[["Store", "Arguments", Driver], Coroutine[Any, Any, "Answer"]]


def drive(verb: Verb, arguments: Arguments) -> Answer:
    """Carry out a verb on the store that was named. Raises: UsageError, what the verb raises, Signalled, KeyboardInterrupt."""
    from ..coordination.opening import open_inline, open_store

    try:
        inline = open_inline(arguments.store)
        remote = open_store(arguments.store) if inline is None else None
    except ValueError as error:
        where = "--store" if arguments.store is not None else "GROUPER_STORE"
        raise UsageError(f"{where}: {error}") from error
    except ImportError as error:
        raise Unavailable(str(error)) from error
    if inline is not None:
        return _inline(verb, inline, arguments)
    assert remote is not None
    return _with_trio(verb, remote, arguments)


async def _carry_out(verb: Verb, store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """What a verb answers, whose change is made though the store may not be closed in peace."""
    answer: Answer | None = None
    try:
        async with store:
            answer = await verb(store, arguments, driver)
    except CoordinationError as error:
        if answer is None:
            raise
        answer.trouble = answer.trouble or error
    assert answer is not None
    return answer


def _inline(verb: Verb, store: InlineStore, arguments: Arguments) -> Answer:
    if arguments.timeout is not None:
        store.deadline = time.monotonic() + arguments.timeout
    coroutine = _carry_out(verb, store, arguments, Inline(store))
    if arguments.verb != "wait":
        return _finish(coroutine)
    with _terminating():
        return _finish(coroutine)


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a store that should block has awaited")


@contextlib.contextmanager
def _terminating() -> Any:
    """Let SIGTERM end a wait by an exception, so that what it shows is taken from the terminal."""
    import signal

    def raising(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:  # ignored: so it stays
        yield
        return
    try:
        signal.signal(signal.SIGTERM, raising)
    except ValueError:  # a thread that is not the main one: signals are not its business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _with_trio(verb: Verb, store: Store, arguments: Arguments) -> Answer:
    import trio

    async def main() -> Answer:
        return await _carry_out(verb, store, arguments, Trio(store, arguments.timeout))

    with _without_log(arguments.debug):
        if arguments.verb == "run":  # which takes signals in a way of its own
            return trio.run(main)
        return trio.run(_until_signalled, main)


@contextlib.contextmanager
def _without_log(debug: bool) -> Any:
    """Keep what the store logs out of the lines that are the command's, unless somebody wants to know."""
    import logging

    logger, nowhere = logging.getLogger("grouper"), logging.NullHandler()
    if not debug:
        logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)


async def _until_signalled(fn: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a function returns or raises, bare. Raises: Signalled if a signal comes first."""
    import signal

    import trio

    results: list[T] = []
    errors: list[BaseException] = []

    async def carry_out(scope: trio.CancelScope) -> None:
        try:
            results.append(await fn())
        except Exception as error:
            errors.append(error)
        scope.cancel()

    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    if not wanted:
        return await fn()
    with trio.open_signal_receiver(*wanted) as numbers:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry_out, nursery.cancel_scope)
            async for number in numbers:
                errors.append(Signalled(number))
                break
            nursery.cancel_scope.cancel()
    if results:
        return results[0]
    raise errors[0]
