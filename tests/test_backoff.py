"""Delays between tries."""

from __future__ import annotations

import math
from typing import Any

import pytest

from grouper import Backoff, NotReady


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    """Seconds, each `factor` times the one before."""
    backoff = Backoff(0.5, factor=3, cap=10, jitter=0)
    assert [backoff.delay(tries) for tries in (1, 2, 3, 4, 5)] == [0.5, 1.5, 4.5, 10, 10]


@pytest.mark.parametrize("first", [0, 1])
def test_a_million_tries_have_a_delay(first: int) -> None:
    """The power overflows a float long before; nothing is raised for that."""
    assert Backoff(first, cap=60, jitter=0).delay(1_000_000) == 60 * first


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 8), (0.5, 7), (1.0, 6)])
def test_jitter_makes_a_delay_shorter_by_up_to_its_share(chance: float, seconds: float) -> None:
    """Never longer: the cap is one."""
    assert Backoff(8, jitter=0.25).delay(1, chance=lambda: chance) == seconds


def test_jitter_differs_from_call_to_call() -> None:
    """Without a `chance` of one's own it is random."""
    assert len({Backoff(1).delay(1) for _ in range(10)}) > 1


def test_every_has_the_same_delay_each_time() -> None:
    """For what is polled."""
    assert [Backoff.every(5).delay(tries) for tries in (1, 2, 50)] == [5, 5, 5]


def test_next_gives_up_after_the_attempts() -> None:
    """The first try is one of them."""
    backoff = Backoff(1, jitter=0, attempts=3)
    assert [backoff.next(OSError(), tries, 0) for tries in (1, 2, 3)] == [1, 2, None]


def test_next_gives_up_where_the_delay_would_end_after_the_timeout() -> None:
    """No try begins later than that."""
    backoff = Backoff.every(5, timeout=12)
    assert [backoff.next(OSError(), 1, elapsed) for elapsed in (0, 7, 7.1)] == [5, 5, None]


def test_next_tries_again_after_the_exceptions_named_and_after_not_ready() -> None:
    """Any other exception is final."""
    backoff = Backoff(1, jitter=0, on=OSError)
    assert [backoff.next(error, 1, 0) for error in (ConnectionError(), NotReady(), ValueError())] == [1, 1, None]


def test_no_delay_before_the_first_try() -> None:
    """A try has a number from 1 on."""
    with pytest.raises(ValueError, match="first try is number 1"):
        Backoff().delay(0)


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ({"first": -1}, ValueError, "first=-1 is not 0 or more"),
        ({"first": math.inf}, ValueError, "finite"),
        ({"factor": 0.5}, ValueError, "factor=0.5 is not 1 or more"),
        ({"factor": math.inf}, ValueError, "finite"),
        ({"cap": math.nan}, ValueError, "cap=nan"),
        ({"jitter": 1.5}, ValueError, "jitter=1.5 is not a share"),
        ({"attempts": 0}, ValueError, "attempts=0 is not 1 or more"),
        ({"timeout": "5"}, TypeError, "timeout='5' is not a number"),
        ({"first": True}, TypeError, "first=True is not a number"),
        ({"on": KeyboardInterrupt}, TypeError, "no class of exceptions"),
        ({"on": (OSError, 3)}, TypeError, "no class of exceptions"),
    ],
)
def test_bad_arguments_are_refused_by_name(given: dict[str, Any], kind: type[Exception], told: str) -> None:
    """At construction."""
    with pytest.raises(kind, match=told):
        Backoff(**given)
