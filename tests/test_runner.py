"""What counts as a runner, and the adapters that make one of something else."""

from __future__ import annotations

import functools
import re
import signal
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Ordered, Proxy, Runner, Signals, Startable
from grouper.member import grace_of
from grouper.runner import entry_point, require_runner, said

HUP, USR1, TERM = signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM


async def plain(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    task_status.started("up")
    await signals.wait()


async def configured(port: int, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    task_status.started(port)


class Service:
    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started("up")
        await signals.wait()

    async def other(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None: ...


class Callee:
    async def __call__(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None: ...


class Unhashable(Callee):
    __hash__ = None  # type: ignore[assignment]  # pyright: ignore


class Slotted:
    __slots__ = ()

    async def __call__(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None: ...


@functools.wraps(plain)
async def wrapped(*args: Any, **kwargs: Any) -> None:
    await plain(*args, **kwargs)


async def named_otherwise(s: Signals, task_status: trio.TaskStatus[Any], verbose: bool = False) -> None: ...


GOOD: dict[str, Any] = {
    "function": plain,
    "function with more parameters": named_otherwise,
    "decorated function": wrapped,
    "partial": functools.partial(configured, 80),
    "object with run": Service(),
    "bound method": Service().other,
    "callable object": Callee(),
    "callable object that cannot be hashed": Unhashable(),
    "callable object that cannot be referred to weakly": Slotted(),
    "lambda": lambda signals, task_status: None,  # pyright: ignore[reportUnknownLambdaType]
    "built in, without a signature": min,
}


@pytest.mark.parametrize("runner", GOOD.values(), ids=GOOD)
def test_runner_is_taken(runner: Any) -> None:
    """What can be called with signals and a task status is a runner, the first time and the second."""
    require_runner(runner, "here")
    require_runner(runner, "here")


async def one_parameter(signals: Signals) -> None: ...


async def no_parameters() -> None: ...


async def one_too_many(signals: Signals, port: int, /, *, task_status: trio.TaskStatus[Any]) -> None: ...


async def asynchronous_generator(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> AsyncGenerator[None]:
    yield


def generator(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> Generator[None]:
    yield


class NoCallable:
    run = 3


class WrongRun:
    async def run(self) -> None: ...


SHAPE = re.escape("a runner has `async def run(self, signals, /, *, task_status)`")
BAD = {
    "class": (Service, r"Service is a class: give an instance of it, `Service\(\.\.\.\)`"),
    "number": (42, f"42 is not a runner: {SHAPE}"),
    "run is no function": (NoCallable(), "NoCallable object at .* is not a runner"),
    "run takes no signals": (WrongRun(), r"WrongRun\.run\(\).* cannot be called as a runner \(too many positional arguments\)"),
    "no task_status": (one_parameter, r"one_parameter\(signals.*task_status"),
    "no parameters": (no_parameters, r"no_parameters\(\)"),
    "a parameter too many": (one_too_many, "missing a required argument: 'port'"),
    "partial that fits no more": (functools.partial(plain, Signals()), "cannot be called as a runner"),
    "asynchronous generator": (asynchronous_generator, "asynchronous_generator has a `yield`"),
    "generator": (generator, "generator has a `yield`"),
}


@pytest.mark.parametrize(("runner", "text"), BAD.values(), ids=BAD)
def test_what_is_no_runner_is_refused(runner: Any, text: str) -> None:
    """The error says who was given it, what is wrong and what a runner is."""
    with pytest.raises(TypeError, match=f"^here: .*{text}"):
        require_runner(runner, "here")


def test_coroutine_is_refused() -> None:
    """Calling the function is the runner's group's business: a coroutine object is refused with that advice."""
    coroutine: Coroutine[Any, Any, None] = plain(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    with pytest.raises(TypeError, match=r"here: plain\(\) was called already: give the function itself, without the call"):
        require_runner(coroutine, "here")
    coroutine.close()


def test_unbound_method_is_refused_also_after_the_bound_one_was_taken() -> None:
    """What was found good of an object is not held for its class's function, which lacks `self`."""

    class Job:
        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None: ...

    require_runner(Job(), "here")
    with pytest.raises(TypeError, match=r"Job\.run\(.*cannot be called as a runner"):
        require_runner(Job.run, "here")


def test_entry_point_of_an_object_is_its_run() -> None:
    """What is called to run an object is its method `run`."""
    service = Service()
    assert entry_point(service) == service.run


def test_entry_point_of_a_function_is_itself() -> None:
    """A plain function is called as it is."""
    assert entry_point(plain) is plain


def test_runner_can_be_told_at_run_time() -> None:
    """`Runner` is a protocol that `isinstance` understands."""
    assert isinstance(Service(), Runner)
    assert not isinstance(plain, Runner)


# What a runner says about itself


class Patient(Service):
    grace = 30.0


def test_wrapper_passes_on_what_its_runner_says() -> None:
    """The innermost runner's grace holds for all that wrap it."""
    runner = Proxy(Signals(), grouper.restart_on(Proxy(Signals(), Patient()), OSError))
    assert said(runner, "grace") == 30.0
    assert grace_of(grouper.Member("web", runner)) == 30.0


def test_runner_that_says_nothing() -> None:
    """Neither the runner nor what it wraps has the attribute."""
    assert said(Proxy(Signals(), plain), "grace") is None


# Startable


@pytest.mark.parametrize("fn", [None, 3, "trio.sleep"])
def test_startable_without_a_function_is_refused(fn: Any) -> None:
    """`Startable` says how it is meant."""
    with pytest.raises(TypeError, match=r"Startable\(.*\) is given no function: Startable\(trio.serve_tcp, handler, 0\)"):
        Startable(fn)


async def wait_with_status(value: str, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    task_status.started(value)
    await trio.sleep_forever()


async def wait_positional_only(task_status: str, /) -> None:
    assert task_status == "an argument"
    await trio.sleep_forever()


STARTABLES: dict[str, tuple[Startable, object]] = {
    "takes a task status": (Startable(wait_with_status, "bound"), "bound"),
    "partial of that": (Startable(functools.partial(wait_with_status, "bound")), "bound"),
    "takes none": (Startable(trio.sleep, 1000), None),
    "takes one of that name by position only": (Startable(wait_positional_only, "an argument"), None),
}


@pytest.mark.parametrize(("runner", "value"), STARTABLES.values(), ids=STARTABLES)
async def test_startable_is_ready_and_stops(runner: Startable, value: object) -> None:
    """It is ready with the function's value, or at once; a stop signal ends it cleanly."""
    async with grouper.invoke(runner) as process:
        assert process.value == value
        process.signal(TERM)
        assert (await process.wait()).ok


async def test_startable_is_ready_when_its_function_says_so() -> None:
    """A function that takes a task status decides when it is ready."""
    go = trio.Event()

    async def slow(task_status: trio.TaskStatus[None]) -> None:
        await go.wait()
        task_status.started()

    async with grouper.background(Startable(slow)) as process:
        await wait_all_tasks_blocked()
        assert process.ready_at is None
        go.set()
        await process.wait_ready()


def without_signature() -> Any:
    """A function that has no signature to look at, as some built in C."""

    async def fn() -> None: ...

    fn.__signature__ = "none"  # type: ignore[attr-defined]  # pyright: ignore
    return fn


async def test_startable_takes_a_function_without_a_signature() -> None:
    """A function of which nothing can be seen is taken for one without a task status."""
    async with grouper.invoke(Startable(without_signature())) as process:
        assert (await process.wait()).was_ready


async def test_pass_through_signal_does_not_cancel_a_startable() -> None:
    """Only stop signals cancel the function."""
    async with grouper.invoke(Startable(trio.sleep_forever)) as process:
        process.signal(HUP)
        await wait_all_tasks_blocked()
        assert process.exit is None


async def test_startable_ends_with_its_function() -> None:
    """The function's return is a clean exit."""
    async with grouper.invoke(Startable(trio.sleep, 5)) as process:
        assert (await process.wait()).ok


async def test_error_of_the_function_is_the_startables() -> None:
    """What the function raises passes, also when it was cancelled by the stop signal."""

    async def stubborn() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while cleaning up")

    with pytest.raises(OSError, match="while cleaning up"):
        async with grouper.invoke(Startable(stubborn)):
            pass


# Proxy


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started("up")
        async for number in signals:
            self.heard.append(number)
            if number == TERM:
                return


def test_proxy_of_no_runner_is_refused() -> None:
    """A Proxy checks its runner when it is made."""
    with pytest.raises(TypeError, match=r"^Proxy: Listener is a class"):
        Proxy(Signals(), Listener)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_proxy_is_ready_when_its_runner_is() -> None:
    """The runner's value is the Proxy's."""
    async with grouper.invoke(Proxy(Signals(), Listener())) as process:
        assert process.value == "up"


async def test_proxied_runner_gets_both_in_the_order_sent() -> None:
    """Signals of the process and of `extra` come in one order: that in which they were sent to either."""
    extra, listener = Signals(), Listener()
    async with grouper.invoke(Proxy(extra, listener)) as process:
        process.signal(HUP)
        extra.send(USR1)
        extra.send(signal.SIGUSR2)
        process.signal(signal.SIGWINCH)
        extra.send(TERM)
        await process.wait()
    assert listener.heard == [HUP, USR1, signal.SIGUSR2, signal.SIGWINCH, TERM]


async def test_what_was_pending_in_extra_reaches_the_runner() -> None:
    """What was sent to `extra` before the Proxy ran is not lost."""
    extra, listener = Signals(), Listener()
    extra.send(HUP)
    extra.send(TERM)
    async with grouper.invoke(Proxy(extra, listener)) as process:
        await process.wait()
    assert listener.heard == [HUP, TERM]


async def test_extra_of_two_running_proxies_is_an_error() -> None:
    """`extra` can have one Proxy running at a time."""
    extra = Signals()
    async with grouper.invoke(Proxy(extra, Listener())) as first:
        with pytest.raises(RuntimeError, match="give each running group Signals of its own"):
            async with grouper.invoke(Proxy(extra, Listener())):
                pass
        assert first.exit is None


async def test_proxy_can_run_again() -> None:
    """When the first run has ended, `extra` is free."""
    extra, listener = Signals(), Listener()
    proxy = Proxy(extra, listener)
    for _ in range(2):
        async with grouper.invoke(proxy):
            extra.send(HUP)
    assert listener.heard == [HUP, TERM] * 2


async def test_group_in_a_proxy_keeps_its_place_in_the_tree() -> None:
    """The paths beneath a Proxy are those that they were without it."""
    async with grouper.invoke(Ordered([("web", Proxy(Signals(), Ordered([("api", plain)])))])) as process:
        (web,) = process.children
        assert [child.path for child in web.children] == ["web/api"]


async def test_runner_of_a_proxy_has_received_the_first_of_both() -> None:
    """A stop signal of the process that came before the run goes before one of `extra`."""
    received: list[int | None] = []

    async def look(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        received.append(signals.received)

    signals, extra = Signals(), Signals()
    signals.send(signal.SIGINT)
    extra.send(TERM)
    await Proxy(extra, look).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    await Proxy(extra, look).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert received == [signal.SIGINT, TERM]


async def test_stop_signal_through_extra_is_a_stop() -> None:
    """A group in a Proxy is stopped by `extra` as by its own signals."""
    extra = Signals()
    async with grouper.invoke(Proxy(extra, Ordered([("api", plain)]))) as process:
        extra.send(TERM)
        assert (await process.wait()).ok
