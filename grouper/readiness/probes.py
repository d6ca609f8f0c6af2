"""A check asked once, and a check asked until it is ready.

There are four ways in which a question can end, and none may look like another: the check answers (ready, not yet, or an error of
its own), its time runs out, the poll's time runs out, or who asks is cancelled.

* Each question has one cancel scope and no more. Scopes in each other, the poll's around the probe's, would be tried first: what
  a check's nursery raises then comes in groups that are half Cancelled, and the outer scope takes the Cancelled out of such a
  group only after the inner one has been left, where nobody looks at the rest any more. So the time of a probe is what is left of
  its own time or of the poll's, whichever is less, and which of the two it was is known before it begins.
* An answer is the truth, whenever it comes. A check that is deaf to its cancellation and returns late has answered; it is waited
  for.
* A cancellation from outside is not touched, and it wins over a timeout of the same instant: trio gives the Cancelled to the
  outermost scope that was cancelled, and the checkpoint (of `trio.lowlevel`) before the timeout is told lets it be seen that
  another task cancelled in the same batch.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import attrs
import trio

from ..errors import NotReady
from ..member import require_seconds
from ..runners._checks import require_async
from .errors import CheckError, CheckFailed, CheckTimeout, leaves, named

__all__ = ["Check", "PerPoll", "Poll", "Probe", "poll", "probe"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Check: TypeAlias = Callable[[], Awaitable[T]]
"""Returns when ready, with any value but False; raises `NotReady`, or returns False, when not yet; raises all else as its error."""


class PerPoll(Protocol[T_co]):
    """A check that can keep something from probe to probe, in what it gives to each poll for its own."""

    def for_poll(self) -> Check[T_co]:
        """The check that one run of a poll asks, and nobody else."""
        ...


@attrs.frozen
class _Yes(Generic[T]):
    """The check is ready."""

    value: T


@attrs.frozen
class _No:
    """The check is not ready: what a probe raises for it, the same in a few words, and whether the probe's time was over."""

    error: NotReady | CheckError
    reason: str
    late: bool = False


async def _ask(check: Check[T], name: str, seconds: float) -> _Yes[T] | _No:
    """Ask once, for so many seconds. Raises what is no Exception, or a group that has such in it, and nothing else."""
    try:
        with trio.move_on_after(seconds):
            value = await check()
            return _Yes(value) if value is not False else _not_yet(name, "it returned False")
    except Exception as error:
        return _judged(check, name, error)
    except BaseExceptionGroup as group:
        not_yet, rest = group.split(NotReady)
        if not_yet is None or rest is None:
            raise
        raise rest from group.__cause__  # a "not yet" beside a cancellation is none of the errors that should outlive it
    await trio.lowlevel.checkpoint()
    return _No(CheckTimeout(name, seconds), f"no answer within {seconds:g} s", late=True)


def _not_yet(name: str, reason: str, cause: Exception | None = None) -> _No:
    error = NotReady(f"check {name!r} is not ready: {reason}" if reason else f"check {name!r} is not ready")
    error.__cause__ = cause
    return _No(error, reason or "it is not ready")


def _judged(check: object, name: str, error: Exception) -> _No:
    """What it means that a check raised `error`."""
    if isinstance(error, NotReady | CheckError) and isinstance(check, _Question) and check.name == name:
        return _No(error, str(error))  # it has told all, under this very name
    told = leaves(error)
    if all(isinstance(each, NotReady) for each in told):
        return _not_yet(name, "; ".join(filter(None, map(str, told))), error)
    reason = "; ".join(map(named, told))
    failed = CheckFailed(name, reason)
    failed.__cause__ = error
    return _No(failed, reason)


@attrs.frozen(eq=False)
class _Question(Generic[T]):
    """A check with a name: awaitable, and an async callable without arguments; each time it is asked anew."""

    check: Check[T]
    name: str

    def __await__(self) -> Generator[Any, Any, T]:
        return self().__await__()

    async def __call__(self) -> T:
        """Ask."""
        try:
            return await self._answer()
        except BaseException as error:
            if any(isinstance(leaf, trio.Cancelled) for leaf in leaves(error)):
                error.add_note(f"while waiting for check {self.name!r}")
            raise

    @abstractmethod
    async def _answer(self) -> T: ...


@attrs.frozen(eq=False)
class Probe(_Question[T]):
    """A check, to be asked once, for `timeout` seconds at most: what `probe` makes.

    Awaiting it, or calling it and awaiting that, asks the check and returns its value. It keeps nothing: it can be asked any
    number of times, by several tasks at once. A cancellation goes on with a note that names the check.

    Raises: NotReady, CheckFailed, CheckTimeout. When it is made: TypeError, ValueError.
    """

    timeout: float

    def __attrs_post_init__(self) -> None:
        _require_check(self.check, "probe")
        require_seconds(self.timeout, f"probe of check {self.name!r}: timeout")

    async def _answer(self) -> T:
        answer = await _ask(self.check, self.name, self.timeout)
        if isinstance(answer, _Yes):
            return answer.value
        try:
            raise answer.error
        finally:
            del answer  # the error would hold itself, by the traceback that has this frame


