"""What is called at intervals, and what is called at the end."""

from __future__ import annotations

import functools
import math
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper.runners import Cleanup, Periodic

from .running import running


class Clock:
    """Notes when it was called; each call takes as long as it is told."""

    def __init__(self, *durations: float) -> None:
        self.begin = trio.current_time()
        self.times: list[float] = []
        self.durations = list(durations)

    async def tick(self) -> None:
        self.times.append(round(trio.current_time() - self.begin, 6))
        await trio.sleep(self.durations.pop(0) if self.durations else 0)


async def test_it_is_called_at_once_and_then_on_the_grid() -> None:
    """Calls begin `every` seconds, the first one at the start."""
    clock = Clock()
    async with running(Periodic(clock.tick, every=10)):
        await trio.sleep(35)
    assert clock.times == [0, 10, 20, 30]


async def test_what_a_call_takes_does_not_move_the_grid() -> None:
    """A slow call does not make the later ones late."""
    clock = Clock(3, 7, 1)
    async with running(Periodic(clock.tick, every=10)):
        await trio.sleep(35)
    assert clock.times == [0, 10, 20, 30]


async def test_missed_ticks_are_dropped() -> None:
    """After a call that took longer than `every`, the next tick is the next call: no burst."""
    clock = Clock(35)
    async with running(Periodic(clock.tick, every=10)):
        await trio.sleep(55)
    assert clock.times == [0, 40, 50]


async def test_one_tick_is_one_call_despite_rounding() -> None:
    """An interval that no float can hold does not call twice for one tick, nor leave one out."""
    clock = Clock()
    async with running(Periodic(clock.tick, every=0.1)):
        await trio.sleep(99.95)
    assert clock.times == [round(tick * 0.1, 6) for tick in range(1000)]


async def test_it_passes_its_arguments() -> None:
    """Positional arguments are the function's."""
    got: list[tuple[int, str]] = []

    async def fn(number: int, text: str) -> None:
        got.append((number, text))

    async with running(Periodic(fn, 1, "a", every=10)):
        await wait_all_tasks_blocked()
    assert got == [(1, "a")]


async def test_a_stop_signal_ends_the_wait_at_once() -> None:
    """While it waits for the next tick there is nothing to finish."""
    clock = Clock()
    async with running(Periodic(clock.tick, every=1000)) as process:
        await trio.sleep(1)
        process.stop()
        await process.end()
    assert trio.current_time() - clock.begin == pytest.approx(1)


async def test_a_stop_signal_lets_the_call_finish_and_is_the_last() -> None:
    """The call that is under way returns, and no other is made."""
    clock = Clock(25)
    async with running(Periodic(clock.tick, every=10)) as process:
        await trio.sleep(1)
        process.stop()
        await process.end()
    assert clock.times == [0]
    assert trio.current_time() - clock.begin == pytest.approx(25)


async def test_a_second_stop_signal_cancels_the_call() -> None:
    """It is cut, and that is a clean exit."""
    clock = Clock(math.inf)
    async with running(Periodic(clock.tick, every=10)) as process:
        await trio.sleep(1)
        process.stop()
        await trio.sleep(1)
        assert not process.ended.is_set()
        process.stop()
        await process.end()
    assert trio.current_time() - clock.begin == pytest.approx(2)


async def test_a_kill_signal_cancels_the_call_at_once() -> None:
    """SIGKILL needs no second."""
    async with running(Periodic(trio.sleep, math.inf, every=10)) as process:
        process.signals.send(signal.SIGKILL)
        await process.end()


async def test_a_stop_signal_sent_before_the_start_means_no_call() -> None:
    """It is ready, does nothing, and ends."""
    clock = Clock()
    async with running(Periodic(clock.tick, every=10), signal.SIGTERM) as process:
        await process.end()
    assert (process.was_ready, clock.times) == (True, [])


async def test_a_stop_signal_that_was_taken_already_counts() -> None:
    """`received` is enough: whoever had the signals before may have taken it."""
    clock = Clock()
    process = Periodic(clock.tick, every=10)
    async with running(Cleanup(clock.tick)) as first:
        first.stop()
        await first.end()
        assert first.signals.received
        await process.run(first.signals, task_status=first)
    assert clock.times == [0]  # the cleanup's


async def test_signals_that_stop_nothing_do_nothing() -> None:
    """HUP and the like are dropped, and may be sent again."""
    clock = Clock()
    async with running(Periodic(clock.tick, every=10)) as process:
        for _ in range(2):
            process.signals.send(signal.SIGHUP)
            await trio.sleep(9)
        assert not process.ended.is_set()
        assert "pending=[]" in repr(process.signals)
    process.signals.send(signal.SIGHUP)
    assert "pending=[SIGHUP]" in repr(process.signals)
    assert clock.times == [0, 10]


