"""What a runner is, and the adapters that make one of something else.

A runner is anything with `async def run(self, signals, /, *, task_status)`, or a plain async function of that shape. It sets up in
finite time, calls `task_status.started()` once, works, and ends in finite time after a stop signal. It returns when it has stopped
cleanly and raises otherwise.

`trio.lowlevel` is used to let a KeyboardInterrupt strike in what is user code, beneath the engine, which is protected from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast, runtime_checkable
from weakref import WeakSet

import attrs
import trio

from .signals import Signals

__all__ = ["Proxy", "Runner", "RunnerLike", "Startable"]


@runtime_checkable
class Runner(Protocol):
    """Something that can be run, with a start (`started()`) and an end of its own."""

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> object:
        """Run until done or told to stop; call `task_status.started(value)` once, when ready."""
        ...


class RunFunction(Protocol):
    """A plain function of a runner's shape."""

    def __call__(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> Awaitable[object]: ...


T = TypeVar("T")

RunnerLike: TypeAlias = Runner | RunFunction

_checked: Final[tuple[WeakSet[Any], WeakSet[Any]]] = (WeakSet(), WeakSet())
"""What was checked: plain functions and other callables, and the functions of bound methods."""

MOST_WRAPPERS: Final = 10_000
"""How deep a tower of wrappers is looked into: one could stand on itself."""

FIX: Final = "a runner has `async def run(self, signals, /, *, task_status)`, or is an async function `(signals, *, task_status)`"


NOT_CALLED: Final[Any] = object()
"""What a runner has returned that could not even be called."""


@trio.lowlevel.disable_ki_protection
async def unprotected(awaitable: Awaitable[T]) -> T:
    """Await what is user code, where a KeyboardInterrupt may be raised."""
    return await awaitable


class Titled(Protocol):
    """Something that has a name for messages."""

    @property
    def title(self) -> str: ...


def explained(error: Exception, awaitable: object, who: Titled) -> Exception:
    """The error of a runner, or what is wrong with it if it returned something that cannot be awaited."""
    if not isinstance(error, TypeError) or awaitable is NOT_CALLED or inspect.isawaitable(awaitable):
        return error
    return TypeError(f"{who.title}: its runner returned {awaitable!r}, which is not awaitable: make it `async def`")


def entry_point(runner: RunnerLike) -> RunFunction:
    """Return what is called to run `runner`."""
    entry: Any = getattr(runner, "run", runner)
    return cast("RunFunction", entry)


def require_runner(runner: object, who: str) -> None:
    """Check that `runner` is one, as far as that can be seen without running it.

    Raises: TypeError that names `who` and the fix.
    """
    if isinstance(runner, type):
        raise TypeError(f"{who}: {runner.__qualname__} is a class: give an instance of it, `{runner.__name__}(...)`")
    if inspect.iscoroutine(runner):
        raise TypeError(f"{who}: {runner.__qualname__}() was called already: give the function itself, without the call")
    entry = getattr(runner, "run", runner)
    if not callable(entry):
        raise TypeError(f"{who}: {runner!r} is not a runner: {FIX}")
    function = getattr(entry, "__func__", entry)
    checked = _checked[function is not entry]
    try:
        if function not in checked:
            _check_shape(entry, who)
            checked.add(function)
    except TypeError:  # not hashable, nothing that a weak reference can point at, or refused: again, to tell which
        _check_shape(entry, who)


def _check_shape(entry: Callable[..., Any], who: str) -> None:
    function: Callable[..., Any] = inspect.unwrap(getattr(entry, "func", entry))  # of a functools.partial
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{who}: {_title(function)} has a `yield`: {FIX}")
    try:
        signature = inspect.signature(entry)
    except (TypeError, ValueError):  # built in C, with no signature to look at
        return
    try:
        signature.bind(None, task_status=None)
    except TypeError as error:
        raise TypeError(f"{who}: {_title(function)}{signature} cannot be called as a runner ({error}): {FIX}") from None


def _title(function: object) -> str:
    return str(getattr(function, "__qualname__", None) or repr(function))


def said(runner: object, name: str) -> Any:
    """What a runner, or the innermost one that its wrappers run, says about itself under `name`; None if nothing.

    The names: `grace` (seconds it wants between signal and kill), `role`, `event_buffer`. A wrapper has its runner as `runner`.
    """
    for _ in range(MOST_WRAPPERS):
        value = getattr(runner, name, None)
        if value is not None:
            return value
        runner = getattr(runner, "runner", None)
        if runner is None:
            break
    return None


@attrs.frozen(eq=False, init=False)
class Startable:
    """Run any trio function; a stop signal cancels it, which is a clean exit.

    It is ready when the function calls `task_status.started(value)`, if it takes a `task_status`, and else at once. So
    `Startable(trio.serve_tcp, handler, 0)` or `Startable(functools.partial(trio.run_process, ["rsync", ...]))` are runners.
    What the function raises when cancelled is its error.
    """

    fn: Callable[..., Awaitable[object]]
    args: tuple[object, ...]

    def __init__(self, fn: Callable[..., Awaitable[object]], *args: object) -> None:
        if not callable(fn):
            raise TypeError(f"Startable({fn!r}) is given no function: Startable(trio.serve_tcp, handler, 0) is how it is meant")
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "args", args)

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run the function until it returns or a stop signal comes."""
        with signals.cancelling():
            if _takes_task_status(self.fn):
                await self.fn(*self.args, task_status=task_status)
            else:
                task_status.started()
                await self.fn(*self.args)


def _takes_task_status(fn: Callable[..., Any]) -> bool:
    try:
        parameter = inspect.signature(fn).parameters.get("task_status")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind is not inspect.Parameter.POSITIONAL_ONLY


@attrs.frozen(eq=False)
class Proxy:
    """Run a runner that also gets the signals sent to `extra`, in the order in which they were sent to either.

    It is ready when the runner is. No task is between: `extra.send()` reaches the runner at once. `extra` can have one Proxy
    running at a time.
    """

    extra: Signals
    runner: RunnerLike

    def __attrs_post_init__(self) -> None:
        require_runner(self.runner, "Proxy")
        if not isinstance(self.extra, Signals):
            raise TypeError(
                f"Proxy: extra={self.extra!r} is not the Signals that are sent to from elsewhere: Proxy(Signals(), runner)"
            )

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run the runner on both."""
        with signals._relayed() as inner, self.extra._forwarded(inner):
            await entry_point(self.runner)(inner, task_status=task_status)