@attrs.frozen(eq=False)
class Poll(_Question[T]):
    """A check, to be asked until it is ready: what `poll` makes.

    Awaiting it, or calling it and awaiting that, asks the check at once and then at each tick of a grid, `every` seconds wide,
    that begins with the first probe. A probe that is under way at a tick is followed by the next at once; further ticks that it
    missed are dropped, and the grid stays where it is. It keeps nothing: it can be run any number of times, by several tasks at
    once. A check that is `PerPoll` gives each run its own.

    A cancellation ends the probe that is under way, and goes on with a note that names the check.

    Raises: CheckFailed or CheckTimeout, of a probe, if it is one more in a row than `tolerate`; CheckTimeout when `timeout`
    seconds are over. When it is made: TypeError, ValueError.
    """

    every: float
    probe_timeout: float
    tolerate: int
    timeout: float

    def __attrs_post_init__(self) -> None:
        _require_check(self.check, "poll")
        who = f"poll of check {self.name!r}"
        if isinstance(self.every, bool) or not isinstance(self.every, int | float):
            raise TypeError(f"{who}: every={self.every!r} is not a number of seconds")
        if not 0 < self.every < math.inf:
            raise ValueError(f"{who}: every={self.every!r} is not a positive, finite number of seconds: every=1.0 is the default")
        require_seconds(self.probe_timeout, f"{who}: probe_timeout")
        require_seconds(self.timeout, f"{who}: timeout")
        if isinstance(self.tolerate, bool) or not isinstance(self.tolerate, int):
            raise TypeError(f"{who}: tolerate={self.tolerate!r} is not a number of errors in a row: tolerate=2 ends with the third")
        if self.tolerate < 0:
            raise ValueError(f"{who}: tolerate={self.tolerate!r} is negative: tolerate=0 ends with the first error")

    async def _answer(self) -> T:
        for_poll: Callable[[], Check[T]] | None = getattr(self.check, "for_poll", None)
        check = self.check if for_poll is None else for_poll()
        begin = trio.current_time()
        end = begin + self.timeout
        tick = probes = errors = 0
        answer: _Yes[T] | _No | None = None
        last: _No | None = None
        try:
            while not probes or trio.current_time() < end:
                left = max(0.0, end - trio.current_time())
                probes += 1
                answer = await _ask(check, self.name, min(left, self.probe_timeout))
                if isinstance(answer, _Yes):
                    return answer.value
                if answer.late and left <= self.probe_timeout:
                    break  # that time was the poll's
                last = answer
                errors = 0 if isinstance(answer.error, NotReady) else errors + 1
                if errors > self.tolerate:
                    raise answer.error
                tick = max(tick + 1, math.floor((trio.current_time() - begin) / self.every))
                await trio.sleep_until(min(begin + tick * self.every, end))
            await trio.lowlevel.checkpoint()
            told = "there was none" if last is None else last.reason
            what = f"was not ready within {self.timeout:g} s: {probes} probe{'s'[: probes != 1]}, the last answer: {told}"
            raise CheckTimeout(self.name, self.timeout, what) from (None if last is None else last.error)
        finally:
            answer = last = None  # as above


def _require_check(check: object, who: str) -> None:
    """Raises: TypeError if `check` is no async callable without arguments, as far as that can be seen."""
    require_async(check, who)
    assert callable(check)
    try:
        signature = inspect.signature(check)
    except (TypeError, ValueError):  # built in C, with no signature to look at
        return
    try:
        signature.bind()
    except TypeError as error:
        raise TypeError(
            f"{who}: {_name_of(check, None)}{signature} needs arguments ({error}): a check is called without, see functools.partial"
        ) from None


def _name_of(check: object, name: str | None) -> str:
    if name is not None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name={name!r} is not the name of a check: give a string that is not empty, or leave it out")
        return name
    for own in (getattr(check, "name", None), getattr(check, "__qualname__", None)):
        if isinstance(own, str) and own:
            return own
    return repr(check)


def probe(check: Check[T], *, name: str | None = None, timeout: float = 10.0) -> Probe[T]:
    """Make a `Probe` of a check, which asks it once.

    `value = await probe(tcp("127.0.0.1", 80), timeout=3)` is how it is meant. `name` is what errors call the check; by default
    its attribute `name`, or how it was defined. `timeout` is in seconds. When the time is over the check is cancelled; it is
    waited for, and if it answers even so, that counts.

    Raises, when awaited: NotReady if the check says so, raises a group of nothing else, or returns False; CheckFailed, whose
    cause is the check's error; CheckTimeout. When made: TypeError or ValueError.
    """
    return Probe(check, _name_of(check, name), timeout)


def poll(
    check: Check[T],
    *,
    name: str | None = None,
    every: float = 1.0,
    probe_timeout: float = 10.0,
    tolerate: int = 0,
    timeout: float = math.inf,
) -> Poll[T]:
    """Make a `Poll` of a check, which asks it until it is ready.

    `value = await poll(tcp("127.0.0.1", 80), timeout=60)` is how it is meant. `name` is what errors call the check; by default
    its attribute `name`, or how it was defined. Probes begin `every` seconds, and each may take `probe_timeout` seconds, the
    whole `timeout` seconds; where that ends in the middle of a probe, the probe is cancelled. Up to `tolerate` errors of probes
    in a row, timeouts among them, are taken as "not yet".

    Raises, when awaited: the CheckFailed or CheckTimeout of a probe; CheckTimeout for the whole, whose cause is what the last
    probe that had an end would have raised. When made: TypeError or ValueError.
    """
    return Poll(check, _name_of(check, name), every, probe_timeout, tolerate, timeout)