async def test_an_error_ends_it() -> None:
    """What the function raises comes out as itself."""

    async def fail() -> None:
        raise LookupError("gone")

    async with running(Periodic(fail, every=10)) as process:
        with pytest.raises(LookupError, match="gone"):
            await process.end()


async def test_an_error_in_a_cancelled_call_is_not_lost() -> None:
    """A call that fails when a second stop signal cuts it has failed."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("gone")

    async with running(Periodic(fail, every=10)) as process:
        process.stop()
        process.stop()
        with pytest.raises(LookupError, match="gone"):
            await process.end()


@pytest.mark.parametrize("duration", [0, math.inf], ids=["waiting", "calling"])
async def test_a_cancellation_goes_through(duration: float) -> None:
    """From outside it is neither swallowed nor late, in a wait and in a call."""
    async with running(Periodic(trio.sleep, duration, every=10)) as process:
        await wait_all_tasks_blocked()
        process.scope.cancel()
        await process.end()
        assert process.scope.cancelled_caught


async def test_it_can_be_run_again() -> None:
    """Nothing of a run is kept in the runner."""
    clock = Clock()
    runner = Periodic(clock.tick, every=10)
    for _ in range(2):
        async with running(runner) as process:
            await wait_all_tasks_blocked()
            process.stop()
            await process.end()
    assert clock.times == [0, 0]


@pytest.mark.parametrize("every", [0, -1, math.inf, math.nan])
def test_an_interval_is_positive_and_finite(every: float) -> None:
    """Anything else is refused, with an example."""
    with pytest.raises(ValueError, match="every=60 means once a minute"):
        Periodic(trio.sleep, 0, every=every)


def blocking() -> None: ...


def generator() -> Iterator[None]:
    yield


async def async_generator() -> AsyncIterator[None]:
    yield


class Blocking:
    def __call__(self) -> None: ...


class Asynchronous:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (None, "None is not an async function"),
        (Asynchronous, "is not an async function"),
        (blocking, "blocking is not async: make it `async def`, and call what blocks in a thread"),
        (functools.partial(blocking), "blocking is not async"),
        (time.sleep, "sleep is not async"),
        (Blocking(), r"Blocking.__call__ is not async"),
        (generator, "generator has a `yield`"),
        (async_generator, "async_generator has a `yield`"),
    ],
)
@pytest.mark.parametrize("who", ["Periodic", "Cleanup"])
def test_what_is_no_async_function_is_refused(fn: Any, message: str, who: str) -> None:
    """At once, naming the function and the fix."""
    with pytest.raises(TypeError, match=f"{who}: .*{message}"):
        _ = Periodic(fn, every=1) if who == "Periodic" else Cleanup(fn)


def test_what_was_called_already_is_refused() -> None:
    """A coroutine is the common slip, and it is not left to warn that nobody awaited it."""
    with pytest.raises(TypeError, match=r"method\(\) was called already"):
        Cleanup(Asynchronous().method())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the mistake that is tested


@pytest.mark.parametrize(
    "fn",
    [Asynchronous(), Asynchronous().method, functools.partial(trio.sleep, 0), lambda: Asynchronous().method(), trio.Event().wait],
)
def test_what_can_be_awaited_is_taken(fn: Any) -> None:
    """Objects, methods, partials and lambdas are functions too."""
    Cleanup(fn)


async def test_a_cleanup_runs_when_told_to_stop() -> None:
    """It is ready at once, idle, and calls its function at the stop signal."""
    clock = Clock()
    async with running(Cleanup(clock.tick)) as process:
        process.signals.send(signal.SIGHUP)
        await trio.sleep(7)
        assert process.was_ready
        assert clock.times == []
        process.stop()
        await process.end()
    assert clock.times == [7]


async def test_a_cleanup_runs_if_told_to_stop_before_it_began() -> None:
    """It was started, so it cleans up."""
    clock = Clock()
    async with running(Cleanup(clock.tick), signal.SIGINT) as process:
        await process.end()
    assert clock.times == [0]


async def test_the_error_of_a_cleanup_is_told() -> None:
    """What the function raises comes out as itself."""

    async def fail(text: str) -> None:
        raise LookupError(text)

    async with running(Cleanup(fail, "gone")) as process:
        process.stop()
        with pytest.raises(LookupError, match="gone"):
            await process.end()


async def test_a_cleanup_does_not_run_when_cancelled() -> None:
    """A kill leaves no time for it."""
    clock = Clock()
    async with running(Cleanup(clock.tick)) as process:
        process.scope.cancel()
        await process.end()
    assert (process.scope.cancelled_caught, clock.times) == (True, [])


async def test_a_second_stop_signal_cancels_a_cleanup() -> None:
    """The same rule as everywhere: it is cut, cleanly."""
    async with running(Cleanup(trio.sleep_forever)) as process:
        process.stop()
        await wait_all_tasks_blocked()
        assert not process.ended.is_set()
        process.stop()
        await process.end()
