"""What can be said about a function before it is called."""

from __future__ import annotations

import functools
import inspect
from typing import Any

__all__ = ["require_async"]


def require_async(fn: object, who: str) -> None:
    """Check that `fn` is an async function, as far as that can be seen without calling it.

    A lambda may return something to await and is let pass. Raises: TypeError that names `who`
    and the fix.
    """
    if inspect.iscoroutine(fn):
        fn.close()  # it will never run now, and it is said better here than by a warning
        raise TypeError(f"{who}: {fn.__qualname__}() was called already: give the function itself, without the call")
    if not callable(fn) or isinstance(fn, type):
        raise TypeError(f"{who}: {fn!r} is not an async function: give one, `async def {who.lower()}(): ...`")
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    if not (inspect.isroutine(inner) or inspect.iscoroutinefunction(inner)):
        inner = getattr(inner, "__call__", inner)  # noqa: B004 (its code is looked at, not whether it has one)
    function: Any = getattr(inner, "__func__", inner)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{who}: {function.__qualname__} has a `yield`: give an async function without one")
    blocking = inspect.isbuiltin(function) or (inspect.isfunction(function) and function.__name__ != "<lambda>")
    if blocking and not inspect.iscoroutinefunction(function):
        raise TypeError(f"{who}: {function.__qualname__} is not async: make it `async def`, and call what blocks in a thread")
