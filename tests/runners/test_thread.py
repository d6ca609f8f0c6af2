"""A blocking function in a thread."""

from __future__ import annotations

import functools
import http.server
import signal
import threading
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper.runners import Threaded

from .running import Running, refused, running

pytestmark = pytest.mark.real_time


class Worker:
    """A function that runs until `stop` is called, or until it sees that it was cancelled; either is noted."""

    def __init__(self, *, looks: bool = True) -> None:
        self.looks = looks
        self.begun = trio.Event()
        self.stopping = trio.Event()
        self.stopped = threading.Event()
        self.stop_calls = 0
        self.notes: list[str] = []

    def run(self) -> None:
        trio.from_thread.run_sync(self.begun.set)
        while not self.stopped.wait(0.001):
            if self.looks:
                try:
                    trio.from_thread.check_cancelled()
                except trio.Cancelled:
                    self.notes.append("cancelled")
                    raise
        self.notes.append("returned")

    def stop(self) -> None:
        self.stop_calls += 1
        self.stopped.set()

    def ask(self) -> None:
        """A `stop` that does not work."""
        self.stop_calls += 1
        trio.from_thread.run_sync(self.stopping.set)


async def test_it_is_ready_at_once_and_ends_with_the_function() -> None:
    """What the function does not say cannot be waited for."""
    go = threading.Event()
    async with running(Threaded(go.wait)) as process:
        assert process.was_ready
        assert not process.ended.is_set()
        go.set()
        await process.end()


async def test_it_passes_its_arguments_and_raises_what_the_function_raises() -> None:
    """The error comes out as itself."""

    def fail(text: str) -> None:
        raise LookupError(text)

    async with running(Threaded(fail, "gone")) as process:
        with pytest.raises(LookupError, match="gone"):
            await process.end()


async def test_an_error_comes_out_as_itself_also_with_a_stop_function() -> None:
    """The task that waits for the signal shows nowhere, and `stop` is not called for what has ended."""
    worker = Worker()

    def fail() -> None:
        raise LookupError("gone")

    async with running(Threaded(fail, stop=worker.stop)) as process:
        with pytest.raises(LookupError, match="gone") as caught:
            await process.end()
    assert caught.value.__context__ is None
    assert worker.stop_calls == 0


async def test_a_stop_signal_is_seen_by_check_cancelled() -> None:
    """Without `stop`, a function that looks is cancelled, and that is a clean exit."""
    worker = Worker()
    async with running(Threaded(worker.run)) as process:
        await worker.begun.wait()
        process.stop()
        await process.end()
    assert worker.notes == ["cancelled"]


async def test_a_function_that_does_not_look_is_waited_for() -> None:
    """A thread cannot be abandoned."""
    worker = Worker(looks=False)
    async with running(Threaded(worker.run)) as process:
        await worker.begun.wait()
        process.stop()
        await wait_all_tasks_blocked()
        process.scope.cancel()
        await wait_all_tasks_blocked()
        assert not process.ended.is_set()
        worker.stopped.set()
        await process.end()
    assert worker.notes == ["returned"]


async def test_signals_that_stop_nothing_do_nothing() -> None:
    """HUP does not end it, with or without `stop`."""
    for stop in (None, Worker().stop):
        worker = Worker()
        async with running(Threaded(worker.run, stop=stop)) as process:
            await worker.begun.wait()
            process.signals.send(signal.SIGHUP)
            await wait_all_tasks_blocked()
            assert not process.ended.is_set()
            worker.stop()
            await process.end()
        assert worker.notes == ["returned"]


async def test_a_stop_signal_calls_stop_and_cancels_nothing() -> None:
    """With `stop`, the function goes on until that makes it return."""
    worker = Worker()
    async with running(Threaded(worker.run, stop=worker.stop)) as process:
        await worker.begun.wait()
        process.stop()
        await process.end()
    assert (worker.notes, worker.stop_calls) == (["returned"], 1)


async def test_a_second_stop_signal_cancels() -> None:
    """If `stop` did not help; it is not called again."""
    worker = Worker()
    async with running(Threaded(worker.run, stop=worker.ask)) as process:
        await worker.begun.wait()
        process.stop()
        await worker.stopping.wait()
        await wait_all_tasks_blocked()
        assert worker.notes == []
        process.stop()
        await process.end()
    assert (worker.notes, worker.stop_calls) == (["cancelled"], 1)


