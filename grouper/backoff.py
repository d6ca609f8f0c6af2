"""How long to wait before something is tried again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Self, TypeAlias

import attrs

from .errors import NotReady

__all__ = ["Backoff"]


Classes: TypeAlias = tuple[type[Exception], ...]


def as_classes(given: type[Exception] | Iterable[type[Exception]]) -> Classes:
    """Make a tuple of one class of exceptions, or of several."""
    if not isinstance(given, type | Iterable):
        raise TypeError(f"on={given!r} is neither a class of exceptions nor several")
    return (given,) if isinstance(given, type) else tuple(given)


@attrs.frozen
class Backoff:
    """Delays that grow: `first` seconds, then each `factor` times the one before, up to `cap`.

    Each delay is made shorter at random by up to `jitter` of itself (0 to 1), so that those who failed together do not come back
    together. What is tried is tried without end, unless `attempts` (all tries, the first included) or `timeout` (seconds after the
    beginning of the first, after which none begins) say otherwise. `on` are the exceptions after which to try again, beside
    `NotReady`.

    Raises: TypeError or ValueError that names the argument and the fix.
    """

    first: float = 0.1
    factor: float = attrs.field(default=2.0, kw_only=True)
    cap: float = attrs.field(default=60.0, kw_only=True)
    jitter: float = attrs.field(default=0.5, kw_only=True)
    attempts: float = attrs.field(default=math.inf, kw_only=True)
    timeout: float = attrs.field(default=math.inf, kw_only=True)
    on: tuple[type[Exception], ...] = attrs.field(default=(Exception,), kw_only=True, converter=as_classes)

    def __attrs_post_init__(self) -> None:
        for name, least in (("first", 0), ("factor", 1), ("cap", 0), ("jitter", 0), ("attempts", 1), ("timeout", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Backoff: {name}={value!r} is not a number")
            if not value >= least:
                raise ValueError(f"Backoff: {name}={value!r} is not {least} or more")
        if self.jitter > 1:
            raise ValueError(f"Backoff: jitter={self.jitter!r} is not a share of the delay, 0 to 1")
        if not math.isfinite(self.first) or not math.isfinite(self.factor):
            raise ValueError(
                f"Backoff: first={self.first!r} and factor={self.factor!r} must be finite: use `attempts=1` for no second try"
            )
        for kind in self.on:
            if not isinstance(kind, type) or not issubclass(kind, Exception):
                raise TypeError(f"Backoff: on={self.on!r} has something that is no class of exceptions")

    @classmethod
    def every(cls, seconds: float, *, timeout: float = math.inf) -> Self:
        """The same delay each time, for something that is polled."""
        return cls(seconds, factor=1.0, cap=seconds, jitter=0.0, timeout=timeout)

    def delay(self, tries: int, *, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many tries, the first of which is 1; `chance` gives numbers from 0 to 1.

        Raises: ValueError for less than one try.
        """
        if tries < 1:
            raise ValueError(f"there is no delay after {tries} tries: the first try is number 1")
        try:
            full = min(self.first * self.factor ** (tries - 1), self.cap)
        except OverflowError:
            full = self.cap if self.first else 0.0
        return full * (1 - self.jitter * chance()) if self.jitter else full

    def next(self, error: Exception, tries: int, elapsed: float, *, chance: Callable[[], float] = random.random) -> float | None:
        """Seconds to wait after a try that ended with `error`, `elapsed` seconds after the first began; None to give up."""
        if tries >= self.attempts or not isinstance(error, (NotReady, *self.on)):
            return None
        delay = self.delay(tries, chance=chance)
        return delay if elapsed + delay <= self.timeout else None