async def test_a_cancellation_also_calls_stop() -> None:
    """A kill of a function that only `stop` ends does not hang, and the cancellation goes through."""
    worker = Worker(looks=False)
    async with running(Threaded(worker.run, stop=worker.stop)) as process:
        await worker.begun.wait()
        process.scope.cancel()
        await process.end()
        assert process.scope.cancelled_caught
    assert (worker.notes, worker.stop_calls) == (["returned"], 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, None], ids=["signal", "cancelled"])
async def test_what_never_began_is_not_stopped(number: int | None) -> None:
    """`stop` may hang if nothing runs: told to stop before the thread began, neither is called."""
    worker = Worker()
    runner = Threaded(worker.run, stop=worker.stop)
    if number is None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with running(runner):
                pass
    else:
        async with running(runner, number) as process:
            await process.end()
    assert (worker.notes, worker.stop_calls) == ([], 0)


async def test_a_stop_signal_that_overtakes_the_thread_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent after the thread was asked for and before it began: neither function is called."""
    worker = Worker()
    run_sync = trio.to_thread.run_sync
    process = Running()

    async def late(*args: Any, **kwargs: Any) -> object:
        process.stop()
        await wait_all_tasks_blocked()
        return await run_sync(*args, **kwargs)

    monkeypatch.setattr(trio.to_thread, "run_sync", late)
    await process.run(Threaded(worker.run, stop=worker.stop))
    assert process.error is None
    assert (worker.notes, worker.stop_calls) == ([], 0)


async def test_an_error_of_stop_is_told_and_cancels_the_function() -> None:
    """Nothing else would end it."""
    worker = Worker()

    def fail() -> None:
        raise LookupError("no stop")

    async with running(Threaded(worker.run, stop=fail)) as process:
        await worker.begun.wait()
        process.stop()
        with pytest.raises(LookupError, match="no stop"):
            await process.end()
    assert worker.notes == ["cancelled"]


async def test_two_errors_come_in_one_group() -> None:
    """Neither that of `stop` nor that of the function is lost."""
    begun = trio.Event()
    go = threading.Event()

    def run() -> None:
        trio.from_thread.run_sync(begun.set)
        go.wait()
        raise LookupError("run")

    def stop() -> None:
        go.set()
        raise ValueError("stop")

    async with running(Threaded(run, stop=stop)) as process:
        await begun.wait()
        process.stop()
        with pytest.raises(ExceptionGroup) as caught:
            await process.end()
    assert {type(error) for error in caught.value.exceptions} == {LookupError, ValueError}


async def test_it_does_not_count_among_the_default_threads() -> None:
    """Functions that run for long leave trio's shared limiter to others."""
    limiter = trio.to_thread.current_default_thread_limiter()
    worker = Worker()
    async with running(Threaded(worker.run, stop=worker.stop)) as process:
        await worker.begun.wait()
        assert limiter.borrowed_tokens == 0
        process.stop()
        await process.end()


async def test_a_server_of_the_standard_library() -> None:
    """What it is for: `serve_forever`, stopped by `shutdown`, run twice."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as httpd:
        runner = Threaded(httpd.serve_forever, 0.01, stop=httpd.shutdown)
        for _ in range(2):
            async with running(runner) as process:
                assert not await refused(httpd.server_port)
                process.stop()
                await process.end()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Threaded(None), "is given no function"),  # type: ignore[arg-type]  # the mistake that is tested
        (lambda: Threaded(print, stop=0), "stop=0 is no function"),  # type: ignore[arg-type]  # the mistake that is tested
        (lambda: Threaded(trio.sleep), "fn is async"),
        (lambda: Threaded(functools.partial(trio.sleep, 1)), "fn is async"),
        (lambda: Threaded(print, stop=trio.sleep_forever), "stop is async"),
    ],
)
def test_what_is_no_blocking_function_is_refused(make: Any, message: str) -> None:
    """At once, naming what is wrong and the fix."""
    with pytest.raises(TypeError, match=message):
        make()
